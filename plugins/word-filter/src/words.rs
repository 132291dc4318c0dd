//! A word list, compiled once, and the search for its words in a text.
//!
//! Knows no message.

use std::ops::Range;

use crate::normal::Normal;
use crate::search::Search;
use crate::tables::is_mark;

/// A compiled list of words and phrases.
#[derive(Debug)]
pub struct Words {
    search: Search,
    whole: bool,
}

impl Words {
    /// Compiles a list. With `whole`, a word counts only where no letter or digit of a spacing script touches its own.
    ///
    /// # Errors
    /// A word that shows nothing.
    pub fn new(words: &[String], whole: bool) -> Result<Self, String> {
        let mut patterns = Vec::with_capacity(words.len());
        for (at, word) in words.iter().enumerate() {
            let normal = Normal::of(word.trim());
            if normal.as_str().trim().is_empty() {
                return Err(format!("settings.words[{at}]: expected a visible character, got {word:?}"));
            }
            patterns.push(normal.as_str().to_owned());
        }
        Ok(Self { search: Search::new(&patterns), whole })
    }

    /// Whether there is no word to look for.
    pub fn is_empty(&self) -> bool {
        self.search.is_empty()
    }

    /// Whether the text has a word of the list.
    pub fn hits(&self, text: &str) -> bool {
        if self.is_clean(text) {
            return false;
        }
        let normal = Normal::of(text);
        let mut hit = false;
        self.search.found(normal.as_str(), |part| {
            hit = self.counts(&normal, &part);
            !hit
        });
        hit
    }

    /// The text with `mask` in place of each character of a word; none if it has no word.
    pub fn mask(&self, text: &str, mask: char) -> Option<String> {
        let normal = Normal::of(text);
        // One for each byte of the text: whether a word covers it.
        let mut covered = Vec::new();
        self.search.found(normal.as_str(), |part| {
            if self.counts(&normal, &part) {
                covered.resize(text.len(), false);
                covered[normal.written(&part)].fill(true);
            }
            true
        });
        if covered.is_empty() {
            return None;
        }
        Some(text.char_indices().map(|(at, c)| if covered[at] { mask } else { c }).collect())
    }

    /// A text that is in its normal form as it was written needs no copy to be searched.
    fn is_clean(&self, text: &str) -> bool {
        let is_normal = text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
        let mut clean = is_normal;
        if is_normal {
            self.search.found(text, |_| {
                clean = false;
                false
            });
        }
        clean
    }

    /// Whether what was found is a word, and not a part of one.
    fn counts(&self, normal: &Normal, part: &Range<usize>) -> bool {
        normal.is_whole(part) && (!self.whole || stands_alone(normal.as_str(), part))
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
    !unspaced && (c.is_alphanumeric() || is_mark(c))
}
