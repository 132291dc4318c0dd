//! Keeps the lease of a channel, and its subscription while the lease is held. Runs as a separate task, because the
//! lease must be renewed while the intake waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::redis::Pipeline;
use metrics::{Counter, counter};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::probe::{PROBE, PROBE_LOST, Probe};
use super::{ChannelLease, KeeperEvent, KeeperRequest, MAX_BYTES, Shared};
use crate::backoff::Backoff;
use crate::broker::Unavailable;
use crate::broker::redis::client::Client;
use crate::broker::redis::intake::lease::{Lease, LeaseStatus};
use crate::broker::redis::wire::{Frame, Wire, WireError, put_command};
use crate::broker::source::Delay;
use crate::telemetry::names;

/// Renewal interval of the owner. Other nodes check for a free lease at a random and slightly shorter interval.
const RENEW: Duration = Duration::from_millis(400);
const CHECK: Duration = Duration::from_millis(150);
/// Time limit for the confirmation of a subscription.
const CONFIRM: Duration = Duration::from_secs(1);

/// Idle time after which a subscription holds no more earlier messages.
const DRAIN_IDLE: Duration = Duration::from_millis(50);
/// Shortest time between two log lines about a full intake.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// State of the keeper task.
pub(super) struct Keeper {
    client: Arc<Client>,
    topic: String,
    /// Name of the subscribing connection, the same on every node.
    name: String,
    lease: Lease,
    check_backoff: Backoff,
    /// Connection with the subscription.
    wire: Option<Wire>,
    probe: Probe,
    /// True if this node held the lease at the last check.
    is_owner: bool,
    /// True while the node is unsubscribed because the intake fell behind.
    is_full: bool,
    /// Time of the last log line about a full intake.
    full_logged_at: Option<Instant>,
    /// Last engine state that was sent to the intake; true = reachable.
    reported_available: Option<bool>,
    events: mpsc::Sender<KeeperEvent>,
    incoming_requests: mpsc::Receiver<KeeperRequest>,
    shared: Arc<Shared>,
    /// Name of the intake in metrics.
    label: String,
    leases: Counter,
    lost: Counter,
}

/// Event that woke the keeper.
enum WakeReason {
    Request(Option<KeeperRequest>),
    Read(Result<(), WireError>),
    Space,
    Timer,
}

impl Keeper {
    pub(super) fn new(
        client: Arc<Client>,
        topic: &str,
        (name, node): (&str, &str),
        events: mpsc::Sender<KeeperEvent>,
        incoming_requests: mpsc::Receiver<KeeperRequest>,
        (shared, label, lost): (Arc<Shared>, &str, Counter),
    ) -> Self {
        Self {
            lease: Lease::new(Arc::clone(&client), name, node),
            client,
            topic: topic.to_owned(),
            name: client_name(name),
            check_backoff: Backoff::new(CHECK, CHECK),
            wire: None,
            probe: Probe::new(name, node),
            is_owner: false,
            is_full: false,
            full_logged_at: None,
            reported_available: None,
            events,
            incoming_requests,
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
            let has_space = self.has_space();
            let reason = tokio::select! {
                request = self.incoming_requests.recv() => WakeReason::Request(request),
                () = sleep_until(next) => WakeReason::Timer,
                read = read_more(&mut self.wire), if has_space => WakeReason::Read(read),
                () = self.shared.space.notified(), if !has_space || self.is_full => WakeReason::Space,
            };
            match reason {
                WakeReason::Request(Some(KeeperRequest::ConfirmLease(answer))) => {
                    let checked = self.check_lease().await;
                    next = self.next_check();
                    let _ = answer.send(checked);
                }
                WakeReason::Request(Some(KeeperRequest::Unsubscribe(answer))) => {
                    return self.hold_until_stop(answer).await;
                }
                WakeReason::Request(Some(KeeperRequest::Stop) | None) => return self.lease.release().await,
                WakeReason::Timer => {
                    let _ = self.check_lease().await;
                    next = self.next_check();
                }
                WakeReason::Read(Err(error)) => {
                    tracing::debug!(channel = self.topic, %error, "subscription ended");
                    self.wire = None;
                    next = Instant::now();
                }
                WakeReason::Read(Ok(())) | WakeReason::Space => self.forward().await,
            }
        }
    }

