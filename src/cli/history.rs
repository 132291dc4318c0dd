//! `skylark history`: prints the kept messages of a stream of a running node.

use anyhow::{Context as _, bail};
use hyper::Method;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::http::{Node, NodeArgs};
use super::{ConfigSource, block_on, print};
use crate::config::Scope;
use crate::message::StreamName;

/// Most messages of one request.
const PAGE: usize = 100;

#[derive(Debug, clap::Args)]
#[command(after_help = FORMAT)]
pub(super) struct History {
    /// The stream: u:UID, r:ROOM or all.
    stream: StreamName,
    /// Most messages to print; 0 = the position only.
    #[arg(long, value_name = "N", default_value_t = PAGE)]
    limit: usize,
    /// Begin with the newest message.
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    node: NodeArgs,
}

const FORMAT: &str = "\
Each message is printed as one JSON line, oldest first:
  {\"offset\":41,\"id\":9001,\"action\":\"chat\",\"content\":{\"text\":\"hi\"},\"sendTime\":1700000000000}

Standard error gets the position of the newest message, as epoch:offset:id.";

impl History {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let Self { stream, limit, reverse, node } = self;
        let node = node.node(source, &[Scope::Read])?;
        block_on(show(&node, &stream, limit, reverse))
    }
}

/// Prints at most `limit` messages. The node returns them in pages.
async fn show(node: &Node, stream: &StreamName, limit: usize, reverse: bool) -> anyhow::Result<()> {
    let mut left = limit;
    let mut after = None;
    loop {
        let path = path(stream, left.min(PAGE), reverse, after.as_ref());
        let page = parse(&node.request(Method::GET, &path, None).await?)?;
        if after.is_none() {
            eprintln!("{stream} is at {}:{}:{}", page.epoch, page.offset, plain(&page.id));
        }
        if let Some(reason) = page.missed {
            bail!("messages of {stream} went while they were read ({reason}): run the command again");
        }
        for message in &page.messages {
            print(message.get())?;
        }
        left = left.saturating_sub(page.messages.len());
        let Some(last) = page.messages.last().filter(|_| left > 0) else { return Ok(()) };
        let MessagePlace { offset, id } =
            serde_json::from_str(last.get()).context("expected a message with an offset")?;
        after = Some(After { epoch: page.epoch, offset, id: plain(&id) });
    }
}

/// Position after which the next page begins.
pub(super) struct After {
    pub(super) epoch: String,
    pub(super) offset: u64,
    pub(super) id: String,
}

/// Path and query of the request for one page.
pub(super) fn path(stream: &StreamName, limit: usize, reverse: bool, after: Option<&After>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("stream", &stream.to_string()).append_pair("limit", &limit.to_string());
    if reverse {
        query.append_pair("reverse", "true");
    }
    if let Some(After { epoch, offset, id }) = after {
        query.append_pair("epoch", epoch).append_pair("offset", &offset.to_string()).append_pair("id", id);
    }
    format!("/history?{}", query.finish())
}

#[derive(Deserialize)]
struct Answer {
    data: Page,
}

/// A page of the stream. Its messages stay as the node wrote them.
#[derive(Deserialize)]
struct Page {
    epoch: String,
    offset: u64,
    id: Value,
    missed: Option<String>,
    messages: Vec<Box<RawValue>>,
}

/// Place of a message in its stream.
#[derive(Deserialize)]
struct MessagePlace {
    offset: u64,
    id: Value,
}

fn parse(answer: &str) -> anyhow::Result<Page> {
    let Answer { data } = serde_json::from_str(answer)
        .with_context(|| format!("expected messages of a stream from the node, got {answer}"))?;
    Ok(data)
}

/// An id without quotes. The node writes an id that JavaScript would round as text.
fn plain(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}
