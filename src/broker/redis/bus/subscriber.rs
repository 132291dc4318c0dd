//! The only connection on which a node receives. Records are read, deduplicated and delivered in batches.
//!
//! Nothing is read during a delivery. So the server disconnects a node that is too slow, which the node notices as a
//! gap, instead of filling its memory. A connection that receives nothing is detected by a probe: a record to the
//! node's own channel must come back.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::super::names::Names;
use super::super::server::ConnectionToken;
use super::super::wire::{Frame, Incoming, Outgoing, Wire, WireError, put_command};
use super::health::Health;
use super::inbox::Inbox;
use super::publisher::{Answer, Answers};
use super::reconnect::Serve;
use super::subscriptions::Subscriptions;

/// Maximum number of streams per SUBSCRIBE.
const CHUNK: usize = 1_000;
/// Maximum number of pending confirmations. Further subscriptions wait.
const MAX_DUE: usize = 20_000;
/// Idle time after which a connection is sent a PING. After the same time without an answer it is dropped.
const IDLE: Duration = Duration::from_secs(2);
/// Reason for ending all connections when a probe did not come back.
const PROBE_LOST: &str =
    "a probe was not received: the publishing and the receiving connection are on different servers";
/// PING argument that comes back after all earlier confirmations.
const READY: &str = "ready";

/// State of the subscriber task.
pub(super) struct Subscriber {
    names: Names,
    /// Channels of every node.
    base: Vec<String>,
    subscriptions: Arc<Subscriptions>,
    inbox: Inbox,
    health: Arc<Health>,
    closing: watch::Receiver<bool>,
    /// True if an earlier connection had all subscriptions, so that a gap lies before this one.
    was_ready: bool,
}

/// State of one connection.
struct Progress {
    /// Number of pending confirmations.
    due: usize,
    last_received: Instant,
    /// True while a PING is in flight.
    ping_sent: bool,
    /// Time of the last record.
    last_record: Instant,
    probe: Probe,
    /// True once all initial subscriptions are requested, followed by `READY`.
    is_marked: bool,
    /// True once `READY` came back, so all of them are confirmed.
    is_ready: bool,
}

/// A record from the node to itself.
enum Probe {
    /// No probe is in flight.
    Idle,
    /// The probe is queued in the publisher.
    Sent(oneshot::Receiver<Answers>),
    /// The server has accepted the probe, which must come back before this time.
    Due(Instant),
}

impl Progress {
    fn new(due: usize) -> Self {
        let now = Instant::now();
        let probe = Probe::Idle;
        Self { due, last_received: now, ping_sent: false, last_record: now, probe, is_marked: false, is_ready: false }
    }

    /// Time at which the connection counts as idle.
    fn idle_at(&self) -> Instant {
        self.last_received + if self.ping_sent { 2 * IDLE } else { IDLE }
    }

    /// Time of the next timer event.
    fn next_at(&self) -> Instant {
        match self.probe {
            Probe::Idle => self.idle_at().min(self.last_record + IDLE),
            Probe::Sent(_) => self.idle_at(),
            Probe::Due(at) => self.idle_at().min(at),
        }
    }

    /// Notes a received record, which proves that the connection receives.
    fn receive(&mut self) {
        self.last_record = Instant::now();
        self.probe = Probe::Idle;
    }

    /// Handles the server's answer to the probe. Returns true if the probe reached no subscriber.
    fn on_probe_answer(&mut self, answers: Option<&[Answer]>) -> bool {
        match answers {
            Some([Answer::Reached(0)]) => return true,
            Some([Answer::Reached(_)]) => self.probe = Probe::Due(Instant::now() + IDLE),
            // The probe was not published, which says nothing about this connection.
            _ => self.receive(),
        }
        false
    }
}

impl Subscriber {
    /// Creates the receiver of `base`, the channels of every node, and of `subscriptions`.
    pub(super) fn new(
        (names, base): (Names, Vec<String>),
        subscriptions: Arc<Subscriptions>,
        inbox: Inbox,
        health: Arc<Health>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self { names, base, subscriptions, inbox, health, closing, was_ready: false }
    }
}

impl Serve for Subscriber {
    /// Runs until the connection breaks or the bus is closed.
    async fn serve(&mut self, wire: Wire) -> Result<(), WireError> {
        let Wire { mut incoming, mut outgoing, mut token } = wire;
        self.subscriptions.requeue_all();
        let mut progress = Progress::new(self.base.len());
        let channels: Vec<&str> = self.base.iter().map(String::as_str).collect();
        send_command(&mut outgoing, b"SUBSCRIBE", channels.into_iter());
        let mut closing = self.closing.clone();
        if *closing.borrow_and_update() {
            return Ok(());
        }
        let mut closed = pin!(closing.changed());
        let mut timer = pin!(sleep_until(progress.next_at()));
        loop {
            let was_ready = progress.is_ready;
            self.read_frames(&mut incoming, &token, &mut progress).await?;
            if progress.is_ready && !was_ready {
                progress.receive();
                self.health.mark_connected();
                if std::mem::replace(&mut self.was_ready, true) {
                    self.inbox.gap();
                }
            }
            if let Some(next) = self.send_changes(&mut outgoing, &mut progress)
                && next < timer.deadline()
            {
                timer.as_mut().reset(next);
            }
            tokio::select! {
                biased;
                read = incoming.read() => {
                    read?;
                    progress.last_received = Instant::now();
                    progress.ping_sent = false;
                }
                () = token.ended() => return Err(WireError::Ended),
                written = outgoing.write(), if outgoing.has_pending() => written?,
                () = self.subscriptions.changed.notified() => {}
                answers = probe_answer(&mut progress.probe) => {
                    if progress.on_probe_answer(answers.as_deref()) {
                        token.end_all(PROBE_LOST);
                    }
                    timer.as_mut().reset(progress.next_at());
                }
                // Reset only when it fires, so that received frames need no access to the timer.
                () = &mut timer => {
                    self.on_timer(&mut outgoing, &mut progress, &token)?;
                    timer.as_mut().reset(progress.next_at());
                }
                _ = &mut closed => return Ok(()),
            }
        }
    }
}

