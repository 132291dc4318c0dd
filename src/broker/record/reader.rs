//! Writes and reads varints, texts and names of a record. Every read is bounds-checked.

use std::str::FromStr;

use super::{RecordError, malformed};

/// Cursor over the bytes of a record.
pub(in crate::broker) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(in crate::broker) fn of(record: &'a [u8]) -> Self {
        Self(record)
    }

    pub(in crate::broker) fn byte(&mut self) -> Result<u8, RecordError> {
        let (&byte, rest) = self.0.split_first().ok_or_else(ends_too_soon)?;
        self.0 = rest;
        Ok(byte)
    }

    pub(in crate::broker) fn number(&mut self) -> Result<u64, RecordError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift.min(63);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("a varint longer than 10 bytes"))
    }

    /// Reads a number of entries. Each entry takes at least one byte, so a false count is found before memory is
    /// reserved.
    pub(in crate::broker) fn count(&mut self, most: usize) -> Result<usize, RecordError> {
        let number = self.number()?;
        let count = usize::try_from(number).ok().filter(|count| *count <= most && *count <= self.0.len());
        count.ok_or_else(|| malformed(&format!("{number} entries, which is out of range")))
    }

    pub(in crate::broker) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let length = self.number()?;
        let length = usize::try_from(length).ok().filter(|length| *length <= self.0.len());
        let (bytes, rest) = self.0.split_at(length.ok_or_else(ends_too_soon)?);
        self.0 = rest;
        Ok(bytes)
    }

    pub(in crate::broker) fn text(&mut self) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| malformed("text that is not UTF-8"))
    }

    pub(in crate::broker) fn name<T: FromStr<Err: std::fmt::Display>>(&mut self) -> Result<T, RecordError> {
        self.text()?.parse().map_err(|invalid| malformed(&format!("an invalid name: {invalid}")))
    }

    /// Takes all remaining bytes.
    pub(in crate::broker) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(in crate::broker) fn end(&self) -> Result<(), RecordError> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(malformed(&format!("{more} extra bytes at its end"))),
        }
    }
}

fn ends_too_soon() -> RecordError {
    malformed("a truncated record")
}

pub(in crate::broker) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).expect("seven bits"));
}

pub(in crate::broker) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, u64::try_from(text.len()).expect("64 bits hold a length"));
    out.extend_from_slice(text.as_bytes());
}
