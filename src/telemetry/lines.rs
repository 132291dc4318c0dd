//! Writes log lines whole. A line that cannot be written is counted and skipped.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines that could not be written because the disk was full or the pipe closed.
pub(super) type Unwritten = Arc<AtomicU64>;

/// A writer that receives one line per call.
pub(super) struct LineWriter<W> {
    out: W,
    unwritten: Unwritten,
    /// The last line was cut off, so the next one starts with a line break.
    is_torn: bool,
}

impl<W: Write> LineWriter<W> {
    pub(super) fn new(out: W, unwritten: Unwritten) -> Self {
        Self { out, unwritten, is_torn: false }
    }

    /// Writes `line`. The error holds the number of bytes written before the failure.
    fn write_whole(&mut self, line: &[u8]) -> Result<(), usize> {
        let mut written = 0;
        while written < line.len() {
            match self.out.write(&line[written..]) {
                Ok(0) => return Err(written),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(written),
            }
        }
        Ok(())
    }
}

/// Never returns an error: the writer thread would drop the lines behind this one, too.
impl<W: Write> Write for LineWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.is_torn && self.write_whole(b"\n").is_ok() {
            self.is_torn = false;
        }
        let result = if self.is_torn { Err(0) } else { self.write_whole(line) };
        if let Err(written) = result {
            self.is_torn |= written > 0;
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.out.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with a limited number of free bytes.
    #[derive(Default)]
    struct Disk {
        left: usize,
        holds: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let bytes = &bytes[..bytes.len().min(self.left)];
            if bytes.is_empty() {
                return Err(ErrorKind::StorageFull.into());
            }
            self.left -= bytes.len();
            self.holds.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(ErrorKind::StorageFull.into())
        }
    }

    #[test]
    fn lines_lost_to_a_full_disk_are_counted_and_the_next_one_is_whole() {
        let unwritten = Unwritten::default();
        let mut lines = LineWriter::new(Disk { left: 9, ..Disk::default() }, Arc::clone(&unwritten));
        for line in ["first\n", "second\n", "third\n"] {
            lines.write_all(line.as_bytes()).unwrap();
        }
        lines.flush().unwrap();
        assert_eq!(unwritten.load(Ordering::Relaxed), 2);
        lines.out.left = 100;
        lines.write_all(b"fourth\n").unwrap();
        assert_eq!(String::from_utf8_lossy(&lines.out.holds), "first\nsec\nfourth\n");
        assert_eq!(unwritten.load(Ordering::Relaxed), 2);
    }
}
