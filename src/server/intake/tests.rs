//! The loop of an intake with a scripted source and a node with a scripted bus: no engine and no real time.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::claim::Refusal;
use crate::code::Code;
use crate::config::Config;
use crate::node::fake::{Fake, Judgement};
use crate::node::{Delay, Record, RecordPosition, Unavailable, Unjudged};
use crate::vital::Vitals;

/// Calls that a source received.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SourceCall {
    Completed(Vec<u64>),
    /// Given up because another reader owns the record, after a try or before any.
    Lost {
        tried: bool,
    },
    DeadLettered(u64, String),
    Abandoned(usize, Delay),
    KeptAlive,
    Stopped,
    Closed,
}

/// Scripted behaviour of the source.
#[derive(Default)]
struct Script {
    /// Number of `dead_letter` calls that fail.
    failing_dead_letters: u32,
    /// Records now owned by another reader.
    lost: Vec<u64>,
    left: Vec<Record>,
    calls: VecDeque<SourceCall>,
}

struct Scripted {
    takes: mpsc::Receiver<Result<Vec<Record>, Unavailable>>,
    script: Arc<Mutex<Script>>,
    changes: watch::Sender<()>,
}

impl Scripted {
    fn record_call(&self, call: SourceCall) {
        self.script.lock().calls.push_back(call);
        self.changes.send_replace(());
    }
}

fn away() -> Unavailable {
    Unavailable { engine: "redis", why: "connection refused".into() }
}

impl Source for Scripted {
    fn take(&mut self) -> BoxFuture<'_, Result<Vec<Record>, Unavailable>> {
        async {
            match self.takes.recv().await {
                Some(taken) => taken,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn still_owns<'a>(
        &'a mut self,
        positions: &'a [RecordPosition],
        tried: bool,
    ) -> BoxFuture<'a, Result<bool, Unavailable>> {
        let script = self.script.lock();
        let is_lost =
            positions.iter().any(|position| position.offset.is_some_and(|offset| script.lost.contains(&offset)));
        drop(script);
        if is_lost {
            self.record_call(SourceCall::Lost { tried });
        }
        std::future::ready(Ok(!is_lost)).boxed()
    }

    fn complete<'a>(&'a mut self, positions: &'a [RecordPosition]) -> BoxFuture<'a, Result<(), Unavailable>> {
        self.record_call(SourceCall::Completed(
            positions.iter().map(|position| position.offset.unwrap_or_default()).collect(),
        ));
        std::future::ready(Ok(())).boxed()
    }

    fn dead_letter<'a>(&'a mut self, record: &'a Record, reason: &'a str) -> BoxFuture<'a, Result<(), Unavailable>> {
        let mut script = self.script.lock();
        if script.failing_dead_letters > 0 {
            script.failing_dead_letters -= 1;
            return std::future::ready(Err(away())).boxed();
        }
        drop(script);
        self.record_call(SourceCall::DeadLettered(record.position.offset.unwrap_or_default(), reason.to_owned()));
        std::future::ready(Ok(())).boxed()
    }

    fn keep_alive(&mut self) -> BoxFuture<'_, ()> {
        self.record_call(SourceCall::KeptAlive);
        std::future::ready(()).boxed()
    }

    fn abandon(&mut self, records: usize, by: Delay) {
        self.record_call(SourceCall::Abandoned(records, by));
    }

    fn stop(&mut self) -> BoxFuture<'_, Vec<Record>> {
        self.record_call(SourceCall::Stopped);
        std::future::ready(std::mem::take(&mut self.script.lock().left)).boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.record_call(SourceCall::Closed);
        std::future::ready(()).boxed()
    }
}

/// An intake on a node, and the engine's side of it.
struct Bench {
    fake: Fake,
    intakes: Intakes,
    takes: mpsc::Sender<Result<Vec<Record>, Unavailable>>,
    script: Arc<Mutex<Script>>,
    changes: watch::Receiver<()>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let fake = Fake::new(&config);
        let (gives, takes) = mpsc::channel(8);
        let (changes, changed) = watch::channel(());
        let script = Arc::new(Mutex::new(Script::default()));
        let source = Box::new(Scripted { takes, script: Arc::clone(&script), changes });
        let intakes = Intakes::start(
            &fake.node,
            &fake.config,
            vec![IntakeSource { name: "kafka chat".into(), source }],
            &Vitals::default(),
        );
        Self { fake, intakes, takes: gives, script, changes: changed }
    }

    async fn give(&self, records: Vec<Record>) {
        self.takes.send(Ok(records)).await.unwrap();
    }

    /// The next call that the source receives.
    async fn next_call(&mut self) -> SourceCall {
        loop {
            if let Some(call) = self.script.lock().calls.pop_front() {
                return call;
            }
            self.changes.changed().await.unwrap();
        }
    }

    async fn drain(&mut self) {
        assert!(self.intakes.drain(Instant::now() + Duration::from_secs(60)).await);
    }

    /// Counts and reasons of the records given up, until the source is closed.
    async fn abandoned(&mut self) -> Vec<(usize, Delay)> {
        let mut left = Vec::new();
        loop {
            match self.next_call().await {
                SourceCall::Abandoned(records, by) => left.push((records, by)),
                SourceCall::Closed => return left,
                _ => {}
            }
        }
    }

    /// Actions of the messages that reached the bus, batch by batch.
    fn published(&self) -> Vec<Vec<String>> {
        let batches = self.fake.batches();
        batches.iter().map(|batch| batch.iter().map(|e| e.message.action.clone()).collect()).collect()
    }

    /// The reason if the intake makes the node not ready.
    fn readiness_fault(&self) -> Option<String> {
        let reasons = self.fake.node.readiness().unwrap_err();
        reasons.into_iter().find(|reason| reason.starts_with("intake"))
    }
}

