//! Parses the request framing of one HTTP/1.1 connection and finds requests that two servers could read differently.
//!
//! hyper is lenient where a proxy in front of the node may not be. It accepts a bare line feed as a line end, and it
//! prefers Transfer-Encoding over a Content-Length beside it. This module refuses everything ambiguous. Independent of
//! sockets; buffers nothing except an incomplete line.

/// Maximum length of a buffered line; hyper refuses such a head long before.
const MAX_LINE: usize = 128 * 1024;
/// Lengths of the relevant field names.
const LENGTH: usize = "content-length".len();
const ENCODING: usize = "transfer-encoding".len();
const UPGRADE: usize = "upgrade".len();

/// Position at which a request stream violates the rules.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidFraming {
    /// Index of the byte to make unreadable: the last one of the invalid line.
    pub(super) at: usize,
}

/// State of one connection's request stream.
#[derive(Debug, Default)]
pub(super) struct Framing {
    part: Part,
    /// The beginning of an incomplete line.
    line: Vec<u8>,
    head: Head,
    heads: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    /// Number of body bytes still to come.
    Body(u64),
    ChunkSize,
    /// Number of bytes of a chunk and its line end still to come.
    Chunk(u64),
    Trailers,
    /// After a WebSocket handshake: no longer HTTP.
    Opaque,
}

/// The head so far.
#[derive(Debug, Default)]
struct Head {
    has_begun: bool,
    length: Option<u64>,
    is_chunked: bool,
    wants_websocket: bool,
}

impl Framing {
    /// Parses the next bytes.
    ///
    /// # Errors
    /// [`InvalidFraming`] for the first refused line. Do not read any further after it.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), InvalidFraming> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.part {
                Part::Opaque => return Ok(()),
                Part::Body(left) | Part::Chunk(left) => {
                    let passed = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left -= passed as u64;
                    at += passed;
                    self.part = match self.part {
                        Part::Body(0) => Part::Head,
                        Part::Chunk(0) => Part::ChunkSize,
                        part => part,
                    };
                }
                Part::Head | Part::ChunkSize | Part::Trailers => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        self.line.extend_from_slice(rest);
                        let invalid = InvalidFraming { at: bytes.len() - 1 };
                        return if self.line.len() > MAX_LINE { Err(invalid) } else { Ok(()) };
                    };
                    at += end + 1;
                    let line = std::mem::take(&mut self.line);
                    let fits = if line.is_empty() {
                        self.end_line(&rest[..end])
                    } else {
                        self.end_line(&[&line, &rest[..end]].concat())
                    };
                    fits.ok_or(InvalidFraming { at: at - 1 })?;
                }
            }
        }
        Ok(())
    }

    /// True inside a head: its first byte has arrived and its last one has not.
    pub(super) fn is_mid_head(&self) -> bool {
        self.part == Part::Head && (self.head.has_begun || !self.line.is_empty())
    }

    /// Number of completed heads.
    pub(super) fn heads(&self) -> u32 {
        self.heads
    }

    /// The number of the request, counted from 1, that asks for a WebSocket. Bytes after it are not parsed.
    pub(super) fn websocket(&self) -> Option<u32> {
        (self.part == Part::Opaque).then_some(self.heads)
    }

    /// Processes a line without its line feed; `None` if it is refused.
    fn end_line(&mut self, line: &[u8]) -> Option<()> {
        let line = line.strip_suffix(b"\r")?;
        match self.part {
            Part::Head if line.is_empty() && self.head.has_begun => {
                let head = std::mem::take(&mut self.head);
                self.heads = self.heads.wrapping_add(1);
                self.part = match head.length {
                    _ if head.wants_websocket => Part::Opaque,
                    _ if head.is_chunked => Part::ChunkSize,
                    Some(length @ 1..) => Part::Body(length),
                    _ => Part::Head,
                };
            }
            // Empty lines before a request are skipped (RFC 9112 §2.2).
            Part::Head if line.is_empty() => {}
            Part::Head if self.head.has_begun => self.head.field(line)?,
            Part::Head => self.head.has_begun = true,
            Part::ChunkSize => {
                self.part = match chunk_size(line)? {
                    0 => Part::Trailers,
                    size => Part::Chunk(size.checked_add(2)?),
                };
            }
            Part::Trailers if line.is_empty() => self.part = Part::Head,
            Part::Trailers => {}
            Part::Body(_) | Part::Chunk(_) | Part::Opaque => unreachable!("a body has no lines"),
        }
        Some(())
    }
}

