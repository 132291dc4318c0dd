//! History of a stream: `/history` reads its kept messages, `/history/forget` forgets them.

use std::fmt::Display;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::http::request::Parts;
use serde::Serialize;

use super::Api;
use super::answer::{self, Answer, Problem};
use super::manage::plain_body;
use super::query::{Query, fault, shown};
use super::rows::{entries, number, text, texts};
use crate::config::Config;
use crate::id::{Device, MAX_SAFE_INTEGER, Uid};
use crate::message::{Entries, Epoch, Position, StreamName};
use crate::node::{HistoryFault, KeptMessage, Missed, Page, Range, Start};
use crate::protocol::push;
use crate::server::bounds;

impl Api {
    pub(super) async fn history(&self, query: Option<&str>) -> Result<Answer, Problem> {
        let query = Query::parse(query, PARAMETERS)?;
        let name = stream(&query)?;
        let limit = query.number("limit", 0..=MAX_LIMIT)?.unwrap_or(MAX_LIMIT);
        let limit = usize::try_from(limit).expect("at most MAX_LIMIT");
        let range = Range { start: start(&query)?, limit, reverse: query.flag("reverse")? };
        let page = self.node.history_page(&name, range).await?;
        Ok(answer::ok(StreamRow::new(&name, &page)))
    }

    pub(super) async fn forget<B>(&self, config: &Config, head: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let name = push::forget(&plain_body(config, head, body).await?, &bounds(&config.limits))?;
        Ok(answer::ok(ForgetRow { forgotten: self.node.forget_stream(&name).await? }))
    }
}

/// The mandatory name of the stream.
fn stream(query: &Query) -> Result<StreamName, Problem> {
    let Some(text) = query.text("stream") else { return Err(fault("stream", "u:UID, r:ROOM or all", "nothing")) };
    text.parse().map_err(|invalid| Problem::bad_request(format!("stream: {invalid}")))
}

/// Start of the range: the end of the stream, or a position of three parameters. A position before the first message
/// needs no id.
fn start(query: &Query) -> Result<Start, Problem> {
    let epoch = match query.text("epoch") {
        Some(text) => {
            let epoch =
                Epoch::parse(text).ok_or_else(|| fault("epoch", "eight characters of 0-9 and a-z", shown(text)));
            Some(epoch?)
        }
        None => None,
    };
    let (offset, id) = (query.number("offset", 0..=MAX_SAFE_INTEGER)?, query.id("id")?);
    match (epoch, offset, id) {
        (None, None, None) => Ok(Start::End),
        (None, ..) => Err(fault("epoch", "the epoch of the position", "nothing")),
        (_, None, _) => Err(fault("offset", "the offset of the position", "nothing")),
        (Some(epoch), Some(offset), Some(id)) => Ok(Start::After(Position { epoch, offset, id })),
        (Some(epoch), Some(0), None) => Ok(Start::After(Position { epoch, offset: 0, id: 0 })),
        (Some(_), Some(_), None) => Err(fault("id", "the id of the message at this offset", "nothing")),
    }
}

impl From<HistoryFault> for Problem {
    fn from(fault: HistoryFault) -> Self {
        let status = match fault {
            HistoryFault::Off => StatusCode::NOT_IMPLEMENTED,
            HistoryFault::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, fault.to_string())
    }
}

/// A stream with messages. The position is that of its last message.
#[derive(Serialize)]
struct StreamRow<'a> {
    #[serde(serialize_with = "text")]
    stream: &'a StreamName,
    epoch: &'a str,
    offset: u64,
    #[serde(serialize_with = "number")]
    id: i64,
    /// Reason why messages after the given position are missing.
    missed: Option<&'static str>,
    messages: Vec<MessageRow<'a>>,
}

impl<'a> StreamRow<'a> {
    fn new(stream: &'a StreamName, page: &'a Page) -> Self {
        let Page { messages, top, missed } = page;
        Self {
            stream,
            epoch: top.epoch.as_str(),
            offset: top.offset,
            id: top.id,
            missed: missed.map(Missed::as_str),
            messages: messages.iter().map(|(offset, kept)| MessageRow::new(*offset, kept)).collect(),
        }
    }
}

/// A kept message. Empty fields are omitted.
#[derive(Serialize)]
struct MessageRow<'a> {
    offset: u64,
    #[serde(serialize_with = "number")]
    id: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    action: &'a str,
    #[serde(serialize_with = "entries", skip_serializing_if = "Entries::is_empty")]
    content: &'a Entries,
    #[serde(skip_serializing_if = "str::is_empty")]
    sender: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    receiver: &'a str,
    #[serde(serialize_with = "entries", skip_serializing_if = "Entries::is_empty")]
    extra: &'a Entries,
    #[serde(skip_serializing_if = "str::is_empty")]
    title: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    image: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    format: &'a str,
    #[serde(rename = "sendTime", serialize_with = "number")]
    send_time: i64,
    /// The only device that receives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    /// Users that do not receive it.
    #[serde(serialize_with = "texts", skip_serializing_if = "<[_]>::is_empty")]
    except: &'a [Uid],
}

impl<'a> MessageRow<'a> {
    fn new(offset: u64, kept: &'a KeptMessage) -> Self {
        let (message, readers) = (&*kept.message, kept.readers.as_deref());
        Self {
            offset,
            id: message.id,
            action: &message.action,
            content: &message.content,
            sender: &message.sender,
            receiver: &message.receiver,
            extra: &message.extra,
            title: &message.title,
            image: &message.image,
            format: &message.format,
            send_time: message.timestamp,
            device: readers.and_then(|readers| readers.device.as_ref()).map(Device::as_str),
            except: readers.map_or(&[][..], |readers| &readers.excluded[..]),
        }
    }
}

#[derive(Serialize)]
struct ForgetRow {
    /// False if there was no such stream.
    forgotten: bool,
}

const PARAMETERS: &[&str] = &["stream", "epoch", "offset", "id", "limit", "reverse"];
const MAX_LIMIT: u64 = 100;
