//! Compares `tables/unicode.bin` with a Unicode crate, character by character. `BLESS=1` regenerates the file.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::ops::RangeInclusive;

use unicode_normalization::char::{canonical_combining_class, decompose_compatible, is_combining_mark};
use word_filter::unicode::{class, folded, is_mark, shows_nothing};

const SYLLABLES: RangeInclusive<char> = '\u{AC00}'..='\u{D7A3}';

/// Decomposes a character and folds its case: ß and ẞ become ss, ς becomes σ.
fn fold(c: char) -> String {
    let mut text = String::new();
    decompose_compatible(c, |c| {
        if c.is_ascii() {
            text.push(c.to_ascii_lowercase());
        } else if !shows_nothing(c) {
            text.extend(c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase));
        }
    });
    text
}

fn letters() -> impl Iterator<Item = char> {
    ('\u{80}'..=char::MAX).filter(|&c| !shows_nothing(c))
}

fn number(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7F) as u8);
}

fn ranges(bytes: &mut Vec<u8>, have_class: bool, of: impl Fn(char) -> u32) {
    let mut found: Vec<(u32, u32, u32)> = Vec::new();
    for c in '\0'..=char::MAX {
        let (code, value) = (u32::from(c), of(c));
        match found.last_mut() {
            Some((_, last, before)) if *last + 1 == code && *before == value => *last = code,
            _ if value != 0 => found.push((code, code, value)),
            _ => {}
        }
    }
    number(bytes, u32::try_from(found.len()).unwrap());
    let mut before = 0;
    for (first, last, value) in found {
        number(bytes, first - before);
        number(bytes, last - first);
        if have_class {
            number(bytes, value);
        }
        before = last;
    }
}

/// One record for each form, or for a run of one-character forms at constant distances.
fn forms(bytes: &mut Vec<u8>, own: &[(char, String)]) {
    let mut records: Vec<Vec<u8>> = Vec::new();
    let (mut before, mut letter) = (0, 0);
    let mut again: Option<((u32, u32), u32)> = None;
    for (c, form) in own {
        let step = u32::from(*c) - before;
        before = u32::from(*c);
        let leaps: Vec<u32> = form
            .chars()
            .map(|part| {
                let (from, to) = (letter, u32::from(part));
                letter = to;
                if to >= from { (to - from) << 1 } else { (from - to - 1) << 1 | 1 }
            })
            .collect();
        if let ([leap], Some((same, times))) = (leaps.as_slice(), &mut again)
            && *same == (step, *leap)
        {
            *times += 1;
            continue;
        }
        records.extend(again.take().and_then(repeated));
        let mut record = Vec::new();
        let count = u32::try_from(leaps.len()).unwrap();
        number(&mut record, step << 2 | if count > 3 { 0 } else { count });
        if count > 3 || count == 0 {
            number(&mut record, count);
        }
        leaps.iter().for_each(|&leap| number(&mut record, leap));
        records.push(record);
        if let [leap] = leaps.as_slice() {
            again = Some(((step, *leap), 0));
        }
    }
    records.extend(again.take().and_then(repeated));
    number(bytes, u32::try_from(records.len()).unwrap());
    bytes.extend(records.concat());
}

fn repeated((_, times): ((u32, u32), u32)) -> Option<Vec<u8>> {
    let mut record = vec![0];
    number(&mut record, times);
    (times > 0).then_some(record)
}

fn bless() {
    let mut bytes = Vec::new();
    let own: Vec<(char, String)> = letters()
        .filter(|c| !SYLLABLES.contains(c))
        .map(|c| (c, fold(c)))
        .filter(|(c, form)| *form != c.to_string())
        .collect();
    forms(&mut bytes, &own);
    ranges(&mut bytes, true, |c| canonical_combining_class(c).into());
    ranges(&mut bytes, false, |c| is_combining_mark(c).into());
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tables/unicode.bin"), bytes).unwrap();
}

#[test]
fn tables_match_the_data_of_unicode() {
    if std::env::var_os("BLESS").is_some() {
        return bless();
    }
    for c in letters() {
        let mut form = String::new();
        folded(c, |c| form.push(c));
        assert_eq!(form, fold(c), "{c:?}");
    }
    for c in '\0'..=char::MAX {
        assert_eq!(class(c), canonical_combining_class(c), "{c:?}");
        assert_eq!(is_mark(c), is_combining_mark(c), "{c:?}");
    }
}
