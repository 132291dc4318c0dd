//! The READMEs: the Chinese one has the blocks of the English one, and both have the table of languages.
//!
//! The table has a row for each language of `plugin new`, in the format of `plugins/conformance/run --table`.

use super::{none, read};

/// Name in the table, and argument of `plugin new --lang`.
const LANGUAGES: [(&str, &str); 6] =
    [("Rust", "rust"), ("C", "c"), ("Go", "go"), ("TypeScript", "ts"), ("JavaScript", "js"), ("Python", "python")];

/// The rows follow this line.
const HEAD: &str = "|---|---:|---:|---:|---:|";

/// The faults of the table in this README.
fn faults(readme: &str, rows: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let names: Vec<&str> = rows.iter().filter_map(|row| cells(row).first().copied()).collect();
    let expected: Vec<&str> = LANGUAGES.iter().map(|(name, _)| *name).collect();
    if names != expected {
        faults.push(format!("{readme}: expected rows {expected:?}, got {names:?}"));
    }
    for row in rows {
        let forms: [&[&str]; 4] = [&["KiB", "MiB"], &["µs"], &["/ µs"], &["MiB"]];
        let cells = cells(row);
        let fits = cells.len() == 5 && cells[1..].iter().zip(forms).all(|(cell, units)| has_form(cell, units));
        if !fits {
            faults.push(format!("{readme}: not as plugins/conformance/run --table writes it: {row}"));
        }
    }
    faults
}

/// The rows of the table of languages.
fn rows(text: &str) -> Vec<&str> {
    text.lines().skip_while(|line| *line != HEAD).skip(1).take_while(|line| line.starts_with('|')).collect()
}

/// The languages in the source of `plugin new` that are missing from the table.
fn missing(new: &str) -> Vec<String> {
    let words =
        new.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \"")?.1.strip_suffix("\","));
    let words = words.take_while(|word| !word.contains('/'));
    words.filter(|word| !LANGUAGES.iter().any(|(_, known)| known == word)).map(str::to_owned).collect()
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// True for one number and a unit, or for two numbers with a bar if the unit begins with one.
fn has_form(cell: &str, units: &[&str]) -> bool {
    let Some((numbers, unit)) = cell.rsplit_once(' ') else { return false };
    let is_number = |text: &str| text.parse::<f64>().is_ok_and(|number| number > 0.0);
    units.iter().any(|wanted| match wanted.strip_prefix("/ ") {
        Some(wanted) => {
            unit == wanted && numbers.split_once(" / ").is_some_and(|(one, two)| is_number(one) && is_number(two))
        }
        None => unit == *wanted && is_number(numbers),
    })
}

#[test]
fn both_readmes_show_the_same_commands() {
    let (english, chinese) = (code_blocks(&read("README.md")), code_blocks(&read("README.zh-CN.md")));
    assert!(english.len() >= 2, "README.md shows its commands in code blocks");
    assert_eq!(english, chinese, "README.md and README.zh-CN.md differ in their code blocks");
}

#[test]
fn both_readmes_show_what_each_guest_language_costs() {
    let files = ["README.md", "README.zh-CN.md"].map(|file| (file, read(file)));
    let mut broken = missing(&read("src/cli/plugin/new.rs"));
    let [english, chinese] = files.each_ref().map(|(_, text)| rows(text));
    broken.extend(faults(files[0].0, &english));
    if english != chinese {
        broken.push("README.md and README.zh-CN.md differ in their tables".to_owned());
    }
    none("plugins/conformance/run --table writes the table of languages", &broken);
}

fn code_blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut inside = None::<String>;
    for line in text.lines() {
        match (&mut inside, line.starts_with("```")) {
            (None, true) => inside = Some(format!("{line}\n")),
            (None, false) => {}
            (Some(_), true) => blocks.extend(inside.take()),
            (Some(block), false) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks
}