impl Head {
    /// Processes a field line; `None` if it is refused.
    fn field(&mut self, line: &[u8]) -> Option<()> {
        // Some readers join a folded line with the previous one; others treat it as a separate field.
        if line.first().is_some_and(|first| matches!(first, b' ' | b'\t')) {
            return None;
        }
        // hyper refuses a line without a colon, and blanks before the colon.
        let Some(colon) = memchr::memchr(b':', line) else { return Some(()) };
        // The length of the name rules out most fields.
        if !matches!(colon, LENGTH | ENCODING | UPGRADE) {
            return Some(());
        }
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() || self.is_chunked {
                return None;
            }
            self.length = Some(digits(value, 10)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.length.is_some() || self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return None;
            }
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            let mut tokens = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            self.wants_websocket |= tokens.any(|token| token.eq_ignore_ascii_case(b"websocket"));
        }
        Some(())
    }
}

/// The size of a chunk; extensions after it are skipped.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    digits(size.trim_ascii_end(), 16)
}

/// Parses a number that consists of digits only.
fn digits(text: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.starts_with('+') { None } else { u64::from_str_radix(text, radix).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the input in pieces of each size. The result must not depend on the pieces.
    fn read(bytes: &[u8]) -> Result<u32, usize> {
        let by = |step: usize| {
            let mut framing = Framing::default();
            for (at, part) in bytes.chunks(step).enumerate() {
                framing.read(part).map_err(|invalid| at * step + invalid.at)?;
            }
            Ok(framing.heads)
        };
        let whole = by(bytes.len());
        for step in [1, 2, 3, 7, 16] {
            assert_eq!(by(step), whole, "by {step}: {}", String::from_utf8_lossy(bytes));
        }
        whole
    }

    #[test]
    fn requests_in_a_row_are_followed_through_their_bodies() {
        let three = "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\
            POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 4\r\n\r\n\n\n\n\n\
            POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=\"y\"\r\n\n\n\r\n0\r\nA: b\r\n\r\n";
        assert_eq!(read(three.as_bytes()), Ok(3));
        assert_eq!(read(format!("{three}{three}").as_bytes()), Ok(6));
    }

    #[test]
    fn ambiguous_framing_is_refused_at_the_line_that_shows_it() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\n";
        for (lines, wrong) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "chunked\r\n"),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "5\r\n"),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", "6\r\n"),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", "5\r\n"),
            ("Content-Length: 5, 5\r\n", "5\r\n"),
            ("Content-Length: +5\r\n", "+5\r\n"),
            ("Content-Length: 0x5\r\n", "x5\r\n"),
            ("Content-Length:\r\n", ":\r\n"),
            ("Content-Length: 99999999999999999999\r\n", "9\r\n"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "chunked\r\n"),
            ("Transfer-Encoding: gzip, chunked\r\n", "chunked\r\n"),
            ("Transfer-Encoding: identity\r\n", "identity\r\n"),
            ("X: a\n", "a\n"),
            ("X: a\r\n b\r\n", "b\r\n"),
            ("X: a\r\n\tb\r\n", "b\r\n"),
            ("\n", "\n"),
            ("Transfer-Encoding: chunked\r\n\r\nx\r\n", "x\r\n"),
            ("Transfer-Encoding: chunked\r\n\r\n\r\n", "\r\n"),
            ("Transfer-Encoding: chunked\r\n\r\n-1\r\n", "-1\r\n"),
            ("Transfer-Encoding: chunked\r\n\r\n1\n", "1\n"),
            ("Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", "f\r\n"),
            ("Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\n", "b\n"),
        ] {
            let bytes = format!("{head}{lines}");
            assert!(bytes.ends_with(wrong), "{lines:?}");
            assert_eq!(read(bytes.as_bytes()), Err(bytes.len() - 1), "{lines:?}");
        }
        assert_eq!(read(b"GET / HTTP/1.1\n"), Err(14));
    }

    #[test]
    fn bytes_after_a_websocket_handshake_are_not_read_as_http() {
        let mut framing = Framing::default();
        framing.read(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nUpgrade: h2c, WebSocket\r\n").unwrap();
        assert!(framing.is_mid_head() && framing.websocket().is_none());
        framing.read(b"\r\n\x82\x01\n\n\n").unwrap();
        assert_eq!((framing.websocket(), framing.is_mid_head()), (Some(2), false));
        let mut framing = Framing::default();
        framing.read(b"GET / HTTP/1.1\r\nUpgrade: websocketish\r\nConnection: Upgrade\r\n\r\n").unwrap();
        assert_eq!(framing.websocket(), None);
    }

    #[test]
    fn head_is_incomplete_from_its_first_to_its_last_byte() {
        let mut framing = Framing::default();
        assert!(!framing.is_mid_head());
        let bytes = b"GET / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab";
        for (at, byte) in bytes.iter().enumerate() {
            framing.read(&[*byte]).unwrap();
            assert_eq!(framing.is_mid_head(), at + 3 < bytes.len(), "{at}");
        }
    }
}
