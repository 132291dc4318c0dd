//! The probe of a subscription: a second channel on the same connection, on which only this node publishes.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::broker::redis::wire::Frame;

/// A subscription that gave nothing for so long is probed, and given up where the probe does not come back in time.
pub(super) const PROBE: Duration = Duration::from_secs(2);
/// Why all connections end then.
pub(super) const DEAF: &str = "a probe on the intake's subscription does not come back: it stands on another server";

/// Finds a subscription that stands and receives nothing, by a second channel of the same connection.
pub(super) struct Probe {
    /// The node's own channel.
    pub(super) channel: String,
    /// What is published there. Random, so that no publisher of the intake's channel writes it.
    pub(super) token: Bytes,
    /// False where the user may not subscribe to the channel or publish on it.
    pub(super) is_allowed: bool,
    /// When the subscription gave something last.
    pub(super) heard: Instant,
    /// When the server took the probe that is under way.
    pub(super) sent: Option<Instant>,
}

impl Probe {
    pub(super) fn new(name: &str, node: &str) -> Self {
        let (channel, random) = (format!("{name}:probe:{node}"), RandomState::new());
        let words = [random.hash_one(&channel), random.hash_one(std::process::id())];
        let token = format!("skylark-probe {:016x}{:016x}", words[0], words[1]).into();
        Self { channel, token, is_allowed: true, heard: Instant::now(), sent: None }
    }

    /// A subscription begins.
    pub(super) fn begin(&mut self) {
        self.is_allowed = true;
        self.hear();
    }

    /// The subscription gave something, or had no chance to.
    pub(super) fn hear(&mut self) {
        self.heard = Instant::now();
        self.sent = None;
    }

    pub(super) fn is_refused(&mut self, why: &str) {
        self.is_allowed = false;
        let channel = self.channel.as_str();
        tracing::warn!(channel, why, "no probe is possible: a subscription that receives nothing is not noticed");
    }

    /// What was published on the topic, if the frame is that.
    pub(super) fn payload(&mut self, frame: Frame) -> Option<Bytes> {
        let payload = message(frame)?;
        self.hear();
        (payload != self.token).then_some(payload)
    }
}

/// What was published, if the frame is that.
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
