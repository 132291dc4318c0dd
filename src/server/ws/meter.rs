//! Parses the frame headers of a client: detects a message in progress and counts its fragments.
//!
//! tungstenite reports neither, and both are limited. All other errors of a frame are left to tungstenite.

/// Maximum number of fragments of one message.
pub(super) const MAX_FRAGMENTS: u16 = 1024;

/// A message has more than [`MAX_FRAGMENTS`] fragments.
#[derive(Debug, thiserror::Error)]
#[error("expected at most {MAX_FRAGMENTS} fragments a message, got more")]
pub(super) struct TooManyFragments;

/// Position in the stream of frames.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Bytes of mask and payload still to come in this frame.
    left: u64,
    /// The header so far: two bytes and up to eight of length.
    head: [u8; 10],
    head_bytes: u8,
    fragments: u16,
    /// True if a data message has begun and its last fragment has not.
    open: bool,
    /// Number of messages begun. A control frame outside a message counts as one.
    message_number: u32,
}

impl Meter {
    /// Parses the next bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), TooManyFragments> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            if self.head_bytes == 0 && !self.open {
                self.message_number = self.message_number.wrapping_add(1);
            }
            self.head[usize::from(self.head_bytes)] = bytes[0];
            self.head_bytes += 1;
            bytes = &bytes[1..];
            if self.head_bytes >= 2 && usize::from(self.head_bytes) == self.head_length() {
                self.begin_frame()?;
            }
        }
        Ok(())
    }

    /// True if the bytes so far end inside a frame or between the fragments of a message.
    pub(super) fn is_mid_message(&self) -> bool {
        self.open || self.left > 0 || self.head_bytes > 0
    }

    /// Number of the newest message. While it stays the same, all bytes belong to one message.
    pub(super) fn message_number(&self) -> u32 {
        self.message_number
    }

    fn head_length(&self) -> usize {
        match self.head[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn begin_frame(&mut self) -> Result<(), TooManyFragments> {
        let [first, second, rest @ ..] = self.head;
        let payload = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([rest[0], rest[1]])),
            127 => u64::from_be_bytes(rest),
            short => u64::from(short),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        self.left = payload.saturating_add(mask);
        self.head_bytes = 0;
        let (is_last, opcode) = (first & 0x80 != 0, first & 0x0f);
        if opcode < 8 {
            self.fragments = if opcode == 0 { self.fragments.saturating_add(1) } else { 1 };
            self.open = !is_last;
        }
        if self.fragments > MAX_FRAGMENTS { Err(TooManyFragments) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload {
            0..126 => bytes.push(0x80 | u8::try_from(payload).unwrap()),
            126..65536 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(payload as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend(std::iter::repeat_n(0xff, payload));
        bytes
    }

    #[test]
    fn message_is_incomplete_until_its_last_byte_in_any_split() {
        for payload in [0, 1, 125, 126, 65_535, 65_536] {
            let bytes = frame(0x82, payload);
            for step in [1, 2, 3, 7, bytes.len()] {
                let mut meter = Meter::default();
                let mut seen = 0;
                for part in bytes.chunks(step) {
                    meter.read(part).unwrap();
                    seen += part.len();
                    assert_eq!(meter.is_mid_message(), seen < bytes.len(), "{payload} by {step} at {seen}");
                }
            }
        }
    }

    #[test]
    fn fragments_are_one_message_and_a_ping_between_them_is_not() {
        let mut meter = Meter::default();
        for (first, mid) in [(0x01, true), (0x89, true), (0x00, true), (0x80, false), (0x8a, false), (0x81, false)] {
            meter.read(&frame(first, 3)).unwrap();
            assert_eq!(meter.is_mid_message(), mid, "{first:#x}");
        }
        assert_eq!(meter.message_number(), 3, "the fragments with the ping, the pong, the text");
    }

    #[test]
    fn fragments_are_counted_by_message() {
        let mut meter = Meter::default();
        for _ in 0..3 {
            meter.read(&frame(0x02, 0)).unwrap();
            for _ in 0..1022 {
                meter.read(&frame(0x00, 0)).unwrap();
            }
            meter.read(&frame(0x80, 0)).unwrap();
        }
        meter.read(&frame(0x02, 0)).unwrap();
        for _ in 0..1023 {
            meter.read(&frame(0x00, 0)).unwrap();
        }
        assert!(meter.read(&frame(0x00, 0)).is_err());
    }
}
