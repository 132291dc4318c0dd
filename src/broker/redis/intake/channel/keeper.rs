//! Keeps the lease of a channel, and its subscription while the lease is held. Runs as a separate task, because the
//! lease must be renewed while the intake waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::redis::Pipeline;
use metrics::{Counter, counter};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::probe::{DEAF, PROBE, Probe};
use super::{Ask, Heard, MOST_BYTES, Shared, Tenure};
use crate::backoff::Backoff;
use crate::broker::Unavailable;
use crate::broker::redis::client::Client;
use crate::broker::redis::intake::lease::{Held, Lease};
use crate::broker::redis::wire::{Frame, Wire, WireError, put_command};
use crate::broker::source::Delay;
use crate::telemetry::names;

/// Renewal interval of the owner. Other nodes check for a free lease at a random and slightly shorter interval.
const RENEW: Duration = Duration::from_millis(400);
const LOOK: Duration = Duration::from_millis(150);
/// Time limit for the confirmation of a subscription.
const CONFIRM: Duration = Duration::from_secs(1);

/// Idle time after which a subscription holds no more earlier messages.
const QUIET: Duration = Duration::from_millis(50);
/// Shortest time between two log lines about a full intake.
const TELL: Duration = Duration::from_secs(60);

/// State of the keeper task.
pub(super) struct Keeper {
    client: Arc<Client>,
    topic: String,
    /// Name of the subscribing connection, the same on every node.
    name: String,
    lease: Lease,
    looks: Backoff,
    /// Connection with the subscription.
    wire: Option<Wire>,
    probe: Probe,
    /// True if this node held the lease at the last check.
    is_owner: bool,
    /// True while the node is unsubscribed because the intake fell behind.
    is_full: bool,
    /// Time of the last log line about a full intake.
    told_full: Option<Instant>,
    /// Last engine state that was sent to the intake; true = reachable.
    told_there: Option<bool>,
    tells: mpsc::Sender<Heard>,
    asked: mpsc::Receiver<Ask>,
    shared: Arc<Shared>,
    /// Name of the intake in metrics.
    label: String,
    leases: Counter,
    lost: Counter,
}

/// Event that woke the keeper.
enum Woken {
    Asked(Option<Ask>),
    Read(Result<(), WireError>),
    Room,
    Time,
}

impl Keeper {
    pub(super) fn new(
        client: Arc<Client>,
        topic: &str,
        (name, node): (&str, &str),
        tells: mpsc::Sender<Heard>,
        asked: mpsc::Receiver<Ask>,
        (shared, label, lost): (Arc<Shared>, &str, Counter),
    ) -> Self {
        Self {
            lease: Lease::new(Arc::clone(&client), name, node),
            client,
            topic: topic.to_owned(),
            name: plain(name),
            looks: Backoff::new(LOOK, LOOK),
            wire: None,
            probe: Probe::new(name, node),
            is_owner: false,
            is_full: false,
            told_full: None,
            told_there: None,
            tells,
            asked,
            shared,
            label: label.to_owned(),
            leases: counter!(names::INTAKE_LEASES, "intake" => label.to_owned()),
            lost,
        }
    }

    /// Runs until it is told to end.
    pub(super) async fn run(mut self) {
        let mut next = Instant::now();
        loop {
            let has_room = self.has_room();
            let woken = tokio::select! {
                ask = self.asked.recv() => Woken::Asked(ask),
                () = sleep_until(next) => Woken::Time,
                read = more(&mut self.wire), if has_room => Woken::Read(read),
                () = self.shared.room.notified(), if !has_room || self.is_full => Woken::Room,
            };
            match woken {
                Woken::Asked(Some(Ask::Sure(answer))) => {
                    let known = self.beat().await;
                    next = self.next_beat();
                    let _ = answer.send(known);
                }
                Woken::Asked(Some(Ask::Leave(answer))) => return self.leave(answer).await,
                Woken::Asked(Some(Ask::End) | None) => return self.lease.release().await,
                Woken::Time => {
                    let _ = self.beat().await;
                    next = self.next_beat();
                }
                Woken::Read(Err(error)) => {
                    tracing::debug!(channel = self.topic, %error, "subscription ended");
                    self.wire = None;
                    next = Instant::now();
                }
                Woken::Read(Ok(())) | Woken::Room => self.forward().await,
            }
        }
    }

