//! Rules of the repository that no compiler checks: layers, crate walls, sizes, headers, and documents in step with the
//! code.
//!
//! Does not link Skylark: it reads the files. Each rule is one test that names every violation.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "tidy/bench.rs"]
mod bench;
#[path = "tidy/clients.rs"]
mod clients;
#[path = "tidy/examples.rs"]
mod examples;
#[path = "tidy/folders.rs"]
mod folders;
#[path = "tidy/lines.rs"]
mod lines;
#[path = "tidy/links.rs"]
mod links;
#[path = "tidy/moved.rs"]
mod moved;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/prose.rs"]
mod prose;
#[path = "tidy/readmes.rs"]
mod readmes;
#[path = "tidy/reference.rs"]
mod reference;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/scan.rs"]
mod scan;
#[path = "tidy/security.rs"]
mod security;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use scan::{Source, tracked};

/// Longest file and function in lines.
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

/// Modules in layer order, lowest first. A module imports only modules listed before it.
const LAYERS: &[&str] = &[
    "id",
    "authority",
    "code",
    "disconnect",
    "message",
    "claim",
    "protocol",
    "config",
    "fate",
    "session",
    "allocator",
    "clock",
    "backoff",
    "owners",
    "telemetry",
    "trust",
    "vital",
    "broker",
    "hub",
    "plugin",
    "node",
    "server",
    "app",
    "cli",
];
/// These modules do not import each other, although they are in the list.
const SIBLINGS: &[&str] = &["broker", "hub", "plugin"];
/// The modules that the server may import: the node, and pure modules.
const SERVER_SEES: &[&str] = &[
    "id",
    "authority",
    "code",
    "disconnect",
    "message",
    "claim",
    "protocol",
    "config",
    "fate",
    "session",
    "backoff",
    "clock",
    "telemetry",
    "vital",
    "node",
    "server",
];

/// Third-party crates and the only folders that may name them.
const WALLS: &[(&str, &[&str])] = &[
    ("wasmtime", &["src/plugin"]),
    ("wasmtime_wasi", &["src/plugin"]),
    ("redb", &["src/plugin/kv"]),
    ("crc32fast", &["src/broker/history"]),
    ("notify", &["src/plugin", "src/cli/plugin"]),
    ("aws_lc_rs", &["src/plugin", "src/server"]),
    ("rdkafka", &["src/broker/kafka"]),
    ("hyper", &["src/server", "src/cli", "src/app/fetch"]),
    ("hyper_util", &["src/server", "src/cli", "src/app/fetch"]),
    ("http_body_util", &["src/server", "src/cli", "src/app/fetch"]),
    ("tokio_tungstenite", &["src/server", "src/cli"]),
    ("rustls", &["src/server", "src/cli", "src/app/fetch", "src/trust", "src/broker/redis"]),
    ("tokio_rustls", &["src/server", "src/cli", "src/app/fetch", "src/broker/redis"]),
    ("redis", &["src/broker/redis"]),
    ("clap", &["src/cli"]),
    ("clap_complete", &["src/cli"]),
    ("serde_saphyr", &["src/config", "src/cli/plugin"]),
    ("mimalloc", &["src/allocator"]),
    ("anyhow", &["src/cli", "src/app"]),
    ("metrics_exporter_prometheus", &["src/telemetry"]),
    // The log filter is also validated where the configuration is read.
    ("tracing_subscriber", &["src/telemetry", "src/config/check.rs"]),
    ("tracing_appender", &["src/telemetry"]),
];

/// Files that may be longer or lack a header, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[];

static ROOT: LazyLock<&'static Path> = LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")));
static FILES: LazyLock<Vec<String>> = LazyLock::new(|| tracked(*ROOT));
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let rust = FILES.iter().filter(|f| f.ends_with(".rs") && !EXCEPTIONS.iter().any(|(path, _)| path == f));
    rust.map(|f| Source::read(*ROOT, f.clone())).collect()
});

