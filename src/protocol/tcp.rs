//! CIM's TCP framing: a type byte, the length of the body as u16 little-endian, the body.
//!
//! Pure: the caller passes its buffer and gets the next frame or nothing.

use bytes::{Bytes, BytesMut};

use super::{FrameError, check_type};

/// Removes the next whole frame from `buffer` and returns type byte and body, ready for [`decode`](super::decode).
/// `None` while the frame is incomplete. `max` limits the body, in bytes.
///
/// # Errors
/// A type that clients may not send, or a body over `max`, as soon as the head shows it. The stream cannot be read any
/// further after an error.
pub fn split_tcp_frame(buffer: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameError> {
    if let Some(code) = buffer.first() {
        check_type(i64::from(*code))?;
    }
    let &[code, low, high, ..] = &buffer[..] else {
        return Ok(None);
    };
    let length = usize::from(u16::from_le_bytes([low, high]));
    if length > max {
        return Err(FrameError::TooLong { bytes: length, limit: max });
    }
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    // The type byte moves next to the body, overwriting the length.
    let mut frame = buffer.split_to(HEADER + length).split_off(HEADER - 1);
    frame[0] = code;
    Ok(Some(frame.freeze()))
}

/// Type byte and length.
pub(super) const fn header(code: u8, length: u16) -> [u8; HEADER] {
    let [low, high] = length.to_le_bytes();
    [code, low, high]
}

/// Bytes before the body.
pub(super) const HEADER: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_frame_head_is_an_error_before_its_body_arrives() {
        let split = |bytes: &[u8]| split_tcp_frame(&mut BytesMut::from(bytes), 16);
        assert_eq!(split(&[]), Ok(None));
        assert_eq!(split(&[3]), Ok(None));
        assert_eq!(split(&[9]), Err(FrameError::UnknownType(9)));
        assert_eq!(split(&[2, 0]), Err(FrameError::NotFromClient("MESSAGE (2)")));
        assert_eq!(split(&[3, 17, 0]), Err(FrameError::TooLong { bytes: 17, limit: 16 }));
        assert_eq!(split(&[0, 0, 0]), Ok(Some(Bytes::from_static(&[0]))));
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_whatever_the_reads_were(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in proptest::collection::vec(1_usize..64, 1..64),
        ) {
            let mut wire = Vec::new();
            for body in &bodies {
                wire.extend_from_slice(&header(3, u16::try_from(body.len()).unwrap()));
                wire.extend_from_slice(body);
            }
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            let (mut rest, mut cuts) = (&wire[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                buffer.extend_from_slice(now);
                rest = later;
                while let Some(frame) = split_tcp_frame(&mut buffer, 1024).unwrap() {
                    prop_assert_eq!(frame[0], 3);
                    seen.push(frame[1..].to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
            prop_assert!(buffer.is_empty());
        }
    }
}
