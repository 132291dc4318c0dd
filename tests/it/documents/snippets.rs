//! Every fenced block of every document has a comment above it that says how it is held to be true, and is:
//!
//! | comment | held by |
//! |---|---|
//! | `terminal N` | typed, or awaited, in that terminal: the parent module |
//! | `publisher: ENGINE LANGUAGE` | run against the engine: `intake::languages` |
//! | `rights: …` | given to a user of a real Redis: `intake::rights`, `redis_bus` |
//! | `config` | a configuration that the node takes, here |
//! | `manifest: PLUGIN` | added to that plugin's manifest, here |
//! | `cases: PLUGIN` | played on that plugin, and pass, here |
//! | `understood: PLUGIN` | cases of nobody's plugin: read when that plugin is tested, here |
//! | `frames` | what the node writes and reads, here |
//! | `template: LANGUAGE ROLE FILE` | built in the place of that file of the template, here |
//! | `cargo` | a manifest that Cargo reads, here |
//! | `compiled` | built from its document by the SDK's doc tests (`plugins/sdk/src/lib.rs`) |
//! | `commands` | each command and option is one that exists, here; they take too long to be run |
//! | `picture` | nothing to run |
//!
//! A document of commands for one terminal needs no comment at its `sh` blocks, and what a test writes needs none at all.

use std::path::{Path, PathBuf};
use std::process::Command;

use skylark::protocol::{self, ClientFrame, Coding, Dialect, ServerFrame};

use super::PLAYED;
use crate::support::gateway::{Folder, Setup, component, skylark};

/// Its `sh` blocks are all of one terminal.
const ONE_TERMINAL: &str = "docs/http-api.md";
/// Made by tests/tidy.rs from sources that other tests run.
const MADE: &str = "docs/plugin-examples.md";
const WAYS: [&str; 13] = [
    "terminal",
    "publisher:",
    "rights:",
    "config",
    "manifest:",
    "cases:",
    "understood:",
    "frames",
    "template:",
    "cargo",
    "compiled",
    "commands",
    "picture",
];

/// A fenced block.
struct Block {
    document: String,
    line: usize,
    kind: String,
    /// The comment above it, without its brackets.
    mark: String,
    text: String,
}

