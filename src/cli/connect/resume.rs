//! Positions of a client in a file, for `skylark connect --resume`: asked for at the bind, kept while messages arrive.
//!
//! Follows the rules for clients in `docs/reference/protocol.md`. Independent of sockets.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::id::{MAX_SAFE_INTEGER, Room, is_safe_integer};
use crate::message::{Epoch, Position};

/// Least time between two writes of the file.
const PAUSE: Duration = Duration::from_secs(1);
/// Most streams of one request.
const MOST: usize = 128;
/// Streams of every client: its own messages, and those to everyone.
const ALWAYS: [&str; 2] = ["u", "all"];

/// Positions of a client's streams.
pub(super) struct Positions {
    file: PathBuf,
    /// The former connection, later this one.
    cid: Option<String>,
    /// Names as in frames: `u`, `all` or `r:ROOM`. At most [`MOST`], with those of [`ALWAYS`].
    streams: Vec<(String, Position)>,
    is_changed: bool,
    /// Earliest time of the next write.
    next_write: Instant,
    /// True until the node answered the bind.
    is_asking: bool,
}

/// Content of the file.
#[derive(Serialize, Deserialize)]
struct Content {
    #[serde(skip_serializing_if = "Option::is_none")]
    cid: Option<String>,
    /// Stream, epoch, offset and id, as in a bind.
    streams: Vec<(String, String, u64, Value)>,
}

