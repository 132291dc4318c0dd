//! The form in which texts are compared, and the way back to the text as it was written.
//!
//! Compatibility decomposition (full-width, circled and styled letters, ligatures) with full case folding; characters that show nothing are left
//! out. Each character of the result knows which one it came from. Knows no word list.
//!
//! The work is bounded by the bytes of the text, not by what its characters become: one Arabic ligature (U+FDFA) becomes 18 letters.

use std::cell::Cell;
use std::ops::Range;

use crate::tables::{self, is_mark};

/// Letters that the texts of a message may become beyond one for each of their bytes. A script that people write stays below one for each byte; a short
/// text may be made of ligatures alone. From there on a character stands for itself.
const SPARE_LETTERS: usize = 4_096;
/// Marks on one letter that are ordered by comparison; more of them are counted.
const FEW_MARKS: usize = 16;

/// What is left of the letters that the texts of one message may become beyond their bytes.
#[derive(Debug)]
pub struct Spare(Cell<usize>);

impl Default for Spare {
    fn default() -> Self {
        Self(Cell::new(SPARE_LETTERS))
    }
}

/// A text in the form in which texts are compared.
#[derive(Debug)]
pub(crate) struct Normal {
    text: Vec<u8>,
    /// The characters of `text`; none if the text is as it was written but for the case of ASCII letters.
    letters: Option<Letters>,
}

/// The characters, and the place of the last one that was looked for: words are found in order, so the next one is near.
#[derive(Debug)]
struct Letters {
    all: Vec<Letter>,
    last: Cell<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Letter {
    c: char,
    class: u8,
    /// Its start in the normal text, in bytes.
    at: usize,
    /// The character that it came from, in bytes of the written text.
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

    /// The characters that touch a part of the normal text, and the part's own first and last one.
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

    /// True if a part of the normal text is made of whole characters of the written one, with the marks that belong to them.
    pub(crate) fn is_whole(&self, part: &Range<usize>) -> bool {
        let Some(letters) = &self.letters else { return true };
        let (first, next) = (letters.index(part.start), letters.index(part.end));
        let all = &letters.all;
        let same = |a: usize, b: usize| all.get(a).zip(all.get(b)).is_some_and(|(a, b)| a.from == b.from);
        let starts_inside = first.checked_sub(1).is_some_and(|before| same(before, first));
        let ends_inside = same(next - 1, next) || all.get(next).is_some_and(|letter| is_mark(letter.c));
        !starts_inside && !ends_inside
    }

    /// The part of the written text, in bytes, from which a part of the normal text came.
    pub(crate) fn written(&self, part: &Range<usize>) -> Range<usize> {
        let Some(letters) = &self.letters else { return part.clone() };
        let part = &letters.all[letters.index(part.start)..letters.index(part.end)];
        let from = part.iter().map(|letter| letter.from).min().expect("a word is not empty");
        let end = part.iter().map(|letter| letter.end).max().expect("a word is not empty");
        from..end
    }
}

impl Letters {
    /// How many begin before a place in the normal text.
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

/// Byte by byte: a copy of a few bytes is a call of the host in WebAssembly.
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

/// Marks on one letter stand in one order, whatever order they were typed in.
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

/// In one pass for each class, since a letter may carry thousands of marks.
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

/// Soft hyphens, joiners, direction and variation marks, strokes laid over letters: what is put between letters to hide a word.
#[cfg_attr(target_family = "wasm", allow(unreachable_pub, reason = "the test of the tables asks for it"))]
pub fn shows_nothing(c: char) -> bool {
    // Most scripts have no such character: their blocks are told apart first.
    matches!(u32::from(c) >> 8, 0x00 | 0x03 | 0x06 | 0x11 | 0x17 | 0x18 | 0x20 | 0x31 | 0xFE | 0xFF | 0xE00..=0xE0F)
        && matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{FEFF}'
        | '\u{334}'..='\u{338}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFF0}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E0FFF}')
}
