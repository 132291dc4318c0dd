//! Unicode properties for word lists: the folded form of a character, its combining class, and the property "mark".
//!
//! Each instance reads `tables/unicode.bin` once; the file is six times smaller than the tables of a Unicode crate.
//! `BLESS=1 cargo test -p word-filter --test tables` makes the file from such a crate. The same test compares both.

use std::ops::RangeInclusive;

/// Folded forms, then classes, then marks. Numbers are LEB128. Code points and letters of a form are stored as
/// distances from the one before. A form begins with its distance and, in the lowest two bits, its length; 0 = the
/// length follows. A distance of 0 gives the repetitions of the last one-letter form, with the same two distances.
static UNICODE: &[u8] = include_bytes!("../tables/unicode.bin");

thread_local! {
    static TABLES: Tables = Tables::read();
}

/// Hangul syllables are decomposed by rule, not by table.
const SYLLABLES: RangeInclusive<u32> = 0xAC00..=0xD7A3;

/// The common form of all variants of `c` (compatibility decomposition, full case folding); calls `push` per character.
#[cfg(not(target_family = "wasm"))]
pub fn folded(c: char, push: impl FnMut(char)) {
    with(|tables| tables.folded(c, push));
}

/// The canonical combining class; 0 for a character that starts a letter.
#[cfg(not(target_family = "wasm"))]
pub fn class(c: char) -> u8 {
    with(|tables| tables.class(c))
}

/// True if `c` combines with the letter before it.
#[cfg_attr(target_family = "wasm", allow(unreachable_pub, reason = "the test of the tables asks for it"))]
pub fn is_mark(c: char) -> bool {
    with(|tables| tables.sign(c).is_mark)
}

/// Gives access to the tables of this instance.
pub(crate) fn with<T>(look: impl FnOnce(&Tables) -> T) -> T {
    TABLES.with(look)
}

/// Code points per page, and the number of bits that select one of them.
const PAGE: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 6;
/// Reserved entries, so that no table is copied while it grows.
const ROOM: usize = 1 << 16;
const PAGES: usize = (char::MAX as usize >> PAGE_BITS) + 1;

/// A look-up costs the same for every character, so no text can make it slow.
pub(crate) struct Tables {
    /// The page in `signs`, by the upper bits of a code point. Page 0 is for characters without any property.
    pages: Vec<u16>,
    signs: Vec<Sign>,
    /// Start of each form in `letters`; the next start ends it.
    forms: Vec<usize>,
    letters: Vec<char>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sign {
    /// One more than the index of the form; 0 = the character is its own form.
    form: u16,
    class: u8,
    is_mark: bool,
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
        let mut tables = Self {
            pages: vec![0; PAGES],
            signs: Vec::with_capacity(ROOM),
            forms: Vec::with_capacity(ROOM),
            letters: Vec::with_capacity(ROOM),
        };
        tables.signs.resize(PAGE, Sign::default());
        for _ in 0..number(&mut at) {
            let head = number(&mut at);
            if head >> 2 == 0 {
                for _ in 0..number(&mut at) {
                    (code, letter) = (code + step, apart(letter, leap));
                    tables.begin_form(code);
                    tables.letters.extend(char::from_u32(letter));
                }
                continue;
            }
            step = head >> 2;
            code += step;
            tables.begin_form(code);
            let count = if head & 3 == 0 { number(&mut at) } else { head & 3 };
            for _ in 0..count {
                leap = number(&mut at);
                letter = apart(letter, leap);
                tables.letters.extend(char::from_u32(letter));
            }
        }
        for range in ranges(&mut at, true) {
            (range.first..=range.last).for_each(|code| tables.sign_mut(code).class = range.class);
        }
        for range in ranges(&mut at, false) {
            (range.first..=range.last).for_each(|code| tables.sign_mut(code).is_mark = true);
        }
        tables
    }

    /// Begins the form of `code`: letters appended to `letters` from here on belong to it.
    fn begin_form(&mut self, code: u32) {
        self.forms.push(self.letters.len());
        self.sign_mut(code).form = u16::try_from(self.forms.len()).expect("Unicode has fewer forms than 65 535");
    }

    fn sign_mut(&mut self, code: u32) -> &mut Sign {
        let (page, place) = (code as usize >> PAGE_BITS, code as usize % PAGE);
        if self.pages[page] == 0 {
            self.pages[page] = u16::try_from(self.signs.len() / PAGE).expect("there are fewer pages than 65 535");
            self.signs.resize(self.signs.len() + PAGE, Sign::default());
        }
        &mut self.signs[usize::from(self.pages[page]) * PAGE + place]
    }

    fn sign(&self, c: char) -> Sign {
        let page = self.pages[c as usize >> PAGE_BITS];
        self.signs[usize::from(page) * PAGE + c as usize % PAGE]
    }

    pub(crate) fn class(&self, c: char) -> u8 {
        self.sign(c).class
    }

    pub(crate) fn folded(&self, c: char, mut push: impl FnMut(char)) {
        let code = u32::from(c);
        if SYLLABLES.contains(&code) {
            return syllable(code - SYLLABLES.start(), push);
        }
        match usize::from(self.sign(c).form).checked_sub(1) {
            Some(at) => {
                let end = self.forms.get(at + 1).copied().unwrap_or(self.letters.len());
                self.letters[self.forms[at]..end].iter().copied().for_each(push);
            }
            None => push(c),
        }
    }
}

/// Applies a distance; the lowest bit means backwards.
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

/// Leading consonant, vowel, and trailing consonant if there is one.
fn syllable(index: u32, mut push: impl FnMut(char)) {
    let parts = [0x1100 + index / 588, 0x1161 + index % 588 / 28, 0x11A7 + index % 28];
    let count = if index.is_multiple_of(28) { 2 } else { 3 };
    parts[..count].iter().filter_map(|&code| char::from_u32(code)).for_each(&mut push);
}
