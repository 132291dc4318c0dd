//! Send queue of one socket, and [`flush`], the only function that writes bytes to sockets.
//!
//! Independent of connections and time. `Connection::reserve` enforces the limits before bytes get here.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::Socket;
use super::load::Load;

/// Maximum parts of one write. The kernel accepts up to 1 024, but beyond some dozens a second call is cheaper.
const PARTS: usize = 64;

/// Number of runs for which a queue allocates memory once it holds more than one.
const SPILL: usize = 7;

/// Runs of frames, in order. The first may be partly written. With up to one run the queue allocates no memory.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    runs: SmallVec<[Run; 1]>,
    /// True if the first run is partly written. Its rest must be sent before anything else.
    partly_written: bool,
}

/// One entry: complete frames, until a write takes a part of them.
#[derive(Debug)]
struct Run {
    bytes: Bytes,
    /// Share of the connection's limits. Zero for frames of the shard itself.
    load: Load,
}

/// Result of a flush.
#[derive(Debug, Default)]
pub(super) struct Flush {
    /// Number of write calls.
    pub(super) writes: u64,
    /// Number of bytes accepted by the socket.
    pub(super) bytes: u64,
    /// Load of the completely written runs.
    pub(super) done: Load,
    /// Error that stopped the flush before the queue was empty.
    pub(super) error: Option<io::Error>,
}

/// Writes as many queued bytes as the socket accepts now, with the fewest possible calls.
pub(super) fn flush(queue: &mut SendQueue, socket: &dyn Socket) -> Flush {
    let mut flush = Flush::default();
    while !queue.is_empty() {
        flush.writes += 1;
        match queue.write_once(socket) {
            Ok(0) => flush.error = Some(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                flush.bytes += written as u64;
                flush.done = flush.done.plus(queue.advance(written));
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => flush.error = Some(error),
        }
        break;
    }
    flush
}

impl SendQueue {
    /// Adds a run, which must not be empty.
    pub(super) fn push(&mut self, bytes: Bytes, load: Load) {
        debug_assert!(!bytes.is_empty(), "an empty run would never be written");
        if self.runs.len() == 1 {
            // After a second run, more usually follow.
            self.runs.reserve(SPILL);
        }
        self.runs.push(Run { bytes, load });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Drops all runs and returns their load.
    pub(super) fn clear(&mut self) -> Load {
        self.partly_written = false;
        std::mem::take(&mut self.runs).iter().fold(Load::default(), |sum, run| sum.plus(run.load))
    }

    /// Drops the runs of which the socket has no byte yet, and returns their load.
    pub(super) fn clear_unstarted(&mut self) -> Load {
        let started = usize::from(self.partly_written).min(self.runs.len());
        let load = self.runs[started..].iter().fold(Load::default(), |sum, run| sum.plus(run.load));
        self.runs.truncate(started);
        load
    }

    fn write_once(&self, socket: &dyn Socket) -> io::Result<usize> {
        if let [run] = self.runs.as_slice() {
            return socket.try_write(&[IoSlice::new(&run.bytes)]);
        }
        let mut parts = [IoSlice::new(&[]); PARTS];
        let count = self.runs.len().min(PARTS);
        for (part, run) in parts.iter_mut().zip(&self.runs) {
            *part = IoSlice::new(&run.bytes);
        }
        socket.try_write(&parts[..count])
    }

    /// Removes `written` bytes from the front and returns the load of the completed runs.
    fn advance(&mut self, mut written: usize) -> Load {
        let mut done = Load::default();
        let mut complete = 0;
        for run in &self.runs {
            if run.bytes.len() > written {
                break;
            }
            written -= run.bytes.len();
            done = done.plus(run.load);
            complete += 1;
        }
        if complete == self.runs.len() {
            // Frees the list after a burst, so that idle connections hold no memory.
            self.runs = SmallVec::new();
            self.partly_written = false;
            return done;
        }
        self.runs.drain(..complete);
        self.partly_written = (self.partly_written && complete == 0) || written > 0;
        self.runs[0].bytes.advance(written);
        done
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use parking_lot::Mutex;

    use super::*;

    /// Socket that accepts the given numbers of bytes per call, then blocks.
    struct Sips(Mutex<(Vec<usize>, Vec<u8>)>);

    impl Socket for Sips {
        fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            let (sips, taken) = &mut *self.0.lock();
            if sips.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let n = sips.remove(0).min(all.len());
            taken.extend(&all[..n]);
            Ok(n)
        }

        fn poll_writable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn shutdown(&self, _abort: bool) {}
    }

    fn sips(of: &[usize]) -> Sips {
        Sips(Mutex::new((of.to_vec(), Vec::new())))
    }

    fn queue(runs: &[&'static str]) -> SendQueue {
        let mut queue = SendQueue::default();
        for run in runs {
            queue.push(Bytes::from_static(run.as_bytes()), Load::new(run.len(), 1));
        }
        queue
    }

    #[test]
    fn queued_parts_are_written_in_one_call() {
        let (mut queue, socket) = (queue(&["one ", "two ", "three"]), sips(&[100]));
        let flush = flush(&mut queue, &socket);
        assert!(flush.error.is_none() && queue.is_empty());
        assert_eq!((flush.writes, flush.bytes, flush.done), (1, 13, Load::new(13, 3)));
        assert_eq!(socket.0.lock().1, b"one two three");
    }

    #[test]
    fn partial_write_continues_at_its_next_byte() {
        let (mut queue, socket) = (queue(&["one ", "two ", "three"]), sips(&[2, 3, 1]));
        let first = flush(&mut queue, &socket);
        assert_eq!(first.error.unwrap().kind(), io::ErrorKind::WouldBlock);
        assert_eq!((first.bytes, first.done), (6, Load::new(4, 1)));
        socket.0.lock().0 = vec![100];
        assert_eq!(flush(&mut queue, &socket).done, Load::new(9, 2));
        assert_eq!(socket.0.lock().1, b"one two three");
    }

    #[test]
    fn clearing_keeps_only_the_partly_written_run() {
        let (mut begun, socket) = (queue(&["one ", "two ", "three"]), sips(&[5]));
        flush(&mut begun, &socket);
        assert_eq!(begun.clear_unstarted(), Load::new(5, 1));
        begun.push(Bytes::from_static(b"bye"), Load::default());
        socket.0.lock().0 = vec![100];
        assert_eq!(flush(&mut begun, &socket).done, Load::new(4, 1));
        assert_eq!(socket.0.lock().1, b"one two bye");

        let mut untouched = queue(&["one ", "two "]);
        assert_eq!(untouched.clear_unstarted(), Load::new(8, 2));
        assert!(untouched.is_empty());
    }

    #[test]
    fn more_parts_than_one_call_takes_are_written_by_several() {
        let mut queue = queue(&["x"; 150]);
        let flush = flush(&mut queue, &sips(&[1000; 9]));
        assert_eq!((flush.writes, flush.bytes), (3, 150));
    }

    #[test]
    fn a_socket_that_takes_nothing_is_broken() {
        let flush = flush(&mut queue(&["x"]), &sips(&[0]));
        assert_eq!(flush.error.unwrap().kind(), io::ErrorKind::WriteZero);
    }
}