    /// Unsubscribes, returns the remaining messages, and keeps the lease until the source is closed.
    async fn hold_until_stop(mut self, answer: oneshot::Sender<Vec<KeeperEvent>>) {
        let rest = self.unsubscribe_and_drain().await;
        self.wire = None;
        let _ = answer.send(rest);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                request = self.incoming_requests.recv() => match request {
                    Some(KeeperRequest::ConfirmLease(answer)) => drop(answer.send(self.renew_lease().await.map(drop))),
                    Some(KeeperRequest::Unsubscribe(answer)) => drop(answer.send(Vec::new())),
                    Some(KeeperRequest::Stop) | None => break,
                },
                () = sleep_until(next) => {
                    // A draining node renews its lease but takes no new one.
                    if self.lease.held_until().is_some() {
                        let _ = self.renew_lease().await;
                    }
                    next = Instant::now() + RENEW;
                }
            }
        }
        self.lease.release().await;
    }

    /// Checks the lease once and acts on the result.
    async fn check_lease(&mut self) -> Result<(), Unavailable> {
        let checked = match self.renew_lease().await {
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
        if checked.is_err() && self.lease.held_until().is_none() {
            self.wire = None;
        }
        self.report_availability(checked.as_ref().err());
        checked
    }

    fn next_check(&mut self) -> Instant {
        let wait = if self.wire.is_some() { RENEW } else { self.check_backoff.wait() };
        Instant::now() + wait
    }

    /// Renews the lease. Returns true if this node holds it now.
    async fn renew_lease(&mut self) -> Result<bool, Unavailable> {
        let status = self.lease.renew_or_acquire().await?;
        let is_lost = match status {
            LeaseStatus::Renewed | LeaseStatus::Acquired { unbroken: true } => false,
            LeaseStatus::Acquired { unbroken: false } => true,
            LeaseStatus::HeldByOther => self.is_owner,
        };
        {
            let mut channel_lease = self.shared.channel_lease.lock();
            *channel_lease =
                ChannelLease { held_until: self.lease.held_until(), term: channel_lease.term + u64::from(is_lost) };
        }
        self.is_owner = status != LeaseStatus::HeldByOther;
        if is_lost {
            self.discard().await;
        }
        match status {
            LeaseStatus::Acquired { unbroken: false } => {
                self.leases.increment(1);
                tracing::info!(channel = self.topic, "lease acquired; this node subscribes");
            }
            LeaseStatus::HeldByOther if is_lost => {
                tracing::warn!(channel = self.topic, "lease lost; another node subscribes");
            }
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
                Ok(None) => match timeout(DRAIN_IDLE, wire.incoming.read()).await {
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
        self.close_other_subscriptions().await?;
        let mut wire = self.client.wire().await?;
        let topic = self.topic.clone();
        let (name, probe) = (&self.name, &mut self.probe);
        let confirmed = async {
            wire.request(&[b"CLIENT", b"SETNAME", name.as_bytes()]).await?;
            // Subscribed before the topic, so that a message on the topic is not taken for the answer.
            match wire.request(&[b"SUBSCRIBE", probe.channel.as_bytes()]).await {
                Ok(_) => probe.reset(),
                Err(WireError::Refused(why)) => probe.disable(&why),
                Err(error) => return Err(error),
            }
            wire.request(&[b"SUBSCRIBE", topic.as_bytes()]).await
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
    async fn close_other_subscriptions(&mut self) -> Result<(), Unavailable> {
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
        let Some(token) = self.wire.as_ref().map(|wire| wire.token.clone()) else { return };
        // Nothing is read while there is no space, so no probe can come back.
        if self.is_full || !self.has_space() || !self.probe.is_allowed {
            return self.probe.on_message();
        }
        let is_lost = match self.probe.sent {
            Some(sent) => sent.elapsed() >= PROBE,
            None if self.probe.last_message.elapsed() < PROBE => false,
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
                        self.probe.disable(&error.why);
                        false
                    }
                    Ok(Err(_)) | Err(_) => false,
                }
            }
        };
        if is_lost {
            token.end_all(PROBE_LOST);
        }
    }

    fn has_space(&self) -> bool {
        self.events.capacity() > 0 && self.shared.bytes.load(Ordering::Acquire) < MAX_BYTES
    }

    /// Forwards received messages while there is space. Otherwise unsubscribes and subscribes again later.
    async fn forward(&mut self) {
        let term = self.shared.channel_lease.lock().term;
        let Some(wire) = &mut self.wire else { return };
        let mut is_broken = false;
        while self.events.capacity() > 0 && self.shared.bytes.load(Ordering::Acquire) < MAX_BYTES {
            match wire.incoming.next() {
                Ok(Some(frame)) => {
                    let Some(payload) = self.probe.payload(frame) else { continue };
                    self.shared.bytes.fetch_add(payload.len(), Ordering::AcqRel);
                    if self.events.try_send(KeeperEvent::Message { payload, term }).is_err() {
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
        let is_full = !self.has_space();
        if is_full != self.is_full && !is_broken {
            self.is_full = is_full;
            let command_name: &[u8] = if is_full { b"UNSUBSCRIBE" } else { b"SUBSCRIBE" };
            is_broken = self.send_command(command_name).await.is_err();
            self.report_full();
        }
        if is_broken {
            self.wire = None;
        }
    }

    /// Counts the leave with its reason. Records published meanwhile cannot be counted, because no node receives them.
    fn report_full(&mut self) {
        let channel = &self.topic;
        if !self.is_full {
            return tracing::debug!(channel, "intake has space again; subscribed");
        }
        let reason = self.shared.delay.lock().map_or("slow", Delay::as_str);
        counter!(names::INTAKE_LEFT, "intake" => self.label.clone(), "reason" => reason).increment(1);
        if self.full_logged_at.is_none_or(|logged_at| logged_at.elapsed() >= LOG_INTERVAL) {
            self.full_logged_at = Some(Instant::now());
            tracing::warn!(
                channel,
                reason,
                "intake is full; unsubscribed: PUBLISH reports 0 receivers until it subscribes again"
            );
        }
    }

    /// Unsubscribes and returns the messages that arrived until then.
    async fn unsubscribe_and_drain(&mut self) -> Vec<KeeperEvent> {
        let mut rest = Vec::new();
        let term = self.shared.channel_lease.lock().term;
        // A full intake has unsubscribed already, and has not read the messages that came before.
        if !self.is_full && self.send_command(b"UNSUBSCRIBE").await.is_err() {
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
                    rest.push(KeeperEvent::Message { payload, term });
                }
                Ok(None) => match tokio::time::timeout_at(deadline, wire.incoming.read()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return rest,
                },
                Err(_) => return rest,
            }
        }
    }

    async fn send_command(&mut self, command_name: &[u8]) -> Result<(), WireError> {
        let Some(wire) = &mut self.wire else { return Ok(()) };
        let mut command = Vec::new();
        put_command(&mut command, &[command_name, self.topic.as_bytes()]);
        wire.outgoing.put(&command);
        let write = async {
            while wire.outgoing.has_pending() {
                wire.outgoing.write().await?;
            }
            Ok(())
        };
        timeout(CONFIRM, write).await.unwrap_or(Err(WireError::Closed))
    }

    /// Tells the intake when the engine becomes unreachable or reachable.
    fn report_availability(&mut self, fault: Option<&Unavailable>) {
        let is_available = fault.is_none();
        if self.reported_available == Some(is_available) {
            return;
        }
        let event = fault.map_or(KeeperEvent::Available, |why| KeeperEvent::Unavailable(why.clone()));
        // If the queue is full, the next call repeats it.
        if self.events.try_send(event).is_ok() {
            self.reported_available = Some(is_available);
        }
    }
}

/// Waits for more bytes of the subscription. Never returns if there is none.
async fn read_more(wire: &mut Option<Wire>) -> Result<(), WireError> {
    match wire {
        Some(Wire { incoming, token, .. }) => tokio::select! {
            biased;
            read = incoming.read() => read,
            () = token.ended() => Err(WireError::Ended),
        },
        None => std::future::pending().await,
    }
}

fn is_confirmation(frame: &Frame, name: &[u8]) -> bool {
    matches!(frame, Frame::Array(parts) if matches!(parts.first(), Some(Frame::Bulk(Some(kind))) if &kind[..] == name))
}

/// Returns the id of a line of CLIENT LIST, if the client has this name.
fn id_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let field = |key: &str| line.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    field("id").filter(|_| field("name") == Some(name))
}

/// Converts a name to a valid client name: printable ASCII without blanks. Different names stay different.
fn client_name(name: &str) -> String {
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
        assert_eq!((client_name("a:b").as_str(), client_name("云 %").as_str()), ("a:b", "%e4%ba%91%20%25"));
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
