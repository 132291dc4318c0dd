//! The normal form in which texts are compared, with a map back to the written text.
//!
//! Compatibility decomposition (full-width, circled and styled letters, ligatures) with full case folding. Invisible
//! characters are dropped. Each character of the result records its source character. Does not know word lists.
//!
//! The bytes of the text bound the work, not the decomposed letters: one Arabic ligature (U+FDFA) becomes 18 of them.

use std::cell::Cell;
use std::ops::Range;

use crate::tables::{self, is_mark};

/// Letters that the texts of a message may produce beyond one per byte. Natural scripts stay below one per byte; a
/// short text may consist of ligatures. Beyond the limit each character stands for itself.
const SPARE_LETTERS: usize = 4_096;
/// Up to this number, the marks on one letter are ordered by comparison; above it, by counting.
const FEW_MARKS: usize = 16;

/// The remaining letters that the texts of one message may produce beyond their bytes.
#[derive(Debug)]
pub struct Spare(Cell<usize>);

impl Default for Spare {
    fn default() -> Self {
        Self(Cell::new(SPARE_LETTERS))
    }
}

/// A text in normal form.
#[derive(Debug)]
pub(crate) struct Normal {
    text: Vec<u8>,
    /// The characters of `text`; none if the text differs from the written one only in the case of ASCII letters.
    letters: Option<Letters>,
}

