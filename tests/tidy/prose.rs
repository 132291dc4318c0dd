//! Prose of the repository as figures: openings, question words, lengths of sentences, columns.
//!
//! Reads comments of source files and the text of Markdown pages. Does not judge whether a sentence is clear.

use std::ops::Range;

/// Words that hide the subject of a sentence. A comment that opens with one of them names no thing.
const OPENINGS: &[&str] = &["What", "Who", "Whom", "Whose", "Whether", "Whoever", "Whatever"];
const QUESTION_WORDS: &[&str] =
    &["what", "who", "whom", "whose", "whether", "whoever", "whatever", "nobody", "somebody"];
/// Longest sentence in words that is not counted as long.
const SENTENCE_WORDS: usize = 30;
/// Columns of a line of Markdown, tables and code excepted.
const COLUMNS: usize = 100;

/// Generated, pinned or recorded text, and text in another language.
const PASSED_OVER: &[&str] = &[
    "tests/fixtures/",
    "docs/benchmarks/",
    "src/protocol/gen/",
    "/internal/wit/",
    "plugins/sdk-c/",
    "plugins/sdk-js/skylark.d.ts",
    ".zh-CN.md",
];

/// One line of prose.
#[derive(Debug)]
struct Line {
    /// Path and number of the line.
    place: String,
    text: String,
    /// True for the first line of a comment or paragraph.
    opens: bool,
}

/// Measured prose of all files.
#[derive(Debug, Default)]
pub struct Prose {
    lines: Vec<Line>,
    wide: Vec<String>,
}

/// A bound that the prose must keep: the count, its base, and the offending places.
#[derive(Debug)]
pub struct Figure {
    pub found: Vec<String>,
    pub base: usize,
}

impl Figure {
    /// True if at most `per_thousand` of a thousand offend.
    pub fn is_within(&self, per_thousand: usize) -> bool {
        self.found.len() * 1_000 <= self.base * per_thousand
    }
}

impl Prose {
    /// Adds the prose of one file.
    pub fn add(&mut self, path: &str, text: &str) {
        if PASSED_OVER.iter().any(|part| path.contains(part)) {
            return;
        }
        let Some(marks) = marks(path) else { return };
        let (mut is_code, mut is_open) = (false, false);
        for (index, line) in text.lines().enumerate() {
            let place = format!("{path}:{}", index + 1);
            let prose = prose(line, marks);
            if prose.is_some_and(|text| text.trim_start().starts_with("```")) {
                (is_code, is_open) = (!is_code, false);
                continue;
            }
            let is_table = line.trim_start().starts_with('|');
            if marks.is_empty() && !is_code && !is_table && line.chars().count() > COLUMNS {
                self.wide.push(place.clone());
            }
            match prose.map(str::trim).filter(|text| !is_code && has_a_word(text)) {
                Some(text) => {
                    let opens = !is_open || text.starts_with(['-', '*', '|', '#']);
                    self.lines.push(Line { place, text: text.to_owned(), opens });
                    is_open = true;
                }
                None => is_open = false,
            }
        }
    }

    /// Comments and paragraphs that open with one of [`OPENINGS`].
    pub fn openings(&self) -> Figure {
        let first = |line: &&Line| {
            let text = line.text.trim_start_matches(['-', '*', '|', '#', ' ']);
            OPENINGS.contains(&text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default())
        };
        let blocks = || self.lines.iter().filter(|line| line.opens);
        Figure { found: blocks().filter(first).map(shown).collect(), base: blocks().count() }
    }

    /// Lines that contain one of [`QUESTION_WORDS`].
    pub fn question_words(&self) -> Figure {
        let holds = |line: &&Line| {
            let text = line.text.to_lowercase();
            text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| QUESTION_WORDS.contains(&word))
        };
        Figure { found: self.lines.iter().filter(holds).map(shown).collect(), base: self.lines.len() }
    }

    /// Sentences of more than [`SENTENCE_WORDS`] words.
    pub fn long_sentences(&self) -> Figure {
        let mut figure = Figure { found: Vec::new(), base: 0 };
        for block in blocks(&self.lines) {
            let lines = &self.lines[block];
            // A row of a table has a bound of its own: its cells.
            if lines[0].text.starts_with('|') {
                continue;
            }
            let text: String = lines.iter().map(|line| format!("{} ", line.text)).collect();
            for sentence in sentences(&text) {
                let words = sentence.split_whitespace().filter(|word| has_a_letter(word)).count();
                figure.base += 1;
                if words > SENTENCE_WORDS {
                    figure.found.push(format!("{}: {words} words: {}", lines[0].place, sentence.trim()));
                }
            }
        }
        figure
    }

    /// Lines of Markdown with more than [`COLUMNS`] columns.
    pub fn wide(&self) -> &[String] {
        &self.wide
    }
}

/// The marks of a line comment, none for Markdown; `None` for a file without prose.
fn marks(path: &str) -> Option<&'static [&'static str]> {
    match path.rsplit('.').next()? {
        "md" => Some(&[]),
        "rs" | "wit" | "go" | "proto" => Some(&["//!", "///", "//"]),
        "ts" | "js" | "java" => Some(&["//", "*"]),
        "php" => Some(&["//", "*", "#"]),
        "py" | "toml" | "yaml" | "yml" => Some(&["#"]),
        _ => None,
    }
}

/// The prose of a line: all of it in Markdown, else the text of its comment.
fn prose<'a>(line: &'a str, marks: &[&str]) -> Option<&'a str> {
    if marks.is_empty() {
        return Some(line);
    }
    let line = line.trim_start();
    marks.iter().find_map(|mark| line.strip_prefix(mark))
}

/// Ranges of lines that belong to one comment or paragraph.
fn blocks(lines: &[Line]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        match found.last_mut() {
            Some(block) if !line.opens => block.end = index + 1,
            _ => found.push(index..index + 1),
        }
    }
    found
}

/// The sentences of a text: a sentence ends with a full stop, a question mark or a colon before a blank.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.trim().is_empty() {
            return None;
        }
        let ends = rest.match_indices(['.', '?', '!', ':', ';']).map(|(at, _)| at + 1);
        let end = ends.clone().find(|&end| rest[end..].starts_with([' ', ')', '*'])).unwrap_or(rest.len());
        let (sentence, after) = rest.split_at(end);
        rest = after;
        Some(sentence)
    })
}

fn has_a_word(text: &str) -> bool {
    text.as_bytes().windows(3).any(|three| three.iter().all(u8::is_ascii_alphabetic))
}

fn has_a_letter(word: &str) -> bool {
    word.chars().any(char::is_alphanumeric)
}

fn shown(line: &Line) -> String {
    format!("{}: {}", line.place, line.text)
}

#[test]
fn figures_of_a_text_are_counted() {
    let mut prose = Prose::default();
    prose.add("a.rs", "/// Who may call.\n/// Not whose.\nfn a() {}\n// Reads `whose_name`.\n");
    assert_eq!((prose.openings().found.len(), prose.openings().base), (1, 2));
    assert_eq!((prose.question_words().found.len(), prose.question_words().base), (2, 3));
    let long = "word ".repeat(31);
    prose.add("b.md", &format!("{long}. Short one.\n\n```\nwhat\n```\n| what |\n"));
    assert_eq!(prose.long_sentences().found.len(), 1);
    assert_eq!(prose.wide(), ["b.md:1"]);
    assert!(Figure { found: vec![String::new()], base: 100 }.is_within(10));
    assert!(!Figure { found: vec![String::new()], base: 99 }.is_within(10));
}
