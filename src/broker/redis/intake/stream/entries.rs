//! Decodes stream answers of Redis by hand: a trimmed entry is `nil` and must not affect its neighbours.

use std::fmt;
use std::time::Duration;

use ::redis::{FromRedisValue, Value, from_redis_value};
use ahash::AHashMap;
use bytes::Bytes;
use serde_json::value::RawValue;

/// Number of offset bits for the sequence of an id.
const SEQUENCE_BITS: u32 = 22;
/// Field that holds the envelope.
const DATA: &str = "data";
/// Fields of an envelope whose values are JSON instead of text.
const RAW: [&str; 4] = ["act", "type", "Cid", "msg"];

/// Id of an entry: milliseconds and a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    millis: u64,
    sequence: u64,
}

impl Id {
    pub(super) const ZERO: Self = Self { millis: 0, sequence: 0 };

    fn parse(text: &str) -> Option<Self> {
        let (millis, sequence) = text.split_once('-')?;
        Some(Self { millis: millis.parse().ok()?, sequence: sequence.parse().ok()? })
    }

    /// Packs the id into one number that increases along the stream. `None` for a publisher-chosen id that is too
    /// large.
    pub(super) fn pack(self) -> Option<u64> {
        let fits = self.millis >> (u64::BITS - SEQUENCE_BITS) == 0 && self.sequence >> SEQUENCE_BITS == 0;
        fits.then_some(self.millis << SEQUENCE_BITS | self.sequence)
    }

    pub(super) fn unpack(offset: u64) -> Self {
        Self { millis: offset >> SEQUENCE_BITS, sequence: offset & ((1 << SEQUENCE_BITS) - 1) }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

/// Names and values of the fields of an entry.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// One entry. An entry without a payload was trimmed while it was pending.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: Id,
    pub(super) payload: Option<Bytes>,
    /// Fields next to the envelope.
    pub(super) extra_fields: Fields,
}

/// A consumer group of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) pending: u64,
    pub(super) delivered: Id,
    pub(super) lag: Option<u64>,
}

/// Decodes the answer to XREADGROUP of one stream.
pub(super) fn read(answer: Value) -> Vec<Entry> {
    let streams = match answer {
        Value::Map(streams) => streams.into_iter().next().map(|(_, entries)| entries),
        answer => list(answer).into_iter().next().and_then(|stream| list(stream).into_iter().nth(1)),
    };
    streams.map(entries).unwrap_or_default()
}

/// Decodes the answer to XAUTOCLAIM: the next cursor and the claimed entries.
pub(super) fn claimed(answer: Value) -> (String, Vec<Entry>) {
    let mut parts = list(answer).into_iter();
    let cursor = parts.next().and_then(convert).unwrap_or_else(|| "0-0".to_owned());
    (cursor, parts.next().map(entries).unwrap_or_default())
}

/// Decodes the long form of XPENDING: the number of deliveries of each entry.
pub(super) fn counts(answer: Value) -> AHashMap<Id, u32> {
    let row = |row: Value| {
        let (id, _, _, count): (String, Value, Value, u32) = convert(row)?;
        Some((Id::parse(&id)?, count))
    };
    list(answer).into_iter().filter_map(row).collect()
}

/// Decodes the short form of XPENDING: the oldest id.
pub(super) fn oldest(answer: &Value) -> Option<Id> {
    let Value::Array(parts) = answer else { return None };
    Id::parse(&convert::<String>(parts.get(1)?.clone())?)
}

/// Decodes the answer to XINFO GROUPS.
pub(super) fn groups(answer: Value) -> Vec<Group> {
    let group = |row: Value| {
        let mut fields = fields(row);
        Some(Group {
            name: convert(fields.remove("name")?)?,
            pending: convert(fields.remove("pending")?)?,
            delivered: Id::parse(&convert::<String>(fields.remove("last-delivered-id")?)?)?,
            lag: fields.remove("lag").and_then(convert),
        })
    };
    list(answer).into_iter().filter_map(group).collect()
}

/// Decodes the answer to XINFO CONSUMERS. Returns consumers without records that were idle for at least `quiet`.
pub(super) fn idle_consumers(answer: &Value, quiet: Duration) -> Vec<String> {
    let idle_name = |row: Value| {
        let mut fields = fields(row);
        let (pending, idle): (u64, u64) = (convert(fields.remove("pending")?)?, convert(fields.remove("idle")?)?);
        let is_idle = pending == 0 && Duration::from_millis(idle) >= quiet;
        fields.remove("name").filter(|_| is_idle).and_then(convert)
    };
    list(answer.clone()).into_iter().filter_map(idle_name).collect()
}

fn entries(list_of: Value) -> Vec<Entry> {
    let entry = |row: Value| {
        let mut parts = list(row).into_iter();
        let id = Id::parse(&convert::<String>(parts.next()?)?)?;
        let (payload, extra_fields) = match parts.next() {
            None | Some(Value::Nil) => (None, Fields::new()),
            Some(fields) => {
                let (payload, extra_fields) = payload(fields);
                (Some(payload), extra_fields)
            }
        };
        Some(Entry { id, payload, extra_fields })
    };
    list(list_of).into_iter().filter_map(entry).collect()
}

/// Returns the envelope and the other fields. The envelope is the field `data`, or the only field. Otherwise all fields
/// together form the envelope.
fn payload(fields: Value) -> (Bytes, Fields) {
    let mut texts = list(fields).into_iter().filter_map(convert::<Vec<u8>>);
    let mut fields: Fields = std::iter::from_fn(|| Some((texts.next()?, texts.next()?))).collect();
    let at = if fields.len() == 1 { Some(0) } else { fields.iter().position(|(name, _)| name == DATA.as_bytes()) };
    if let Some(at) = at {
        let (_, payload) = fields.remove(at);
        return (Bytes::from(payload), fields);
    }
    let pairs: Vec<String> = fields.iter().map(|(name, value)| member(name, value)).collect();
    (Bytes::from(format!("{{{}}}", pairs.join(","))), Fields::new())
}