/// The characters, and the index of the last look-up. Words are found in order, so the next one is near.
#[derive(Debug)]
struct Letters {
    all: Vec<Letter>,
    last: Cell<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Letter {
    c: char,
    class: u8,
    /// Start in the normal text, in bytes.
    at: usize,
    /// Source character, as a byte range of the written text.
    from: usize,
    end: usize,
}

impl Normal {
    pub(crate) fn of(written: &str, spare: &Spare) -> Self {
        if written.is_ascii() {
            return Self { text: written.to_ascii_lowercase().into_bytes(), letters: None };
        }
        let most = written.len() + spare.0.get();
        let mut letters = tables::with(|tables| letters(written, most, tables));
        spare.0.set(most.saturating_sub(letters.len().max(written.len())));
        order_marks(&mut letters);
        let mut text = Vec::with_capacity(written.len());
        for letter in &mut letters {
            letter.at = text.len();
            push_utf8(&mut text, letter.c);
        }
        Self { text, letters: Some(Letters { all: letters, last: Cell::new(0) }) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    pub(crate) fn into_text(self) -> String {
        String::from_utf8(self.text).expect("it is made of characters")
    }

    /// For each end of a part of the normal text: the character outside of it and the character inside.
    pub(crate) fn edges(&self, part: &Range<usize>) -> [(Option<char>, Option<char>); 2] {
        let Some(letters) = &self.letters else {
            let at = |at: Option<usize>| at.and_then(|at| self.text.get(at)).map(|byte| char::from(*byte));
            let before = at(part.start.checked_sub(1));
            return [(before, at(Some(part.start))), (at(Some(part.end)), at(Some(part.end - 1)))];
        };
        let (first, next) = (letters.index(part.start), letters.index(part.end));
        let at = |at: Option<usize>| at.and_then(|at| letters.all.get(at)).map(|letter| letter.c);
        [(at(first.checked_sub(1)), at(Some(first))), (at(Some(next)), at(next.checked_sub(1)))]
    }

    /// True if a part of the normal text consists of whole characters of the written text, with their marks.
    pub(crate) fn is_whole(&self, part: &Range<usize>) -> bool {
        let Some(letters) = &self.letters else { return true };
        let (first, next) = (letters.index(part.start), letters.index(part.end));
        let all = &letters.all;
        let same = |a: usize, b: usize| all.get(a).zip(all.get(b)).is_some_and(|(a, b)| a.from == b.from);
        let starts_inside = first.checked_sub(1).is_some_and(|before| same(before, first));
        let ends_inside = same(next - 1, next) || all.get(next).is_some_and(|letter| is_mark(letter.c));
        !starts_inside && !ends_inside
    }

    /// The byte range of the written text that became a part of the normal text.
    pub(crate) fn written(&self, part: &Range<usize>) -> Range<usize> {
        let Some(letters) = &self.letters else { return part.clone() };
        let part = &letters.all[letters.index(part.start)..letters.index(part.end)];
        let from = part.iter().map(|letter| letter.from).min().expect("a word is not empty");
        let end = part.iter().map(|letter| letter.end).max().expect("a word is not empty");
        from..end
    }
}

impl Letters {
    /// Number of characters that begin before `at` in the normal text.
    fn index(&self, at: usize) -> usize {
        let mut index = self.last.get();
        while self.all.get(index).is_some_and(|letter| letter.at < at) {
            index += 1;
        }
        while index > 0 && self.all[index - 1].at >= at {
            index -= 1;
        }
        self.last.set(index);
        index
    }
}

/// Writes byte by byte: in WebAssembly a copy of a few bytes is a call of the host.
pub(crate) fn push_utf8(text: &mut Vec<u8>, c: char) {
    let (code, more) = (u32::from(c), c.len_utf8() - 1);
    let byte = |bits: u32| bits.to_le_bytes()[0];
    let first = [0, 0xC0, 0xE0, 0xF0][more];
    text.push(first | byte(code >> (6 * more)));
    for at in (0..more).rev() {
        text.push(0x80 | byte(code >> (6 * at) & 0x3F));
    }
}

fn letters(written: &str, most: usize, tables: &tables::Tables) -> Vec<Letter> {
    let mut letters = Vec::with_capacity(written.len());
    for (from, c) in written.char_indices() {
        let end = from + c.len_utf8();
        if c.is_ascii() {
            letters.push(Letter { c: c.to_ascii_lowercase(), class: 0, at: 0, from, end });
        } else if is_plain_ideograph(c) {
            letters.push(Letter { c, class: 0, at: 0, from, end });
        } else if !shows_nothing(c) {
            let whole = letters.len() < most;
            let mut push = |c: char| letters.push(Letter { c, class: tables.class(c), at: 0, from, end });
            if whole { tables.folded(c, push) } else { push(c) }
        }
    }
    letters
}

/// Puts the marks on one letter into canonical order, independent of the order in which they were typed.
fn order_marks(letters: &mut [Letter]) {
    for run in letters.chunk_by_mut(|a, b| a.class != 0 && b.class != 0) {
        if run.len() > FEW_MARKS {
            order_many(run);
            continue;
        }
        for end in 1..run.len() {
            let mut at = end;
            while at > 0 && run[at - 1].class > run[at].class {
                run.swap(at - 1, at);
                at -= 1;
            }
        }
    }
}

/// Counting sort by class, in one pass for each class, since a letter may carry thousands of marks.
fn order_many(run: &mut [Letter]) {
    let mut ends = [0; 256];
    run.iter().for_each(|letter| ends[usize::from(letter.class)] += 1);
    let mut sum = 0;
    for end in &mut ends {
        sum += *end;
        *end = sum;
    }
    let mut ordered = run.to_vec();
    for letter in run.iter().rev() {
        let end = &mut ends[usize::from(letter.class)];
        *end -= 1;
        ordered[*end] = *letter;
    }
    run.copy_from_slice(&ordered);
}

/// Ideographs that are their own normal form.
fn is_plain_ideograph(c: char) -> bool {
    ('\u{4E00}'..='\u{9FFF}').contains(&c)
}

/// Soft hyphens, joiners, direction and variation marks, overlaid strokes: characters that can hide a word.
#[cfg_attr(target_family = "wasm", allow(unreachable_pub, reason = "the test of the tables asks for it"))]
pub fn shows_nothing(c: char) -> bool {
    // Most scripts have no such character, so the block is tested first.
    matches!(u32::from(c) >> 8, 0x00 | 0x03 | 0x06 | 0x11 | 0x17 | 0x18 | 0x20 | 0x31 | 0xFE | 0xFF | 0xE00..=0xE0F)
        && matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{FEFF}'
        | '\u{334}'..='\u{338}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFF0}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E0FFF}')
}
