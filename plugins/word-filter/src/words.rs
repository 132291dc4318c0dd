//! A compiled word list, and the search for its words in a text.
//!
//! Does not know messages.

use std::ops::Range;

use crate::normal::{Normal, Spare, push_utf8};
use crate::search::Search;
use crate::tables::is_mark;

/// A compiled list of words and phrases.
#[derive(Debug)]
pub struct Words {
    search: Search,
    whole: bool,
}

impl Words {
    /// Compiles a list. With `whole`, a word counts only if it touches no letter or digit of a script with spaces.
    ///
    /// # Errors
    /// A word without any visible character.
    pub fn new(words: &[String], whole: bool) -> Result<Self, String> {
        let mut patterns = Vec::with_capacity(words.len());
        for (at, word) in words.iter().enumerate() {
            let normal = Normal::of(word.trim(), &Spare::default());
            let text = normal.into_text();
            if text.trim().is_empty() {
                return Err(format!("settings.words[{at}]: expected a visible character, got {word:?}"));
            }
            patterns.push(text);
        }
        Ok(Self { search: Search::new(&patterns), whole })
    }

    /// True if the list is empty.
    pub fn is_empty(&self) -> bool {
        self.search.is_empty()
    }

    /// True if the text has a word of the list. `spare` is shared by all texts of a message.
    pub fn hits(&self, text: &str, spare: &Spare) -> bool {
        if self.is_clean(text) {
            return false;
        }
        let normal = Normal::of(text, spare);
        let mut hit = false;
        self.search.found(normal.as_bytes(), |part| {
            hit = self.counts(&normal, &part);
            !hit
        });
        hit
    }

    /// Replaces each character of a word with `mask`; none if there is no word. All texts of a message share `spare`.
    pub fn mask(&self, text: &str, mask: char, spare: &Spare) -> Option<String> {
        if self.is_clean(text) {
            return None;
        }
        let normal = Normal::of(text, spare);
        let mut words = Vec::new();
        self.search.found(normal.as_bytes(), |part| {
            if self.counts(&normal, &part) {
                words.push(normal.written(&part));
            }
            true
        });
        if words.is_empty() {
            return None;
        }
        put_in_order(&mut words);
        let (mut masked, mut done) = (Vec::with_capacity(text.len()), 0);
        for word in words {
            if word.end > done {
                let from = word.start.max(done);
                masked.extend_from_slice(&text.as_bytes()[done..from]);
                text[from..word.end].chars().for_each(|_| push_utf8(&mut masked, mask));
                done = word.end;
            }
        }
        masked.extend_from_slice(&text.as_bytes()[done..]);
        Some(String::from_utf8(masked).expect("it is made of characters"))
    }

    /// True if the text is in normal form as written and has no word. Such a text is searched without a copy.
    fn is_clean(&self, text: &str) -> bool {
        let is_normal = text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
        let mut clean = is_normal;
        if is_normal {
            self.search.found(text.as_bytes(), |_| {
                clean = false;
                false
            });
        }
        clean
    }

    /// True if the match is a word by itself and not a part of one.
    fn counts(&self, normal: &Normal, part: &Range<usize>) -> bool {
        normal.is_whole(part) && (!self.whole || stands_alone(normal, part))
    }
}

/// Insertion sort: words are found in order of their ends, so each is near its place. Overlapping words, and words with
/// marks in another order than written, may begin before a word that was found earlier.
fn put_in_order(words: &mut [Range<usize>]) {
    for end in 1..words.len() {
        let mut at = end;
        while at > 0 && words[at - 1].start > words[at].start {
            words.swap(at - 1, at);
            at -= 1;
        }
    }
}

fn stands_alone(normal: &Normal, part: &Range<usize>) -> bool {
    let touches =
        |(outer, inner): (Option<char>, Option<char>)| outer.is_some_and(is_spaced) && inner.is_some_and(is_spaced);
    !normal.edges(part).into_iter().any(touches)
}

/// True for a letter or digit of a script that puts spaces between words.
fn is_spaced(c: char) -> bool {
    let unspaced = matches!(c,
        '\u{0E00}'..='\u{0EFF}' // Thai, Lao
        | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}' // Burmese, Khmer
        | '\u{1100}'..='\u{11FF}' | '\u{A960}'..='\u{A97F}' | '\u{AC00}'..='\u{D7FF}' // Hangul: particles touch the word
        | '\u{3040}'..='\u{31FF}' | '\u{3400}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' // kana, ideographs
        | '\u{20000}'..='\u{3FFFF}');
    !unspaced && (c.is_alphanumeric() || is_mark(c))
}
