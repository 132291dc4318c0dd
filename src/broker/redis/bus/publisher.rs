//! The only connection on which a node publishes. Subscriptions keep their order because all records use it.
//!
//! Unanswered commands of a broken connection are sent again on the next one with the same sequence numbers, so that
//! receivers detect copies. Handles bytes and counts answers; independent of the record format.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::super::server::ConnectionToken;
use super::super::wire::{Frame, Incoming, Outgoing, Wire, WireError, put_command};
use super::health::Health;
use super::reconnect::Serve;
use crate::telemetry::names;

/// Maximum number of queued jobs. Further jobs wait for a slot.
const QUEUE: usize = 256;
/// Maximum bytes in flight. Further jobs stay in the queue.
const IN_FLIGHT: usize = 8 << 20;
/// Time limit of a due answer, after which the connection is dropped. If no answer is due, the server is sent a PING.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Answer of the server to one PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Number of nodes reached.
    Reached(u32),
    /// The command was not published.
    Refused,
}

/// Commands that are sent together.
pub(super) struct Job {
    commands: Vec<u8>,
    count: usize,
    answers: Answers,
    /// `None` if no caller waits. Such a job is not sent again.
    reply: Option<oneshot::Sender<Answers>>,
}

/// Answers to the commands of one job, in order.
pub(super) type Answers = SmallVec<[Answer; 2]>;

/// A reserved slot in the queue.
pub(super) type Slot<'a> = mpsc::Permit<'a, Job>;

/// Handle of the publishers.
#[derive(Clone)]
pub(super) struct Publisher {
    queue: mpsc::Sender<Job>,
}

/// State of the writer task.
pub(super) struct Writer {
    health: Arc<Health>,
    queue: mpsc::Receiver<Job>,
    closing: watch::Receiver<bool>,
    unanswered: VecDeque<Job>,
    in_flight: usize,
    last_received: Instant,
    writes: Counter,
}

impl Job {
    /// Creates a job of `count` commands, with a receiver for its answers.
    pub(super) fn new(commands: Vec<u8>, count: usize) -> (Self, oneshot::Receiver<Answers>) {
        let (reply, answers) = oneshot::channel();
        (Self { commands, count, answers: Answers::with_capacity(count), reply: Some(reply) }, answers)
    }

    /// Creates a job of `count` commands without a receiver for the answers.
    pub(super) fn without_reply(commands: Vec<u8>, count: usize) -> Self {
        Self { commands, count, answers: Answers::with_capacity(count), reply: None }
    }

    /// True if the caller has stopped waiting and has reported the publish as failed.
    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

impl Publisher {
    /// Creates the publisher and its writer, which sends jobs until the bus is closed and all accepted jobs are answered.
    pub(super) fn new(health: Arc<Health>, closing: watch::Receiver<bool>) -> (Self, Writer) {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = Writer {
            health,
            queue: jobs,
            closing,
            unanswered: VecDeque::new(),
            in_flight: 0,
            last_received: Instant::now(),
            writes: counter!(names::BUS_WRITES, "engine" => "redis"),
        };
        (Self { queue }, writer)
    }

    /// Waits for a slot in the queue. `None` once the queue is closed.
    pub(super) async fn slot(&self) -> Option<Slot<'_>> {
        self.queue.reserve().await.ok()
    }

    /// Sends a job without a waiting caller, if there is space.
    pub(super) fn try_send(&self, job: Job) {
        if self.queue.try_send(job).is_err() {
            tracing::debug!("publish queue is full; receipt or probe dropped");
        }
    }
}

