//! Counters of the hub. They are summed locally and passed to the recorder once per batch.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, counter, gauge};

use super::send_queue::Flush;
use super::{FrameRun, Totals};
use crate::disconnect::Disconnect;
use crate::message::Receipt;
use crate::telemetry::names;

/// [`Totals`] of one shard, readable from any thread.
#[derive(Debug, Default)]
pub(super) struct TotalsCell {
    writes: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl TotalsCell {
    pub(super) fn read(&self) -> Totals {
        Totals {
            writes: self.writes.load(Ordering::Relaxed),
            frames: self.frames.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Counters of a shard.
pub(super) struct ShardMeters {
    counts: Totals,
    writes: Counter,
    frames: Counter,
    bytes: Counter,
    pings: Counter,
    mailbox: Gauge,
}

impl ShardMeters {
    pub(super) fn new(shard: usize) -> Self {
        Self {
            counts: Totals::default(),
            writes: counter!(names::FLUSHES),
            frames: counter!(names::FRAMES_SENT),
            bytes: counter!(names::BYTES_SENT),
            pings: counter!(names::PINGS),
            mailbox: gauge!(names::MAILBOX, "shard" => shard.to_string()),
        }
    }

    pub(super) fn count(&mut self, flush: &Flush) {
        self.counts.writes += flush.writes;
        self.counts.frames += flush.done.frames();
        self.counts.bytes += flush.bytes;
    }

    pub(super) fn count_ping(&self) {
        self.pings.increment(1);
    }

    pub(super) fn set_mailbox(&self, commands: usize) {
        self.mailbox.set(commands as f64);
    }

    /// Publishes the counts since the last call.
    pub(super) fn publish(&mut self, cell: &TotalsCell) {
        let Totals { writes, frames, bytes } = std::mem::take(&mut self.counts);
        if writes == 0 {
            return;
        }
        cell.writes.fetch_add(writes, Ordering::Relaxed);
        cell.frames.fetch_add(frames, Ordering::Relaxed);
        cell.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.writes.increment(writes);
        self.frames.increment(frames);
        self.bytes.increment(bytes);
    }
}

/// Counters of routing.
pub(super) struct RouteMeters {
    delivered: Counter,
    full: Counter,
}

impl RouteMeters {
    pub(super) fn new() -> Self {
        Self { delivered: counter!(names::DELIVERED), full: counter!(names::LOST_FULL) }
    }

    /// Counts frames, of which each connection of a receipt got the whole run.
    pub(super) fn count(&self, batch: &[FrameRun], receipts: &[Receipt]) {
        let (mut delivered, mut full) = (0, 0);
        for (delivery, receipt) in batch.iter().zip(receipts) {
            let frames = delivery.frames.count() as u64;
            delivered += u64::from(receipt.delivered) * frames;
            full += u64::from(receipt.full) * frames;
        }
        let counters = [(&self.delivered, delivered), (&self.full, full)];
        counters.into_iter().filter(|(_, n)| *n > 0).for_each(|(counter, n)| counter.increment(n));
    }
}

/// Counts a closed connection. Codes chosen by clients share one label.
pub(super) fn count_close(why: Disconnect) {
    counter!(names::CLOSED, "code" => close_label(why)).increment(1);
}

fn close_label(why: Disconnect) -> String {
    let is_listed = Disconnect::ALL.iter().any(|(own, _)| *own == why);
    let is_fault = WEBSOCKET_FAULTS.contains(&why.code) && !why.reason.is_empty();
    if is_listed || is_fault { why.code.to_string() } else { BY_CLIENT.to_owned() }
}

/// Label of connections closed by their clients. An echoed client code has no reason text.
const BY_CLIENT: &str = "client";
/// Faults of WebSocket itself, without a close code of Skylark (RFC 6455 §7.4.1).
const WEBSOCKET_FAULTS: [u16; 2] = [1002, 1007];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_chosen_by_clients_share_one_label() {
        for code in 0..=u16::MAX {
            assert_eq!(close_label(Disconnect { code, reason: "" }), "client");
        }
        assert_eq!(close_label(Disconnect::KICKED), "4503");
        assert_eq!(close_label(Disconnect { code: 1002, reason: "websocket protocol error" }), "1002");
    }
}
