//! What the kernel tells of a process: CPU and memory. Reads `/proc`; knows no server.

use std::time::Duration;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};

/// CPU that a process has used since its start, all threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    pub(super) user: Duration,
    pub(super) system: Duration,
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) resident: u64,
    /// Of which heap and stacks: what the program itself asked for.
    pub(super) anonymous: u64,
}

/// One tick of `/proc/PID/stat`: USER_HZ is 100 on every architecture that Skylark builds for.
const TICK: Duration = Duration::from_millis(10);

/// CPU of another process, in steps of 10 ms.
///
/// # Errors
/// The process is gone.
pub(super) fn cpu(pid: u32) -> anyhow::Result<Cpu> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    parse_stat(&text).with_context(|| format!("cannot read /proc/{pid}/stat"))
}

/// Memory of another process.
///
/// # Errors
/// The process is gone.
pub(super) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    parse_status(&text).with_context(|| format!("cannot read /proc/{pid}/status"))
}

/// CPU of this process.
pub(super) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn parse_stat(text: &str) -> Option<Cpu> {
    // The name in parentheses may hold anything, even a parenthesis.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11).map(|field| field.parse::<u32>().ok());
    Some(Cpu { user: TICK * fields.next()??, system: TICK * fields.next()?? })
}

fn parse_status(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    Some(Memory { resident: field("VmRSS:")?, anonymous: field("RssAnon:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_stat_are_counted_behind_the_name() {
        let text = "12 (a ) name) S 1 2 3 4 5 6 7 8 9 10 250 75 0 0 20 0";
        let cpu = Cpu { user: Duration::from_millis(2500), system: Duration::from_millis(750) };
        assert_eq!(parse_stat(text), Some(cpu));
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let text = "Name:\tx\nVmRSS:\t  2048 kB\nRssAnon:\t  1024 kB\n";
        assert_eq!(parse_status(text), Some(Memory { resident: 2048 * 1024, anonymous: 1024 * 1024 }));
    }

    #[test]
    fn this_process_has_used_cpu() {
        assert!(cpu(std::process::id()).is_ok());
        assert!(memory(std::process::id()).unwrap().resident > 0);
    }
}