fn record(offset: u64, payload: impl Into<Bytes>) -> Record {
    Record {
        payload: payload.into(),
        position: RecordPosition { partition: "chat/0".into(), offset: Some(offset) },
        tries: 0,
    }
}

/// An envelope for one user, with one message per action.
fn chat(offset: u64, actions: &[&str]) -> Record {
    let msg: Vec<Value> = actions.iter().map(|action| json!({"action": action})).collect();
    record(offset, json!({"Uid": "1074", "msg": msg}).to_string())
}

#[tokio::test]
async fn taken_records_are_published_as_one_batch_then_settled() {
    let mut bench = Bench::new(|_| {});
    let protobuf = [b"\x0a\x041074\x22\x03\x12\x01c".as_slice(), b"\x28\x02"].concat();
    bench.give(vec![chat(7, &["a", "b"]), record(8, protobuf)]).await;
    assert_eq!(bench.next_call().await, SourceCall::Completed(vec![7, 8]));
    let batches = bench.fake.batches();
    let [batch] = &batches[..] else { panic!("one batch") };
    assert_eq!(batch.iter().map(|e| e.message.action.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let identities: Vec<_> = batch.iter().map(|e| e.identity.as_ref().unwrap()).collect();
    assert_eq!(identities.iter().map(|i| (i.offset, i.index)).collect::<Vec<_>>(), [(7, 0), (7, 1), (8, 0)]);
    assert!(identities.iter().all(|i| &*i.partition == "chat/0"));
    assert!(batch.iter().all(|e| e.origin == crate::message::Origin::Broker && !e.receipts));
}

#[tokio::test(start_paused = true)]
async fn unavailable_bus_delays_settlement_until_it_returns() {
    let mut bench = Bench::new(|_| {});
    bench.fake.break_broker();
    bench.give(vec![chat(1, &["a"]), chat(2, &["b"])]).await;
    bench.give(vec![chat(3, &["c"])]).await;
    // While records wait, the engine gets repeated keep-alives.
    assert_eq!([bench.next_call().await, bench.next_call().await], [SourceCall::KeptAlive, SourceCall::KeptAlive]);
    let tries = bench.published();
    assert!(tries.len() > 3 && tries.iter().all(|batch| batch == &["a", "b"]), "{tries:?}");
    bench.fake.mend_broker();
    let mut call = bench.next_call().await;
    while call == SourceCall::KeptAlive {
        call = bench.next_call().await;
    }
    assert_eq!([call, bench.next_call().await], [SourceCall::Completed(vec![1, 2]), SourceCall::Completed(vec![3])]);
    assert_eq!(bench.published(), [vec!["a", "b"], vec!["c"]]);
}

/// Retried, it would come after the records that the next reader has published since.
#[tokio::test(start_paused = true)]
async fn record_of_lost_lease_is_not_retried() {
    let mut bench = Bench::new(|_| {});
    bench.fake.break_broker();
    bench.give(vec![chat(1, &["a"])]).await;
    while bench.published().is_empty() {
        tokio::task::yield_now().await;
    }
    bench.script.lock().lost.push(1);
    bench.fake.mend_broker();
    bench.give(vec![chat(2, &["b"])]).await;
    assert_eq!(bench.next_call().await, SourceCall::Lost { tried: true });
    assert_eq!(bench.next_call().await, SourceCall::Completed(vec![2]));
    assert_eq!(bench.published(), [["b"]]);
    bench.script.lock().lost.push(3);
    bench.give(vec![chat(3, &["c"])]).await;
    assert_eq!(bench.next_call().await, SourceCall::Lost { tried: false });
}

#[tokio::test]
async fn poison_is_buried_with_its_reason_and_holds_up_nothing() {
    let mut bench = Bench::new(|config| config.limits.body_bytes = 4096);
    let large = record(4, format!("{{\"msg\":[{}]}}", " ".repeat(4096)));
    bench
        .give(vec![chat(1, &["a"]), record(2, "junk"), record(3, r#"{"act":4,"msg":[{}]}"#), large, chat(5, &["b"])])
        .await;
    let reasons = [
        (2, "body: expected a protobuf MessagesPub, got a length that runs past the end"),
        (3, "Cid: expected an integer from 1 to 9007199254740991, got nothing"),
        (4, "body: expected at most 4096 bytes, got 4106"),
    ];
    for (offset, reason) in reasons {
        let SourceCall::DeadLettered(at, words) = bench.next_call().await else { panic!("dead-lettered first") };
        assert_eq!((at, &*words), (offset, reason));
    }
    assert_eq!(bench.next_call().await, SourceCall::Completed(vec![1, 2, 3, 4, 5]));
    assert_eq!(bench.published(), [["a", "b"]]);
}

#[tokio::test]
async fn rejected_record_is_settled_and_unknown_node_is_buried() {
    let mut bench = Bench::new(|_| {});
    let refusal = Refusal::new(Code::FORBIDDEN, "no");
    bench.fake.judge("bad", Judgement::Reject { plugin: "word-filter".into(), refusal });
    bench.fake.judge("quiet", Judgement::Drop { plugin: "quiet".into() });
    let here = json!({"Sid": "here", "msg": [{"action": "x"}]}).to_string();
    let nowhere = json!({"Sid": "here,nowhere", "msg": [{"action": "y"}]}).to_string();
    bench.give(vec![chat(1, &["bad", "good"]), chat(2, &["quiet"]), record(3, here), record(4, nowhere)]).await;
    assert_eq!(bench.next_call().await, SourceCall::DeadLettered(4, "Sid: unknown node nowhere".into()));
    assert_eq!(bench.next_call().await, SourceCall::Completed(vec![1, 2, 3, 4]));
    assert_eq!(bench.published(), [["good", "x", "y"]]);
}

fn unjudged(is_general: bool) -> Judgement {
    Judgement::Unjudged(Unjudged {
        plugin: "word-filter".into(),
        reason: "plugin word-filter: told to fail".into(),
        is_general,
    })
}

#[tokio::test(start_paused = true)]
async fn intake_waits_without_settling_while_a_filter_is_unavailable() {
    let mut bench = Bench::new(|_| {});
    bench.fake.judge("any", unjudged(true));
    bench.give(vec![chat(1, &["any"]), chat(2, &["any"])]).await;
    bench.give(vec![chat(3, &["next"])]).await;
    assert_eq!(
        [bench.next_call().await, bench.next_call().await],
        [SourceCall::KeptAlive, SourceCall::KeptAlive],
        "time passes, records wait"
    );
    assert_eq!(bench.readiness_fault().unwrap(), "intake kafka chat: paused: a plugin cannot judge messages");
    assert!(bench.published().is_empty());
    bench.fake.judge_anew("any", Judgement::Pass { replaced_by: Vec::new() });
    let mut call = bench.next_call().await;
    while call == SourceCall::KeptAlive {
        call = bench.next_call().await;
    }
    assert_eq!([call, bench.next_call().await], [SourceCall::Completed(vec![1, 2]), SourceCall::Completed(vec![3])]);
    assert_eq!(
        (bench.published(), bench.readiness_fault()),
        (vec![vec!["any".into(), "any".into()], vec!["next".into()]], None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_on_which_a_filter_fails_alone_is_buried_after_five_tries() {
    let mut bench = Bench::new(|_| {});
    bench.fake.judge("bad", unjudged(false));
    bench.give(vec![chat(1, &["good", "bad", "bad"]), chat(2, &["fine"])]).await;
    let reason = "msg[1]: not judged after 5 tries: plugin word-filter: told to fail";
    assert_eq!(bench.next_call().await, SourceCall::DeadLettered(1, reason.into()));
    assert_eq!(bench.next_call().await, SourceCall::Completed(vec![1, 2]));
    assert_eq!(bench.published(), [["good", "fine"]], "what passed went out once");
    assert_eq!(bench.readiness_fault(), None);
}

#[tokio::test]
async fn a_batch_has_no_more_messages_than_one_request_may() {
    let mut bench = Bench::new(|config| config.limits.batch = 3);
    let records = vec![chat(1, &["a", "b"]), chat(2, &["c"]), chat(3, &["d"]), record(4, "junk"), chat(5, &["e"; 4])];
    bench.give(records).await;
    assert_eq!(bench.next_call().await, SourceCall::Completed(vec![1, 2]));
    let dead_lettered = [bench.next_call().await, bench.next_call().await];
    assert!(
        matches!(
            &dead_lettered,
            [SourceCall::DeadLettered(4, _), SourceCall::DeadLettered(5, words)] if words.contains("at most 3 messages")
        ),
        "{dead_lettered:?}"
    );
    assert_eq!(bench.next_call().await, SourceCall::Completed(vec![3, 4, 5]));
    assert_eq!(bench.published(), [vec!["a", "b", "c"], vec!["d"]]);
}

#[tokio::test]
async fn record_after_five_tries_is_buried_and_the_next_are_read() {
    let mut bench = Bench::new(|_| {});
    let again = |record: Record| Record { tries: 5, ..record };
    bench.give(vec![again(chat(1, &["killer"])), again(chat(2, &["a"])), chat(3, &["b"])]).await;
    assert_eq!(
        bench.next_call().await,
        SourceCall::DeadLettered(1, "expected to be processed within 5 tries, was read 5 times before".into())
    );
    let settled = [bench.next_call().await, bench.next_call().await, bench.next_call().await];
    assert_eq!(settled, [1, 2, 3].map(|offset| SourceCall::Completed(vec![offset])), "one by one");
    assert_eq!(bench.published(), [["a"], ["b"]]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_written_before_its_record_is_settled() {
    let mut bench = Bench::new(|_| {});
    bench.script.lock().failing_dead_letters = 3;
    bench.give(vec![record(1, "junk")]).await;
    assert!(matches!(bench.next_call().await, SourceCall::DeadLettered(1, _)));
    assert!(bench.readiness_fault().unwrap().contains("redis is unavailable: connection refused"));
    assert_eq!(bench.next_call().await, SourceCall::Completed(vec![1]));
}

#[tokio::test]
async fn an_engine_that_is_away_makes_the_node_unready_until_it_is_back() {
    let mut bench = Bench::new(|_| {});
    assert_eq!(bench.readiness_fault(), None);
    bench.takes.send(Err(away())).await.unwrap();
    bench.takes.reserve().await.unwrap();
    while bench.readiness_fault().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.readiness_fault().unwrap(), "intake kafka chat: redis is unavailable: connection refused");
    bench.give(Vec::new()).await;
    while bench.readiness_fault().is_some() {
        tokio::task::yield_now().await;
    }
    bench.give(vec![chat(1, &["a"])]).await;
    assert_eq!(bench.next_call().await, SourceCall::Completed(vec![1]));
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_settles_and_closes_and_never_hangs() {
    let mut bench = Bench::new(|_| {});
    bench.script.lock().left = vec![chat(9, &["last"])];
    bench.drain().await;
    let call = [bench.next_call().await, bench.next_call().await, bench.next_call().await];
    assert_eq!(call, [SourceCall::Stopped, SourceCall::Completed(vec![9]), SourceCall::Closed]);
    assert_eq!(bench.published(), [["last"]]);

    let mut bench = Bench::new(|_| {});
    bench.fake.break_broker();
    bench.give(vec![chat(1, &["a"])]).await;
    while bench.published().is_empty() {
        tokio::task::yield_now().await;
    }
    bench.drain().await;
    let mut call = Vec::new();
    while call.last() != Some(&SourceCall::Closed) {
        call.push(bench.next_call().await);
    }
    assert!(!call.iter().any(|call| matches!(call, SourceCall::Completed(_))), "{call:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_tells_the_source_how_many_records_it_leaves_and_what_they_waited_for() {
    let mut bench = Bench::new(|config| config.limits.batch = 2);
    bench.fake.judge("any", unjudged(true));
    bench.script.lock().left = vec![chat(4, &["any"])];
    bench.give(vec![chat(1, &["good"]), chat(2, &["any"]), chat(3, &["any"])]).await;
    while bench.published().is_empty() {
        tokio::task::yield_now().await;
    }
    bench.drain().await;
    assert_eq!(bench.abandoned().await, [(2, Delay::Plugin), (1, Delay::Plugin)]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_short_leaves_records_in_time_to_tell_of_them() {
    let mut bench = Bench::new(|_| {});
    bench.fake.break_broker();
    bench.script.lock().left = vec![chat(3, &["c"])];
    bench.give(vec![chat(1, &["a"]), chat(2, &["b"])]).await;
    assert_eq!(
        [bench.next_call().await, bench.next_call().await],
        [SourceCall::KeptAlive, SourceCall::KeptAlive],
        "tries are seconds apart"
    );
    assert!(bench.intakes.drain(Instant::now() + Duration::from_secs(3)).await, "it ends before the deadline");
    assert_eq!(bench.abandoned().await, [(2, Delay::Bus), (1, Delay::Bus)]);
}
