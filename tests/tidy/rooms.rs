//! The rooms of `src/plugin` and their order: a module imports its own room and lower rooms only.
//!
//! Reads `super::` and `crate::plugin::` paths, in `use` lines and in code. The host's own tests (`src/plugin/tests`)
//! stand above all rooms.

use std::collections::BTreeMap;
use std::ops::Range;

use super::scan::{Source, block_end, is_word};
use super::{SOURCES, none, own};

/// Modules of `src/plugin`, lowest room first. The modules of one row may import each other.
const ROOMS: &[&[&str]] = &[
    // Services of the node for plugins, and modules that every room may use. They import no room.
    &["digest", "fetch", "history", "kv", "options", "time"],
    &["guest"],
    &["imports"],
    &["calls"],
    &["loader"],
    // Entry points for the node.
    &["check", "host", "harness"],
];

#[test]
fn rooms_of_the_plugin_host_import_lower_rooms_only() {
    let plugin = SOURCES.iter().find(|s| s.path == "src/plugin.rs").expect("the plugin host has its root");
    let exports = exports(plugin);
    let inside = own().filter(|s| s.path.starts_with("src/plugin/"));
    let broken: Vec<String> = inside.flat_map(|source| faults(source, &exports)).collect();
    none("src/plugin: guest, imports, calls, loader import lower rooms only", &broken);
}

/// The imports of a file that lead upward, each with file and line.
fn faults(source: &Source, exports: &BTreeMap<String, usize>) -> Vec<String> {
    let here = module(&source.path);
    let Some(own) = here.get(1) else { return Vec::new() };
    if own == "tests" {
        return Vec::new();
    }
    let Some(height) = room(own) else { return vec![format!("{}: {own} has no room", source.path)] };
    let mods = inline_modules(&source.code);
    let mut faults = Vec::new();
    for (at, path) in paths(&source.code) {
        let depth = mods.iter().filter(|range| range.contains(&at)).count();
        let Some(name) = below_plugin(&here, depth, &path) else { continue };
        let there = room(&name).or_else(|| exports.get(&name).copied());
        let whole = matches!(name.as_str(), "" | "self" | "*");
        if whole || there.is_some_and(|there| there > height) {
            let name = if whole { "the whole of plugin" } else { &name };
            faults.push(format!("{}:{}: {own} imports {name}", source.path, source.line(at)));
        }
    }
    faults
}

/// The names that `src/plugin.rs` exports from its modules, each with the height of its room.
fn exports(plugin: &Source) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for (at, _) in plugin.code.match_indices("pub use ") {
        let mut found = Vec::new();
        tree(&plugin.code[at + "pub use ".len()..], &[], &mut found);
        for path in found {
            if let ([first, ..], Some(last)) = (path.as_slice(), path.last())
                && let Some(height) = room(first)
            {
                names.insert(last.clone(), height);
            }
        }
    }
    names
}

fn room(name: &str) -> Option<usize> {
    ROOMS.iter().position(|row| row.contains(&name))
}

/// `src/plugin/calls/pool.rs` → plugin, calls, pool.
fn module(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/').map(str::to_owned).collect()
}

/// The name below `plugin` that a path leads to, from a module inside `depth` inline modules of a file. `None` if the
/// path leads elsewhere.
fn below_plugin(file: &[String], depth: usize, path: &[String]) -> Option<String> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let (base, rest) = match path.first()?.as_str() {
        "crate" => (Vec::new(), &path[1..]),
        _ => {
            let above = ups.saturating_sub(depth);
            let inside = ups < depth;
            (if inside { file.to_vec() } else { file[..file.len().checked_sub(above)?].to_vec() }, &path[ups..])
        }
    };
    let mut whole = base.iter().chain(rest);
    (whole.next()? == "plugin").then(|| whole.next().cloned().unwrap_or_default())
}

/// Every path that starts with `crate::` or `super::`, with its place; groups are opened.
fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut all = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].bytes().next_back();
            let is_visibility = code[..at].ends_with("(in ");
            if is_visibility || before.is_some_and(|byte| is_word(byte) || byte == b':' || byte == b'$') {
                continue;
            }
            let mut found = Vec::new();
            tree(&code[at..], &[], &mut found);
            all.extend(found.into_iter().map(|path| (at, path)));
        }
    }
    all
}

/// Reads one path or tree of paths, and returns the rest of the text.
fn tree<'a>(text: &'a str, before: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = before.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            rest = group.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                let after = tree(rest, &path, found);
                let end = after.find([',', '}']).unwrap_or(after.len());
                rest = after[end..].trim_start_matches(',').trim_start();
            }
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        let length = rest.bytes().take_while(|byte| is_word(*byte) || *byte == b'*').count();
        if length == 0 {
            break;
        }
        path.push(rest[..length].to_owned());
        rest = &rest[length..];
        match rest.strip_prefix("::") {
            Some(more) => rest = more,
            None => break,
        }
    }
    found.push(path);
    rest
}

/// The ranges of modules with a body in the same file.
fn inline_modules(code: &str) -> Vec<Range<usize>> {
    let named = code.match_indices("mod ").filter(|(at, _)| *at == 0 || !is_word(code.as_bytes()[at - 1]));
    let opened = named.filter_map(|(at, _)| {
        let open = at + code[at..].find(['{', ';'])?;
        (code.as_bytes()[open] == b'{').then(|| open..block_end(code, open))
    });
    opened.collect()
}

#[test]
fn an_import_of_a_higher_room_is_found_in_every_form() {
    let text = "use super::super::calls::pool;\n\
        use crate::plugin::{Role, fetch::Url, loader::{self, load}};\n\
        use super::super::imports::http as other;\n\
        use super::{limits, state::Guest};\n\
        mod tests { use super::*; use super::super::super::trust::Trust; fn f() { crate::plugin::host::new() } }\n\
        use crate::plugin::*;\n\
        use crate::telemetry::names;\n";
    let source = Source::of("src/plugin/guest/engine.rs", text);
    let exports = exports(&Source::of("src/plugin.rs", "pub use loader::trust;\npub use options::{A, B};\n"));
    assert_eq!(exports.keys().collect::<Vec<_>>(), ["A", "B", "trust"]);
    let mut told = faults(&source, &exports);
    told.sort();
    let expected =
        ["1: guest imports calls", "2: guest imports loader", "2: guest imports loader", "3: guest imports imports"];
    let expected = expected.iter().chain(&[
        "5: guest imports host",
        "5: guest imports trust",
        "6: guest imports the whole of plugin",
    ]);
    assert_eq!(told, expected.map(|fault| format!("src/plugin/guest/engine.rs:{fault}")).collect::<Vec<_>>());
    for (path, text) in [("src/plugin/loader/load.rs", text), ("src/plugin/tests/worst.rs", text)] {
        let upward = faults(&Source::of(path, text), &exports);
        assert!(upward.iter().all(|fault| fault.ends_with("host") || fault.ends_with("plugin")), "{upward:?}");
    }
    assert_eq!(faults(&Source::of("src/plugin/new.rs", ""), &exports), ["src/plugin/new.rs: new has no room"]);
}
