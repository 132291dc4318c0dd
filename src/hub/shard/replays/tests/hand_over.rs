//! The hand-over from history to live messages in random schedules: no message is lost, repeated or out of order.
//!
//! The withheld runs, the cut and the filter are the real [`Replay`]. The rest is a model, with one thread for each task
//! of the node:
//!
//! | model | node |
//! |---|---|
//! | [`Node::publish`] holds the turn over append and delivery | `broker/memory/kept.rs`: one publisher of a stream delivers, in the order of the offsets |
//! | the store is a counter of messages | an append takes one lock, and a read sees every append before it |
//! | a run for a user looks up the connection before the mailbox | `hub/route.rs` resolves users in the registry |
//! | a run for a room looks up the member in the shard | `hub/shard/deliver.rs` resolves members when it delivers |
//! | the shard executes one command after the other | `hub/shard.rs` drains its mailbox in order |
//! | the client begins, subscribes, reads, sends the page and ends | `node/connect.rs`, `node/rooms.rs`, `node/resume.rs` |
//!
//! So the model has every step at which tasks of the node can interleave. Pages of one message take the same way as one
//! page. Three variants show that the order of the steps matters: each loses or repeats a message within 1 000 schedules.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc as StdArc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::sync::{Arc, Mutex, mpsc};
use shuttle::{Config, Runner, thread};

use crate::hub::shard::replays::buffer::{Replay, ReplayLimits, RunDecision, StreamEnd};
use crate::hub::{FrameRun, Span};
use crate::id::{Room, Uid};
use crate::message::{Epoch, Message, Position, StreamName, Target};
use crate::protocol::{Form, Frames};

const SEED: u64 = 15;
const SCHEDULES: usize = 1_000;
const PUBLISHERS: u64 = 2;
/// Messages of one publisher.
const MESSAGES: u64 = 3;
const LIMITS: ReplayLimits = ReplayLimits { bytes: 1 << 20, age: 10, filter: 30 };
const NOW: u32 = 1;

/// Order of the client's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// Begin, its answer, subscribe, read, page, end.
    Right,
    /// Reads before it begins and subscribes.
    ReadFirst,
    /// Does not wait for the answer to the begin.
    NoAnswer,
    /// The shard forgets the end of the replay, so later runs pass that the history had.
    NoFilter,
}

/// Way of a run to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Room,
}

enum Command {
    /// A run of one message for the connection, or for the members that the shard finds.
    Run(u64),
    Begin(mpsc::Sender<()>),
    /// Messages of the history.
    Page(Vec<u64>),
    End(u64, mpsc::Sender<()>),
}

/// State that publishers and the client share.
struct Node {
    kind: Kind,
    turn: Mutex<()>,
    /// Offset of the last message in the store.
    top: AtomicU64,
    /// True once the connection is bound, or in the room.
    is_subscribed: AtomicBool,
}

impl Node {
    fn publish(&self, mailbox: &mpsc::Sender<Command>) {
        let _turn = self.turn.lock().unwrap();
        let offset = self.top.fetch_add(1, Ordering::SeqCst) + 1;
        if self.kind == Kind::Room || self.is_subscribed.load(Ordering::SeqCst) {
            mailbox.send(Command::Run(offset)).unwrap();
        }
    }

    /// The steps of the client, which has no message of the stream yet.
    fn resume(&self, mailbox: &mpsc::Sender<Command>, variant: Variant) {
        let early = (variant == Variant::ReadFirst).then(|| self.top.load(Ordering::SeqCst));
        let (answer, begun) = mpsc::channel();
        mailbox.send(Command::Begin(answer)).unwrap();
        if variant != Variant::NoAnswer {
            begun.recv().unwrap();
        }
        self.is_subscribed.store(true, Ordering::SeqCst);
        let top = early.unwrap_or_else(|| self.top.load(Ordering::SeqCst));
        mailbox.send(Command::Page((1..=top).collect())).unwrap();
        let (answer, ended) = mpsc::channel();
        mailbox.send(Command::End(top, answer)).unwrap();
        ended.recv().unwrap();
    }