impl Positions {
    /// Reads the file. A file that does not exist is created, so that a fault shows before the connection is open.
    ///
    /// # Errors
    /// The file is not readable or writable, or has other content.
    pub(super) fn open(file: &Path) -> anyhow::Result<Self> {
        let shown = file.display();
        let content = match std::fs::read_to_string(file) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("expected positions of `skylark connect --resume` in {shown}"))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Content { cid: None, streams: Vec::new() },
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        };
        let mut positions = Self {
            file: file.to_owned(),
            cid: content.cid,
            streams: Vec::new(),
            is_changed: true,
            next_write: Instant::now(),
            is_asking: true,
        };
        for entry in content.streams {
            let position = parse(&entry).with_context(|| {
                let entry = json!([entry.0, entry.1, entry.2, entry.3]);
                format!("expected [stream, epoch, offset, id] in {shown}, got {entry}")
            })?;
            positions.set(&entry.0, position);
        }
        positions.save()?;
        Ok(positions)
    }

    /// Fields of the `client_bind` that asks for a resume.
    pub(super) fn request(&self) -> BTreeMap<String, String> {
        let known = self.streams.iter().map(|(stream, position)| {
            let (epoch, id) = (position.epoch.as_str(), number(position.id));
            json!([stream, epoch, position.offset, id])
        });
        let new = ALWAYS.iter().filter(|name| self.get(name).is_none()).map(|name| json!([name]));
        let resume = Value::Array(known.chain(new).collect()).to_string();
        let cid = self.cid.iter().map(|cid| ("cid".to_owned(), cid.clone()));
        cid.chain([("resume".to_owned(), resume)]).collect()
    }

    /// Notes the position of a message. Returns false for a message that the client has had.
    pub(super) fn take(&mut self, message: &str) -> bool {
        let Ok(seen) = serde_json::from_str::<MessageFields>(message) else { return true };
        let stream = seen.stream.unwrap_or_else(|| "u".to_owned());
        let epoch = seen.epoch.as_deref().and_then(Epoch::parse);
        let Some((epoch, offset)) = epoch.zip(seen.offset) else { return true };
        if self.get(&stream).is_some_and(|known| known.epoch == epoch && offset <= known.offset) {
            return false;
        }
        self.set(&stream, Position { epoch, offset, id: integer(&seen.id).unwrap_or_default() });
        true
    }

    /// Notes the positions in a REPLY. Returns a line for the user for each stream that it tells of.
    pub(super) fn hear(&mut self, reply: &str) -> Vec<String> {
        let Ok(ReplyFields { key, code, data }) = serde_json::from_str(reply) else { return Vec::new() };
        match (key.as_str(), code.as_str()) {
            ("client_bind", "200") if self.is_asking => {
                self.is_asking = false;
                if let Some(cid) = data.get("cid") {
                    (self.cid, self.is_changed) = (Some(cid.clone()), true);
                }
                match data.get("resume") {
                    Some(answer) => self.answered(answer),
                    None => vec!["resume: the node does not answer it, so nothing is recovered".to_owned()],
                }
            }
            ("room_join", "200") => data.get("resume").map(|answer| self.answered(answer)).unwrap_or_default(),
            ("room_leave", "200") | ("room_left", _) => {
                self.forget(data.get("room"));
                Vec::new()
            }
            ("gap", _) => self.continues(&data).map(|line| format!("{line}: messages were lost")).into_iter().collect(),
            ("replay_end", _) => {
                self.continues(&data).map(|line| format!("{line}: all missed messages came")).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Adds the position to a `room_join` that does not ask for messages itself.
    pub(super) fn complete(&self, key: &str, data: &mut BTreeMap<String, String>) {
        let Some(room) = data.get("room").filter(|_| key == "room_join" && !data.contains_key("latest")) else {
            return;
        };
        let since = self.get(&format!("r:{room}")).map(|position| position.to_string()).unwrap_or_default();
        data.entry("since".to_owned()).or_insert(since);
    }

    /// Waits until a change is to be written; pending without a change.
    pub(super) async fn until_due(&self) {
        match self.is_changed {
            true => tokio::time::sleep_until(self.next_write).await,
            false => std::future::pending().await,
        }
    }

    /// Writes changed positions. The file is replaced as a whole.
    ///
    /// # Errors
    /// The file is not writable.
    pub(super) fn save(&mut self) -> anyhow::Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        let row = |(stream, at): &(String, Position)| (stream.clone(), at.epoch.to_string(), at.offset, number(at.id));
        let content = Content { cid: self.cid.clone(), streams: self.streams.iter().map(row).collect() };
        let mut text = serde_json::to_string(&content)?;
        text.push('\n');
        let mut name = self.file.clone().into_os_string();
        name.push(".new");
        let new = PathBuf::from(name);
        let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.file));
        written.with_context(|| format!("cannot write {}", self.file.display()))?;
        (self.is_changed, self.next_write) = (false, Instant::now() + PAUSE);
        Ok(())
    }

    /// Notes the answer of the node for each stream.
    fn answered(&mut self, answer: &str) -> Vec<String> {
        let elements: Vec<Vec<Value>> = serde_json::from_str(answer).unwrap_or_default();
        elements.iter().filter_map(|element| self.answered_for(element)).collect()
    }

    fn answered_for(&mut self, element: &[Value]) -> Option<String> {
        let [Value::String(stream), recovered, epoch, offset, id, frames, reason @ ..] = element else { return None };
        let position = position(epoch.as_str()?, offset.as_u64()?, id);
        let (is_recovered, frames) = (recovered.as_bool()?, frames.as_i64()?);
        if is_recovered && frames != 0 {
            // The position moves with each message that follows.
            return Some(match frames {
                1 => format!("resume: {stream} is recovered: 1 message follows"),
                2.. => format!("resume: {stream} is recovered: {frames} messages follow"),
                _ => format!("resume: {stream} is recovered: messages follow"),
            });
        }
        let reason = reason.first().and_then(Value::as_str).unwrap_or("no reason given");
        if let Some(position) = position
            // A connection with live messages may be ahead of this answer.
            && (reason != "already_bound" || self.get(stream).is_none())
        {
            self.set(stream, position);
        }
        Some(match (is_recovered, position) {
            (true, _) => format!("resume: {stream} is recovered: no message was missed"),
            (false, Some(position)) => {
                format!("resume: {stream} is not recovered ({reason}): it continues at {position}")
            }
            (false, None) => format!("resume: {stream} is not recovered ({reason})"),
        })
    }

    /// Takes the position of a REPLY about one stream.
    fn continues(&mut self, data: &BTreeMap<String, String>) -> Option<String> {
        let id = Value::from(data.get("id")?.as_str());
        let position = position(data.get("epoch")?, data.get("offset")?.parse().ok()?, &id)?;
        let stream = data.get("stream")?;
        self.set(stream, position);
        Some(format!("resume: {stream} continues at {position}"))
    }

    fn get(&self, stream: &str) -> Option<Position> {
        self.streams.iter().find(|(name, _)| name == stream).map(|(_, position)| *position)
    }

    /// Sets a position. Above [`MOST`] streams the room that was added first is forgotten.
    fn set(&mut self, stream: &str, position: Position) {
        self.is_changed = true;
        if let Some((_, known)) = self.streams.iter_mut().find(|(name, _)| name == stream) {
            *known = position;
            return;
        }
        self.streams.push((stream.to_owned(), position));
        let is_room = |name: &str| !ALWAYS.contains(&name);
        let rooms = self.streams.iter().filter(|(name, _)| is_room(name)).count();
        if rooms > MOST - ALWAYS.len()
            && let Some(first) = self.streams.iter().position(|(name, _)| is_room(name))
        {
            self.streams.remove(first);
        }
    }

    fn forget(&mut self, room: Option<&String>) {
        let Some(room) = room else { return };
        let stream = format!("r:{room}");
        self.streams.retain(|(name, _)| *name != stream);
        self.is_changed = true;
    }
}

