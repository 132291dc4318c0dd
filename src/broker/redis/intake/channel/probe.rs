//! Probe of a subscription: a second channel on the same connection, to which only this node publishes.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::broker::redis::wire::Frame;

/// Idle time after which a subscription is probed, and time limit of the probe.
pub(super) const PROBE: Duration = Duration::from_secs(2);
/// Reason for ending all connections then.
pub(super) const PROBE_LOST: &str =
    "a probe on the intake's subscription was not received: its connection is on another server";

/// Detects a subscription that receives nothing, by a second channel on the same connection.
pub(super) struct Probe {
    /// Channel of this node.
    pub(super) channel: String,
    /// Payload of the probe. Random, so that no publisher of the intake's channel sends it.
    pub(super) token: Bytes,
    /// False if the user lacks the right to subscribe to the channel or to publish on it.
    pub(super) is_allowed: bool,
    /// Time of the last message of the subscription.
    pub(super) last_message: Instant,
    /// Time at which the server accepted the pending probe.
    pub(super) sent: Option<Instant>,
}

impl Probe {
    pub(super) fn new(name: &str, node: &str) -> Self {
        let (channel, random) = (format!("{name}:probe:{node}"), RandomState::new());
        let halves = [random.hash_one(&channel), random.hash_one(std::process::id())];
        let token = format!("skylark-probe {:016x}{:016x}", halves[0], halves[1]).into();
        Self { channel, token, is_allowed: true, last_message: Instant::now(), sent: None }
    }

    /// Starts with a new subscription.
    pub(super) fn reset(&mut self) {
        self.is_allowed = true;
        self.on_message();
    }

    /// Notes that the subscription received a message, or could not receive one.
    pub(super) fn on_message(&mut self) {
        self.last_message = Instant::now();
        self.sent = None;
    }

    pub(super) fn disable(&mut self, why: &str) {
        self.is_allowed = false;
        let channel = self.channel.as_str();
        tracing::warn!(channel, why, "probe is not permitted; a subscription that receives nothing stays undetected");
    }

    /// Returns the payload of a message on the topic. `None` for other frames and for the probe.
    pub(super) fn payload(&mut self, frame: Frame) -> Option<Bytes> {
        let payload = message(frame)?;
        self.on_message();
        (payload != self.token).then_some(payload)
    }
}

/// Returns the payload if the frame is a published message.
pub(super) fn message(frame: Frame) -> Option<Bytes> {
    if let Frame::Message(payload) = frame { Some(payload) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_is_no_record() {
        let mut probe = Probe::new("sky:intake:chat", "n1");
        probe.sent = Some(Instant::now());
        assert_eq!(probe.payload(Frame::Integer(1)), None);
        assert!(probe.sent.is_some(), "only what was published proves that the subscription receives");
        assert_eq!(probe.payload(Frame::Message(probe.token.clone())), None);
        assert!(probe.sent.is_none());
        assert_eq!(probe.payload(Frame::Message(Bytes::from_static(b"x"))), Some(Bytes::from_static(b"x")));
        assert_ne!(Probe::new("sky:intake:chat", "n1").token, probe.token);
    }
}
