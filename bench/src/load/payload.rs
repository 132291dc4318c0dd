//! The text of a measured message: sequence, intended time of sending, checksum, padding.
//!
//! `~#` `sequence:08x` `stamp:016x` `length:08x` `checksum:08x` padding. It is ASCII that no coding escapes, so a
//! receiver finds it by its mark in every dialect without decoding the message.

/// The fields of a text that receivers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Index of the message in its stream, from 0 on.
    pub(crate) sequence: u32,
    /// Intended time of sending: nanoseconds of the generator's clock.
    pub(crate) stamp: u64,
}

/// Default size of a text in bytes.
pub(crate) const SIZE: usize = 160;
/// The checksum is verified for one in this many messages; verifying all would measure the generator.
pub(crate) const SAMPLE: u32 = 64;

const MARK: &[u8] = b"~#";
const SEQUENCE: usize = MARK.len();
const STAMP: usize = SEQUENCE + 8;
const LENGTH: usize = STAMP + 16;
const CHECKSUM: usize = LENGTH + 8;
const PADDING: usize = CHECKSUM + 8;

/// Appends the text of one message. `size` is its length in bytes and must exceed that of the numbers.
pub(crate) fn write(out: &mut Vec<u8>, mark: Mark, size: usize) {
    let start = out.len();
    out.extend_from_slice(MARK);
    hex(out, u64::from(mark.sequence), 8);
    hex(out, mark.stamp, 16);
    hex(out, size as u64, 8);
    out.extend_from_slice(&[b'0'; 8]);
    let letters = (0_u8..26).cycle().skip((mark.sequence % 26) as usize).map(|letter| b'a' + letter);
    out.extend(letters.take(size - PADDING));
    let mut digits = Vec::with_capacity(8);
    hex(&mut digits, u64::from(checksum(&out[start..])), 8);
    out[start + CHECKSUM..start + PADDING].copy_from_slice(&digits);
}

/// Offset of the text in a frame. `hint` is the offset in the last frame.
pub(crate) fn find(frame: &[u8], hint: usize) -> Option<usize> {
    let is_there = frame.get(hint..).is_some_and(|rest| rest.starts_with(MARK));
    let at = if is_there { hint } else { frame.windows(MARK.len()).position(|part| part == MARK)? };
    (frame.len() >= at + PADDING).then_some(at)
}

/// Parses the text at the start of `text`.
pub(crate) fn read(text: &[u8]) -> Option<Mark> {
    let sequence = number(text.get(SEQUENCE..STAMP)?)?;
    let stamp = number(text.get(STAMP..LENGTH)?)?;
    Some(Mark { sequence: u32::try_from(sequence).ok()?, stamp })
}

/// True if the checksum matches.
pub(crate) fn is_intact(text: &[u8]) -> bool {
    let size = text.get(LENGTH..CHECKSUM).and_then(number).and_then(|size| usize::try_from(size).ok());
    let Some(text) = size.and_then(|size| text.get(..size)).filter(|text| text.len() > PADDING) else { return false };
    number(&text[CHECKSUM..PADDING]) == Some(u64::from(checksum(text)))
}

/// FNV-1a over everything except the checksum.
fn checksum(text: &[u8]) -> u32 {
    let parts = text[..CHECKSUM].iter().chain(&text[PADDING..]);
    parts.fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn hex(out: &mut Vec<u8>, number: u64, digits: u32) {
    out.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[(number >> (4 * digit) & 15) as usize]));
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_a_frame_and_read_back() {
        let mark = Mark { sequence: 748, stamp: 1 << 40 };
        let mut frame = b"\x02 around it ".to_vec();
        let at = frame.len();
        write(&mut frame, mark, SIZE);
        frame.extend_from_slice(b" and after");
        assert_eq!(find(&frame, 3), Some(at));
        assert_eq!(find(&frame, at), Some(at));
        assert_eq!(read(&frame[at..]), Some(mark));
        assert!(is_intact(&frame[at..]));
    }

    #[test]
    fn a_changed_byte_breaks_the_checksum() {
        let mut text = Vec::new();
        write(&mut text, Mark { sequence: 1, stamp: 2 }, SIZE);
        assert_eq!(text.len(), SIZE);
        text[SIZE - 1] ^= 1;
        assert!(!is_intact(&text));
    }

    #[test]
    fn a_cut_text_is_not_intact() {
        let mut text = Vec::new();
        write(&mut text, Mark { sequence: 1, stamp: 2 }, 500);
        assert_eq!(text.len(), 500);
        assert!(is_intact(&text) && !is_intact(&text[..499]));
        assert_eq!(find(&text[..PADDING - 1], 0), None);
    }
}
