//! Records of the journal, and the frame around each of them.
//!
//! ```text
//! frame: length of the record (4 bytes, little endian) · CRC-32 of the record (4 bytes) · record
//! record: kind (1 byte) · fields of the kind
//! ```
//! Numbers are varints and texts are prefixed with their length, as in a bus record. Times are nanoseconds since 1970.
//! Readers skip unknown kinds from [`FIRST_OPTIONAL`] on, and refuse other unknown kinds: a newer node wrote them.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::history::{KeptMessage, Readers};
use crate::broker::record::reader::{Reader, put_number, put_text};
use crate::broker::record::{RecordError, put_message, put_names, read_cid, read_message, read_names};
use crate::message::{Epoch, StreamName};

/// Format of the segments.
const VERSION: u64 = 1;
/// Bytes of a frame before its record.
const FRAME: usize = 8;
/// Maximum size of a record. The largest one holds a whole stream, whose bound is 16 MiB of approximate bytes.
const MAX_RECORD: usize = 256 << 20;
/// Maximum number of messages in one record.
const MAX_MESSAGES: usize = 1 << 20;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker::history) enum Record {
    /// The first record of a segment.
    Head(Head),
    /// A message was appended.
    Append(Append),
    /// The whole of a stream. It replaces earlier records of the stream.
    State(State),
    /// The stream does not exist any more.
    Drop(StreamName),
    /// All streams so far began new epochs, chosen by this number.
    Renew(u64),
    /// The node ended after this record, and everything before it is on the disk.
    End,
    /// A record that this version need not know.
    Optional,
}

/// Origin of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker::history) struct Head {
    /// Id of the machine's boot; empty = unknown.
    pub boot: String,
    /// True if no publisher was answered before its message was on the disk.
    pub is_always: bool,
}

/// An appended message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker::history) struct Append {
    pub name: StreamName,
    pub epoch: Epoch,
    pub offset: u64,
    /// Time of the append.
    pub appended: Duration,
    /// Time at which the messages of the stream expire.
    pub until: Duration,
    pub message: KeptMessage,
}

/// A whole stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker::history) struct State {
    pub name: StreamName,
    pub epoch: Epoch,
    /// Offset and id of the last message.
    pub top: u64,
    pub top_id: i64,
    /// Time of the last append, or of the creation.
    pub appended: Duration,
    /// Time at which the messages expire.
    pub until: Duration,
    /// False if only readers opened the stream.
    pub is_appended: bool,
    /// The kept messages up to `top`.
    pub messages: Vec<KeptMessage>,
}

/// Reason why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::broker::history) enum ReadError {
    /// The bytes are cut off or damaged.
    #[error("{0}")]
    Damaged(String),
    /// A newer version of Skylark wrote the record.
    #[error("{0}")]
    Newer(String),
}

impl From<RecordError> for ReadError {
    fn from(error: RecordError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl Append {
    /// Writes a frame with this record.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        frame(out, APPEND, |out| {
            put_name(out, &self.name);
            put_text(out, self.epoch.as_str());
            put_number(out, self.offset);
            put_time(out, self.appended);
            put_time(out, self.until);
            put_kept(out, &self.message);
        });
    }
}

impl State {
    /// Writes a frame with this record.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        frame(out, STATE, |out| {
            put_name(out, &self.name);
            put_text(out, self.epoch.as_str());
            put_number(out, self.top);
            put_number(out, self.top_id.cast_unsigned());
            put_time(out, self.appended);
            put_time(out, self.until);
            out.push(u8::from(self.is_appended));
            put_number(out, u64::try_from(self.messages.len()).expect("64 bits hold a count"));
            self.messages.iter().for_each(|message| put_kept(out, message));
        });
    }
}

/// Writes a frame with the first record of a segment.
pub(super) fn put_head(out: &mut Vec<u8>, head: &Head) {
    frame(out, HEAD, |out| {
        put_number(out, VERSION);
        put_text(out, &head.boot);
        out.push(u8::from(head.is_always));
    });
}

/// Writes a frame with [`Record::Drop`].
pub(super) fn put_drop(out: &mut Vec<u8>, name: &StreamName) {
    frame(out, DROP, |out| put_name(out, name));
}

/// Writes a frame with [`Record::Renew`].
pub(super) fn put_renew(out: &mut Vec<u8>, seed: u64) {
    frame(out, RENEW, |out| put_number(out, seed));
}

/// Writes a frame with [`Record::End`].
pub(super) fn put_end(out: &mut Vec<u8>) {
    frame(out, END, |_| {});
}

