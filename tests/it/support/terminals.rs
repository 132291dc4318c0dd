//! Runs a document: its `sh` blocks are typed into terminals, and its `text` blocks must appear there.
//!
//! A comment `<!-- terminal 2 -->` before a block names the terminal. Each terminal is a bash that reads from a pipe,
//! so input during a running program goes to that program, as at a real terminal. `…` in an expected line matches any
//! text. A `json` block matches a line with the same keys and kinds of values.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for one line; the first start compiles plugins.
const PATIENCE: Duration = Duration::from_secs(120);

/// One fenced block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    pub terminal: String,
    pub kind: String,
    pub text: String,
}

/// The blocks of a document that name a terminal. A `sh` block without a name is typed into `standard`; without a
/// `standard` it is an error in the document.
pub fn blocks(document: &str, standard: Option<&str>) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut terminal = None::<String>;
    let mut open = None::<Block>;
    for line in document.lines() {
        if let Some(block) = &mut open {
            if line == "```" {
                blocks.extend(open.take());
            } else {
                block.text.push_str(line);
                block.text.push('\n');
            }
        } else if let Some(name) = line.strip_prefix("<!-- terminal ").and_then(|l| l.strip_suffix(" -->")) {
            terminal = Some(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("```") {
            let standard = standard.filter(|_| kind == "sh").map(str::to_owned);
            let named = terminal.take().or(standard);
            assert!(named.is_some() || kind != "sh", "a `sh` block names no terminal");
            let kind = kind.to_owned();
            open = Some(Block { terminal: named.unwrap_or_default(), kind, text: String::new() });
        }
    }
    blocks.retain(|block| !block.terminal.is_empty());
    blocks
}

/// The terminals of one document.
pub struct Desk {
    terminals: BTreeMap<String, Terminal>,
    prelude: String,
    folder: std::path::PathBuf,
    variables: Vec<(String, String)>,
}

struct Terminal {
    shell: Child,
    keyboard: Option<ChildStdin>,
    screen: mpsc::Receiver<String>,
    shown: Vec<String>,
    /// Lines before this index are already matched.
    read: usize,
}

impl Desk {
    /// Creates terminals in `folder`; each begins with `prelude`.
    pub fn new(folder: &Path, prelude: &str, variables: &[(String, String)]) -> Self {
        let terminals = BTreeMap::new();
        Self { terminals, prelude: prelude.to_owned(), folder: folder.to_owned(), variables: variables.to_vec() }
    }

    /// Runs one block.
    pub fn play(&mut self, block: &Block) {
        let opened = || Terminal::open(&self.folder, &self.prelude, &self.variables);
        let terminal = self.terminals.entry(block.terminal.clone()).or_insert_with(opened);
        match block.kind.as_str() {
            "sh" => terminal.type_in(&block.text),
            "json" => {
                let wanted: Value = serde_json::from_str(&block.text).unwrap();
                let alike = |line: &str| serde_json::from_str(line).is_ok_and(|line| is_shaped_like(&line, &wanted));
                terminal.expect_that(&block.text, alike);
            }
            _ => block.text.lines().for_each(|line| terminal.expect(line)),
        }
    }

    /// Ends the terminals except those in `open_ended`, and checks their exit status.
    pub fn finish(mut self, open_ended: &[&str]) {
        let ended = |name: &String| !open_ended.contains(&name.as_str());
        for (name, terminal) in self.terminals.iter_mut().filter(|(name, _)| ended(name)) {
            drop(terminal.keyboard.take());
            while terminal.next(Instant::now() + PATIENCE) {}
            let status = terminal.shell.wait().unwrap();
            assert!(status.success(), "terminal {name} ended with {status}:\n{}", terminal.shown.join("\n"));
        }
    }
}

impl Terminal {
    fn open(folder: &Path, prelude: &str, variables: &[(String, String)]) -> Self {
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).current_dir(folder).envs(variables.iter().map(|(n, v)| (n, v)));
        command.process_group(0);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, screen) = mpsc::sync_channel(4096);
        watch(shell.stdout.take().unwrap(), lines.clone());
        watch(shell.stderr.take().unwrap(), lines);
        let keyboard = shell.stdin.take();
        let mut terminal = Self { shell, keyboard, screen, shown: Vec::new(), read: 0 };
        terminal.type_in(prelude);
        terminal
    }

    fn type_in(&mut self, text: &str) {
        let keyboard = self.keyboard.as_mut().expect("the terminal is open");
        keyboard.write_all(text.as_bytes()).unwrap();
        keyboard.flush().unwrap();
    }

    /// Waits until a line that is not matched yet looks like `pattern`.
    fn expect(&mut self, pattern: &str) {
        self.expect_that(pattern, |line| looks_like(line, pattern));
    }

    fn expect_that(&mut self, pattern: &str, fits: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown[self.read..].iter().position(|line| fits(line)) {
                self.read += at + 1;
                return;
            }
            let more = self.next(deadline);
            assert!(more, "the terminal never showed {pattern:?} after line {}:\n{}", self.read, self.shown.join("\n"));
        }
    }

    fn next(&mut self, deadline: Instant) -> bool {
        let line = self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        line.map(|line| self.shown.push(line)).is_ok()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The shell leads its own process group, so the processes that it started end with it.
        let group = rustix::process::Pid::from_raw(self.shell.id().cast_signed()).unwrap();
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.shell.wait();
    }
}

/// Several blanks count as one, and `…` matches any text.
fn looks_like(line: &str, pattern: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (line, pattern) = (squeeze(line), squeeze(pattern));
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut open_end = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        open_end = part.is_empty();
    }
    open_end || rest.is_empty()
}

/// Compares the keys and kinds of values at every level. In lists, the first entries are compared if both have one.
fn is_shaped_like(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => {
            value.len() == wanted.len()
                && wanted.iter().all(|(key, wanted)| value.get(key).is_some_and(|value| is_shaped_like(value, wanted)))
        }
        (Value::Array(value), Value::Array(wanted)) => {
            value.first().zip(wanted.first()).is_none_or(|(value, wanted)| is_shaped_like(value, wanted))
        }
        _ => std::mem::discriminant(value) == std::mem::discriminant(wanted),
    }
}

fn watch(stream: impl Read + Send + 'static, lines: mpsc::SyncSender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}

#[test]
fn an_ellipsis_stands_for_anything() {
    assert!(looks_like(r#"{"a":1,"b":2}"#, r#"{"a":…,"b":2}"#));
    assert!(looks_like("api    http://x", "api http://x"));
    assert!(looks_like("what was said here", "…was…"));
    assert!(!looks_like("ready to go", "ready"));
    assert!(!looks_like("abc", "a…d"));
}

#[test]
fn shapes_are_keys_and_kinds() {
    let wanted = serde_json::json!({"code": 200, "data": {"id": "n1", "items": [{"a": 1}]}});
    for (other, alike) in [
        (serde_json::json!({"code": 400, "data": {"id": "", "items": []}}), true),
        (serde_json::json!({"code": 200, "data": {"id": "n1", "items": [{"b": 1}]}}), false),
        (serde_json::json!({"code": 200, "data": {"id": 1, "items": []}}), false),
        (serde_json::json!({"code": 200, "data": {"items": []}}), false),
    ] {
        assert_eq!(is_shaped_like(&other, &wanted), alike, "{other}");
    }
}
