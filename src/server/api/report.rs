//! Result of a push: one item per message, and totals for a batch.
//!
//! A refusal by a filter, a drop and an offline user are results (200). A response is never 2xx if the node itself
//! could not accept or judge a message. One unavailable message makes the whole response 503, one too large makes it
//! 413, and the items show which ones failed.

use std::sync::Arc;

use ahash::AHashSet;
use hyper::StatusCode;
use serde::{Serialize, Serializer};

use super::answer::{self, Answer, Problem};
use super::rows::{number, text, texts};
use crate::id::{NodeId, Uid};
use crate::message::{Epoch, Position, StreamName, Target};
use crate::node::{Fate, Published};

/// The response to a push of one message.
pub(super) fn one(published: &Published, target: &Target) -> Answer {
    match failure(&published.fate) {
        None => answer::ok(Item::of(published, target, NamedConnection::of(target).as_ref())),
        Some((status, why)) => Problem::new(status, format!("message: {why}")).into(),
    }
}

/// The response to a batch with one target per message. `name` is the request's name of the list, empty if the list is
/// the body.
pub(super) fn batch(name: &str, published: &[Published], targets: &[Target]) -> Answer {
    let failures = published.iter().enumerate().filter_map(|(i, p)| failure(&p.fate).map(|f| (i, f)));
    let worst = failures.max_by_key(|(i, (status, _))| (status.as_u16(), std::cmp::Reverse(*i)));
    // Only an envelope with a common target can name a user and a connection.
    let named = targets.first().and_then(NamedConnection::of);
    let report = Batch::of(published, targets, named.as_ref());
    match worst {
        None => answer::ok(report),
        Some((i, (status, why))) => answer::with_status(status, &format!("{name}[{i}]: {why}"), Some(report)),
    }
}

/// Status and text of a fate that is a failure of the node, not a result.
fn failure(fate: &Fate) -> Option<(StatusCode, String)> {
    let status = || StatusCode::from_u16(fate.code().number()).expect("the codes of failures are HTTP's");
    fate.is_failure().then(|| (status(), fate.to_string()))
}

/// Result of one message.
#[derive(Serialize)]
struct Item<'a> {
    #[serde(serialize_with = "number")]
    id: i64,
    /// Connections that queued it; absent if the broker does not report it at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<u32>,
    #[serde(skip_serializing_if = "is_false")]
    queued: bool,
    /// Nodes that it reached; absent if the broker does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<u32>,
    /// Absent if unknown.
    #[serde(serialize_with = "known", skip_serializing_if = "Option::is_none")]
    offline: Option<&'a [Uid]>,
    #[serde(skip_serializing_if = "is_zero")]
    full: u32,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    replaced: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<Rejected<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<Dropped<'a>>,
    /// Set if a filter could not judge the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<Failed<'a>>,
    #[serde(rename = "unknownNodes", serialize_with = "texts", skip_serializing_if = "<[_]>::is_empty")]
    unknown_nodes: &'a [NodeId],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
    #[serde(rename = "notOfUser", skip_serializing_if = "Option::is_none")]
    not_of_user: Option<&'a NamedConnection>,
    /// Absent if the message is not kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    positions: Vec<PositionRow>,
    /// `false` if the message was to be kept, and the history failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<bool>,
}

/// Position of a kept message in one of its streams.
#[derive(Serialize)]
struct PositionRow {
    #[serde(serialize_with = "text")]
    stream: StreamName,
    #[serde(serialize_with = "text")]
    epoch: Epoch,
    offset: u64,
    #[serde(serialize_with = "number")]
    id: i64,
}

impl PositionRow {
    /// The positions in the streams of the target, at most [`MAX_POSITIONS`]. A list of users has a stream for each user,
    /// in the order of the list without repeats.
    fn all(target: &Target, positions: &[Position]) -> Vec<Self> {
        let row = |(stream, position): (StreamName, &Position)| Self {
            stream,
            epoch: position.epoch,
            offset: position.offset,
            id: position.id,
        };
        let positions = positions.iter().take(MAX_POSITIONS);
        let Target::Users(uids) = target else {
            return StreamName::of(target).into_iter().zip(positions).map(row).collect();
        };
        let mut seen = AHashSet::new();
        let users = uids.iter().filter(|uid| seen.insert(*uid)).cloned();
        users.map(StreamName::User).zip(positions).map(row).collect()
    }
}

/// A user and a connection that a push names together.
#[derive(Debug, Serialize)]
struct NamedConnection {
    #[serde(serialize_with = "text")]
    uid: Uid,
    cid: u64,
}