/// Reads the frame at the beginning of `bytes`. Returns its record and its length; `None` at the end.
///
/// # Errors
/// [`ReadError`].
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Record, usize)>, ReadError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let damaged = |what: &str| ReadError::Damaged(what.to_owned());
    let (Some(length), Some(crc)) = (word(bytes, 0), word(bytes, 4)) else { return Err(damaged("a cut frame")) };
    let length = usize::try_from(length).ok().filter(|length| (1..=MAX_RECORD).contains(length));
    let length = length.ok_or_else(|| damaged("a frame with an invalid length"))?;
    let record = bytes.get(FRAME..FRAME + length).ok_or_else(|| damaged("a cut record"))?;
    if crc32fast::hash(record) != crc {
        return Err(damaged("a record with another checksum"));
    }
    Ok(Some((read_record(record)?, FRAME + length)))
}

fn read_record(record: &[u8]) -> Result<Record, ReadError> {
    let mut reader = Reader::of(record);
    let record = match reader.byte()? {
        HEAD => {
            let version = reader.number()?;
            if version != VERSION {
                return Err(ReadError::Newer(format!("a segment of version {version}")));
            }
            Record::Head(Head { boot: reader.text()?.to_owned(), is_always: reader.byte()? != 0 })
        }
        APPEND => Record::Append(Append {
            name: read_name(&mut reader)?,
            epoch: read_epoch(&mut reader)?,
            offset: reader.number()?,
            appended: read_time(&mut reader)?,
            until: read_time(&mut reader)?,
            message: read_kept(&mut reader)?,
        }),
        STATE => Record::State(read_state(&mut reader)?),
        DROP => Record::Drop(read_name(&mut reader)?),
        RENEW => Record::Renew(reader.number()?),
        END => Record::End,
        kind if kind >= FIRST_OPTIONAL => return Ok(Record::Optional),
        kind => return Err(ReadError::Newer(format!("a record of kind {kind}"))),
    };
    reader.end()?;
    Ok(record)
}

fn read_state(reader: &mut Reader<'_>) -> Result<State, RecordError> {
    Ok(State {
        name: read_name(reader)?,
        epoch: read_epoch(reader)?,
        top: reader.number()?,
        top_id: reader.number()?.cast_signed(),
        appended: read_time(reader)?,
        until: read_time(reader)?,
        is_appended: reader.byte()? != 0,
        messages: {
            let count = reader.count(MAX_MESSAGES)?;
            (0..count).map(|_| read_kept(reader)).collect::<Result<_, _>>()?
        },
    })
}

/// Writes the frame around a record of `kind`.
fn frame(out: &mut Vec<u8>, kind: u8, fields: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME]);
    out.push(kind);
    fields(out);
    let record = &out[start + FRAME..];
    let length = u32::try_from(record.len()).expect("below 4 GiB").to_le_bytes();
    let crc = crc32fast::hash(record).to_le_bytes();
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..start + FRAME].copy_from_slice(&crc);
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(word.try_into().expect("four bytes")))
}

fn put_name(out: &mut Vec<u8>, name: &StreamName) {
    let (kind, text) = match name {
        StreamName::User(uid) => (USER, uid.as_str()),
        StreamName::Room(room) => (ROOM, room.as_str()),
        StreamName::Everyone => (EVERYONE, ""),
    };
    out.push(kind);
    put_text(out, text);
}

fn read_name(reader: &mut Reader<'_>) -> Result<StreamName, RecordError> {
    Ok(match reader.byte()? {
        USER => StreamName::User(reader.name()?),
        ROOM => StreamName::Room(reader.name()?),
        EVERYONE => {
            reader.text()?;
            StreamName::Everyone
        }
        other => return Err(RecordError::Malformed(format!("the unknown stream kind {other}"))),
    })
}

fn read_epoch(reader: &mut Reader<'_>) -> Result<Epoch, RecordError> {
    let text = reader.text()?;
    Epoch::parse(text).ok_or_else(|| RecordError::Malformed(format!("the invalid epoch {text:?}")))
}

