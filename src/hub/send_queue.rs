//! What waits for one socket, and [`flush`]: the one place where bytes leave.
//!
//! Knows no connection and no time. The bounds are kept before anything gets here (`Connection::reserve`).

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::Socket;
use super::load::Load;

/// Parts of one write. The kernel takes up to 1 024; beyond some dozens a further call costs less than the list.
const PARTS: usize = 64;

/// Runs for which a queue takes memory once the first does not suffice.
const SPILL: usize = 7;

/// Runs of frames in order; the first may be written in part. With up to one run it owns no memory but the run's share.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    runs: SmallVec<[Run; 1]>,
    /// The first run has lost its beginning to the socket: what is left of it must come before anything else.
    begun: bool,
}

/// One entry: whole frames, at least until a write takes a part of them.
#[derive(Debug)]
struct Run {
    bytes: Bytes,
    /// What it holds of its connection's bounds; nothing for what the shard itself says.
    load: Load,
}

/// What a flush did.
#[derive(Debug, Default)]
pub(super) struct Flush {
    /// Calls of the socket.
    pub(super) writes: u64,
    /// Bytes it took.
    pub(super) bytes: u64,
    /// Of the runs that are written whole.
    pub(super) done: Load,
    /// Why it stopped with something left.
    pub(super) stopped: Option<io::Error>,
}

/// Writes what waits, as much as the socket takes now, with as few calls as there can be.
pub(super) fn flush(queue: &mut SendQueue, socket: &dyn Socket) -> Flush {
    let mut flush = Flush::default();
    while !queue.is_empty() {
        flush.writes += 1;
        match queue.write_once(socket) {
            Ok(0) => flush.stopped = Some(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                flush.bytes += written as u64;
                flush.done = flush.done.plus(queue.advance(written));
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => flush.stopped = Some(error),
        }
        break;
    }
    flush
}

impl SendQueue {
    /// Takes a run, which must not be empty.
    pub(super) fn push(&mut self, bytes: Bytes, load: Load) {
        debug_assert!(!bytes.is_empty(), "an empty run would never be written");
        if self.runs.len() == 1 {
            // A second one is seldom the last.
            self.runs.reserve(SPILL);
        }
        self.runs.push(Run { bytes, load });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Drops everything; tells what that gives back.
    pub(super) fn clear(&mut self) -> Load {
        self.begun = false;
        std::mem::take(&mut self.runs).iter().fold(Load::default(), |sum, run| sum.plus(run.load))
    }

    /// Drops what the socket has seen nothing of; tells what that gives back.
    pub(super) fn clear_unbegun(&mut self) -> Load {
        let begun = usize::from(self.begun).min(self.runs.len());
        let load = self.runs[begun..].iter().fold(Load::default(), |sum, run| sum.plus(run.load));
        self.runs.truncate(begun);
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

    /// Takes `written` bytes off the front; tells the load of the runs that are done.
    fn advance(&mut self, mut written: usize) -> Load {
        let mut done = Load::default();
        let mut whole = 0;
        for run in &self.runs {
            if run.bytes.len() > written {
                break;
            }
            written -= run.bytes.len();
            done = done.plus(run.load);
            whole += 1;
        }
        if whole == self.runs.len() {
            // A burst's list goes back to the allocator: an idle connection owns none.
            self.runs = SmallVec::new();
            self.begun = false;
            return done;
        }
        self.runs.drain(..whole);
        self.begun = (self.begun && whole == 0) || written > 0;
        self.runs[0].bytes.advance(written);
        done
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use parking_lot::Mutex;

    use super::*;

    /// Takes as many bytes a call as it is told, then would block.
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
    fn what_waits_goes_out_in_one_call() {
        let (mut queue, socket) = (queue(&["one ", "two ", "three"]), sips(&[100]));
        let flush = flush(&mut queue, &socket);
        assert!(flush.stopped.is_none() && queue.is_empty());
        assert_eq!((flush.writes, flush.bytes, flush.done), (1, 13, Load::new(13, 3)));
        assert_eq!(socket.0.lock().1, b"one two three");
    }

    #[test]
    fn a_write_in_part_goes_on_where_it_stopped() {
        let (mut queue, socket) = (queue(&["one ", "two ", "three"]), sips(&[2, 3, 1]));
        let first = flush(&mut queue, &socket);
        assert_eq!(first.stopped.unwrap().kind(), io::ErrorKind::WouldBlock);
        assert_eq!((first.bytes, first.done), (6, Load::new(4, 1)));
        socket.0.lock().0 = vec![100];
        assert_eq!(flush(&mut queue, &socket).done, Load::new(9, 2));
        assert_eq!(socket.0.lock().1, b"one two three");
    }

    #[test]
    fn a_slow_consumer_keeps_only_the_run_that_its_socket_stands_in() {
        let (mut begun, socket) = (queue(&["one ", "two ", "three"]), sips(&[5]));
        flush(&mut begun, &socket);
        assert_eq!(begun.clear_unbegun(), Load::new(5, 1));
        begun.push(Bytes::from_static(b"bye"), Load::default());
        socket.0.lock().0 = vec![100];
        assert_eq!(flush(&mut begun, &socket).done, Load::new(4, 1));
        assert_eq!(socket.0.lock().1, b"one two bye");

        let mut untouched = queue(&["one ", "two "]);
        assert_eq!(untouched.clear_unbegun(), Load::new(8, 2));
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
        assert_eq!(flush.stopped.unwrap().kind(), io::ErrorKind::WriteZero);
    }
}