impl NamedConnection {
    /// Reads them from a target that names both.
    fn of(target: &Target) -> Option<Self> {
        match target {
            Target::ConnectionOf(uid, cid) => Some(Self { uid: uid.clone(), cid: cid.as_u64() }),
            _ => None,
        }
    }
}

#[derive(Serialize)]
struct Rejected<'a> {
    plugin: &'a str,
    code: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct Dropped<'a> {
    plugin: &'a str,
}

#[derive(Serialize)]
struct Failed<'a> {
    plugin: &'a str,
    code: String,
}

#[derive(Serialize)]
struct Error {
    code: u16,
    message: String,
}

impl<'a> Item<'a> {
    fn of(published: &'a Published, target: &Target, named: Option<&'a NamedConnection>) -> Self {
        let mut item = Self {
            id: published.id,
            delivered: Some(0),
            queued: false,
            nodes: None,
            offline: Some(&[]),
            full: 0,
            replaced: &published.replaced_by,
            rejected: None,
            dropped: None,
            failed: None,
            unknown_nodes: &[],
            error: failure(&published.fate).map(|(status, message)| Error { code: status.as_u16(), message }),
            not_of_user: None,
            positions: Vec::new(),
            kept: None,
        };
        match &published.fate {
            Fate::Accepted { receipt, nodes, unknown_nodes, positions, is_unkept } => {
                item.kept = is_unkept.then_some(false);
                item.positions = PositionRow::all(target, positions);
                item.delivered = receipt.as_ref().map(|receipt| receipt.delivered);
                item.queued = receipt.is_none();
                item.nodes = *nodes;
                item.full = receipt.as_ref().map_or(0, |receipt| receipt.full);
                item.offline = receipt.as_ref().map(|receipt| &*receipt.offline);
                item.unknown_nodes = unknown_nodes;
                item.not_of_user = named.filter(|named| item.offline.is_some_and(|all| all.contains(&named.uid)));
            }
            Fate::Rejected { plugin, refusal } => {
                item.rejected = Some(Rejected { plugin, code: refusal.code.as_str(), reason: &refusal.reason });
            }
            Fate::Dropped { plugin } => item.dropped = Some(Dropped { plugin }),
            Fate::Unjudged(unjudged) => {
                item.failed = Some(Failed { plugin: &unjudged.plugin, code: published.fate.code().to_string() });
            }
            Fate::TooLarge(_) | Fate::TooLargeForBroker { .. } | Fate::TooManyHops | Fate::Unavailable => {}
        }
        item
    }
}

/// Result of a batch: totals, then one item per message in the order of the request.
#[derive(Serialize)]
struct Batch<'a> {
    messages: usize,
    delivered: u64,
    /// Messages without known deliveries.
    #[serde(skip_serializing_if = "is_none_of")]
    queued: usize,
    /// Each user once.
    offline: Vec<Name<'a>>,
    counts: Counts,
    items: Vec<Item<'a>>,
}

/// Number of messages by result; the sum is the number of all messages.
#[derive(Default, Serialize)]
struct Counts {
    accepted: usize,
    rejected: usize,
    dropped: usize,
    failed: usize,
}

#[derive(Serialize)]
struct Name<'a>(#[serde(serialize_with = "text")] &'a Uid);

impl<'a> Batch<'a> {
    fn of(published: &'a [Published], targets: &[Target], named: Option<&'a NamedConnection>) -> Self {
        let mut counts = Counts::default();
        let (mut delivered, mut queued) = (0, 0);
        let mut seen = AHashSet::new();
        let mut offline = Vec::new();
        for item in published {
            match &item.fate {
                Fate::Accepted { receipt, .. } => {
                    counts.accepted += 1;
                    let Some(receipt) = receipt else {
                        queued += 1;
                        continue;
                    };
                    delivered += u64::from(receipt.delivered);
                    offline.extend(receipt.offline.iter().filter(|uid| seen.insert(*uid)).map(Name));
                }
                Fate::Rejected { .. } => counts.rejected += 1,
                Fate::Dropped { .. } => counts.dropped += 1,
                Fate::TooLarge(_)
                | Fate::TooLargeForBroker { .. }
                | Fate::TooManyHops
                | Fate::Unjudged(_)
                | Fate::Unavailable => {
                    counts.failed += 1;
                }
            }
        }
        let items = published.iter().zip(targets).map(|(one, target)| Item::of(one, target, named)).collect();
        Self { messages: published.len(), delivered, queued, offline, counts, items }
    }
}