fn own() -> impl Iterator<Item = &'static Source> {
    SOURCES.iter().filter(|s| s.path.starts_with("src/"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(ROOT.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The top-level module of a file under `src/`; `lib.rs` and `main.rs` have none.
fn module(path: &str) -> Option<&str> {
    let name = path.strip_prefix("src/")?.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    LAYERS.contains(&name).then_some(name)
}

#[track_caller]
fn none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn every_module_has_a_layer() {
    let unknown: Vec<String> = own()
        .filter(|s| module(&s.path).is_none() && s.path != "src/lib.rs" && s.path != "src/main.rs")
        .map(|s| s.path.clone())
        .collect();
    none("a top-level module stands in the layer table of tests/tidy.rs", &unknown);
}

#[test]
fn modules_import_lower_layers_only() {
    let mut broken = Vec::new();
    for source in own() {
        let Some(here) = module(&source.path) else { continue };
        for (line, there) in source.crate_paths() {
            if !may_import(here, &there) {
                broken.push(format!("{}:{line}: {here} imports {there}", source.path));
            }
        }
    }
    none(
        "lower layers only; broker, hub and plugin do not know each other; server sees the node and what is pure",
        &broken,
    );
}

fn may_import(here: &str, there: &str) -> bool {
    let layer = |name: &str| LAYERS.iter().position(|l| *l == name);
    let Some(height) = layer(there) else { return false };
    if here == there {
        return true;
    }
    if SIBLINGS.contains(&here) && SIBLINGS.contains(&there) {
        return false;
    }
    if here == "server" && !SERVER_SEES.contains(&there) {
        return false;
    }
    layer(here).is_some_and(|own| height < own)
}

#[test]
fn foreign_types_stay_behind_their_walls() {
    let mut broken = Vec::new();
    for source in own() {
        for (name, homes) in WALLS {
            let inside = |home: &str| {
                source.path.strip_prefix(home).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
            };
            if homes.iter().any(|home| inside(home)) {
                continue;
            }
            let lines = source.find(&format!("{name}::"), true);
            let named = |line: &&usize| is_whole_word(&source.code, **line, name);
            broken.extend(lines.iter().filter(named).map(|line| format!("{}:{line}: {name}", source.path)));
        }
    }
    none("a foreign crate is named only in the folder that wraps it", &broken);
}

/// True if `name::` on that line is the crate itself and not the end of a longer path.
fn is_whole_word(code: &str, line: usize, name: &str) -> bool {
    let line = code.lines().nth(line - 1).unwrap_or_default();
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') || line[..at].ends_with(" ::")
    })
}

#[test]
fn files_and_functions_stay_within_their_line_limits() {
    let mut broken = Vec::new();
    for source in SOURCES.iter().filter(|s| !s.is_generated()) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES {
            broken.push(format!("{}: {lines} lines", source.path));
        }
        let long = source.functions().into_iter().filter(|f| f.lines > FUNCTION_LINES);
        broken.extend(long.map(|f| format!("{}:{}: fn {} takes {} lines", source.path, f.line, f.name, f.lines)));
    }
    none("at most 500 lines a file and 70 a function", &broken);
}

#[test]
fn every_source_file_opens_with_a_module_comment() {
    let silent: Vec<String> =
        SOURCES.iter().filter(|s| !s.is_generated() && !s.text.starts_with("//! ")).map(|s| s.path.clone()).collect();
    none("a file opens with `//!`", &silent);
}

#[test]
fn no_marks_of_unfinished_work_are_left() {
    // Split, so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let mut broken = Vec::new();
    for source in SOURCES.iter() {
        for macro_name in ["todo!", "unimplemented!", "dbg!"] {
            broken.extend(source.find(macro_name, true).iter().map(|l| format!("{}:{l}: {macro_name}", source.path)));
        }
        for (number, line) in source.text.lines().enumerate() {
            let mark = marks.iter().find(|mark| line.contains(**mark));
            broken.extend(mark.map(|mark| format!("{}:{}: {mark}", source.path, number + 1)));
        }
    }
    none("an open end is an issue, not a mark in the code", &broken);
}

#[test]
fn no_test_is_skipped_and_none_sleeps() {
    let mut broken = Vec::new();
    for source in SOURCES.iter() {
        broken.extend(source.find("#[ignore", true).iter().map(|l| format!("{}:{l}: ignored", source.path)));
        broken.extend(source.find("thread::sleep", true).iter().map(|l| format!("{}:{l}: sleeps", source.path)));
        if source.path.starts_with("tests/") || source.path.starts_with("bench/tests/") {
            broken.extend(source.find("sleep(", true).iter().map(|l| format!("{}:{l}: sleeps", source.path)));
        }
    }
    none("a test waits for an event, never for time", &broken);
}

#[test]
fn panics_in_product_code_name_their_invariant() {
    let mut broken = Vec::new();
    let bench = SOURCES.iter().filter(|s| s.path.starts_with("bench/src/"));
    for source in own().chain(bench) {
        broken.extend(source.find(".unwrap()", false).iter().map(|l| format!("{}:{l}", source.path)));
        broken.extend(source.find("unbounded_channel", true).iter().map(|l| format!("{}:{l}: unbounded", source.path)));
    }
    none("no unwrap outside tests, no queue without a bound", &broken);
}

