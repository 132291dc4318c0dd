//! WASI with an empty context: no files, no environment, no sockets. A guest's output becomes log lines, capped per
//! call.
//!
//! Linked async: the sync linker panics on a tokio worker when a guest writes to standard error.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{Deterministic, WasiCtx, async_trait};

use super::limits::{LogDecision, LogRate};
use crate::plugin::time::Time;

/// Replaces the first line that exceeds the share of a call.
const CUT: &str = "(this call logged too much: the rest is cut)";
/// Longest line; a longer one is cut into several.
const LINE_BYTES: usize = 1 << 10;

/// Log budget of one instance for the current call.
#[derive(Debug)]
pub(in crate::plugin) struct LogBudget {
    plugin: Arc<str>,
    /// Bytes that one call may log, printing included.
    share: usize,
    left: AtomicUsize,
    /// Bytes per second of all calls of the plugin.
    rate: Arc<LogRate>,
}

impl LogBudget {
    pub(in crate::plugin) fn new(plugin: Arc<str>, share: usize, rate: Arc<LogRate>) -> Self {
        Self { plugin, share, left: AtomicUsize::new(share), rate }
    }

    pub(in crate::plugin) fn refill(&self) {
        self.left.store(self.share, Ordering::Relaxed);
    }

    /// Charges a line. The first line that does not fit is replaced by a notice; the following ones are dropped.
    pub(in crate::plugin) fn line<'a>(&self, text: &'a str) -> Option<&'a str> {
        let left = self.left.load(Ordering::Relaxed);
        let cost = text.len() + 1;
        self.left.store(left.saturating_sub(cost), Ordering::Relaxed);
        let (text, cost) = match left {
            0 => return None,
            _ if cost > left => (CUT, CUT.len() + 1),
            _ => (text, cost),
        };
        match self.rate.take(cost, Instant::now()) {
            LogDecision::Write => Some(text),
            LogDecision::WriteNotice => Some("(the plugin logged too much: the rest of this second is cut)"),
            LogDecision::Discard => None,
        }
    }

    fn print(&self, line: &str) {
        if let Some(line) = self.line(line) {
            tracing::info!(target: "skylark::plugin::guest", plugin = %self.plugin, line);
        }
    }
}

/// The empty context of one instance.
pub(in crate::plugin) fn context(budget: &Arc<LogBudget>, time: &Time, seed: Option<u64>) -> WasiCtx {
    let mut builder = WasiCtx::builder();
    builder
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(64 << 10)
        .wall_clock(time.clone())
        .monotonic_clock(time.clone())
        .stdout(GuestOutput(Arc::clone(budget)))
        .stderr(GuestOutput(Arc::clone(budget)));
    if let Some(seed) = seed {
        let bytes = repeatable_bytes(seed);
        builder
            .secure_random(Deterministic::new(bytes.clone()))
            .insecure_random_seed(seed.into())
            .insecure_random(Deterministic::new(bytes));
    }
    builder.build()
}

/// Pseudo-random bytes, the same for the same seed (SplitMix64). They repeat after 4 096 bytes.
fn repeatable_bytes(seed: u64) -> Vec<u8> {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let number = |index: u64| {
        let z = seed.wrapping_add(index.wrapping_mul(STEP));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (1..=512).flat_map(|index| number(index).to_le_bytes()).collect()
}

struct GuestOutput(Arc<LogBudget>);

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only wasi 0.1 and 0.3 use this form, and neither is linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(LineStream { budget: Arc::clone(&self.0), line: Vec::new() })
    }
}

struct LineStream {
    budget: Arc<LogBudget>,
    /// The line that is not complete yet.
    line: Vec<u8>,
}

impl LineStream {
    fn write_line(&mut self) {
        if !self.line.is_empty() {
            self.budget.print(String::from_utf8_lossy(&self.line).trim_end());
            self.line.clear();
        }
    }
}

impl Drop for LineStream {
    fn drop(&mut self) {
        self.write_line();
    }
}

#[async_trait]
impl Pollable for LineStream {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for LineStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in part.chunks(LINE_BYTES) {
                self.line.extend_from_slice(piece);
                if piece.ends_with(b"\n") || self.line.len() >= LINE_BYTES {
                    self.write_line();
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(share: usize, rate: &Arc<LogRate>) -> LogBudget {
        LogBudget::new("p".into(), share, Arc::clone(rate))
    }

    #[test]
    fn log_lines_beyond_the_budget_of_a_call_are_dropped() {
        let budget = budget(100, &Arc::new(LogRate::new(1_000)));
        let long = "x".repeat(90);
        assert_eq!(budget.line(&long), Some(long.as_str()));
        assert!(budget.line("0123456789").unwrap().contains("this call logged too much"));
        assert_eq!(budget.line("more"), None);
        budget.refill();
        assert_eq!(budget.line("more"), Some("more"));
    }

    #[test]
    fn instances_and_calls_share_the_second_of_their_plugin() {
        let rate = Arc::new(LogRate::new(100));
        let (one, other) = (budget(90, &rate), budget(90, &rate));
        let long = "x".repeat(60);
        assert_eq!(one.line(&long), Some(long.as_str()));
        assert!(other.line(&long).unwrap().contains("the plugin logged too much"));
        one.refill();
        assert_eq!(one.line(&long), None);
    }
}
