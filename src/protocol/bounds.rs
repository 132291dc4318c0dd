//! Counts the repeated fields of a protobuf body before decoding it.
//!
//! Decoding multiplies memory: 1 MiB of empty messages becomes 123 MiB of structs. This module reads tags and lengths
//! only.

use super::FrameError;
use crate::message::MAX_ENTRIES;

/// The value of a field.
pub(super) enum Field<'a> {
    /// A varint.
    Number(u64),
    /// A length-delimited value.
    Bytes(&'a [u8]),
    /// Four or eight bytes, which no layout uses.
    Fixed,
}

impl<'a> Field<'a> {
    /// Returns the bytes of a length-delimited value.
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

/// Iterates over the fields of a body in order: number and value.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Iterates over `body`.
    pub(super) fn of(body: &'a [u8]) -> Self {
        Self(body)
    }

    fn varint(&mut self) -> Result<u64, FrameError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or_else(|| malformed("a truncated body"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift.min(63);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("a varint longer than 10 bytes"))
    }

    fn skip(&mut self, length: u64) -> Result<&'a [u8], FrameError> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.0.len());
        let length = length.ok_or_else(|| malformed("a length that runs past the end"))?;
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(bytes)
    }

    fn field(&mut self) -> Result<(u64, Field<'a>), FrameError> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => self.varint().map(Field::Number),
            1 => self.skip(8).map(|_| Field::Fixed),
            2 => self.varint().and_then(|length| self.skip(length)).map(Field::Bytes),
            5 => self.skip(4).map(|_| Field::Fixed),
            // Groups (3, 4) occur in no layout, no SDK writes them, and they nest.
            other => Err(malformed(&format!("wire type {other}"))),
        };
        Ok((tag >> 3, field?))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| {
            let field = self.field();
            if field.is_err() {
                self.0 = &[];
            }
            field
        })
    }
}

/// Verifies that no map of `maps` (number and name) has more than [`MAX_ENTRIES`] entries, counting repeated keys.
pub(super) fn check_entries<const N: usize>(body: &[u8], maps: &[(u64, &'static str); N]) -> Result<(), FrameError> {
    let mut counts = [0; N];
    for field in Fields::of(body) {
        let (number, _) = field?;
        if let Some(at) = maps.iter().position(|(map, _)| *map == number) {
            counts[at] += 1;
        }
    }
    for ((_, field), entries) in maps.iter().zip(counts) {
        if entries > MAX_ENTRIES {
            return Err(FrameError::TooManyEntries { field, entries, limit: MAX_ENTRIES });
        }
    }
    Ok(())
}

fn malformed(what: &str) -> FrameError {
    FrameError::Protobuf(what.to_owned())
}
