//! Requests to resume: `resume` and `cid` of a bind, `since` and `latest` of a join.
//!
//! Reads texts only: the node finds the messages. Numbers may be JSON numbers or texts of digits, because JavaScript
//! cannot represent every id. [`ReplayBudget`] bounds the number of replays.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{JoinReplay, invalid, optional, shortened};
use crate::claim::{Refusal, ResumeRequest, ResumeStream};
use crate::code::Code;
use crate::id::{ConnectionId, MAX_SAFE_INTEGER, Room};
use crate::message::{Entries, Epoch, Position};

/// Streams of a bind request, and the result in the REPLY.
pub(super) const RESUME: &str = "resume";
/// The client's former connection.
pub(super) const CID: &str = "cid";
/// The client's position in the stream of a room.
pub(super) const SINCE: &str = "since";
/// Request for the newest message of a room.
pub(super) const LATEST: &str = "latest";

/// Longest `resume` of a frame, in bytes.
pub(super) const MAX_BYTES: usize = 16 << 10;
/// Longest `resume` of a URL query, in bytes.
pub(super) const MAX_QUERY_BYTES: usize = 4 << 10;
/// Most entries of a `resume`.
const MAX_STREAMS: usize = 128;

/// Most replays that a connection starts in [`WINDOW`].
const MAX_REPLAYS: usize = 128;
/// In milliseconds.
const WINDOW: i64 = 10_000;

const ENTRY: &str = "[stream] or [stream, epoch, offset, id]";
const EPOCH: &str = "8 characters of [0-9a-z]";
const OFFSET: &str = "a whole number from 0 to 9007199254740991";
const ID: &str = "an integer of 64 bits";

/// A parsed `resume`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resume {
    pub(super) request: ResumeRequest,
    /// Streams of a kind that this node does not know.
    pub(super) unknown: Vec<String>,
}

impl Resume {
    /// Reads `resume` and `cid` of a bind request. `None` without `resume`. `limit` bounds `resume`, in bytes.
    pub(super) fn read(data: &Entries, limit: usize) -> Result<Option<Self>, Refusal> {
        let Some(text) = optional(data, RESUME) else { return Ok(None) };
        if text.len() > limit {
            return Err(invalid(format!("{RESUME}: expected at most {limit} bytes, got {}", text.len())));
        }
        let Ok(Value::Array(entries)) = serde_json::from_str(text) else {
            return Err(bad_text(RESUME, "a JSON array of streams", text));
        };
        let mut resume = Self { request: ResumeRequest::default(), unknown: Vec::new() };
        resume.request.former = optional(data, CID).map(former).transpose()?;
        if entries.is_empty() {
            resume.request.streams = vec![(ResumeStream::Own, None), (ResumeStream::Everyone, None)];
        }
        if entries.len() > MAX_STREAMS {
            return Err(invalid(format!("{RESUME}: expected at most {MAX_STREAMS} entries, got {}", entries.len())));
        }
        for (at, entry) in entries.iter().enumerate() {
            resume.add(&format!("{RESUME}[{at}]"), entry)?;
        }
        Ok(Some(resume))
    }

    /// Adds the entry at `path`.
    fn add(&mut self, path: &str, entry: &Value) -> Result<(), Refusal> {
        let parts = entry.as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(name) = parts.first().and_then(Value::as_str) else { return Err(bad_value(path, ENTRY, entry)) };
        let stream = match (name, name.strip_prefix("r:")) {
            ("u", _) => ResumeStream::Own,
            ("all", _) => ResumeStream::Everyone,
            (_, Some(room)) => ResumeStream::Room(Room::parse(room).map_err(|e| invalid(format!("{path}[0]: {e}")))?),
            (_, None) => {
                self.unknown.push(name.to_owned());
                return Ok(());
            }
        };
        let position = match parts {
            [_] => None,
            [_, epoch, offset, id] => Some(position(path, epoch, offset, id)?),
            _ => return Err(bad_value(path, ENTRY, entry)),
        };
        if self.request.streams.iter().any(|(other, _)| *other == stream) {
            return Err(invalid(format!("{path}: expected each stream once, got {stream} twice")));
        }
        self.request.streams.push((stream, position));
        Ok(())
    }
}

/// Bounds the replays of a connection. Takes one word while the connection starts none.
#[derive(Debug, Default)]
pub(super) struct ReplayBudget(Option<Box<Started>>);

/// Requests of the last ten seconds.
#[derive(Debug, Default)]
struct Started(VecDeque<Request>);

/// Replays of one request.
#[derive(Debug)]
struct Request {
    /// Milliseconds since 1970.
    at: i64,
    replays: usize,
}

