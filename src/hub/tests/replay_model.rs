//! Random interleavings of deliveries and replays of two streams, compared with a model: the client sees each message
//! once and in order.
//!
//! The model of a stream is a number: the last offset that the client has, or will have once the queue is written. The
//! store is ahead of the delivery by any number of runs.

use std::collections::VecDeque;

use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::*;

const FORMS: [Form; 3] = [YUNQUE, JSON, TCP];

/// One step. Streams are 0 (the user's) and 1 (a room's).
#[derive(Debug, Clone)]
enum Step {
    /// Appends one run to the stream.
    Append {
        stream: usize,
        messages: u64,
    },
    /// Delivers the oldest runs that are not delivered yet.
    Deliver {
        stream: usize,
        runs: usize,
    },
    Begin(usize),
    /// Sends a page of the stream, without waiting until it is written.
    Page {
        stream: usize,
        messages: u64,
    },
    End(usize),
    /// Allows the socket so many more bytes.
    Allow(Option<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || 0usize..2;
    prop_oneof![
        6 => (stream(), 1u64..5).prop_map(|(stream, messages)| Step::Append { stream, messages }),
        5 => (stream(), 1usize..4).prop_map(|(stream, runs)| Step::Deliver { stream, runs }),
        3 => stream().prop_map(Step::Begin),
        4 => (stream(), 1u64..8).prop_map(|(stream, messages)| Step::Page { stream, messages }),
        2 => stream().prop_map(Step::End),
        1 => prop::option::of(0usize..200).prop_map(Step::Allow),
    ]
}

struct KeptStream {
    target: Target,
    /// Offset of the last message in the store.
    top: u64,
    /// Runs in the store that are not delivered yet.
    pending: VecDeque<RangeInclusive<u64>>,
    /// Last offset of the delivered runs.
    delivered: u64,
    /// Last offset that the client has.
    client: u64,
    /// Offset to which the history must be read before the end of the replay.
    must_read: u64,
    is_withheld: bool,
    page: Option<JoinHandle<bool>>,
}

struct World {
    hub: Arc<Hub>,
    connection: Connection,
    pipe: Arc<Pipe>,
    form: Form,
    streams: [KeptStream; 2],
}

impl KeptStream {
    fn new(target: Target) -> Self {
        Self {
            target,
            top: 0,
            pending: VecDeque::new(),
            delivered: 0,
            client: 0,
            must_read: 0,
            is_withheld: false,
            page: None,
        }
    }

    fn name(&self) -> StreamName {
        StreamName::of(&self.target).unwrap()
    }

    fn run(&self, offsets: RangeInclusive<u64>) -> FrameRun {
        kept(self.target.clone(), Epoch::new(1), offsets)
    }
}

impl World {
    async fn new(form: Form, bytes: usize) -> Self {
        let hub = start(&Settings { queue: Queue { bytes, ..settings().queue }, ..settings() });
        let (connection, pipe) = bound(&hub, "a", form).await;
        assert!(join(&hub, &connection, &room("r")));
        let streams = [Target::User(uid("a")), Target::Room(room("r"))].map(KeptStream::new);
        Self { hub, connection, pipe, form, streams }
    }

    fn is_closed(&self) -> bool {
        self.connection.closed().is_some()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append { stream, messages } => {
                let stream = &mut self.streams[stream];
                stream.pending.push_back(stream.top + 1..=stream.top + messages);
                stream.top += messages;
            }
            Step::Deliver { stream, runs } => self.deliver(stream, runs).await,
            Step::Begin(at) => {
                let stream = &mut self.streams[at];
                let begun = self.hub.begin_replay(&self.connection, vec![stream.name()]).await;
                stream.is_withheld |= begun;
            }
            Step::Page { stream, messages } => self.send_page(stream, messages).await,
            Step::End(stream) => {
                self.end(stream).await;
            }
            Step::Allow(room) => self.pipe.allow(room),
        }
    }