impl Serve for Writer {
    /// Runs until the connection breaks, or until the bus is closed and all jobs are done.
    ///
    /// While an answer is due, new jobs wait in the queue without waking the task. Then all of them leave in one write.
    /// So a single publish leaves at once, and many concurrent publishes share the writes and reads of this node, the
    /// server and the receiving nodes. A job waits for one additional round trip at most.
    async fn serve(&mut self, wire: Wire) -> Result<(), WireError> {
        self.health.mark_connected();
        let Wire { mut incoming, mut outgoing, mut token } = wire;
        self.last_received = Instant::now();
        self.resend_unanswered(&mut outgoing);
        let mut closing = self.closing.clone();
        let mut is_closing = *closing.borrow_and_update();
        let mut closed = pin!(closing.changed());
        let mut silence = pin!(sleep_until(self.last_received + ANSWER_TIMEOUT));
        loop {
            self.read_answers(&mut incoming, &token)?;
            if self.unanswered.is_empty() && is_closing && self.queue.is_empty() {
                self.queue.close();
                return Ok(());
            }
            tokio::select! {
                biased;
                read = incoming.read() => {
                    read?;
                    self.last_received = Instant::now();
                }
                () = token.ended() => return Err(WireError::Ended),
                job = self.queue.recv(), if self.unanswered.is_empty() => self.write_jobs(job, &mut outgoing),
                written = outgoing.write(), if outgoing.has_pending() => {
                    written?;
                    self.writes.increment(1);
                }
                _ = &mut closed, if !is_closing => is_closing = true,
                // Reset only when it fires, so that received answers need no access to the timer.
                () = &mut silence => {
                    if self.last_received.elapsed() >= ANSWER_TIMEOUT {
                        self.on_silence(&mut outgoing)?;
                    }
                    silence.as_mut().reset(self.last_received + ANSWER_TIMEOUT);
                }
            }
        }
    }
}

impl Writer {
    fn write_jobs(&mut self, job: Option<Job>, outgoing: &mut Outgoing) {
        // The server's time limit starts with the request.
        self.last_received = Instant::now();
        let mut next = job;
        while let Some(job) = next {
            if !job.is_abandoned() {
                outgoing.put(&job.commands);
                self.in_flight += job.commands.len();
                self.unanswered.push_back(job);
            }
            next = if self.in_flight < IN_FLIGHT { self.queue.try_recv().ok() } else { None };
        }
    }

    /// Sends the unanswered jobs of the last connection again, except those without a waiting caller.
    fn resend_unanswered(&mut self, outgoing: &mut Outgoing) {
        self.unanswered.retain(|job| job.reply.is_some() && !job.is_abandoned());
        for job in &mut self.unanswered {
            job.answers.clear();
            outgoing.put(&job.commands);
        }
        self.in_flight = self.unanswered.iter().map(|job| job.commands.len()).sum();
    }

    fn read_answers(&mut self, incoming: &mut Incoming, token: &ConnectionToken) -> Result<(), WireError> {
        while let Some(frame) = incoming.next()? {
            // The job stays in flight and is sent again on the next connection.
            if let Frame::Error(why) = &frame
                && token.end_all_if_fatal(why)
            {
                return Err(WireError::Refused(why.clone()));
            }
            let Some(job) = self.unanswered.front_mut() else {
                return Err(WireError::Malformed("an answer without a command".to_owned()));
            };
            job.answers.push(match frame {
                Frame::Integer(nodes) => Answer::Reached(u32::try_from(nodes).unwrap_or(u32::MAX)),
                Frame::Error(why) => {
                    tracing::error!(%why, "redis refused PUBLISH");
                    Answer::Refused
                }
                _ => Answer::Reached(0),
            });
            if job.answers.len() == job.count
                && let Some(job) = self.unanswered.pop_front()
            {
                self.in_flight -= job.commands.len();
                // The caller may have stopped waiting.
                job.reply.map(|reply| reply.send(job.answers));
            }
        }
        Ok(())
    }

    /// Handles silence of the server: a fault if an answer is due, otherwise a reason for a PING.
    fn on_silence(&mut self, outgoing: &mut Outgoing) -> Result<(), WireError> {
        if !self.unanswered.is_empty() {
            return Err(WireError::TimedOut(ANSWER_TIMEOUT));
        }
        let mut ping = Vec::new();
        put_command(&mut ping, &[b"PING"]);
        self.write_jobs(Some(Job::without_reply(ping, 1)), outgoing);
        Ok(())
    }
}