impl ReplayBudget {
    /// Takes `replays`, or refuses them all.
    pub(super) fn take(&mut self, replays: usize, now: i64) -> Result<(), Refusal> {
        if replays == 0 {
            return Ok(());
        }
        let Started(started) = &mut **self.0.get_or_insert_default();
        // A clock that was set back does not lock the client out.
        started.retain(|one| (0..WINDOW).contains(&(now - one.at)));
        let count: usize = started.iter().map(|one| one.replays).sum();
        if count + replays > MAX_REPLAYS {
            let words = format!("{RESUME}: expected at most {MAX_REPLAYS} replays in 10 s, got {}", count + replays);
            return Err(Refusal::new(Code::TOO_MANY, words));
        }
        started.push_back(Request { at: now, replays });
        Ok(())
    }
}

/// Adds the streams of unknown kinds to the result of a resume.
pub(super) fn with_unknown(result: Option<String>, unknown: &[String]) -> Option<String> {
    if unknown.is_empty() {
        return result;
    }
    let known = result.as_deref().and_then(|text| text.strip_prefix('[')?.strip_suffix(']')).unwrap_or_default();
    let mut elements: Vec<String> = Some(known.to_owned()).filter(|known| !known.is_empty()).into_iter().collect();
    elements.extend(unknown.iter().map(|name| json!([name, false, "", 0, 0, 0, "unknown"]).to_string()));
    Some(format!("[{}]", elements.join(",")))
}

/// Reads `since` and `latest` of a join request. `None` if it has neither.
pub(super) fn join_replay(data: &Entries) -> Result<Option<JoinReplay>, Refusal> {
    let since = match data.get(SINCE) {
        None => None,
        Some("") => Some(None),
        Some(text) => {
            Some(Some(read_since(text).ok_or_else(|| bad_text(SINCE, "epoch:offset:id or an empty text", text))?))
        }
    };
    let latest = match data.get(LATEST) {
        None | Some("" | "0" | "false") => false,
        Some("1" | "true") => true,
        Some(text) => return Err(bad_text(LATEST, "1 or 0", text)),
    };
    Ok((latest || since.is_some()).then_some(JoinReplay { since, latest }))
}

fn read_since(text: &str) -> Option<Position> {
    let mut parts = text.splitn(3, ':');
    let epoch = read_epoch(parts.next()?)?;
    let offset = read_offset(digits(parts.next()?)?)?;
    Some(Position { epoch, offset, id: digits(parts.next()?)? })
}

fn former(text: &str) -> Result<ConnectionId, Refusal> {
    let cid = text.parse().ok().and_then(ConnectionId::new);
    cid.ok_or_else(|| bad_text(CID, "a whole number from 1 to 9007199254740991", text))
}

fn position(path: &str, epoch: &Value, offset: &Value, id: &Value) -> Result<Position, Refusal> {
    let bad = |at, expected, value| bad_value(&format!("{path}[{at}]"), expected, value);
    Ok(Position {
        epoch: epoch.as_str().and_then(read_epoch).ok_or_else(|| bad(1, EPOCH, epoch))?,
        offset: integer(offset).and_then(read_offset).ok_or_else(|| bad(2, OFFSET, offset))?,
        id: integer(id).ok_or_else(|| bad(3, ID, id))?,
    })
}

/// Reads an epoch. A client has the empty one if no node could tell its position. Messages since then may be lost, so it
/// becomes an epoch that only one of 36^8 streams has: the stream is not recovered.
fn read_epoch(text: &str) -> Option<Epoch> {
    if text.is_empty() { Some(Epoch::new(0)) } else { Epoch::parse(text) }
}

fn read_offset(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|offset| *offset <= MAX_SAFE_INTEGER)
}

fn bad_value(path: &str, expected: &str, got: &Value) -> Refusal {
    invalid(format!("{path}: expected {expected}, got {}", shortened(&got.to_string())))
}

fn bad_text(field: &str, expected: &str, got: &str) -> Refusal {
    invalid(format!("{field}: expected {expected}, got {:?}", shortened(got)))
}

/// The value of a number that is an integer, or of a text of digits.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => digits(text),
        _ => None,
    }
}

fn digits(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().or_else(|| text.parse().ok().and_then(whole))
}

/// JavaScript writes the largest id as 9223372036854776000, which is its 2^63. Such a number becomes the largest id.
#[expect(clippy::cast_possible_truncation, reason = "a cast from a float saturates")]
fn whole(number: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (number.fract() == 0.0 && number.abs() <= LIMIT).then_some(number as i64)
}
