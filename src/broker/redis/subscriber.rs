//! The one connection on which a node receives: what comes is read, freed of copies, and handed over in batches.
//!
//! While a batch is handed over nothing is read: a node that is too slow is cut off by the server, which it notices as a
//! gap, rather than fill its memory.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::Client;
use super::health::Health;
use super::inbox::Inbox;
use super::names::Names;
use super::publisher::{FIRST_WAIT, LONGEST_WAIT, reconnects_of};
use super::streams::Streams;
use super::wire::{Frame, Incoming, Outgoing, Wire, WireError, put_command};
use crate::backoff::Backoff;

/// Streams of one SUBSCRIBE.
const CHUNK: usize = 1_000;
/// Confirmations that may be due before more is asked for.
const DUE: usize = 20_000;
/// A connection that was quiet for so long is asked whether it still is one, and given up after as long again.
const QUIET: Duration = Duration::from_secs(2);
/// Comes back behind all confirmations before it.
const READY: &str = "ready";

/// The task.
pub(super) struct Subscriber {
    client: Arc<Client>,
    names: Names,
    /// Channels that every node hears.
    base: Vec<String>,
    streams: Arc<Streams>,
    inbox: Inbox,
    health: Arc<Health>,
    closing: watch::Receiver<bool>,
    reconnects: Counter,
}

/// What one connection has come to.
struct Progress {
    /// Confirmations that are due.
    due: usize,
    heard: Instant,
    /// A PING is under way.
    asked: bool,
    /// All that was wanted when the connection was made has been asked for, and behind it `READY`.
    is_marked: bool,
    /// The answer to that came: all of it is confirmed.
    is_ready: bool,
}

impl Progress {
    /// When it will have been quiet for too long, unless something comes.
    fn quiet_at(&self) -> Instant {
        self.heard + if self.asked { 2 * QUIET } else { QUIET }
    }
}

impl Subscriber {
    pub(super) fn new(
        (client, names, base): (Arc<Client>, Names, Vec<String>),
        streams: Arc<Streams>,
        inbox: Inbox,
        health: Arc<Health>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self { client, names, base, streams, inbox, health, closing, reconnects: reconnects_of("subscribe") }
    }

    /// Receives until the bus is closed.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut was_ready = false;
        loop {
            match self.client.wire().await {
                Ok(wire) => {
                    backoff.reset();
                    match self.listen(wire, &mut was_ready).await {
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

    /// Until it breaks, or the bus is closed. `was_ready`: there was a connection before, so that this one follows a gap.
    async fn listen(&mut self, wire: Wire, was_ready: &mut bool) -> Result<(), WireError> {
        let Wire { mut incoming, mut outgoing } = wire;
        self.streams.ask_all_again();
        let due = self.base.len();
        let mut progress = Progress { due, heard: Instant::now(), asked: false, is_marked: false, is_ready: false };
        let channels: Vec<&str> = self.base.iter().map(String::as_str).collect();
        say(&mut outgoing, b"SUBSCRIBE", channels.into_iter());
        let mut closing = self.closing.clone();
        if *closing.borrow_and_update() {
            return Ok(());
        }
        let mut closed = pin!(closing.changed());
        let mut timer = pin!(sleep_until(progress.quiet_at()));
        loop {
            let was = progress.is_ready;
            self.take_in(&mut incoming, &mut progress).await?;
            if progress.is_ready && !was {
                self.health.is_back();
                if std::mem::replace(was_ready, true) {
                    self.inbox.gap();
                }
            }
            if let Some(next) = self.say_what_changed(&mut outgoing, &mut progress)
                && next < timer.deadline()
            {
                timer.as_mut().reset(next);
            }
            tokio::select! {
                biased;
                read = incoming.read() => {
                    read?;
                    progress.heard = Instant::now();
                    progress.asked = false;
                }
                written = outgoing.write(), if outgoing.waits() => written?,
                () = self.streams.changed.notified() => {}
                // Set anew only when it is over: what was heard meanwhile costs no look at the timer.
                () = &mut timer => {
                    if progress.quiet_at() <= Instant::now() {
                        if std::mem::replace(&mut progress.asked, true) {
                            return Err(WireError::Silent(2 * QUIET));
                        }
                        say(&mut outgoing, b"PING", std::iter::empty());
                    }
                    timer.as_mut().reset(progress.quiet_at());
                }
                _ = &mut closed => return Ok(()),
            }
        }
    }

    /// All frames that are there; afterwards everything they held has been handed over.
    async fn take_in(&mut self, incoming: &mut Incoming, progress: &mut Progress) -> Result<(), WireError> {
        while let Some(frame) = incoming.next()? {
            match frame {
                Frame::Message(record) => self.inbox.take(&record).await,
                Frame::Array(parts) => match parts.as_slice() {
                    [Frame::Bulk(Some(kind)), Frame::Bulk(Some(channel)), _] if **kind == *b"subscribe" => {
                        progress.due = progress.due.saturating_sub(1);
                        let stream = std::str::from_utf8(channel).ok().and_then(|name| self.names.stream_of(name));
                        stream.iter().for_each(|stream| self.streams.confirm(stream));
                    }
                    [_, Frame::Bulk(Some(word))] if **word == *READY.as_bytes() => progress.is_ready = true,
                    // What was unsubscribed, and PONG.
                    _ => {}
                },
                Frame::Error(why) => return Err(WireError::Refused(why)),
                Frame::Simple(_) | Frame::Integer(_) | Frame::Bulk(_) => {}
            }
        }
        self.inbox.hand_over().await;
        Ok(())
    }

    /// Subscribes to what is wanted, lets go what has lingered; when there is something to do again.
    fn say_what_changed(&self, outgoing: &mut Outgoing, progress: &mut Progress) -> Option<Instant> {
        while progress.due < DUE {
            let asked = self.streams.take_asked(CHUNK);
            if asked.is_empty() {
                if !std::mem::replace(&mut progress.is_marked, true) {
                    say(outgoing, b"PING", std::iter::once(READY));
                }
                break;
            }
            progress.due += asked.len();
            let channels: Vec<String> = asked.iter().map(|stream| self.names.channel(stream.into())).collect();
            say(outgoing, b"SUBSCRIBE", channels.iter().map(String::as_str));
        }
        let (left, next) = self.streams.take_left(CHUNK);
        if !left.is_empty() {
            let channels: Vec<String> = left.iter().map(|stream| self.names.channel(stream.into())).collect();
            say(outgoing, b"UNSUBSCRIBE", channels.iter().map(String::as_str));
        }
        next
    }
}

fn say<'a>(outgoing: &mut Outgoing, command: &'a [u8], channels: impl Iterator<Item = &'a str>) {
    let words: Vec<&[u8]> = std::iter::once(command).chain(channels.map(str::as_bytes)).collect();
    let mut bytes = Vec::new();
    put_command(&mut bytes, &words);
    outgoing.put(&bytes);
}