#[test]
fn close_codes_are_documented_as_they_are() {
    let code = read("src/disconnect.rs");
    let mut expected = Vec::new();
    let mut words = String::new();
    for line in code.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            words = format!("{words}{}{text}", if words.is_empty() { "" } else { " " });
        } else if let Some((number, reason)) = table_row(line) {
            let back = if number < 4500 { "yes" } else { "no" };
            expected.push(format!("| {number} | {reason} | {back} | {words} |"));
            words.clear();
        } else {
            words.clear();
        }
    }
    assert!(expected.len() > 10, "the table of src/disconnect.rs is not where it was");
    let document = read("docs/reference/close-codes.md");
    let rows: Vec<&str> = document.lines().filter(|l| l.starts_with("| 4")).collect();
    assert_eq!(rows, expected, "docs/reference/close-codes.md and src/disconnect.rs tell two stories");
}

/// `NAME = 4000, "reason";`
fn table_row(line: &str) -> Option<(u16, &str)> {
    let (_, value) = line.strip_suffix("\";")?.split_once(" = ")?;
    let (number, reason) = value.split_once(", \"")?;
    Some((number.parse().ok()?, reason))
}

#[test]
fn every_metric_is_recorded_and_documented() {
    let (mut rows, mut silent, mut words) = (Vec::new(), Vec::new(), String::new());
    for line in read("src/telemetry/names.rs").lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            words = format!("{words}{}{text}", if words.is_empty() { "" } else { " " });
            continue;
        }
        if let Some((name, kind, metric)) = metric(line) {
            rows.push(format!("| `{metric}` | {kind} | {words} |"));
            let used = format!("names::{name}");
            if !own().any(|s| !s.path.contains("/tests") && s.code.contains(&used)) {
                silent.push(format!("{metric}: nobody says {used}"));
            }
        }
        words.clear();
    }
    assert!(rows.len() > 20, "the table of src/telemetry/names.rs is not where it was");
    none("a metric that is declared is recorded", &silent);
    let document = read("docs/reference/metrics.md");
    let told: Vec<&str> = document.lines().filter(|l| l.starts_with("| `skylark_")).collect();
    assert_eq!(told, rows, "docs/reference/metrics.md and src/telemetry/names.rs tell two stories");
}

/// `NAME: kind = "skylark_…",`
fn metric(line: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = line.strip_suffix("\",")?.split_once(": ")?;
    let (kind, metric) = rest.split_once(" = \"")?;
    Some((name, kind, metric))
}