    /// Unsubscribes, returns the remaining messages, and keeps the lease until the source is closed.
    async fn leave(mut self, answer: oneshot::Sender<Vec<Heard>>) {
        let rest = self.unsubscribed().await;
        self.wire = None;
        let _ = answer.send(rest);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                ask = self.asked.recv() => match ask {
                    Some(Ask::Sure(answer)) => drop(answer.send(self.renewed().await.map(drop))),
                    Some(Ask::Leave(answer)) => drop(answer.send(Vec::new())),
                    Some(Ask::End) | None => break,
                },
                () = sleep_until(next) => {
                    // A draining node renews its lease but takes no new one.
                    if self.lease.sure_until().is_some() {
                        let _ = self.renewed().await;
                    }
                    next = Instant::now() + RENEW;
                }
            }
        }
        self.lease.release().await;
    }

    /// Checks the lease once and acts on the result.
    async fn beat(&mut self) -> Result<(), Unavailable> {
        let known = match self.renewed().await {
            Ok(true) if self.wire.is_none() => self.subscribe().await,
            Ok(true) => {
                self.probe().await;
                Ok(())
            }
            Ok(false) => {
                self.wire = None;
                Ok(())
            }
            Err(unavailable) => Err(unavailable),
        };
        if known.is_err() && self.lease.sure_until().is_none() {
            self.wire = None;
        }
        self.tell(known.as_ref().err());
        known
    }

    fn next_beat(&mut self) -> Instant {
        let wait = if self.wire.is_some() { RENEW } else { self.looks.wait() };
        Instant::now() + wait
    }

    /// Renews the lease. Returns true if this node holds it now.
    async fn renewed(&mut self) -> Result<bool, Unavailable> {
        let held = self.lease.hold().await?;
        let is_lost = match held {
            Held::Still | Held::Taken { unbroken: true } => false,
            Held::Taken { unbroken: false } => true,
            Held::Others => self.is_owner,
        };
        {
            let mut tenure = self.shared.tenure.lock();
            *tenure = Tenure { sure_until: self.lease.sure_until(), term: tenure.term + u64::from(is_lost) };
        }
        self.is_owner = held != Held::Others;
        if is_lost {
            self.discard().await;
        }
        match held {
            Held::Taken { unbroken: false } => {
                self.leases.increment(1);
                tracing::info!(channel = self.topic, "lease acquired; this node subscribes");
            }
            Held::Others if is_lost => tracing::warn!(channel = self.topic, "lease lost; another node subscribes"),
            _ => {}
        }
        Ok(self.is_owner)
    }

    /// Ends the subscription of an earlier term. Its remaining messages are counted as lost, because another node may
    /// have read them.
    async fn discard(&mut self) {
        let Some(mut wire) = self.wire.take() else { return };
        let deadline = Instant::now() + CONFIRM;
        let mut lost = 0;
        while Instant::now() < deadline {
            match wire.incoming.next() {
                Ok(Some(frame)) => lost += u64::from(self.probe.payload(frame).is_some()),
                Ok(None) => match timeout(QUIET, wire.incoming.read()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => break,
                },
                Err(_) => break,
            }
        }
        self.lost.increment(lost);
        if lost > 0 {
            tracing::warn!(channel = self.topic, lost, "lease lost; messages received since are dropped");
        }
    }

    /// Ends all other subscriptions of nodes in this cluster, then subscribes.
    async fn subscribe(&mut self) -> Result<(), Unavailable> {
        self.evict().await?;
        let mut wire = self.client.wire().await?;
        let topic = self.topic.clone();
        let (name, probe) = (&self.name, &mut self.probe);
        let confirmed = async {
            wire.ask(&[b"CLIENT", b"SETNAME", name.as_bytes()]).await?;
            // Subscribed before the topic, so that a message on the topic is not taken for the answer.
            match wire.ask(&[b"SUBSCRIBE", probe.channel.as_bytes()]).await {
                Ok(_) => probe.begin(),
                Err(WireError::Refused(why)) => probe.is_refused(&why),
                Err(error) => return Err(error),
            }
            wire.ask(&[b"SUBSCRIBE", topic.as_bytes()]).await
        };
        match timeout(CONFIRM, confirmed).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Unavailable { engine: "redis", why: format!("SUBSCRIBE {topic}: {error}") }),
            Err(_) => return Err(Unavailable { engine: "redis", why: format!("SUBSCRIBE {topic}: no answer") }),
        }
        self.is_full = false;
        self.wire = Some(wire);
        self.forward().await;
        Ok(())
    }

    /// Disconnects nodes that still subscribe, because PUBLISH counts them. A suspended node keeps its subscription.
    async fn evict(&mut self) -> Result<(), Unavailable> {
        let mut list = Pipeline::new();
        list.cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub");
        let (clients,): (String,) = match self.client.run(&list).await {
            Ok(clients) => clients,
            Err(error) => {
                tracing::warn!(%error, "other subscribers cannot be listed; PUBLISH may count a paused node");
                return Ok(());
            }
        };
        let mut kill = Pipeline::new();
        let ids: Vec<&str> = clients.lines().filter_map(|line| id_of(line, &self.name)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        for id in &ids {
            kill.cmd("CLIENT").arg("KILL").arg("ID").arg(*id);
        }
        tracing::info!(channel = self.topic, ended = ids.len(), "closing subscriptions of earlier owners");
        self.client.run::<Vec<i64>>(&kill).await.map(drop)
    }

    /// Probes an idle subscription. Ends all connections if the last probe did not come back.
    async fn probe(&mut self) {
        let Some(tether) = self.wire.as_ref().map(|wire| wire.tether.clone()) else { return };
        // Nothing is read while there is no space, so no probe can come back.
        if self.is_full || !self.has_room() || !self.probe.is_allowed {
            return self.probe.hear();
        }
        let is_deaf = match self.probe.sent {
            Some(sent) => sent.elapsed() >= PROBE,
            None if self.probe.heard.elapsed() < PROBE => false,
            None => {
                let mut publish = Pipeline::new();
                publish.cmd("PUBLISH").arg(&self.probe.channel).arg(&self.probe.token[..]);
                // The lease must be renewed meanwhile, so a slow server is probed again at the next beat.
                match timeout(RENEW, self.client.run::<(u64,)>(&publish)).await {
                    Ok(Ok((0,))) => true,
                    Ok(Ok(_)) => {
                        self.probe.sent = Some(Instant::now());
                        false
                    }
                    Ok(Err(error)) if error.why.contains("NOPERM") => {
                        self.probe.is_refused(&error.why);
                        false
                    }
                    Ok(Err(_)) | Err(_) => false,
                }
            }
        };
        if is_deaf {
            tether.end_all(DEAF);
        }
    }

    fn has_room(&self) -> bool {
        self.tells.capacity() > 0 && self.shared.bytes.load(Ordering::Acquire) < MOST_BYTES
    }

    /// Forwards received messages while there is space. Otherwise unsubscribes and subscribes again later.
    async fn forward(&mut self) {
        let term = self.shared.tenure.lock().term;
        let Some(wire) = &mut self.wire else { return };
        let mut is_broken = false;
        while self.tells.capacity() > 0 && self.shared.bytes.load(Ordering::Acquire) < MOST_BYTES {
            match wire.incoming.next() {
                Ok(Some(frame)) => {
                    let Some(payload) = self.probe.payload(frame) else { continue };
                    self.shared.bytes.fetch_add(payload.len(), Ordering::AcqRel);
                    if self.tells.try_send(Heard::Message { payload, term }).is_err() {
                        self.lost.increment(1);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(channel = self.topic, %error, "subscription ended");
                    is_broken = true;
                    break;
                }
            }
        }
        let is_full = !self.has_room();
        if is_full != self.is_full && !is_broken {
            self.is_full = is_full;
            let word: &[u8] = if is_full { b"UNSUBSCRIBE" } else { b"SUBSCRIBE" };
            is_broken = self.say(word).await.is_err();
            self.tell_full();
        }
        if is_broken {
            self.wire = None;
        }
    }

    /// Counts the leave with its reason. Records published meanwhile cannot be counted, because no node receives them.
    fn tell_full(&mut self) {
        let channel = &self.topic;
        if !self.is_full {
            return tracing::debug!(channel, "intake has space again; subscribed");
        }
        let reason = self.shared.delay.lock().map_or("slow", Delay::as_str);
        counter!(names::INTAKE_LEFT, "intake" => self.label.clone(), "reason" => reason).increment(1);
        if self.told_full.is_none_or(|told| told.elapsed() >= TELL) {
            self.told_full = Some(Instant::now());
            tracing::warn!(
                channel,
                reason,
                "intake is full; unsubscribed: PUBLISH reports 0 receivers until it subscribes again"
            );
        }
    }

    /// Unsubscribes and returns the messages that arrived until then.
    async fn unsubscribed(&mut self) -> Vec<Heard> {
        let mut rest = Vec::new();
        let term = self.shared.tenure.lock().term;
        // A full intake has unsubscribed already, and has not read the messages that came before.
        if !self.is_full && self.say(b"UNSUBSCRIBE").await.is_err() {
            return rest;
        }
        let deadline = Instant::now() + CONFIRM;
        let Some(wire) = &mut self.wire else { return rest };
        loop {
            match wire.incoming.next() {
                Ok(Some(frame)) if is_confirmation(&frame, b"unsubscribe") => return rest,
                Ok(Some(frame)) => {
                    let Some(payload) = self.probe.payload(frame) else { continue };
                    self.shared.bytes.fetch_add(payload.len(), Ordering::AcqRel);
                    rest.push(Heard::Message { payload, term });
                }
                Ok(None) => match tokio::time::timeout_at(deadline, wire.incoming.read()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return rest,
                },
                Err(_) => return rest,
            }
        }
    }

    async fn say(&mut self, word: &[u8]) -> Result<(), WireError> {
        let Some(wire) = &mut self.wire else { return Ok(()) };
        let mut command = Vec::new();
        put_command(&mut command, &[word, self.topic.as_bytes()]);
        wire.outgoing.put(&command);
        let write = async {
            while wire.outgoing.waits() {
                wire.outgoing.write().await?;
            }
            Ok(())
        };
        timeout(CONFIRM, write).await.unwrap_or(Err(WireError::Closed))
    }

    /// Tells the intake when the engine becomes unreachable or reachable.
    fn tell(&mut self, away: Option<&Unavailable>) {
        let is_there = away.is_none();
        if self.told_there == Some(is_there) {
            return;
        }
        let heard = away.map_or(Heard::There, |why| Heard::Away(why.clone()));
        // If the queue is full, the next call repeats it.
        if self.tells.try_send(heard).is_ok() {
            self.told_there = Some(is_there);
        }
    }
}

/// Waits for more bytes of the subscription. Never returns if there is none.
async fn more(wire: &mut Option<Wire>) -> Result<(), WireError> {
    match wire {
        Some(Wire { incoming, tether, .. }) => tokio::select! {
            biased;
            read = incoming.read() => read,
            () = tether.ended() => Err(WireError::Ended),
        },
        None => std::future::pending().await,
    }
}

fn is_confirmation(frame: &Frame, word: &[u8]) -> bool {
    matches!(frame, Frame::Array(parts) if matches!(parts.first(), Some(Frame::Bulk(Some(kind))) if &kind[..] == word))
}

/// Returns the id of a line of CLIENT LIST, if the client has this name.
fn id_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let field = |key: &str| line.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    field("id").filter(|_| field("name") == Some(name))
}