/// Position of a message in a frame.
#[derive(Deserialize)]
struct MessageFields {
    stream: Option<String>,
    epoch: Option<String>,
    offset: Option<u64>,
    #[serde(default)]
    id: Value,
}

/// A REPLY.
#[derive(Deserialize)]
struct ReplyFields {
    #[serde(default)]
    key: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// The position of an entry of the file; `None` if the entry is malformed.
fn parse((stream, epoch, offset, id): &(String, String, u64, Value)) -> Option<Position> {
    let is_stream = match stream.strip_prefix("r:") {
        Some(room) => Room::parse(room).is_ok(),
        None => ALWAYS.contains(&stream.as_str()),
    };
    position(epoch, *offset, id).filter(|_| is_stream)
}

/// A position; `None` if the epoch is empty (unknown) or a field is malformed.
fn position(epoch: &str, offset: u64, id: &Value) -> Option<Position> {
    let (epoch, id) = (Epoch::parse(epoch)?, integer(id)?);
    (offset <= MAX_SAFE_INTEGER).then_some(Position { epoch, offset, id })
}

/// Reads an id: a number or a string of digits.
fn integer(id: &Value) -> Option<i64> {
    id.as_i64().or_else(|| id.as_str()?.parse().ok())
}

/// Writes an id: a number, or a string of digits if JavaScript would round the number.
fn number(id: i64) -> Value {
    if is_safe_integer(id) { id.into() } else { id.to_string().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "k3v9x0ab";

    /// Positions in an empty folder, which is deleted with the first value.
    fn positions() -> (tempfile::TempDir, Positions) {
        let folder = tempfile::tempdir().unwrap();
        let positions = Positions::open(&folder.path().join("positions")).unwrap();
        (folder, positions)
    }

    fn resume(positions: &Positions) -> Value {
        serde_json::from_str(&positions.request()["resume"]).unwrap()
    }

    fn message(stream: Option<&str>, offset: u64, epoch: &str) -> String {
        let mut message = json!({"id": offset + 9000, "action": "chat", "offset": offset, "epoch": epoch});
        if let Some(stream) = stream {
            message["stream"] = stream.into();
        }
        message.to_string()
    }

    fn reply(key: &str, data: &Value) -> String {
        json!({"key": key, "code": "200", "data": data}).to_string()
    }

    /// A REPLY with this answer to the resume.
    fn answer(key: &str, elements: &Value) -> String {
        reply(key, &json!({"cid": "7", "resume": elements.to_string()}))
    }

    #[test]
    fn message_at_or_below_its_position_is_dropped() {
        let (_folder, mut positions) = positions();
        for (stream, offset, epoch, is_new) in [
            (None, 1, EPOCH, true),
            (None, 1, EPOCH, false),
            (None, 4, EPOCH, true),
            (None, 3, EPOCH, false),
            (Some("all"), 3, EPOCH, true),
            (Some("r:lobby"), 1, EPOCH, true),
            (None, 1, "zzzzzzzz", true),
            (None, 1, "zzzzzzzz", false),
        ] {
            assert_eq!(positions.take(&message(stream, offset, epoch)), is_new, "{stream:?} {offset} {epoch}");
        }
        let unkept = r#"{"id":1,"action":"typing","stream":"r:lobby"}"#;
        assert!(positions.take(unkept) && positions.take(unkept));
        let expected = json!([["u", "zzzzzzzz", 1, 9001], ["all", EPOCH, 3, 9003], ["r:lobby", EPOCH, 1, 9001]]);
        assert_eq!(resume(&positions), expected);
    }

    #[test]
    fn positions_survive_in_the_file() {
        let (folder, mut positions) = positions();
        let file = folder.path().join("positions");
        assert_eq!(resume(&positions), json!([["u"], ["all"]]));
        assert_eq!(positions.request().get("cid"), None);
        positions.hear(&answer("client_bind", &json!([["u", true, EPOCH, 0, 0, 0], ["all", true, EPOCH, 2, 5, 0]])));
        let large = format!(r#"{{"id":"{}","offset":1,"epoch":"{EPOCH}"}}"#, i64::MAX);
        assert!(positions.take(&large));
        positions.save().unwrap();
        let again = Positions::open(&file).unwrap();
        assert_eq!(resume(&again), json!([["u", EPOCH, 1, i64::MAX.to_string()], ["all", EPOCH, 2, 5]]));
        assert_eq!(again.request()["cid"], "7");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the new file replaced the former one");

        for text in ["", "[]", r#"{"streams":[["u","short",1,1]]}"#, r#"{"streams":[["x","k3v9x0ab",1,1]]}"#] {
            std::fs::write(&file, text).unwrap();
            let error = format!("{:#}", Positions::open(&file).err().unwrap());
            assert!(error.contains("expected") && error.contains("positions"), "{text}: {error}");
        }
        let error = format!("{:#}", Positions::open(&folder.path().join("no/folder")).err().unwrap());
        assert!(error.contains("cannot write"), "{error}");
    }

    #[test]
    fn answer_moves_the_position_unless_messages_follow() {
        let (_folder, mut positions) = positions();
        for stream in [None, Some("all"), Some("r:a"), Some("r:b")] {
            positions.take(&message(stream, 1, EPOCH));
        }
        let told = positions.hear(&answer(
            "client_bind",
            &json!([
                ["u", true, EPOCH, 9, 9009, 3],
                ["all", false, EPOCH, 57, 9217, 0, "trimmed"],
                ["r:a", false, "", 0, 0, 0, "not_joined"],
                ["r:b", true, EPOCH, 2, 8, 0]
            ]),
        ));
        let expected = [
            "resume: u is recovered: 3 messages follow",
            "resume: all is not recovered (trimmed): it continues at k3v9x0ab:57:9217",
            "resume: r:a is not recovered (not_joined)",
            "resume: r:b is recovered: no message was missed",
        ];
        assert_eq!(told, expected);
        let rows =
            json!([["u", EPOCH, 1, 9001], ["all", EPOCH, 57, 9217], ["r:a", EPOCH, 1, 9001], ["r:b", EPOCH, 2, 8]]);
        assert_eq!(resume(&positions), rows);
        assert!(positions.take(&message(None, 2, EPOCH)), "a replayed message");
        assert_eq!(positions.hear(&answer("client_bind", &json!([["u", false, EPOCH, 1, 1, 0, "fork"]]))), [""; 0]);
        let told = positions.hear(&answer("room_join", &json!([["r:a", true, EPOCH, 9, 9009, -1]])));
        assert_eq!(told, ["resume: r:a is recovered: messages follow"]);
        let end = json!({"stream": "r:a", "epoch": EPOCH, "offset": "9", "id": "9009"});
        assert_eq!(positions.hear(&reply("replay_end", &end)).len(), 1);
        assert!(!positions.take(&message(Some("r:a"), 9, EPOCH)));
        positions.hear(&reply("gap", &json!({})));
        assert_eq!(
            positions.hear(&reply("gap", &end)),
            ["resume: r:a continues at k3v9x0ab:9:9009: messages were lost"]
        );
    }

    #[test]
    fn answer_already_bound_moves_no_known_position() {
        let (_folder, mut positions) = positions();
        positions.take(&message(Some("r:a"), 9, EPOCH));
        for told in [7, 11] {
            positions.hear(&answer("room_join", &json!([["r:a", false, EPOCH, told, told, 0, "already_bound"]])));
        }
        assert!(!positions.take(&message(Some("r:a"), 9, EPOCH)) && positions.take(&message(Some("r:a"), 10, EPOCH)));
        positions.hear(&answer("room_join", &json!([["r:b", false, EPOCH, 7, 9007, 0, "already_bound"]])));
        assert!(!positions.take(&message(Some("r:b"), 7, EPOCH)), "it is the first position of the stream");
    }

    #[test]
    fn node_without_resume_is_told() {
        let (_folder, mut positions) = positions();
        let told = positions.hear(&reply("client_bind", &json!({"cid": "7"})));
        assert_eq!(told, ["resume: the node does not answer it, so nothing is recovered"]);
    }

    #[test]
    fn join_asks_for_the_messages_of_the_room() {
        let (_folder, mut positions) = positions();
        positions.take(&message(Some("r:a"), 4, EPOCH));
        let complete = |positions: &Positions, key: &str, fields: &[(&str, &str)]| {
            let mut data = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            positions.complete(key, &mut data);
            data.get("since").cloned()
        };
        assert_eq!(complete(&positions, "room_join", &[("room", "a")]).as_deref(), Some("k3v9x0ab:4:9004"));
        assert_eq!(complete(&positions, "room_join", &[("room", "b")]).as_deref(), Some(""));
        assert_eq!(complete(&positions, "room_join", &[("room", "a"), ("since", "")]).as_deref(), Some(""));
        assert_eq!(complete(&positions, "room_join", &[("room", "a"), ("latest", "1")]), None);
        assert_eq!(complete(&positions, "message", &[("room", "a")]), None);
        positions.hear(&reply("room_leave", &json!({"room": "a"})));
        assert_eq!(complete(&positions, "room_join", &[("room", "a")]).as_deref(), Some(""));
    }

    #[test]
    fn room_added_first_is_forgotten_above_the_limit() {
        let (_folder, mut positions) = positions();
        positions.take(&message(None, 1, EPOCH));
        for room in 0..200 {
            positions.take(&message(Some(&format!("r:{room}")), 1, EPOCH));
        }
        let asked = resume(&positions);
        let streams: Vec<_> = asked.as_array().unwrap().iter().map(|entry| entry[0].as_str().unwrap()).collect();
        assert_eq!((streams.len(), streams[0], streams[1], streams[127]), (MOST, "u", "r:74", "all"));
    }

    #[tokio::test(start_paused = true)]
    async fn change_is_written_at_most_once_a_second() {
        let (folder, mut positions) = positions();
        let start = Instant::now();
        positions.take(&message(None, 1, EPOCH));
        positions.until_due().await;
        assert_eq!(start.elapsed(), PAUSE);
        positions.save().unwrap();
        let written = std::fs::read_to_string(folder.path().join("positions")).unwrap();
        assert_eq!(written, "{\"streams\":[[\"u\",\"k3v9x0ab\",1,9001]]}\n");
        let idle = tokio::time::timeout(PAUSE * 60, positions.until_due()).await;
        assert!(idle.is_err(), "nothing changed");
    }
}
