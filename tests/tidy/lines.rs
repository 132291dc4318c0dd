//! Links to lines of the code, `[label]: path#L12 "name"`: the file defines the name near the line.
//!
//! `BLESS=1` sets the exact lines. A link may be off by some lines, so that a change of the code needs no change of
//! the page; a reader still sees the definition.

use super::{FILES, ROOT, none, read};

/// Distance of a link from its definition that is accepted, in lines.
const NEAR: usize = 60;

#[test]
fn links_to_lines_are_near_the_definition_of_their_name() {
    let mut broken = Vec::new();
    for path in FILES.iter().filter(|path| path.ends_with(".md")) {
        let page = read(path);
        let lines: Vec<String> = page.lines().map(|line| checked(path, line, &mut broken)).collect();
        let exact = lines.join("\n") + "\n";
        if std::env::var_os("BLESS").is_some() && exact != page {
            std::fs::write(ROOT.join(path), exact).unwrap();
        }
    }
    none("a link to a line is near the definition of its name: BLESS=1 cargo test --test tidy sets it", &broken);
}

/// The line with the exact number if it defines a link to a line of the code, else the line itself.
fn checked(path: &str, line: &str, broken: &mut Vec<String>) -> String {
    let Some((head, file, number, name)) = link(line) else { return line.to_owned() };
    let folder = std::path::Path::new(path).parent().unwrap_or(std::path::Path::new(""));
    let code = std::fs::read_to_string(ROOT.join(folder).join(file)).unwrap_or_default();
    let Some(there) = definition(&code, name) else {
        broken.push(format!("{path}: {file} does not define {name}"));
        return line.to_owned();
    };
    if there.abs_diff(number) > NEAR {
        broken.push(format!("{path}: {name} is in line {there} of {file}, not {number}"));
    }
    format!("{head}{file}#L{there} \"{name}\"")
}

/// The parts of `[label]: path#L12 "name"`: all before the path, the path, the number and the name.
fn link(line: &str) -> Option<(&str, &str, usize, &str)> {
    let at = line.starts_with('[').then(|| line.find("]: "))?? + 3;
    let (file, rest) = line[at..].split_once("#L")?;
    let (number, name) = rest.split_once(" \"")?;
    Some((&line[..at], file, number.parse().ok()?, name.strip_suffix('"')?))
}

/// Number of the first line that defines a function or type of this name.
fn definition(code: &str, name: &str) -> Option<usize> {
    let defines = |line: &str| {
        ["fn", "struct", "enum", "trait"].iter().any(|kind| {
            let after = line.split_once(&format!("{kind} {name}")).map(|(_, after)| after);
            after.is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
    };
    code.lines().position(defines).map(|index| index + 1)
}

#[test]
fn link_to_a_line_is_split_into_its_parts() {
    let line = "[memory publish]: ../src/a.rs#L67 \"publish\"";
    assert_eq!(link(line), Some(("[memory publish]: ", "../src/a.rs", 67, "publish")));
    assert_eq!(link("[a]: b.md"), None);
    let code = "fn publish_all() {}\n    pub(super) async fn publish<B>(\n";
    assert_eq!((definition(code, "publish"), definition(code, "gone")), (Some(2), None));
}
