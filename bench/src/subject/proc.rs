//! CPU and memory of a process from `/proc`, so that any process with a known id can be measured. Independent of
//! servers.
//!
//! CPU equals the result of `getrusage` in that process, measured from outside. The scheduler's counters give each
//! thread's time in nanoseconds; `/proc/PID/stat` gives the split into user and system.

use std::time::Duration;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// CPU time of a process since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    ticks: Ticks,
    /// Living threads with their run times. Empty if the kernel does not report them.
    threads: Vec<(u32, Duration)>,
}

/// Total of all threads, including ended ones, in steps of [`TICK`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ticks {
    user: Duration,
    system: Duration,
}

/// CPU time between two readings of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// Heap and stacks: memory that the program itself requested.
    pub(crate) anonymous: u64,
}

/// One tick of `/proc/PID/stat`: USER_HZ is 100 on every architecture that Skylark builds for.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of all threads of the calling process since its start.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Cpu {
    /// # Errors
    /// The process is gone.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
        let ticks = parse_stat(&text).with_context(|| format!("cannot read /proc/{pid}/stat"))?;
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))?;
        let run_time = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.ok()?.path();
            let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
            Some((path.file_name()?.to_str()?.parse().ok()?, parse_schedstat(&text)?))
        };
        // A thread may end meanwhile; its time remains in the ticks.
        Ok(Self { ticks, threads: threads.filter_map(run_time).collect() })
    }

    /// Sums a process and its descendants, which may share its work.
    ///
    /// # Errors
    /// The process is gone.
    pub(crate) fn of_family(pid: u32) -> anyhow::Result<Self> {
        // A child may end meanwhile.
        let children = descendants(pid).into_iter().filter_map(|child| Self::of(child).ok());
        Ok(children.fold(Self::of(pid)?, Self::and))
    }

    /// Sums two processes.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.ticks.user += other.ticks.user;
        self.ticks.system += other.ticks.system;
        self.threads.extend(other.threads);
        self
    }

    /// CPU time used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> CpuTime {
        let ticks = self.ticks.total().saturating_sub(earlier.ticks.total());
        let threads: Duration =
            self.threads.iter().map(|thread| thread.1.saturating_sub(earlier.run_time(thread.0))).sum();
        let has_lost = earlier.threads.iter().any(|(tid, _)| self.threads.iter().all(|(other, _)| other != tid));
        // Only the ticks include ended threads.
        let is_coarse = self.threads.is_empty() || (has_lost && ticks > threads);
        let total = if is_coarse { ticks } else { threads };
        let user = total.mul_f64(self.ticks.user_share(&earlier.ticks));
        CpuTime { user, system: total.saturating_sub(user) }
    }

    fn run_time(&self, tid: u32) -> Duration {
        self.threads.iter().find(|thread| thread.0 == tid).map_or(Duration::ZERO, |thread| thread.1)
    }
}

impl Ticks {
    fn total(&self) -> Duration {
        self.user + self.system
    }

    /// Share of user time since `earlier`, or of the total if no tick has passed.
    fn user_share(&self, earlier: &Self) -> f64 {
        let (user, total) = (self.user.saturating_sub(earlier.user), self.total().saturating_sub(earlier.total()));
        let (user, total) = if total.is_zero() { (self.user, self.total()) } else { (user, total) };
        if total.is_zero() { 0.0 } else { user.as_secs_f64() / total.as_secs_f64() }
    }
}

/// Memory of another process.
///
/// # Errors
/// The process is gone.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    parse_status(&text).with_context(|| format!("cannot read /proc/{pid}/status"))
}

/// Memory of a process and its descendants.
///
/// # Errors
/// The process is gone.
pub(crate) fn memory_of_family(pid: u32) -> anyhow::Result<Memory> {
    let mut whole = memory(pid)?;
    for child in descendants(pid).into_iter().filter_map(|child| memory(child).ok()) {
        whole.resident += child.resident;
        whole.anonymous += child.anonymous;
    }
    Ok(whole)
}

/// All descendants of a process.
fn descendants(pid: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let children = threads.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("children")).ok());
    let children: Vec<u32> =
        children.flat_map(|text| text.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    children.into_iter().flat_map(|child| std::iter::once(child).chain(descendants(child))).collect()
}

fn parse_stat(text: &str) -> Option<Ticks> {
    // The name in parentheses may hold any text, even a parenthesis.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11).map(|field| field.parse::<u32>().ok());
    Some(Ticks { user: TICK * fields.next()??, system: TICK * fields.next()?? })
}

/// Nanoseconds on a CPU, nanoseconds of waiting for one, and the number of time slices.
fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
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

    const fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn cpu(user: u64, system: u64, threads: &[(u32, u64)]) -> Cpu {
        let threads = threads.iter().map(|(tid, run)| (*tid, Duration::from_micros(*run))).collect();
        Cpu { ticks: Ticks { user: millis(user), system: millis(system) }, threads }
    }

    #[test]
    fn the_fields_of_stat_are_counted_behind_the_name() {
        let text = "12 (a ) name) S 1 2 3 4 5 6 7 8 9 10 250 75 0 0 20 0";
        assert_eq!(parse_stat(text), Some(Ticks { user: millis(2500), system: millis(750) }));
    }

    #[test]
    fn threads_tell_more_than_ticks_and_ticks_tell_the_split() {
        let (from, to) = (cpu(100, 100, &[(1, 5_000), (2, 0)]), cpu(110, 130, &[(1, 45_000), (2, 200), (3, 1_800)]));
        let used = to.since(&from);
        assert_eq!((used.user, used.system), (Duration::from_micros(10_500), Duration::from_micros(31_500)));
    }

    #[test]
    fn a_thread_that_ended_is_in_the_ticks() {
        let (from, to) = (cpu(0, 100, &[(1, 0), (2, 90_000)]), cpu(0, 150, &[(1, 10_000)]));
        assert_eq!(to.since(&from).system, millis(50));
        // The other threads include time that the ticks have missed.
        assert_eq!(cpu(0, 100, &[(1, 10_000)]).since(&from).system, millis(10));
    }

    #[test]
    fn without_the_scheduler_there_are_ticks() {
        assert_eq!(cpu(30, 10, &[]).since(&cpu(0, 0, &[])), CpuTime { user: millis(30), system: millis(10) });
    }

    #[test]
    fn less_than_a_tick_is_split_like_the_rest() {
        let used = cpu(30, 10, &[(1, 4_000)]).since(&cpu(30, 10, &[(1, 0)]));
        assert_eq!(used, CpuTime { user: millis(3), system: millis(1) });
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let text = "Name:\tx\nVmRSS:\t  2048 kB\nRssAnon:\t  1024 kB\n";
        assert_eq!(parse_status(text), Some(Memory { resident: 2048 * 1024, anonymous: 1024 * 1024 }));
    }

    #[test]
    fn family_of_a_process_includes_its_children() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let own = std::process::id();
        assert!(descendants(own).contains(&child.id()));
        assert!(memory_of_family(own).unwrap().resident > memory(own).unwrap().resident / 2);
        assert!(Cpu::of_family(own).unwrap().threads.iter().any(|(tid, _)| *tid == child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn this_process_has_used_cpu() {
        let from = Cpu::of(std::process::id()).unwrap();
        assert!(from.since(&Cpu::default()).user + from.since(&Cpu::default()).system > Duration::ZERO);
        assert!(memory(std::process::id()).unwrap().resident > 0);
    }
}
