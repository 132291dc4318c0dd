//! A word list, compiled once, and the search for its words in a text.
//!
//! Knows no message.

use std::ops::Range;

use aho_corasick::automaton::Automaton;
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Input, MatchKind};
use unicode_normalization::char::is_combining_mark;

use crate::normal::Normal;

/// A compiled list of words and phrases.
#[derive(Debug)]
pub struct Words {
    search: NFA,
    whole: bool,
}

impl Words {
    /// Compiles a list. With `whole`, a word counts only where no letter or digit of a spacing script touches its own.
    ///
    /// # Errors
    /// A word that shows nothing, or a list that is too large to compile.
    pub fn new(words: &[String], whole: bool) -> Result<Self, String> {
        let mut patterns = Vec::with_capacity(words.len());
        for (at, word) in words.iter().enumerate() {
            let normal = Normal::of(word.trim());
            if normal.as_str().trim().is_empty() {
                return Err(format!("settings.words[{at}]: expected a visible character, got {word:?}"));
            }
            patterns.push(normal.as_str().to_owned());
        }
        let search = NFA::builder().match_kind(MatchKind::Standard).prefilter(false).build(&patterns);
        Ok(Self { search: search.map_err(|e| format!("settings.words: {e}"))?, whole })
    }

    /// Whether there is no word to look for.
    pub fn is_empty(&self) -> bool {
        self.search.patterns_len() == 0
    }

    /// Whether the text has a word of the list.
    pub fn hits(&self, text: &str) -> bool {
        if self.is_clean(text) {
            return false;
        }
        let normal = Normal::of(text);
        self.found(&normal).next().is_some()
    }

    /// The text with `mask` in place of each character of a word; none if it has no word.
    pub fn mask(&self, text: &str, mask: char) -> Option<String> {
        let normal = Normal::of(text);
        let mut parts: Vec<Range<usize>> = self.found(&normal).map(|part| normal.written(&part)).collect();
        parts.sort_unstable_by_key(|part| part.start);
        if parts.is_empty() {
            return None;
        }
        let mut masked = String::with_capacity(text.len());
        let mut done = 0;
        for part in parts {
            let start = part.start.max(done);
            if start < part.end {
                masked.push_str(&text[done..start]);
                masked.extend(text[start..part.end].chars().map(|_| mask));
                done = part.end;
            }
        }
        masked.push_str(&text[done..]);
        Some(masked)
    }

    /// A text that is in its normal form as it was written needs no copy to be searched.
    fn is_clean(&self, text: &str) -> bool {
        text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) && self.hits_at(text).next().is_none()
    }

    /// Where words stand in the normal text; they may overlap.
    fn found<'a>(&'a self, normal: &'a Normal) -> impl Iterator<Item = Range<usize>> + 'a {
        let parts = self.hits_at(normal.as_str());
        parts.filter(|part| normal.is_whole(part) && (!self.whole || stands_alone(normal.as_str(), part)))
    }

    fn hits_at<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        let found =
            self.search.try_find_overlapping_iter(Input::new(text)).expect("the automaton is built for overlaps");
        found.map(|found| found.range())
    }
}

fn stands_alone(text: &str, part: &Range<usize>) -> bool {
    let word = &text[part.clone()];
    let touches =
        |outer: Option<char>, inner: Option<char>| outer.is_some_and(is_spaced) && inner.is_some_and(is_spaced);
    let before = text[..part.start].chars().next_back();
    let after = text[part.end..].chars().next();
    !touches(before, word.chars().next()) && !touches(after, word.chars().next_back())
}

/// A letter or digit of a script that puts spaces between words.
fn is_spaced(c: char) -> bool {
    let unspaced = matches!(c,
        '\u{0E00}'..='\u{0EFF}' // Thai, Lao
        | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}' // Burmese, Khmer
        | '\u{1100}'..='\u{11FF}' | '\u{A960}'..='\u{A97F}' | '\u{AC00}'..='\u{D7FF}' // Hangul: particles touch the word
        | '\u{3040}'..='\u{31FF}' | '\u{3400}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' // kana, ideographs
        | '\u{20000}'..='\u{3FFFF}');
    !unspaced && (c.is_alphanumeric() || is_combining_mark(c))
}