impl Subscriber {
    /// Sends a PING on an idle connection, and a probe if it received no record for a while.
    fn on_timer(
        &self,
        outgoing: &mut Outgoing,
        progress: &mut Progress,
        token: &ConnectionToken,
    ) -> Result<(), WireError> {
        let now = Instant::now();
        if progress.idle_at() <= now {
            if std::mem::replace(&mut progress.ping_sent, true) {
                return Err(WireError::TimedOut(2 * IDLE));
            }
            send_command(outgoing, b"PING", std::iter::empty());
        }
        match progress.probe {
            // Until all subscriptions are confirmed, other time-outs guard the connection.
            Probe::Idle if !progress.is_ready => progress.last_record = now,
            Probe::Idle if progress.last_record + IDLE <= now => progress.probe = Probe::Sent(self.inbox.probe()),
            Probe::Due(at) if at <= now => token.end_all(PROBE_LOST),
            _ => {}
        }
        Ok(())
    }

    /// Handles all complete frames and delivers their records.
    async fn read_frames(
        &mut self,
        incoming: &mut Incoming,
        token: &ConnectionToken,
        progress: &mut Progress,
    ) -> Result<(), WireError> {
        let mut has_received = false;
        while let Some(frame) = incoming.next()? {
            match frame {
                Frame::Message(record) => {
                    has_received = true;
                    self.inbox.add_record(&record).await;
                }
                Frame::Array(parts) => match parts.as_slice() {
                    [Frame::Bulk(Some(kind)), Frame::Bulk(Some(channel)), _] if **kind == *b"subscribe" => {
                        progress.due = progress.due.saturating_sub(1);
                        let subscription =
                            std::str::from_utf8(channel).ok().and_then(|name| self.names.subscription_of(name));
                        subscription.iter().for_each(|subscription| self.subscriptions.confirm(subscription));
                    }
                    [_, Frame::Bulk(Some(word))] if **word == *READY.as_bytes() => progress.is_ready = true,
                    // Confirmations of an unsubscribe, and PONG.
                    _ => {}
                },
                Frame::Error(why) => {
                    token.end_all_if_fatal(&why);
                    return Err(WireError::Refused(why));
                }
                Frame::Simple(_) | Frame::Integer(_) | Frame::Bulk(_) => {}
            }
        }
        self.inbox.deliver_batch().await;
        if has_received {
            progress.receive();
        }
        Ok(())
    }

    /// Sends new subscriptions and due unsubscribes. Returns the time of the next unsubscribe.
    fn send_changes(&self, outgoing: &mut Outgoing, progress: &mut Progress) -> Option<Instant> {
        while progress.due < MAX_DUE {
            let new = self.subscriptions.take_new(CHUNK);
            if new.is_empty() {
                if !std::mem::replace(&mut progress.is_marked, true) {
                    send_command(outgoing, b"PING", std::iter::once(READY));
                }
                break;
            }
            progress.due += new.len();
            let channels: Vec<String> =
                new.iter().map(|subscription| self.names.channel(subscription.into())).collect();
            send_command(outgoing, b"SUBSCRIBE", channels.iter().map(String::as_str));
        }
        let (expired, next) = self.subscriptions.take_expired(CHUNK);
        if !expired.is_empty() {
            let channels: Vec<String> =
                expired.iter().map(|subscription| self.names.channel(subscription.into())).collect();
            send_command(outgoing, b"UNSUBSCRIBE", channels.iter().map(String::as_str));
        }
        next
    }
}

/// Waits for the server's answer to a pending probe. Cancel safe.
async fn probe_answer(probe: &mut Probe) -> Option<Answers> {
    match probe {
        Probe::Sent(answers) => answers.await.ok(),
        Probe::Idle | Probe::Due(_) => std::future::pending().await,
    }
}

fn send_command<'a>(outgoing: &mut Outgoing, command: &'a [u8], channels: impl Iterator<Item = &'a str>) {
    let arguments: Vec<&[u8]> = std::iter::once(command).chain(channels.map(str::as_bytes)).collect();
    let mut bytes = Vec::new();
    put_command(&mut bytes, &arguments);
    outgoing.put(&bytes);
}
