//! Generated files of the client SDKs.

use std::fmt::Write as _;

use super::{made, read};

/// The close codes as TypeScript constants, from the text of `src/disconnect.rs`.
fn codes(table: &str) -> String {
    let mut file =
        String::from("/** Close codes. `BLESS=1 cargo test --test tidy` writes this file from src/disconnect.rs. */\n");
    let mut words = "";
    for line in table.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            words = text;
        } else if let Some((name, code)) = constant(line) {
            let _ = write!(file, "\n/** {words} */\nexport const {name} = {code};\n");
        }
    }
    file
}

/// Name and number of `NAME = 4000, "reason";`.
fn constant(line: &str) -> Option<(&str, u16)> {
    let (name, value) = line.strip_suffix("\";")?.split_once(" = ")?;
    let (code, _) = value.split_once(", \"")?;
    Some((name, code.parse().ok()?))
}

#[test]
fn close_codes_of_the_javascript_client_are_those_of_the_node() {
    let codes = codes(&read("src/disconnect.rs"));
    assert!(codes.matches("export const").count() > 10, "the table of src/disconnect.rs is not where it was");
    made("clients/js/src/codes.ts", &codes);
}

#[test]
fn constant_of_a_code_has_its_name_number_and_words() {
    let file = codes("    /// The back end closed it.\n    KICKED = 4503, \"kicked\";\n    other = 1;\n");
    assert!(file.ends_with("*/\n\n/** The back end closed it. */\nexport const KICKED = 4503;\n"), "{file}");
}