/// Most positions of one message in an answer.
const MAX_POSITIONS: usize = 100;

fn known<S: Serializer>(users: &Option<&[Uid]>, serializer: S) -> Result<S::Ok, S::Error> {
    texts(users.unwrap_or_default(), serializer)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none_of(n: &usize) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(b: &bool) -> bool {
    !*b
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::claim::Refusal;
    use crate::code::Code;
    use crate::message::Receipt;
    use crate::protocol::{Dialect, TooLarge};

    fn one(published: &Published) -> Answer {
        super::one(published, &Target::Everyone)
    }

    fn batch(name: &str, published: &[Published]) -> Answer {
        super::batch(name, published, &vec![Target::Everyone; published.len()])
    }

    fn accepted(id: i64, delivered: u32, full: u32, offline: &[&str]) -> Published {
        let offline = offline.iter().map(|uid| Uid::parse(uid).unwrap()).collect();
        let receipt = Some(Receipt { delivered, full, offline });
        Published {
            id,
            replaced_by: Vec::new(),
            fate: Fate::Accepted {
                positions: Vec::new(),
                is_unkept: false,
                receipt,
                nodes: Some(1),
                unknown_nodes: Vec::new(),
            },
        }
    }

    fn ended(fate: Fate) -> Published {
        Published { id: 7, replaced_by: Vec::new(), fate }
    }

    async fn text(answer: Answer) -> String {
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn one_message_tells_what_reached_whom_and_nothing_that_is_not_so() {
        let plain = text(one(&accepted(748, 2, 0, &[]))).await;
        assert_eq!(plain, r#"{"code":200,"message":"ok","data":{"id":748,"delivered":2,"nodes":1,"offline":[]}}"#);

        let mut full = accepted(1, 0, 1, &["1074"]);
        full.replaced_by.push("word-filter".into());
        if let Fate::Accepted { unknown_nodes, .. } = &mut full.fate {
            unknown_nodes.push(NodeId::parse("n9").unwrap());
        }
        assert_eq!(
            text(one(&full)).await,
            r#"{"code":200,"message":"ok","data":{"id":1,"delivered":0,"nodes":1,"offline":["1074"],"full":1,"replaced":["word-filter"],"unknownNodes":["n9"]}}"#
        );

        let queued = ended(Fate::accepted());
        assert!(text(one(&queued)).await.ends_with(r#""data":{"id":7,"queued":true}}"#));
        let queued = ended(Fate::Accepted {
            positions: Vec::new(),
            is_unkept: false,
            receipt: None,
            nodes: Some(2),
            unknown_nodes: Vec::new(),
        });
        assert!(text(one(&queued)).await.ends_with(r#""data":{"id":7,"queued":true,"nodes":2}}"#));
        assert!(text(batch("", &[queued])).await.contains(r#"{"messages":1,"delivered":0,"queued":1,"offline":[],"#));
    }

    fn kept(offsets: std::ops::RangeInclusive<u64>) -> Published {
        let epoch = Epoch::parse("k3v9x0ab").unwrap();
        let positions = offsets.map(|offset| Position { epoch, offset, id: 7 }).collect();
        let receipt = Some(Receipt::default());
        ended(Fate::Accepted { positions, is_unkept: false, receipt, nodes: Some(1), unknown_nodes: Vec::new() })
    }

    #[tokio::test]
    async fn kept_message_has_the_positions_of_its_streams() {
        let uids = |names: &[&str]| names.iter().map(|uid| Uid::parse(uid).unwrap()).collect::<Vec<_>>();
        for (target, stream) in [
            (Target::User(uids(&["a"]).remove(0)), "u:a"),
            (Target::Room("lobby".parse().unwrap()), "r:lobby"),
            (Target::EveryoneBut(uids(&["a"]).into()), "all"),
        ] {
            let row = format!(r#""positions":[{{"stream":"{stream}","epoch":"k3v9x0ab","offset":41,"id":7}}]}}}}"#);
            let told = text(super::one(&kept(41..=41), &target)).await;
            assert!(told.ends_with(&row), "{told}");
        }
        let list = Target::Users(uids(&["a", "b", "a", "c"]).into());
        let told: serde_json::Value = serde_json::from_str(&text(super::one(&kept(1..=3), &list)).await).unwrap();
        let rows = told["data"]["positions"].as_array().unwrap();
        let streams: Vec<_> = rows.iter().map(|row| (row["stream"].as_str().unwrap(), &row["offset"])).collect();
        assert_eq!(streams, [("u:a", &1.into()), ("u:b", &2.into()), ("u:c", &3.into())]);

        let many: Vec<Uid> = (0..150).map(|n| Uid::parse(&n.to_string()).unwrap()).collect();
        let told = text(super::batch("", &[kept(1..=150)], &[Target::Users(many.into())])).await;
        assert_eq!(told.matches(r#""stream":"#).count(), MAX_POSITIONS);
    }

    #[tokio::test]
    async fn a_plugins_no_is_a_result() {
        let refusal = Refusal::new(Code::FORBIDDEN, "bad \"word\"");
        let answer = one(&ended(Fate::Rejected { plugin: "word-filter".into(), refusal }));
        assert_eq!(answer.status(), 200);
        assert!(text(answer).await.contains(
            r#""delivered":0,"offline":[],"rejected":{"plugin":"word-filter","code":"403","reason":"bad \"word\""}}"#
        ));
        let answer = one(&ended(Fate::Dropped { plugin: "quiet".into() }));
        assert!(text(answer).await.contains(r#""dropped":{"plugin":"quiet"}"#));
    }

    #[tokio::test]
    async fn what_the_node_could_not_take_is_no_success() {
        let answer = one(&ended(Fate::Unavailable));
        assert_eq!(answer.status(), 503);
        assert_eq!(
            text(answer).await,
            r#"{"code":503,"message":"message: the broker did not confirm the message in time: it may still arrive"}"#
        );
        let answer = one(&ended(Fate::TooLarge(TooLarge { dialect: Dialect::Cim, bytes: 70_000, limit: 65_535 })));
        assert_eq!(answer.status(), 413);
        assert!(text(answer).await.contains("message: expected at most 65535 bytes in the cim dialect, got 70000"));
    }

    #[tokio::test]
    async fn what_no_filter_could_judge_is_no_no() {
        let unjudged = || {
            let (plugin, reason) = ("word-filter".into(), "plugin word-filter: used up its CPU time".into());
            ended(Fate::Unjudged(crate::node::Unjudged { plugin, reason, is_general: false }))
        };
        let answer = one(&unjudged());
        assert_eq!(answer.status(), 503);
        let body = text(answer).await;
        assert!(body.contains("plugin word-filter could not judge the message") && !body.contains("CPU"), "{body}");
        let answer = batch("", &[accepted(1, 1, 0, &[]), unjudged()]);
        assert_eq!(answer.status(), 503);
        let body = text(answer).await;
        assert!(body.contains(r#""failed":{"plugin":"word-filter","code":"503"}"#), "{body}");
        assert!(body.contains(r#""counts":{"accepted":1,"rejected":0,"dropped":0,"failed":1}"#), "{body}");
    }

    #[tokio::test]
    async fn a_batch_has_totals_and_an_item_each() {
        let batch_of = [
            accepted(1, 2, 0, &[]),
            accepted(2, 0, 0, &["a", "b"]),
            accepted(3, 0, 0, &["b"]),
            ended(Fate::Dropped { plugin: "quiet".into() }),
        ];
        assert_eq!(
            text(batch("", &batch_of)).await,
            concat!(
                r#"{"code":200,"message":"ok","data":{"messages":4,"delivered":2,"offline":["a","b"],"#,
                r#""counts":{"accepted":3,"rejected":0,"dropped":1,"failed":0},"items":["#,
                r#"{"id":1,"delivered":2,"nodes":1,"offline":[]},{"id":2,"delivered":0,"nodes":1,"offline":["a","b"]},"#,
                r#"{"id":3,"delivered":0,"nodes":1,"offline":["b"]},{"id":7,"delivered":0,"offline":[],"dropped":{"plugin":"quiet"}}]}}"#
            )
        );
    }

    #[tokio::test]
    async fn the_worst_item_names_a_batchs_status() {
        let too_large = || ended(Fate::TooLarge(TooLarge { dialect: Dialect::Cim, bytes: 70_000, limit: 65_535 }));
        let answer = batch("", &[accepted(1, 1, 0, &[]), too_large(), too_large()]);
        assert_eq!(answer.status(), 413);
        let body = text(answer).await;
        assert!(body.starts_with(r#"{"code":413,"message":"[1]: expected at most 65535 bytes"#), "{body}");
        assert!(body.contains(r#"{"id":1,"delivered":1,"nodes":1,"offline":[]}"#), "{body}");
        assert!(body.contains(r#""error":{"code":413,"message":"expected at most"#), "{body}");
        assert_eq!(batch("", &[too_large(), ended(Fate::Unavailable)]).status(), 503);
    }
}
