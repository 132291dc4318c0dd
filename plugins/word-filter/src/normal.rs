//! The form in which texts are compared, and the way back to the text as it was written.
//!
//! Compatibility decomposition (full-width, circled and styled letters, ligatures) with full case folding; characters that show nothing are left
//! out. Each character of the result knows which one it came from. Knows no word list.

use std::ops::Range;

use crate::tables::{class, folded, is_mark};

/// A text in the form in which texts are compared.
#[derive(Debug)]
pub(crate) struct Normal {
    text: String,
    /// Where each character of `text` came from, in order; none if the text is as it was written but for the case of ASCII letters.
    origins: Option<Vec<Origin>>,
}

#[derive(Debug, Clone, Copy)]
struct Origin {
    /// The character's start in the normal text, in bytes.
    at: usize,
    /// The character that it came from, in bytes of the written text.
    from: usize,
    end: usize,
}

impl Normal {
    pub(crate) fn of(written: &str) -> Self {
        if written.is_ascii() {
            return Self { text: written.to_ascii_lowercase(), origins: None };
        }
        let mut letters = Vec::with_capacity(written.len());
        for (from, c) in written.char_indices() {
            let end = from + c.len_utf8();
            let push = |c: char| letters.push(Letter { c, class: class(c), from, end });
            if c.is_ascii() {
                letters.push(Letter { c: c.to_ascii_lowercase(), class: 0, from, end });
            } else if is_plain_ideograph(c) {
                letters.push(Letter { c, class: 0, from, end });
            } else if !shows_nothing(c) {
                folded(c, push);
            }
        }
        order_marks(&mut letters);
        let mut text = String::with_capacity(written.len());
        let origins = letters.iter().map(|letter| {
            let origin = Origin { at: text.len(), from: letter.from, end: letter.end };
            text.push(letter.c);
            origin
        });
        let origins = origins.collect();
        Self { text, origins: Some(origins) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a part of the normal text is made of whole characters of the written one, with the marks that belong to them.
    pub(crate) fn is_whole(&self, part: &Range<usize>) -> bool {
        let Some(origins) = &self.origins else { return true };
        let (first, next) = (index(origins, part.start), index(origins, part.end));
        let same = |a: usize, b: usize| origins.get(a).zip(origins.get(b)).is_some_and(|(a, b)| a.from == b.from);
        let starts_inside = first.checked_sub(1).is_some_and(|before| same(before, first));
        let ends_inside = same(next - 1, next) || self.text[part.end..].chars().next().is_some_and(is_mark);
        !starts_inside && !ends_inside
    }

    /// The part of the written text, in bytes, from which a part of the normal text came.
    pub(crate) fn written(&self, part: &Range<usize>) -> Range<usize> {
        let Some(origins) = &self.origins else { return part.clone() };
        let part = &origins[index(origins, part.start)..index(origins, part.end)];
        let from = part.iter().map(|o| o.from).min().expect("a word is not empty");
        let end = part.iter().map(|o| o.end).max().expect("a word is not empty");
        from..end
    }
}

#[derive(Debug, Clone, Copy)]
struct Letter {
    c: char,
    class: u8,
    from: usize,
    end: usize,
}

fn index(origins: &[Origin], at: usize) -> usize {
    origins.partition_point(|origin| origin.at < at)
}

/// Marks on one letter stand in one order, whatever order they were typed in.
fn order_marks(letters: &mut [Letter]) {
    for run in letters.chunk_by_mut(|a, b| a.class != 0 && b.class != 0) {
        if run.len() > 1 {
            run.sort_by_key(|letter| letter.class);
        }
    }
}

/// Ideographs that are their own normal form.
fn is_plain_ideograph(c: char) -> bool {
    ('\u{4E00}'..='\u{9FFF}').contains(&c)
}

/// Soft hyphens, joiners, direction and variation marks, strokes laid over letters: what is put between letters to hide a word.
#[cfg_attr(target_family = "wasm", allow(unreachable_pub, reason = "the test of the tables asks for it"))]
pub fn shows_nothing(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{FEFF}'
        | '\u{334}'..='\u{338}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFF0}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E0FFF}')
}