    /// The shard. Returns the offsets of the messages in the order in which the client gets them.
    fn run_shard(&self, commands: &mpsc::Receiver<Command>, variant: Variant) -> Vec<u64> {
        let stream = stream(self.kind);
        let mut replay = Replay::new(StdArc::default());
        let mut queued = Vec::new();
        while let Ok(command) = commands.recv() {
            match command {
                Command::Run(_) if !self.is_subscribed.load(Ordering::SeqCst) => {}
                Command::Run(offset) => {
                    let run = run(&stream, offset);
                    let form = Form::ALL[0];
                    match replay.decide(&run, (form, run.frames.bytes(form)), NOW, &LIMITS) {
                        RunDecision::QueueWhole => queued.push(offset),
                        RunDecision::QueueNothing => {}
                        other => panic!("a run of one message is neither cut nor too large: {other:?}"),
                    }
                }
                Command::Begin(answer) => {
                    replay.begin(stream.clone(), NOW);
                    // The client of the variant without the answer is not there.
                    let _ = answer.send(());
                }
                Command::Page(offsets) => queued.extend(offsets),
                Command::End(top, answer) => {
                    let end = replay.end(&stream, position(top), NOW, &LIMITS);
                    let Some(StreamEnd::Done(pieces)) = end else { panic!("expected an end, got {end:?}") };
                    queued.extend(pieces.iter().map(|(bytes, _)| offset_in(bytes)));
                    if variant == Variant::NoFilter {
                        replay = Replay::new(StdArc::default());
                    }
                    answer.send(()).unwrap();
                }
            }
        }
        queued
    }
}

fn stream(kind: Kind) -> StreamName {
    match kind {
        Kind::User => StreamName::User(Uid::parse("a").unwrap()),
        Kind::Room => StreamName::Room(Room::parse("r").unwrap()),
    }
}

fn position(offset: u64) -> Position {
    Position { epoch: Epoch::new(1), offset, id: 0 }
}

/// A run of one message, whose title is `<offset>`.
fn run(stream: &StreamName, offset: u64) -> FrameRun {
    let message = Message { title: format!("<{offset}>"), ..Message::default() };
    let frames = Frames::of_stream([StdArc::new(message)].into_iter().collect(), Some(stream), Some(position(offset)));
    let span = Some(Span { stream: stream.clone(), epoch: Epoch::new(1), first: offset, last: offset });
    FrameRun { target: Target::Everyone, no_echo: None, frames, span }
}

/// The offset in the title of a frame.
fn offset_in(bytes: &[u8]) -> u64 {
    let title = bytes.split(|byte| *byte == b'<').find_map(|piece| {
        let end = piece.iter().position(|byte| *byte == b'>')?;
        std::str::from_utf8(&piece[..end]).ok()?.parse().ok()
    });
    title.expect("a frame has its title")
}

/// Runs publishers beside a resume, and compares what the client got with what was published.
fn schedule(kind: Kind, variant: Variant) {
    let node =
        Arc::new(Node { kind, turn: Mutex::new(()), top: AtomicU64::new(0), is_subscribed: AtomicBool::new(false) });
    let (mailbox, commands) = mpsc::channel();
    let shard = {
        let node = Arc::clone(&node);
        thread::spawn(move || node.run_shard(&commands, variant))
    };
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let (node, mailbox) = (Arc::clone(&node), mailbox.clone());
            thread::spawn(move || (0..MESSAGES).for_each(|_| node.publish(&mailbox)))
        })
        .collect();
    node.resume(&mailbox, variant);
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    drop(mailbox);
    let received = shard.join().unwrap();
    assert_eq!(received, (1..=PUBLISHERS * MESSAGES).collect::<Vec<_>>());
}

/// True if a schedule loses, repeats or reorders a message.
fn fails(kind: Kind, variant: Variant) -> bool {
    let random = || check(RandomScheduler::new_from_seed(SEED, SCHEDULES), kind, variant);
    catch_unwind(AssertUnwindSafe(random)).is_err()
}

/// Runs the schedules of the scheduler. Panics at the first wrong one.
fn check(scheduler: impl Scheduler + 'static, kind: Kind, variant: Variant) {
    let mut config = Config::new();
    // Frames are encoded on the stack of the thread.
    config.stack_size = 1 << 18;
    Runner::new(scheduler, config).run(move || schedule(kind, variant));
}

#[test]
fn hand_over_loses_and_repeats_nothing_in_any_schedule() {
    for kind in [Kind::User, Kind::Room] {
        check(RandomScheduler::new_from_seed(SEED, 5 * SCHEDULES), kind, Variant::Right);
        check(PctScheduler::new_from_seed(SEED, 4, SCHEDULES), kind, Variant::Right);
    }
}

#[test]
fn read_before_subscribe_fails_within_1000_schedules() {
    for kind in [Kind::User, Kind::Room] {
        assert!(fails(kind, Variant::ReadFirst), "{kind:?}");
    }
}

/// A run of a room that is in the mailbox before the begin reaches a client that joined before the shard began.
#[test]
fn begin_without_its_answer_fails_within_1000_schedules() {
    assert!(fails(Kind::Room, Variant::NoAnswer));
}

#[test]
fn end_without_the_filter_fails_within_1000_schedules() {
    for kind in [Kind::User, Kind::Room] {
        assert!(fails(kind, Variant::NoFilter), "{kind:?}");
    }
}
