//! Output of bodies. The same layout code measures and writes, so the two always agree.
//!
//! Handles bytes, varints and JSON escapes; independent of messages.

/// Accepts bytes in order.
pub(super) trait Sink {
    /// Appends the next bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes without storing them.
#[derive(Debug, Default)]
pub(super) struct Count(pub(super) usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Returns the number of bytes that `write` puts.
pub(super) fn measured(write: impl FnOnce(&mut Count)) -> usize {
    let mut count = Count::default();
    write(&mut count);
    count.0
}

/// Escapes its input as the inside of a JSON string. Nests: JSON text inside a JSON string uses two of them.
pub(super) struct Escape<'a, S>(pub(super) &'a mut S);

impl<S: Sink> Sink for Escape<'_, S> {
    fn put(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|&byte| ESCAPES[usize::from(byte)] != 0) {
            self.0.put(&rest[..at]);
            match ESCAPES[usize::from(rest[at])] {
                b'u' => {
                    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                    self.0.put(&[b'\\', b'u', b'0', b'0', digit(rest[at] >> 4), digit(rest[at] & 15)]);
                }
                short => self.0.put(&[b'\\', short]),
            }
            rest = &rest[at + 1..];
        }
        self.0.put(rest);
    }
}

/// Writes a JSON string.
pub(super) fn put_text(sink: &mut impl Sink, text: &str) {
    sink.put(b"\"");
    Escape(sink).put(text.as_bytes());
    sink.put(b"\"");
}

/// Writes an integer in decimal digits.
pub(super) fn put_integer(sink: &mut impl Sink, number: i64) {
    // 19 digits and a sign.
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    sink.put(&digits[at..]);
}

/// Writes a protobuf varint.
pub(super) fn put_varint(sink: &mut impl Sink, mut number: u64) {
    // Fast path: one byte is enough for nearly every tag and length.
    if number < 0x80 {
        return sink.put(&[u8::try_from(number).expect("seven bits")]);
    }
    let mut bytes = [0; 10];
    let mut length = 0;
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        bytes[length] = if number == 0 { low } else { low | 0x80 };
        length += 1;
        if number == 0 {
            break;
        }
    }
    sink.put(&bytes[..length]);
}

/// For each byte: 0 = unescaped, `u` = `\u00xx`, otherwise the letter after the backslash.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strings_are_escaped_as_serde_json_does(text in any::<String>(), low in "[\u{0}-\u{7f}]*") {
            for text in [text, low] {
                let mut out = Vec::new();
                put_text(&mut out, &text);
                prop_assert_eq!(&out, &serde_json::to_vec(&text).unwrap());
                prop_assert_eq!(measured(|count| put_text(count, &text)), out.len());
            }
        }

        #[test]
        fn integers_are_their_decimal_text(number in any::<i64>()) {
            for number in [number, 0, -1, i64::MIN, i64::MAX] {
                let mut out = Vec::new();
                put_integer(&mut out, number);
                prop_assert_eq!(out, number.to_string().into_bytes());
            }
        }

        #[test]
        fn varints_are_those_of_prost(number in any::<u64>()) {
            for number in [number, number >> 32, 0, 127, 128, u64::MAX] {
                let (mut out, mut reference) = (Vec::new(), Vec::new());
                put_varint(&mut out, number);
                prost::encoding::encode_varint(number, &mut reference);
                prop_assert_eq!(out, reference);
            }
        }
    }
}