    async fn deliver(&mut self, at: usize, runs: usize) {
        let stream = &mut self.streams[at];
        let count = runs.min(stream.pending.len());
        let offsets: Vec<_> = stream.pending.drain(..count).collect();
        stream.delivered = offsets.last().map_or(stream.delivered, |run| *run.end());
        if !stream.is_withheld {
            stream.client = stream.client.max(stream.delivered);
        }
        let batch = offsets.into_iter().map(|offsets| stream.run(offsets)).collect();
        self.hub.route(batch).await;
    }

    /// Sends a page of at most so many messages after the page before it.
    async fn send_page(&mut self, at: usize, messages: u64) {
        self.await_page(at).await;
        let stream = &mut self.streams[at];
        let last = stream.top.min(stream.client + messages);
        if !stream.is_withheld || last == stream.client {
            return;
        }
        let frames = stream.run(stream.client + 1..=last).frames;
        stream.client = last;
        let (hub, connection) = (Arc::clone(&self.hub), self.connection.clone());
        let page = frames.bytes(self.form).clone();
        stream.page = Some(tokio::spawn(async move { hub.replay(&connection, page, frames.count()).await }));
        // The shard may see the page before the next step.
        tokio::task::yield_now().await;
    }

    async fn await_page(&mut self, at: usize) {
        if let Some(page) = self.streams[at].page.take() {
            self.pipe.allow(None);
            let is_written = page.await.unwrap();
            assert!(is_written || self.is_closed());
        }
    }

    /// Ends the replay where the history was read. Returns false if the history must be read again.
    async fn end(&mut self, at: usize) -> bool {
        let missing = self.streams[at].must_read.saturating_sub(self.streams[at].client);
        self.send_page(at, missing).await;
        self.await_page(at).await;
        let stream = &mut self.streams[at];
        let end = self.hub.end_replay(&self.connection, stream.name(), position(stream.client)).await;
        match end {
            ReplayEnd::Done => {
                assert!(std::mem::replace(&mut stream.is_withheld, false));
                stream.client = stream.client.max(stream.delivered);
            }
            ReplayEnd::Overflowed => stream.must_read = stream.top,
            ReplayEnd::Gone => assert!(!stream.is_withheld || self.connection.closed().is_some()),
        }
        end != ReplayEnd::Overflowed
    }

    /// Ends the replays, delivers the rest, and compares.
    async fn finish(mut self) {
        self.pipe.allow(None);
        for at in 0..self.streams.len() {
            self.send_page(at, u64::MAX / 2).await;
            while !self.end(at).await {}
            self.deliver(at, usize::MAX).await;
        }
        self.hub.wait_flushed().await;
        let is_closed = self.is_closed();
        let taken = self.pipe.written();
        for stream in &self.streams {
            let seen = offsets(&taken, &stream.name());
            let last = if is_closed { seen.len() as u64 } else { stream.top };
            assert_eq!(seen, (1..=last).collect::<Vec<_>>(), "{}", stream.name());
        }
        assert!(is_closed || self.connection.pending() == Load::default());
    }
}

/// Offsets of the stream's messages in the bytes of a socket.
fn offsets(bytes: &[u8], stream: &StreamName) -> Vec<u64> {
    let prefix = format!("{stream}.");
    let mut found = Vec::new();
    // Other bytes of a frame can look like the begin of a title.
    for piece in bytes.split(|byte| *byte == b'<').skip(1) {
        let Some(end) = piece.iter().position(|byte| *byte == b'>') else { continue };
        let text = std::str::from_utf8(&piece[..end]).unwrap_or_default();
        found.extend(text.strip_prefix(&prefix).and_then(|number| number.parse::<u64>().ok()));
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn replays_match_the_model(
        form in prop::sample::select(&FORMS[..]),
        bytes in prop::sample::select(&[2_000, 8_000, 1 << 20][..]),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let mut world = World::new(form, bytes).await;
            for step in steps {
                world.step(step).await;
                if world.is_closed() {
                    break;
                }
            }
            world.finish().await;
        });
    }
}
