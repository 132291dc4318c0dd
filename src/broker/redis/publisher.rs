//! The one connection by which a node publishes: streams keep their order because all of them go this way.
//!
//! What was written and not answered when the connection breaks is written again on the next one, with the same numbers,
//! so that receivers know a copy. Knows bytes and their count of answers; no record.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::client::Client;
use super::health::Health;
use super::server::Tether;
use super::wire::{Frame, Incoming, Outgoing, Wire, WireError, put_command};
use crate::backoff::Backoff;
use crate::telemetry::names;

/// Jobs that wait to be written; more wait at the door.
const QUEUE: usize = 256;
/// Bytes that leave together; more stay in the queue.
const IN_FLIGHT: usize = 8 << 20;
/// A server that owes an answer for so long is given up; one that owes none is asked whether it is there.
const SILENCE: Duration = Duration::from_millis(1_500);

/// Waits before it is dialled again.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(50);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What a server said to one PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It reached so many nodes.
    Reached(u32),
    /// It was not published.
    Refused,
}

/// Commands that go together.
pub(super) struct Job {
    commands: Vec<u8>,
    count: usize,
    answers: Answers,
    /// Nobody waits: it is not worth a second try.
    told: Option<oneshot::Sender<Answers>>,
}

/// What was said to the commands of one job, in order.
pub(super) type Answers = SmallVec<[Answer; 2]>;

/// A place in the queue.
pub(super) type Slot<'a> = mpsc::Permit<'a, Job>;

/// The end that publishers hold.
#[derive(Clone)]
pub(super) struct Publisher {
    queue: mpsc::Sender<Job>,
}

/// The end that the task holds.
pub(super) struct Writer {
    client: Arc<Client>,
    health: Arc<Health>,
    queue: mpsc::Receiver<Job>,
    closing: watch::Receiver<bool>,
    flight: VecDeque<Job>,
    in_flight: usize,
    heard: Instant,
    writes: Counter,
    reconnects: Counter,
}

impl Job {
    /// Of `count` commands, with the answers to come.
    pub(super) fn new(commands: Vec<u8>, count: usize) -> (Self, oneshot::Receiver<Answers>) {
        let (told, answers) = oneshot::channel();
        (Self { commands, count, answers: Answers::with_capacity(count), told: Some(told) }, answers)
    }

    /// Of `count` commands whose answers nobody wants.
    pub(super) fn unasked(commands: Vec<u8>, count: usize) -> Self {
        Self { commands, count, answers: Answers::with_capacity(count), told: None }
    }