/// Converts a name to a valid client name: printable ASCII without blanks. Different names stay different.
fn plain(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::probe::message;
    use super::*;

    #[test]
    fn a_client_is_known_by_its_whole_name() {
        let line = "id=7 addr=127.0.0.1:1 laddr=127.0.0.1:2 fd=8 name=sky:intake:chat age=1 lib-name=x";
        assert_eq!(id_of(line, "sky:intake:chat"), Some("7"));
        assert_eq!(id_of(line, "sky:intake:cha"), None);
        assert_eq!(id_of("id=8 name= age=1", "sky:intake:chat"), None);
        assert_eq!((plain("a:b").as_str(), plain("云 %").as_str()), ("a:b", "%e4%ba%91%20%25"));
    }

    #[test]
    fn only_what_was_published_is_a_message() {
        let bulk = |text: &'static str| Frame::Bulk(Some(Bytes::from_static(text.as_bytes())));
        assert_eq!(message(Frame::Message(Bytes::from_static(b"x"))), Some(Bytes::from_static(b"x")));
        let confirmed = Frame::Array(vec![bulk("unsubscribe"), bulk("chat"), Frame::Integer(0)]);
        assert!(is_confirmation(&confirmed, b"unsubscribe") && !is_confirmation(&confirmed, b"subscribe"));
        assert_eq!(message(confirmed), None);
    }
}
