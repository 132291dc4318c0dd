//! Names that mean one thing: types of the library, and terms of the glossary.

use std::collections::BTreeMap;

/// Kinds of items that define a type.
const KINDS: &[&str] = &["struct", "enum", "trait", "union", "type"];

/// Names that have more than one place, each with its places.
pub fn repeated(names: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, place) in names {
        places.entry(name).or_default().push(place);
    }
    let repeated = places.into_iter().filter(|(_, places)| places.len() > 1);
    repeated.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect()
}

/// The types of a file that are visible beyond its parent module, with their places.
pub fn types(path: &str, code: &str) -> Vec<(String, String)> {
    let found = code.lines().enumerate().filter_map(|(index, line)| {
        let mut words = line.split_whitespace();
        let is_wide = words.next().is_some_and(|word| word == "pub" || word == "pub(crate)");
        let kind = words.next()?;
        // An indented `type` belongs to a trait.
        let defines = KINDS.contains(&kind) && !(kind == "type" && line.starts_with(' '));
        let name: String = words.next()?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        (is_wide && defines && !name.is_empty()).then(|| (name, format!("{path}:{}", index + 1)))
    });
    found.collect()
}

/// The terms of the glossary: the first cell of each row. A cell may hold several, divided by commas or slashes.
pub fn terms(page: &str) -> Vec<(String, String)> {
    let rows = page.lines().enumerate().filter(|(_, line)| line.starts_with("| ") && !line.starts_with("| term |"));
    let cells = rows.map(|(index, line)| (index + 1, line.split('|').nth(1).unwrap_or_default()));
    let terms = cells.flat_map(|(line, cell)| {
        let terms = cell.split([',', '/']).map(|term| term.trim().trim_matches('`').to_lowercase());
        terms.filter(|term| !term.is_empty()).map(move |term| (term, format!("line {line}"))).collect::<Vec<_>>()
    });
    terms.collect()
}

#[test]
fn repeated_names_are_found() {
    let code =
        "pub struct A;\n    pub enum B {}\npub(super) struct A;\npub(crate) type A = u8;\n    pub type B = u8;\n";
    assert_eq!(repeated(types("a.rs", code).into_iter()), ["A: a.rs:1, a.rs:4"]);
    assert_eq!(repeated(terms("| hub, shard | x |\n| Hub | y |\n").into_iter()), ["hub: line 1, line 2"]);
}