/// Converts one field to a member of a JSON object.
fn member(name: &[u8], value: &[u8]) -> String {
    let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    let is_raw =
        RAW.iter().any(|raw| name.eq_ignore_ascii_case(raw)) && serde_json::from_str::<&RawValue>(&value).is_ok();
    let text = |text: &str| serde_json::Value::from(text).to_string();
    format!("{}:{}", text(&name), if is_raw { value.into_owned() } else { text(&value) })
}

/// Converts names and values from either of the two shapes of the answer.
fn fields(row: Value) -> AHashMap<String, Value> {
    match row {
        Value::Map(pairs) => pairs.into_iter().filter_map(|(name, value)| Some((convert(name)?, value))).collect(),
        row => {
            let mut parts = list(row).into_iter();
            std::iter::from_fn(|| Some((parts.next()?, parts.next()?)))
                .filter_map(|(name, value)| Some((convert(name)?, value)))
                .collect()
        }
    }
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => Vec::new(),
    }
}

fn convert<T: FromRedisValue>(value: Value) -> Option<T> {
    from_redis_value(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn array<const N: usize>(items: [Value; N]) -> Value {
        Value::Array(items.into())
    }

    fn entry(id: &str, fields: &[&str]) -> Value {
        array([bulk(id), Value::Array(fields.iter().map(|field| bulk(field)).collect())])
    }

    #[test]
    fn an_id_is_an_offset_that_grows() {
        let [a, b, c] = ["1700000000000-0", "1700000000000-1", "1700000000001-0"].map(|id| Id::parse(id).unwrap());
        assert!(a.pack() < b.pack() && b.pack() < c.pack() && a < b && b < c);
        for id in [a, b, c, Id::ZERO] {
            assert_eq!(Id::unpack(id.pack().unwrap()), id);
        }
        assert_eq!(b.to_string(), "1700000000000-1");
        for odd in ["1-4194304", "4398046511104-0"] {
            assert_eq!(Id::parse(odd).unwrap().pack(), None, "{odd}");
        }
        assert_eq!((Id::parse("1"), Id::parse("a-b")), (None, None));
    }

    #[test]
    fn entries_are_read_and_trimmed_ones_are_known() {
        let answer = array([array([
            bulk("chat"),
            array([entry("1-0", &["data", "a"]), array([bulk("2-0"), Value::Nil]), entry("3-0", &["x", "b"])]),
        ])]);
        let seen: Vec<_> = read(answer).into_iter().map(|e| (e.id.to_string(), e.payload)).collect();
        let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(seen, [("1-0".into(), bytes("a")), ("2-0".into(), None), ("3-0".into(), bytes("b"))]);
        assert_eq!(read(Value::Nil), []);
        let (cursor, entries) = claimed(array([bulk("5-0"), array([entry("4-0", &["data", "c"])]), array([])]));
        assert_eq!((cursor.as_str(), entries.len()), ("5-0", 1));
    }

    #[test]
    fn an_envelope_stands_in_one_field_or_is_the_fields() {
        let both = |fields: &[&str]| payload(Value::Array(fields.iter().map(|field| bulk(field)).collect()));
        let payload = |fields: &[&str]| both(fields).0;
        assert_eq!(both(&["trace", "7", "data", "{}"]).1, [(b"trace".to_vec(), b"7".to_vec())]);
        assert_eq!(both(&["act", "2", "Uid", "7"]).1, []);
        assert_eq!(payload(&["anything", "{}"]), "{}");
        assert_eq!(payload(&["trace", "7", "data", "{}"]), "{}");
        assert_eq!(
            payload(&["act", "2", "Uid", "007", "msg", r#"[{"action":"chat"}]"#]),
            r#"{"act":2,"Uid":"007","msg":[{"action":"chat"}]}"#
        );
        assert_eq!(payload(&["act", "SENDALL", "msg", "[junk"]), r#"{"act":"SENDALL","msg":"[junk"}"#);
    }

    #[test]
    fn groups_and_counts_are_read() {
        let counted = counts(array([array([bulk("1-1"), bulk("n1"), Value::Int(5), Value::Int(3)])]));
        assert_eq!(counted[&Id::parse("1-1").unwrap()], 3);
        assert_eq!(oldest(&array([Value::Int(1), bulk("1-1"), bulk("2-1"), Value::Nil])), Id::parse("1-1"));
        assert_eq!(oldest(&array([Value::Int(0), Value::Nil, Value::Nil, Value::Nil])), None);
        let row = |lag| {
            let (name, pending, id) = (bulk("name"), bulk("pending"), bulk("last-delivered-id"));
            array([name, bulk("g"), pending, Value::Int(2), id, bulk("9-0"), bulk("lag"), lag])
        };
        let group = |lag| Group { name: "g".into(), pending: 2, delivered: Id::parse("9-0").unwrap(), lag };
        assert_eq!(groups(array([row(Value::Int(4)), row(Value::Nil)])), [group(Some(4)), group(None)]);
        let consumer = |name, pending, idle| {
            array([bulk("name"), bulk(name), bulk("pending"), Value::Int(pending), bulk("idle"), Value::Int(idle)])
        };
        let consumers = array([consumer("a", 0, 10), consumer("b", 0, 5000), consumer("c", 1, 5000)]);
        assert_eq!(idle_consumers(&consumers, Duration::from_secs(1)), ["b"]);
    }
}
