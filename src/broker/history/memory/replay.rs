//! Streams that a journal restores.

use std::collections::HashMap;
use std::time::Duration;

use super::stream::Stream;
use crate::broker::history::journal::{Record, Replay};
use crate::config::History as Settings;
use crate::message::{Epoch, StreamName};

/// The streams so far.
pub(super) struct Replayed<'a> {
    pub(super) streams: HashMap<StreamName, Stream>,
    pub(super) settings: &'a Settings,
}

impl Replayed<'_> {
    /// The streams that still exist at `now`, least recently appended first, and the names of the others.
    pub(super) fn finish(self, now: Duration) -> (Vec<(StreamName, Stream)>, Vec<StreamName>) {
        let ttl_max = self.settings.ttl_max;
        let (mut live, mut over) = (Vec::new(), Vec::new());
        for (name, mut stream) in self.streams {
            stream.limit_times(now, ttl_max);
            stream.expire(now);
            if stream.is_over(now, ttl_max) {
                over.push(name);
            } else {
                live.push((name, stream));
            }
        }
        live.sort_by_key(|(_, stream)| stream.appended());
        (live, over)
    }
}

impl Replay for Replayed<'_> {
    fn apply(&mut self, record: Record, segment: u64) {
        match record {
            Record::Append(append) => {
                let bounds = self.settings.bounds(&append.name);
                let open = || Stream::new(append.epoch, append.appended);
                let stream = self.streams.entry(append.name.clone()).or_insert_with(open);
                stream.replay(append, segment);
                stream.trim(bounds);
            }
            Record::State(state) => {
                self.streams.insert(state.name.clone(), Stream::restored(state, segment));
            }
            Record::Drop(name) => drop(self.streams.remove(&name)),
            Record::Renew(seed) => {
                self.streams.iter_mut().for_each(|(name, stream)| stream.renew(renewed(seed, name)));
            }
            Record::Head(_) | Record::End | Record::Optional => {}
        }
    }

    fn clear(&mut self) {
        self.streams.clear();
    }
}

/// The epoch that a renewal gives to a stream. Each replay has to find the same one, so that the hash is fixed
/// (FNV-1a).
fn renewed(seed: u64, name: &StreamName) -> Epoch {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    Epoch::new(name.to_string().bytes().fold(seed, step))
}
