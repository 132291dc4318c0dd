//! What Unicode says of a character, as far as word lists need it: its folded form, its combining class, whether it is a mark.
//!
//! Read once per instance from `tables/unicode.bin` (a sixth of what the tables of a Unicode crate take). The file is made from such a crate by
//! `BLESS=1 cargo test -p word-filter --test tables`, and the same test holds it to the crate.

use std::ops::RangeInclusive;

/// Folded forms, then classes, then marks. Numbers are LEB128; a code point is told by its distance from the one before, and so is each
/// character of a form. A form begins with that distance and, in the lowest two bits, its length; 0 = the length follows. A distance of 0
/// says how often the form of one character before it comes again, with the same two distances.
static UNICODE: &[u8] = include_bytes!("../tables/unicode.bin");

thread_local! {
    static TABLES: Tables = Tables::read();
}

/// Hangul syllables are taken apart by rule, not by table.
const SYLLABLES: RangeInclusive<u32> = 0xAC00..=0xD7A3;

/// The characters that all writings of `c` share (compatibility decomposition, full case folding); none if that is `c` itself.
#[cfg_attr(target_family = "wasm", allow(unreachable_pub, reason = "the test of the tables asks for it"))]
pub fn folded(c: char, mut push: impl FnMut(char)) {
    let code = u32::from(c);
    if SYLLABLES.contains(&code) {
        return syllable(code - SYLLABLES.start(), push);
    }
    TABLES.with(|tables| match tables.forms.binary_search_by_key(&code, |form| form.0) {
        Ok(at) => tables.form(at).iter().copied().for_each(push),
        Err(_) => push(c),
    });
}

/// The canonical combining class; 0 for what starts a letter.
#[cfg_attr(target_family = "wasm", allow(unreachable_pub, reason = "the test of the tables asks for it"))]
pub fn class(c: char) -> u8 {
    TABLES.with(|tables| range(&tables.classes, c).map_or(0, |range| range.class))
}

/// Whether `c` belongs to the letter before it.
#[cfg_attr(target_family = "wasm", allow(unreachable_pub, reason = "the test of the tables asks for it"))]
pub fn is_mark(c: char) -> bool {
    TABLES.with(|tables| range(&tables.marks, c).is_some())
}

struct Tables {
    /// Code points with a form of their own, and where that begins in `letters`; the next one ends it.
    forms: Vec<(u32, usize)>,
    letters: Vec<char>,
    classes: Vec<Range>,
    marks: Vec<Range>,
}

struct Range {
    first: u32,
    last: u32,
    class: u8,
}

impl Tables {
    fn read() -> Self {
        let mut at = 0;
        let (mut code, mut letter, mut step, mut leap) = (0, 0, 0, 0);
        let (mut forms, mut letters) = (Vec::new(), Vec::new());
        for _ in 0..number(&mut at) {
            let head = number(&mut at);
            if head >> 2 == 0 {
                for _ in 0..number(&mut at) {
                    (code, letter) = (code + step, apart(letter, leap));
                    forms.push((code, letters.len()));
                    letters.extend(char::from_u32(letter));
                }
                continue;
            }
            step = head >> 2;
            code += step;
            forms.push((code, letters.len()));
            let count = if head & 3 == 0 { number(&mut at) } else { head & 3 };
            for _ in 0..count {
                leap = number(&mut at);
                letter = apart(letter, leap);
                letters.extend(char::from_u32(letter));
            }
        }
        let classes = ranges(&mut at, true);
        Self { forms, letters, classes, marks: ranges(&mut at, false) }
    }

    fn form(&self, at: usize) -> &[char] {
        let end = self.forms.get(at + 1).map_or(self.letters.len(), |next| next.1);
        &self.letters[self.forms[at].1..end]
    }
}

/// A distance may go back: its lowest bit says so.
fn apart(from: u32, distance: u32) -> u32 {
    if distance & 1 == 0 { from + (distance >> 1) } else { from - (distance >> 1) - 1 }
}

fn ranges(at: &mut usize, have_class: bool) -> Vec<Range> {
    let mut code = 0;
    let count = number(at);
    let read = (0..count).map(|_| {
        let first = code + number(at);
        code = first + number(at);
        let class = if have_class { number(at) } else { 0 };
        Range { first, last: code, class: u8::try_from(class).unwrap_or(u8::MAX) }
    });
    read.collect()
}

fn number(at: &mut usize) -> u32 {
    let mut value = 0;
    for shift in (0..32).step_by(7) {
        let byte = UNICODE[*at];
        *at += 1;
        value |= u32::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

fn range(ranges: &[Range], c: char) -> Option<&Range> {
    let code = u32::from(c);
    let at = ranges.partition_point(|range| range.last < code);
    ranges.get(at).filter(|range| range.first <= code)
}

/// Leading consonant, vowel, and trailing consonant if there is one.
fn syllable(index: u32, mut push: impl FnMut(char)) {
    let parts = [0x1100 + index / 588, 0x1161 + index % 588 / 28, 0x11A7 + index % 28];
    let count = if index.is_multiple_of(28) { 2 } else { 3 };
    parts[..count].iter().filter_map(|&code| char::from_u32(code)).for_each(&mut push);
}