fn put_time(out: &mut Vec<u8>, time: Duration) {
    put_number(out, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

fn read_time(reader: &mut Reader<'_>) -> Result<Duration, RecordError> {
    Ok(Duration::from_nanos(reader.number()?))
}

fn put_kept(out: &mut Vec<u8>, kept: &KeptMessage) {
    let KeptMessage { message, sent_at, no_echo, readers } = kept;
    let Readers { device, excluded, ttl } = readers.as_deref().cloned().unwrap_or_default();
    let flags = [
        (NO_ECHO, no_echo.is_some()),
        (DEVICE, device.is_some()),
        (EXCLUDED, !excluded.is_empty()),
        (TTL, ttl.is_some()),
    ];
    out.push(flags.iter().filter(|(_, is_set)| *is_set).fold(0, |flags, (bit, _)| flags | bit));
    put_number(out, sent_at.cast_unsigned());
    no_echo.iter().for_each(|cid| put_number(out, cid.as_u64()));
    device.iter().for_each(|device| put_text(out, device.as_str()));
    if !excluded.is_empty() {
        put_names(out, excluded.iter().map(crate::id::Uid::as_str));
    }
    ttl.iter().for_each(|ttl| put_number(out, u64::from(*ttl)));
    put_message(out, message);
}

fn read_kept(reader: &mut Reader<'_>) -> Result<KeptMessage, RecordError> {
    let flags = reader.byte()?;
    if flags >= FIRST_UNKNOWN {
        return Err(RecordError::Malformed(format!("a message with unknown flags {flags:#x}")));
    }
    let has = |bit| flags & bit != 0;
    let sent_at = reader.number()?.cast_signed();
    let no_echo = has(NO_ECHO).then(|| read_cid(reader)).transpose()?;
    let readers = Readers {
        device: has(DEVICE).then(|| reader.name()).transpose()?,
        excluded: has(EXCLUDED).then(|| read_names(reader)).transpose()?.unwrap_or_default(),
        ttl: match has(TTL).then(|| reader.number()).transpose()? {
            Some(ttl) => Some(u32::try_from(ttl).map_err(|_| RecordError::Malformed(format!("the time {ttl}")))?),
            None => None,
        },
    };
    let readers = (readers != Readers::default()).then(|| Arc::new(readers));
    Ok(KeptMessage { message: Arc::new(read_message(reader)?), sent_at, no_echo, readers })
}

const HEAD: u8 = 1;
const APPEND: u8 = 2;
const STATE: u8 = 3;
const DROP: u8 = 4;
const RENEW: u8 = 5;
const END: u8 = 6;
/// First kind that a reader may skip.
const FIRST_OPTIONAL: u8 = 128;

const USER: u8 = 1;
const ROOM: u8 = 2;
const EVERYONE: u8 = 3;

const NO_ECHO: u8 = 1;
const DEVICE: u8 = 1 << 1;
const EXCLUDED: u8 = 1 << 2;
const TTL: u8 = 1 << 3;
const FIRST_UNKNOWN: u8 = 1 << 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConnectionId, Device, Uid};
    use crate::message::Message;

    fn kept(id: i64, readers: Option<Readers>) -> KeptMessage {
        let message = Message { id, title: "t".to_owned(), format: "text".to_owned(), ..Message::default() };
        let no_echo = readers.as_ref().and_then(|_| ConnectionId::new(9));
        KeptMessage { message: Arc::new(message), sent_at: -5, no_echo, readers: readers.map(Arc::new) }
    }

    fn records() -> Vec<(Record, Vec<u8>)> {
        let name = StreamName::User(Uid::parse("a").unwrap());
        let epoch = Epoch::new(7);
        let readers = Readers {
            device: Some(Device::parse("web").unwrap()),
            excluded: [Uid::parse("b").unwrap()].into(),
            ttl: Some(60),
        };
        let (appended, until) = (Duration::from_nanos(1_767_225_600_000_000_123), Duration::from_secs(1_767_225_900));
        let append =
            Append { name: name.clone(), epoch, offset: 41, appended, until, message: kept(-3, Some(readers)) };
        let state = State {
            name: StreamName::Everyone,
            epoch,
            top: 2,
            top_id: -2,
            appended,
            until,
            is_appended: true,
            messages: vec![kept(1, None), kept(-2, None)],
        };
        let head = Head { boot: "b".to_owned(), is_always: true };
        let with = |put: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            put(&mut out);
            out
        };
        vec![
            (Record::Head(head.clone()), with(&|out| put_head(out, &head))),
            (Record::Append(append.clone()), with(&|out| append.put(out))),
            (Record::State(state.clone()), with(&|out| state.put(out))),
            (Record::Drop(name.clone()), with(&|out| put_drop(out, &name))),
            (Record::Renew(u64::MAX), with(&|out| put_renew(out, u64::MAX))),
            (Record::End, with(&put_end)),
            (Record::Optional, with(&|out| frame(out, FIRST_OPTIONAL, |out| put_text(out, "later")))),
        ]
    }

    #[test]
    fn records_are_read_as_written() {
        for (record, bytes) in records() {
            assert_eq!(read(&bytes).unwrap(), Some((record, bytes.len())));
        }
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn cut_or_changed_records_are_damaged() {
        for (record, bytes) in records() {
            for cut in 1..bytes.len() {
                assert!(matches!(read(&bytes[..cut]), Err(ReadError::Damaged(_))), "{record:?} cut to {cut}");
            }
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 0x10;
                assert!(matches!(read(&changed), Err(ReadError::Damaged(_))), "{record:?} changed at {at}");
            }
        }
        assert!(read(&[0; 64]).is_err(), "zeros at the end of a file are no record");
    }

    #[test]
    fn records_of_a_newer_version_are_refused() {
        let mut bytes = Vec::new();
        frame(&mut bytes, FIRST_OPTIONAL - 1, |_| {});
        assert_eq!(read(&bytes), Err(ReadError::Newer("a record of kind 127".to_owned())));
        let mut bytes = Vec::new();
        frame(&mut bytes, HEAD, |out| put_number(out, 2));
        assert_eq!(read(&bytes), Err(ReadError::Newer("a segment of version 2".to_owned())));
    }
}
