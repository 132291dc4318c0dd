//! Maximum size of a message, such that every dialect can carry it. Larger ones are refused at publish.
//!
//! Limits count canonical bytes, not frame bytes: text full of quotes grows fourfold in the JSON coding.

use super::Dialect;
use super::protobuf;
use super::sink::measured;
use crate::message::Message;

/// Maximum body length that a TCP frame can express, in bytes.
pub const MAX_TCP_BODY: usize = 65_535;

/// A message is too large for a dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {limit} bytes in the {dialect} dialect, got {bytes}")]
pub struct TooLarge {
    /// The dialect.
    pub dialect: Dialect,
    /// Size of the body in bytes.
    pub bytes: usize,
    /// Maximum size in bytes.
    pub limit: usize,
}

/// Verifies that every dialect can carry the message on every transport. The limit is [`MAX_TCP_BODY`] bytes per body
/// in each dialect, because a listener may serve either on TCP.
///
/// # Errors
/// [`TooLarge`] names the dialect whose bound is exceeded.
pub fn check_size(message: &Message) -> Result<(), TooLarge> {
    // Fast path for nearly every message: twice the approximate size includes all tags and lengths.
    if 2 * message.approximate_bytes() <= SAFE_IN_CIM {
        return Ok(());
    }
    let bytes = length(Dialect::Yunque, message);
    if bytes > MAX_TCP_BODY {
        return Err(TooLarge { dialect: Dialect::Yunque, bytes, limit: MAX_TCP_BODY });
    }
    // Only `format` and JSON text can make the cim body longer, and JSON escapes one byte to at most six.
    if bytes + message.format.len() > SAFE_IN_CIM {
        let bytes = length(Dialect::Cim, message);
        if bytes > MAX_TCP_BODY {
            return Err(TooLarge { dialect: Dialect::Cim, bytes, limit: MAX_TCP_BODY });
        }
    }
    Ok(())
}

fn length(dialect: Dialect, message: &Message) -> usize {
    measured(|count| protobuf::put_message(count, dialect, message))
}

/// Messages up to this size fit into [`MAX_TCP_BODY`] in cim, even if all characters are control characters.
const SAFE_IN_CIM: usize = 10 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Form, ServerFrame, encode};

    fn with_text(text: String) -> Message {
        Message { content: [("text", text)].into_iter().collect(), ..Message::default() }
    }

    #[test]
    fn the_limit_counts_canonical_bytes() {
        let message = with_text("\"".repeat(30 * 1024));
        assert_eq!(check_size(&message), Ok(()));
        let json = encode(Form::ALL[1], ServerFrame::Message(&message)).unwrap();
        assert!(json.len() > 120 * 1024);

        let refused = check_size(&with_text("x".repeat(70_000))).unwrap_err();
        assert_eq!((refused.dialect, refused.limit), (Dialect::Yunque, MAX_TCP_BODY));
        assert_eq!(refused.to_string(), "expected at most 65535 bytes in the yunque dialect, got 70014");
    }

    #[test]
    fn message_within_the_limit_is_encodable_in_every_form() {
        let nul = |bytes: usize| Message {
            content: [("a", "\0".repeat(bytes)), ("b", String::new())].into_iter().collect(),
            ..Message::default()
        };
        // JSON escapes each byte to six, so a small yunque body may be too large in cim.
        let mut refused = 0;
        for bytes in [1, 10_000, 10_240, 10_900, 10_923, 16_000, 20_000] {
            let message = nul(bytes);
            match check_size(&message) {
                Ok(()) => {
                    for form in Form::ALL {
                        assert!(encode(form, ServerFrame::Message(&message)).is_ok(), "{form} {bytes}");
                    }
                }
                Err(too_large) => {
                    refused += 1;
                    assert_eq!((too_large.dialect, too_large.limit), (Dialect::Cim, MAX_TCP_BODY));
                    assert!(encode(Form::tcp(Dialect::Cim), ServerFrame::Message(&message)).is_err());
                }
            }
        }
        assert_eq!(refused, 3);
    }

    #[test]
    fn the_longest_tcp_body_is_65_535_bytes() {
        let fits = Message { title: "x".repeat(MAX_TCP_BODY - 4), ..Message::default() };
        assert_eq!(check_size(&fits), Ok(()));
        let frame = encode(Form::tcp(Dialect::Cim), ServerFrame::Message(&fits)).unwrap();
        assert_eq!(&frame[..3], &[2, 0xff, 0xff]);
        let over = Message { title: "x".repeat(MAX_TCP_BODY - 3), ..Message::default() };
        assert_eq!(check_size(&over).unwrap_err().bytes, MAX_TCP_BODY + 1);
        assert!(encode(Form::tcp(Dialect::Yunque), ServerFrame::Message(&over)).is_err());
    }
}
