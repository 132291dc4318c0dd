//! A Rust file for the tidy rules: the text, and the same text with comments, strings and characters blanked.
//!
//! Knows only the lexical structure of Rust that is needed to find code; it parses no syntax.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// One tracked `.rs` file.
pub struct Source {
    /// Relative to the package's root, with `/`.
    pub path: String,
    /// The unchanged text.
    pub text: String,
    /// The text with the same length and lines that contains code only.
    pub code: String,
}

/// A function with its position and length in lines.
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

impl Source {
    pub fn read(root: &Path, path: String) -> Self {
        let text = std::fs::read_to_string(root.join(&path)).unwrap();
        let code = blank(&text);
        Self { path, text, code }
    }

    /// The functions with a body.
    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            if at > 0 && is_word(self.code.as_bytes()[at - 1]) {
                continue;
            }
            let rest = &self.code[at + 3..];
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(open) = rest.find(['{', ';']) else { continue };
            if name.is_empty() || rest.as_bytes()[open] == b';' {
                continue;
            }
            let end = block_end(&self.code, at + 3 + open);
            found.push(Function { name, line: self.line(at), lines: self.code[at..end].matches('\n').count() + 1 });
        }
        found
    }

    /// The number of the line that contains byte `at`, counted from 1.
    pub fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    /// The byte ranges of test modules.
    fn test_ranges(&self) -> Vec<Range<usize>> {
        if self.path.starts_with("tests/") || self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return std::iter::once(0..self.code.len()).collect();
        }
        let attributes = self.code.match_indices("#[cfg(test)]").map(|(at, _)| at);
        attributes
            .filter_map(|at| {
                let open = at + self.code[at..].find(['{', ';'])?;
                (self.code.as_bytes()[open] == b'{').then(|| at..block_end(&self.code, open))
            })
            .collect()
    }

    /// Lines of code that contain `what`, with or without test modules.
    pub fn find(&self, what: &str, tests_too: bool) -> Vec<usize> {
        let tests = if tests_too { Vec::new() } else { self.test_ranges() };
        let hits = self.code.match_indices(what).map(|(at, _)| at);
        hits.filter(|at| !tests.iter().any(|range| range.contains(at))).map(|at| self.line(at)).collect()
    }

    /// Top-level names after each `crate::` with their lines, including those of groups.
    pub fn crate_paths(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            if at > 0 && (is_word(self.code.as_bytes()[at - 1]) || self.code.as_bytes()[at - 1] == b'$') {
                continue;
            }
            let rest = &self.code[at + "crate::".len()..];
            let names = if let Some(group) = rest.strip_prefix('{') { top_level(group) } else { vec![word(rest)] };
            found.extend(names.into_iter().filter(|n| !n.is_empty()).map(|n| (self.line(at), n)));
        }
        found
    }
}

/// Every tracked file relative to `root`; without git, every file outside build directories.
pub fn tracked(root: &Path) -> Vec<String> {
    let git = std::process::Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output();
    let listed = match git {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        _ => String::new(),
    };
    let mut files: Vec<String> = listed.split('\0').filter(|f| !f.is_empty()).map(str::to_owned).collect();
    if files.is_empty() {
        walk(root, &PathBuf::new(), &mut files);
    }
    files.retain(|f| root.join(f).is_file());
    files
}

fn walk(root: &Path, below: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name == "target" || name == ".git" {
            continue;
        }
        let path = below.join(&name);
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, files);
        } else {
            files.push(path.to_str().unwrap().to_owned());
        }
    }
}

/// The first name of each item in a `{…}` group; `group` starts after the opening brace.
fn top_level(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(word(group[start..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(word(group[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The index after the brace that closes the one at `open`.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// `text` with comments, strings and characters replaced by spaces; line ends stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped(bytes, at);
        if end == at {
            at += 1;
            continue;
        }
        code[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        at = end;
    }
    // Remaining non-ASCII text is in names, and the rules do not need its letters.
    code.iter_mut().filter(|b| !b.is_ascii()).for_each(|b| *b = b'x');
    String::from_utf8(code).unwrap()
}

/// The index after the comment, string or character that starts at `at`; `at` itself if none does.
fn skipped(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_word(bytes[at - 1]);
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + block_comment(rest);
    }
    if !after_word && (rest.starts_with(b"r\"") || rest.starts_with(b"r#\"") || rest.starts_with(b"r##\"")) {
        return at + raw_string(rest, 1);
    }
    if !after_word && (rest.starts_with(b"br\"") || rest.starts_with(b"br#\"")) {
        return at + raw_string(rest, 2);
    }
    match rest[0] {
        b'"' => at + quoted(rest, b'"'),
        b'\'' => at + character(rest),
        _ => at,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn raw_string(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let body = prefix + hashes + 1;
    let close = rest[body..].windows(end.len()).position(|w| w == end);
    close.map_or(rest.len(), |at| body + at + end.len())
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal; 0 for a lifetime.
fn character(rest: &[u8]) -> usize {
    let text =
        std::str::from_utf8(&rest[1..rest.len().min(14)]).or_else(|e| std::str::from_utf8(&rest[1..=e.valid_up_to()]));
    let Ok(text) = text else { return 0 };
    let mut chars = text.chars();
    match chars.next() {
        Some('\\') => quoted(rest, b'\''),
        Some(c) if chars.next() == Some('\'') => 1 + c.len_utf8() + 1,
        _ => 0,
    }
}

#[test]
fn code_is_told_from_what_only_looks_like_it() {
    let text = "let a = \"fn x() { // no\"; /* fn /* y */ */ let c = '{'; let r = r#\"\"}\"#; fn real<'a>() {\n}\n";
    let source = Source { path: "src/x.rs".into(), text: text.into(), code: blank(text) };
    let functions = source.functions();
    assert_eq!(functions.iter().map(|f| (f.name.as_str(), f.lines)).collect::<Vec<_>>(), [("real", 2)]);
}

#[test]
fn groups_of_crate_paths_are_opened() {
    let text = "use crate::{id::Uid, hub::{A, b}, plugin};\nuse crate::node::Node; let x = $crate::no::X;";
    let source = Source { path: "src/x.rs".into(), text: text.into(), code: blank(text) };
    let names: Vec<String> = source.crate_paths().into_iter().map(|(_, n)| n).collect();
    assert_eq!(names, ["id", "hub", "plugin", "node"]);
}
