//! The canonical body of a message, used on the bus: the yunque layout, decoded by hand into our own types.
//!
//! Unlike the generated decoder it keeps the order of the entries, so a message is the same on every node. This layout
//! has no field for `format`; carriers of a body transmit it separately.

use super::bounds::{Field, Fields};
use super::{Dialect, FrameError, protobuf};
use crate::message::{Entries, MAX_ENTRIES, Message};

/// Appends the body.
pub fn put_canonical(message: &Message, out: &mut Vec<u8>) {
    protobuf::put_message(out, Dialect::Yunque, message);
}

/// Decodes a body. Unknown fields are skipped.
///
/// # Errors
/// [`FrameError`] if it is not valid protobuf, a text is not UTF-8, or a map has too many entries.
pub fn read_canonical(body: &[u8]) -> Result<Message, FrameError> {
    let mut message = Message::default();
    for field in Fields::of(body) {
        match field? {
            (1, Field::Number(number)) => message.id = number.cast_signed(),
            (2, Field::Bytes(bytes)) => message.action = text(bytes)?,
            (3, Field::Bytes(bytes)) => add_entry(&mut message.content, "content", bytes)?,
            (4, Field::Bytes(bytes)) => message.sender = text(bytes)?,
            (5, Field::Bytes(bytes)) => message.receiver = text(bytes)?,
            (6, Field::Bytes(bytes)) => add_entry(&mut message.extra, "extra", bytes)?,
            (7, Field::Bytes(bytes)) => message.title = text(bytes)?,
            (8, Field::Number(number)) => message.timestamp = number.cast_signed(),
            (9, Field::Bytes(bytes)) => message.image = text(bytes)?,
            _ => {}
        }
    }
    Ok(message)
}

fn add_entry(entries: &mut Entries, field: &'static str, body: &[u8]) -> Result<(), FrameError> {
    let (mut key, mut value) = (String::new(), String::new());
    for part in Fields::of(body) {
        match part? {
            (1, Field::Bytes(bytes)) => key = text(bytes)?,
            (2, Field::Bytes(bytes)) => value = text(bytes)?,
            _ => {}
        }
    }
    if entries.len() == MAX_ENTRIES {
        return Err(FrameError::TooManyEntries { field, entries: MAX_ENTRIES + 1, limit: MAX_ENTRIES });
    }
    entries.insert(key, value);
    Ok(())
}

fn text(bytes: &[u8]) -> Result<String, FrameError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(FrameError::Protobuf("text that is not UTF-8".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::protocol::proto;

    fn entries() -> impl Strategy<Value = Entries> {
        proptest::collection::vec((".{0,8}", ".{0,8}"), 0..6).prop_map(|pairs| pairs.into_iter().collect())
    }

    prop_compose! {
        fn message()(
            (id, timestamp) in any::<(i64, i64)>(),
            (action, sender, receiver, title, image) in (".{0,8}", ".{0,8}", ".{0,8}", ".{0,8}", ".{0,8}"),
            (content, extra) in (entries(), entries()),
        ) -> Message {
            Message { id, action, content, sender, receiver, extra, title, image, format: String::new(), timestamp }
        }
    }

    proptest! {
        #[test]
        fn canonical_message_round_trips_in_order(message in message()) {
            let mut body = Vec::new();
            put_canonical(&message, &mut body);
            prop_assert_eq!(read_canonical(&body).unwrap(), message);
        }

        #[test]
        fn canonical_reader_agrees_with_prost_on_any_bytes(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (ours, theirs) = (read_canonical(&body), proto::Message::decode(&*body));
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                prop_assert_eq!((ours.id, ours.action, ours.title), (theirs.id, theirs.action, theirs.title));
            }
        }
    }

    #[test]
    fn a_map_is_bounded() {
        let content: Entries = (0..MAX_ENTRIES).map(|n| (n.to_string(), "v")).collect();
        let mut body = Vec::new();
        put_canonical(&Message { content, ..Message::default() }, &mut body);
        assert_eq!(read_canonical(&body).unwrap().content.len(), MAX_ENTRIES);
        put_canonical(&Message { content: [("one", "more")].into_iter().collect(), ..Message::default() }, &mut body);
        assert!(matches!(read_canonical(&body), Err(FrameError::TooManyEntries { field: "content", .. })));
    }
}
