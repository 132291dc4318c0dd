//! The bench: it shares no code with the parts of a node that it measures.

use super::{SOURCES, none};

/// The modules of the library that the bench may name.
const SEES: &[&str] = &["allocator", "broker", "cli", "clock", "config", "id", "plugin"];

#[test]
fn bench_shares_no_code_with_what_it_measures() {
    let mut broken = Vec::new();
    for source in SOURCES.iter().filter(|s| s.path.starts_with("bench/")) {
        for line in source.find("skylark::", true) {
            let text = source.code.lines().nth(line - 1).unwrap_or_default();
            let rest = text.split("skylark::").nth(1).unwrap_or_default();
            let module = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            if !SEES.contains(&module) {
                broken.push(format!("{}:{line}: {module}", source.path));
            }
        }
    }
    none("the bench names modules of SEES in tests/tidy/bench.rs only", &broken);
}