impl Block {
    /// What stands behind this way of the mark.
    fn marked(&self, way: &str) -> Option<&str> {
        let rest = self.mark.strip_prefix(way)?;
        (rest.is_empty() || way.ends_with(':') || rest.starts_with(' ')).then(|| rest.trim())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document that is not of another project or made by a build.
fn documents() -> Vec<PathBuf> {
    let output = Command::new("git").args(["ls-files", "*.md"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<PathBuf> = listed.lines().map(PathBuf::from).collect();
    assert!(listed.len() > 10, "{listed:?}");
    listed
}

fn blocks_of(document: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(root().join(document)).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let (mut above, mut open) = (String::new(), None::<Block>);
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(kind)) => {
                let mark = above.strip_prefix("<!-- ").and_then(|mark| mark.strip_suffix(" -->"));
                let (document, kind, text) = (document.to_owned(), kind.to_owned(), String::new());
                open = Some(Block { document, line: at + 1, kind, mark: mark.unwrap_or_default().to_owned(), text });
            }
            (None, None) => {}
        }
        above = line.to_owned();
    }
    blocks
}

fn blocks() -> Vec<Block> {
    documents().iter().flat_map(|path| blocks_of(path.to_str().unwrap())).collect()
}

/// Those that are held in this way: one at least.
fn held(way: &str) -> Vec<Block> {
    let found: Vec<Block> = blocks().into_iter().filter(|block| block.marked(way).is_some()).collect();
    assert!(!found.is_empty(), "no block is marked {way}");
    found
}

#[test]
fn no_block_is_without_a_way_to_hold_it() {
    let unheld = blocks().into_iter().filter(|block| {
        let exempt = block.document == MADE || (block.document == ONE_TERMINAL && block.kind == "sh");
        let lost = block.marked("terminal").is_some() && !PLAYED.contains(&&*block.document);
        lost || !exempt && !WAYS.iter().any(|way| block.marked(way).is_some())
    });
    let unheld: Vec<String> =
        unheld.map(|block| format!("{}:{}: {:?} ({:?})", block.document, block.line, block.kind, block.mark)).collect();
    assert!(unheld.is_empty(), "a comment above a block says how it is held:\n{}", unheld.join("\n"));
}

#[test]
fn every_configuration_is_one() {
    for block in held("config") {
        let folder = Setup::default().no_plugins().prepare();
        std::fs::write(folder.config(), &block.text).unwrap();
        let (taken, told) = run(&mut folder.command("config"));
        assert!(taken, "{}:{}: {told}", block.document, block.line);
    }
}

/// A folder with one component under its name.
fn folder(plugin: &str) -> Folder {
    let folder = Setup::default().no_plugins().prepare();
    folder.put(&format!("{plugin}.wasm"), &component(plugin));
    folder
}

fn manifest(plugin: &str) -> String {
    std::fs::read_to_string(root().join(format!("plugins/dist/{plugin}.toml"))).unwrap()
}

#[test]
fn every_part_of_a_manifest_is_understood() {
    for block in held("manifest:") {
        let plugin = block.marked("manifest:").unwrap();
        let folder = folder(plugin);
        folder.put(&format!("{plugin}.toml"), format!("{}\n{}", manifest(plugin), block.text).as_bytes());
        let file = folder.plugins().join(format!("{plugin}.wasm"));
        let (understood, told) = run(skylark().args(["plugin", "check"]).arg(file));
        assert!(understood, "{}:{}: {told}", block.document, block.line);
    }
}

/// Plays these cases on a plugin: whether all pass, and what is told.
fn test(plugin: &str, cases: &str) -> (bool, String) {
    let folder = folder(plugin);
    folder.put(&format!("{plugin}.toml"), manifest(plugin).as_bytes());
    folder.put("cases.yaml", cases.as_bytes());
    run(skylark().args(["plugin", "test"]).arg(folder.plugins()))
}

fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), told)
}

#[test]
fn every_case_passes() {
    for block in held("cases:") {
        let (passed, told) = test(block.marked("cases:").unwrap(), &block.text);
        assert!(passed, "{}:{}: {told}", block.document, block.line);
    }
}

#[test]
fn every_case_is_understood() {
    for block in held("understood:") {
        let (_, told) = test(block.marked("understood:").unwrap(), &format!("cases:\n{}", block.text));
        assert!(told.contains(" passed"), "{}:{}: they were not played: {told}", block.document, block.line);
        let (passed, told) = test("video-call", &format!("cases:\n{}", block.text.replace("rang:", "wrang:")));
        assert!(!passed && told.contains("wrang"), "a word that is none is told: {told}");
    }
}

#[test]
fn every_source_of_a_template_builds() {
    for block in held("template:") {
        let words: Vec<&str> = block.marked("template:").unwrap().split(' ').collect();
        let [language, role, file] = words[..] else { panic!("{words:?}") };
        let folder = tempfile::tempdir().unwrap();
        let new = ["plugin", "new", "snippet", "--lang", language, "--role", role];
        let (made, told) = run(skylark().current_dir(folder.path()).args(new));
        assert!(made, "{told}");
        let made = folder.path().join("snippet");
        let place = [made.join("src").join(file), made.join(file)].into_iter().find(|place| place.is_file());
        let place = place.unwrap_or_else(|| panic!("a plugin in {language} has no {file}"));
        std::fs::write(place, &block.text).unwrap();
        let (built, told) = run(skylark().current_dir(folder.path()).args(["plugin", "build", "snippet"]));
        assert!(built, "{}:{}: {told}", block.document, block.line);
    }
}

