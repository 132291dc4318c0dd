//! `docs/explanation/moved-tests.md`: each new name of a test exists, so that a later rename changes its row, too.

use super::{SOURCES, none, read};

#[test]
fn every_new_name_of_a_moved_test_exists() {
    let page = read("docs/explanation/moved-tests.md");
    let new_names: Vec<&str> = page.lines().filter_map(new_name).collect();
    assert!(new_names.len() > 100, "the tables are not where they were");
    let gone: Vec<String> = new_names.iter().filter(|name| !exists(name)).map(|&name| name.to_owned()).collect();
    none("docs/explanation/moved-tests.md names tests of today: change the row of a renamed test", &gone);
}

/// The last cell of a row, `path::name`.
fn new_name(line: &str) -> Option<&str> {
    line.strip_prefix("| `")?.split('`').nth(2)
}

fn exists(new_name: &str) -> bool {
    let Some((path, name)) = new_name.rsplit_once("::") else { return false };
    let is_function = |text: &str| ["(", "<"].iter().any(|end| text.contains(&format!("fn {name}{end}")));
    SOURCES.iter().any(|source| source.path == path && is_function(&source.text))
}
