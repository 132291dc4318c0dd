//! `docs/security.md`: each row names at least one test, and each test that it names exists.

use std::collections::BTreeSet;

/// Returns the rows without a test, and the tests that are not in `known`.
pub fn faults(document: &str, known: &BTreeSet<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(document.lines()) {
        let Some(cell) = tests_of(line) else { continue };
        let named: Vec<&str> = names(cell).collect();
        if named.is_empty() {
            faults.push(format!("docs/security.md:{number}: names no test"));
        }
        let gone = named.iter().filter(|name| !known.contains(**name));
        faults.extend(gone.map(|name| format!("docs/security.md:{number}: no test is called {name}")));
    }
    faults
}

/// The last cell of a table row; headings and separator lines are no rows.
fn tests_of(line: &str) -> Option<&str> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    (cells[0] != "attack or accident").then(|| cells[cells.len() - 1])
}

/// The texts in backticks, each without the path before its name.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2).map(|name| name.rsplit("::").next().unwrap_or(name))
}

/// The test functions of a Rust file: those after an attribute that ends in `test]` or contains `test(`, and those of
/// `proptest!`.
pub fn tests_in(code: &str) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    let mut is_marked = false;
    for line in code.lines().map(str::trim) {
        if let Some(attribute) = line.strip_prefix("#[") {
            is_marked |= attribute.starts_with("test") || attribute.contains("::test");
            continue;
        }
        let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(name) = name.filter(|_| is_marked) {
            tests.extend(name.split(['(', '<']).next());
        }
        if !line.is_empty() {
            is_marked = false;
        }
    }
    tests
}

#[test]
fn row_without_an_existing_test_is_found() {
    let document = "| attack or accident | the node | test |\n|---|---|---|\n| a | b | `one`, `tests::two` |\n\
                    | a | b | none |\n| a | b | `three` |\n";
    let code = "#[test]\nfn one() {}\n#[tokio::test(start_paused = true)]\nasync fn two() {}\nfn three() {}\n";
    let known = tests_in(code);
    assert_eq!(
        faults(document, &known),
        ["docs/security.md:4: names no test", "docs/security.md:5: no test is called three"]
    );
}