/// Beside a folder `sdk`, as the document says.
#[test]
fn every_manifest_of_cargo_is_one() {
    for block in held("cargo") {
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("package");
        std::fs::create_dir_all(package.join("src")).unwrap();
        std::os::unix::fs::symlink(root().join("plugins/sdk"), folder.path().join("sdk")).unwrap();
        std::fs::write(package.join("Cargo.toml"), &block.text).unwrap();
        std::fs::write(package.join("src/lib.rs"), "").unwrap();
        let read = ["metadata", "--offline", "--no-deps", "--format-version", "1"];
        let (read, told) = run(Command::new(env!("CARGO")).current_dir(&package).args(read));
        assert!(read && told.contains("cdylib"), "{}:{}: {told}", block.document, block.line);
    }
}

/// `NAME CODING BYTES` or `NAME JSON TEXT`, a name that is not there is that of the line before.
#[test]
fn every_frame_is_the_nodes() {
    for block in held("frames") {
        let mut name = String::new();
        for line in block.text.lines() {
            if let Some(first) = line.split_whitespace().next().filter(|_| !line.starts_with(' ')) {
                name = first.to_owned();
            }
            let said = line.trim_start_matches(&name).trim();
            let bytes = |hex: &str| -> Vec<u8> {
                hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
            };
            let cim = |coding| protocol::Form::websocket(Dialect::Cim, coding);
            // A WebSocket's header has two bytes before so short a payload.
            let written = |form, header: usize| protocol::encode(form, ServerFrame::Ping).unwrap()[header..].to_vec();
            match (name.as_str(), said.split_once("  ").map(|(way, rest)| (way, rest.trim()))) {
                ("PING", Some(("WebSocket protobuf", hex))) => {
                    assert_eq!(written(cim(Coding::Protobuf), 2), bytes(hex), "{line}");
                }
                ("PING", Some(("TCP", hex))) => {
                    assert_eq!(written(protocol::Form::tcp(Dialect::Cim), 0), bytes(hex), "{line}");
                }
                ("PING", Some(("JSON", text))) => {
                    assert_eq!(written(cim(Coding::Json), 2), text.as_bytes(), "{line}");
                }
                ("SENT", Some(("JSON", text))) => match protocol::decode(Coding::Json, text.as_bytes()) {
                    Ok(ClientFrame::Sent(body)) => {
                        assert_eq!((&*body.key, body.data.get("room")), ("room_join", Some("lobby")));
                    }
                    other => panic!("{line}: {other:?}"),
                },
                _ => panic!("{}: {line:?} is not understood", block.document),
            }
        }
    }
}

/// Each line begins with a program of this repository; the words before the first option name one of its commands.
#[test]
fn every_command_that_is_only_shown_exists() {
    for block in held("commands") {
        let whole = block.text.replace("\\\n", " ");
        for line in whole.lines().map(|line| line.split(" #").next().unwrap_or_default().trim()) {
            let mut words = line.split_whitespace().skip_while(|word| word.contains('=')).peekable();
            let Some(program) = words.next() else { continue };
            let place = format!("{}:{}: {line}", block.document, block.line);
            if ["cargo", "cd"].contains(&program) {
                continue;
            }
            if program.rsplit('/').next() != Some("skylark") {
                assert!(root().join(program).is_file(), "{place}");
                continue;
            }
            let mut command = skylark();
            while let Some(word) = words.next_if(|word| word.chars().all(|c| c.is_ascii_lowercase())) {
                command.arg(word);
                if words.peek().is_some_and(|next| next.contains('.')) {
                    break;
                }
            }
            let (is_one, help) = run(command.arg("--help"));
            assert!(is_one, "{place}: {help}");
            for option in words.filter(|word| word.starts_with("--")) {
                let is_told = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == option);
                assert!(is_told, "{place}: {option} is not in its help");
            }
        }
    }
}