/// Tests beside the generator (`src/config/tests.rs`) check that each key has its sentence and default.
#[test]
fn the_configuration_file_and_its_code_have_the_same_keys() {
    let mut fields = BTreeSet::new();
    let declares = |s: &&Source| {
        s.path.starts_with("src/config") && ["section", "item"].iter().any(|m| s.text.contains(&format!("\n{m}! {{")))
    };
    for line in own().filter(declares).flat_map(|s| s.text.lines()).map(str::trim) {
        let field = line.strip_prefix("pub ").and_then(|l| l.split_once(": ")).map(|(name, _)| name);
        fields.extend(field.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
    }
    assert!(fields.len() > 40, "the tree of src/config.rs is not where it was");
    let document = read("config/skylark.yaml");
    let keys: BTreeSet<&str> = document.lines().filter_map(yaml_key).collect();
    let missing: Vec<String> = fields.difference(&keys).map(|f| (*f).to_owned()).collect();
    none("config/skylark.yaml shows every key of src/config.rs", &missing);
    let foreign: Vec<String> = keys.difference(&fields).map(|f| (*f).to_owned()).collect();
    none("src/config.rs knows every key of config/skylark.yaml", &foreign);
}

#[test]
fn every_section_of_the_configuration_stands_in_its_page() {
    let sections = |text: &str| -> Vec<String> {
        let keys = text.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
        keys.filter(|line| !line.starts_with([' ', '-'])).filter_map(yaml_key).map(str::to_owned).collect()
    };
    let page = read("docs/reference/configuration.md");
    let (_, table) = page.split_once("| section | content |\n").expect("the table of sections");
    let rows = table.lines().skip(1).map_while(|line| line.strip_prefix("| `")?.split_once('`'));
    let told: Vec<&str> = rows.map(|(name, _)| name).collect();
    assert_eq!(told, sections(&read("config/skylark.yaml")), "docs/reference/configuration.md lists every section");
}

/// The key of a line `key: …`, either set, commented out, or in a list.
fn yaml_key(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches('#').trim_start();
    let line = line.strip_prefix("- ").unwrap_or(line);
    let (key, rest) = line.split_once(':')?;
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    (plain && (rest.is_empty() || rest.starts_with(' '))).then_some(key)
}

#[test]
fn every_row_of_the_security_page_names_a_test_that_exists() {
    let known: BTreeSet<&str> = SOURCES.iter().flat_map(|source| security::tests_in(&source.text)).collect();
    assert!(known.len() > 500, "the tests are not where they were");
    none("docs/security.md names tests", &security::faults(&read("docs/security.md"), &known));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let target = |path: &Path| {
        let path = ROOT.join(path);
        path.exists().then(|| std::fs::read_to_string(path).unwrap_or_default())
    };
    let documents = FILES.iter().filter(|file| file.ends_with(".md"));
    let broken: Vec<String> = documents.flat_map(|path| links::faults(path, &read(path), target)).collect();
    none("a link leads to a file of this tree, and its anchor to a heading", &broken);
}

#[test]
fn required_top_level_files_exist() {
    let doors = [
        "README.md",
        "README.zh-CN.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LICENSE",
        "clippy.toml",
        "deny.toml",
        "rustfmt.toml",
        ".ci/run",
        "tests/run",
        "docs/glossary.md",
        "docs/guides/run-a-node.md",
        "docs/reference/close-codes.md",
    ];
    let missing: Vec<String> = doors.iter().filter(|d| !ROOT.join(d).is_file()).map(|d| (*d).to_owned()).collect();
    none("the files a newcomer looks for", &missing);
}

#[test]
fn no_file_names_paths_of_a_machine() {
    // Split, so that this file does not find itself.
    let marks =
        [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/opt/", "wheels"), concat!("/.cargo/", "registry")];
    let mut broken = Vec::new();
    for path in FILES.iter() {
        let bytes = std::fs::read(ROOT.join(path)).unwrap();
        let found = marks.iter().filter(|mark| bytes.windows(mark.len()).any(|w| w == mark.as_bytes()));
        broken.extend(found.map(|mark| format!("{path}: {mark}")));
    }
    let lock = read("Cargo.lock");
    let foreign =
        lock.lines().filter(|l| l.starts_with("source = ") && !l.contains("github.com/rust-lang/crates.io-index"));
    broken.extend(foreign.map(str::to_owned));
    none("no path of one machine, no registry but the public one", &broken);
}

#[test]
fn type_names_and_glossary_terms_are_unique() {
    for tree in ["src/", "bench/src/", "tests/it/"] {
        let sources = SOURCES.iter().filter(|source| source.path.starts_with(tree) && !source.is_generated());
        let types = sources.flat_map(|source| names::types(&source.path, &source.code));
        none("a type that is visible beyond its parent has a name of its own", &names::repeated(types));
    }
    let terms = names::terms(&read("docs/glossary.md"));
    none("a term of the glossary is defined once", &names::repeated(terms.into_iter()));
}

/// The figures of plain English. `-- --nocapture` prints them.
#[test]
fn prose_is_plain() {
    let mut prose = prose::Prose::default();
    for path in FILES.iter() {
        prose.add(path, &String::from_utf8_lossy(&std::fs::read(ROOT.join(path)).unwrap()));
    }
    let rules = [
        ("comments open with a thing, not with What/Who/Whether", 20, prose.openings()),
        ("few lines hold what/who/whose/whether/nobody", 10, prose.question_words()),
        ("sentences have at most 30 words", 20, prose.long_sentences()),
    ];
    for (rule, per_thousand, figure) in &rules {
        println!("{rule}: {} of {}, at most {per_thousand} of 1 000", figure.found.len(), figure.base);
    }
    for (rule, per_thousand, figure) in rules {
        let broken = if figure.is_within(per_thousand) { Vec::new() } else { figure.found };
        none(rule, &broken);
    }
    none("a line of Markdown has at most 100 columns", prose.wide());
}

#[test]
fn every_item_of_the_interface_has_a_comment_and_is_in_the_reference() {
    let (page, silent) = reference::page(&read("wit/skylark.wit"));
    none("an item of the interface says what it is", &silent);
    made("docs/reference/plugin-interface.md", &page);
}

#[test]
fn the_examples_of_the_documents_are_the_templates() {
    made("docs/reference/plugin-examples.md", &examples::page(read));
}

/// Checks a page that is generated from other files; `BLESS=1` writes it.
#[track_caller]
fn made(file: &str, page: &str) {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(ROOT.join(file), page).unwrap();
    }
    let committed = std::fs::read_to_string(ROOT.join(file)).unwrap_or_default();
    assert!(committed == page, "{file} is not what it is made of: BLESS=1 cargo test --test tidy");
}
