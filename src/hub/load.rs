//! Fill level of a queue, counted by the routing callers and by the shard.
//!
//! Independent of the queued bytes.

use super::connection::Connection;

/// Bytes and frames that wait for a connection, or a share of them. One word holds frames in the high bits and bytes in
/// the low [`BYTE_BITS`] bits, so that one atomic operation counts both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load(pub(super) u64);

const BYTE_BITS: u32 = 40;
const BYTE_MASK: u64 = (1 << BYTE_BITS) - 1;
/// Half of the range of each field, so that the sum of two loads does not overflow into the other field.
const MAX_BYTES: u64 = BYTE_MASK >> 1;
const MAX_FRAMES: u64 = u64::MAX >> (BYTE_BITS + 1);

impl Load {
    pub(super) fn new(bytes: usize, frames: usize) -> Self {
        let (bytes, frames) = (bytes as u64, frames as u64);
        Self(frames.min(MAX_FRAMES) << BYTE_BITS | bytes.min(MAX_BYTES))
    }

    pub(super) fn bytes(self) -> u64 {
        self.0 & BYTE_MASK
    }

    pub(super) fn frames(self) -> u64 {
        self.0 >> BYTE_BITS
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    pub(super) fn fits(self, limit: Self) -> bool {
        self.bytes() <= limit.bytes() && self.frames() <= limit.frames()
    }
}

/// Reserved space for one run in a connection's queue. The drop releases unused space, so a caller that is cancelled
/// between routing and the mailbox leaves nothing behind.
pub(super) struct Reservation {
    connection: Connection,
    load: Load,
}

impl Reservation {
    /// Reserves space for `load` if possible. Otherwise [`Reservation::is_reserved`] is false, and the shard must try
    /// again after a flush.
    pub(super) fn new(connection: Connection, load: Load) -> Self {
        let load = if connection.reserve(load) { load } else { Load::default() };
        Self { connection, load }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.load != Load::default()
    }

    /// Passes the load to the queue entry of the run.
    pub(super) fn into_load(mut self) -> Load {
        std::mem::take(&mut self.load)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.connection.release(self.load);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_counts_bytes_and_frames_apart() {
        let load = Load::new(200, 1).plus(Load::new(300, 16));
        assert_eq!((load.bytes(), load.frames()), (500, 17));
        assert!(load.fits(Load::new(500, 17)));
        assert!(!load.fits(Load::new(499, 17)) && !load.fits(Load::new(500, 16)));
        let most = Load::new(usize::MAX, usize::MAX);
        assert_eq!(most.plus(most).bytes(), 2 * most.bytes(), "a field never runs over into the other");
    }
}