    /// Whoever wanted it published was told that it is not.
    fn is_given_up(&self) -> bool {
        self.told.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

impl Publisher {
    /// With its task's end.
    pub(super) fn new(client: Arc<Client>, health: Arc<Health>, closing: watch::Receiver<bool>) -> (Self, Writer) {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = Writer {
            client,
            health,
            queue: jobs,
            closing,
            flight: VecDeque::new(),
            in_flight: 0,
            heard: Instant::now(),
            writes: counter!(names::BUS_WRITES, "engine" => "redis"),
            reconnects: reconnects_of("publish"),
        };
        (Self { queue }, writer)
    }

    /// Waits for a place in the queue; `None` once it is closed.
    pub(super) async fn slot(&self) -> Option<Slot<'_>> {
        self.queue.reserve().await.ok()
    }

    /// Sends what nobody waits for, if there is room.
    pub(super) fn try_send(&self, job: Job) {
        if self.queue.try_send(job).is_err() {
            tracing::debug!("the queue to redis is full: a word that nobody waits for is not sent");
        }
    }
}

impl Writer {
    /// Carries jobs until the bus is closed and what it took is answered.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            match self.client.wire().await {
                Ok(wire) => {
                    self.health.is_back();
                    backoff.reset();
                    match self.carry(wire).await {
                        Ok(()) => return,
                        Err(broke) => self.health.is_away(broke.to_string()),
                    }
                    self.reconnects.increment(1);
                }
                Err(unavailable) => self.health.is_away(unavailable.why),
            }
            if *self.closing.borrow() {
                return;
            }
            tokio::select! {
                () = sleep(backoff.wait()) => {}
                _ = self.closing.changed() => {}
            }
        }
    }

    /// Until it breaks, or all is done and the bus is closed.
    ///
    /// While an answer is due, what comes waits in the queue, and wakes nobody; then all of it leaves by one write. So a
    /// publish that is alone leaves at once, and the more publish at a time, the fewer writes and reads each of them costs
    /// this node, the server and the nodes that receive. It waits for one round trip more at most.
    async fn carry(&mut self, wire: Wire) -> Result<(), WireError> {
        let Wire { mut incoming, mut outgoing, mut tether } = wire;
        self.heard = Instant::now();
        self.write_again(&mut outgoing);
        let mut closing = self.closing.clone();
        let mut is_closing = *closing.borrow_and_update();
        let mut closed = pin!(closing.changed());
        let mut silent = pin!(sleep_until(self.heard + SILENCE));
        loop {
            self.answer(&mut incoming, &tether)?;
            if self.flight.is_empty() && is_closing && self.queue.is_empty() {
                self.queue.close();
                return Ok(());
            }
            tokio::select! {
                biased;
                read = incoming.read() => {
                    read?;
                    self.heard = Instant::now();
                }
                () = tether.ended() => return Err(WireError::Ended),
                job = self.queue.recv(), if self.flight.is_empty() => self.take(job, &mut outgoing),
                written = outgoing.write(), if outgoing.waits() => {
                    written?;
                    self.writes.increment(1);
                }
                _ = &mut closed, if !is_closing => is_closing = true,
                // Set anew only when it is over: what was heard meanwhile costs no look at the timer.
                () = &mut silent => {
                    if self.heard.elapsed() >= SILENCE {
                        self.is_quiet(&mut outgoing)?;
                    }
                    silent.as_mut().reset(self.heard + SILENCE);
                }
            }
        }
    }

    fn take(&mut self, job: Option<Job>, outgoing: &mut Outgoing) {
        // The time that a server may take begins with what it is asked.
        self.heard = Instant::now();
        let mut next = job;
        while let Some(job) = next {
            if !job.is_given_up() {
                outgoing.put(&job.commands);
                self.in_flight += job.commands.len();
                self.flight.push_back(job);
            }
            next = if self.in_flight < IN_FLIGHT { self.queue.try_recv().ok() } else { None };
        }
    }

    /// What the last connection left unanswered, unless nobody waits for it any more.
    fn write_again(&mut self, outgoing: &mut Outgoing) {
        self.flight.retain(|job| job.told.is_some() && !job.is_given_up());
        for job in &mut self.flight {
            job.answers.clear();
            outgoing.put(&job.commands);
        }
        self.in_flight = self.flight.iter().map(|job| job.commands.len()).sum();
    }

    fn answer(&mut self, incoming: &mut Incoming, tether: &Tether) -> Result<(), WireError> {
        while let Some(frame) = incoming.next()? {
            // The job stays under way: it is written again on the next connection.
            if let Frame::Error(why) = &frame
                && tether.judge(why)
            {
                return Err(WireError::Refused(why.clone()));
            }
            let Some(job) = self.flight.front_mut() else {
                return Err(WireError::Malformed("an answer to nothing".to_owned()));
            };
            job.answers.push(match frame {
                Frame::Integer(nodes) => Answer::Reached(u32::try_from(nodes).unwrap_or(u32::MAX)),
                Frame::Error(why) => {
                    tracing::error!(%why, "redis refuses to publish");
                    Answer::Refused
                }
                _ => Answer::Reached(0),
            });
            if job.answers.len() == job.count
                && let Some(job) = self.flight.pop_front()
            {
                self.in_flight -= job.commands.len();
                // Whoever gave up in the meantime is not told.
                job.told.map(|told| told.send(job.answers));
            }
        }
        Ok(())
    }

    /// Nothing was heard for a while: a fault where an answer is due, else a reason to ask.
    fn is_quiet(&mut self, outgoing: &mut Outgoing) -> Result<(), WireError> {
        if !self.flight.is_empty() {
            return Err(WireError::Silent(SILENCE));
        }
        let mut ping = Vec::new();
        put_command(&mut ping, &[b"PING"]);
        self.take(Some(Job::unasked(ping, 1)), outgoing);
        Ok(())
    }
}

/// Counts how often the way that does `what` was lost.
pub(super) fn reconnects_of(what: &'static str) -> Counter {
    counter!(names::BUS_RECONNECTS, "engine" => "redis", "way" => what)
}
