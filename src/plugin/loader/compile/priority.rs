//! Priority of the child process that compiles, and detection of a child that gets no CPU time.
//!
//! While the node serves, a child uses otherwise idle cores only. On a machine without an idle core it would never end:
//! the parent notices that and compiles again at low priority.

use std::future::pending;
use std::time::Duration;

use rustix::process::{Pid, setpriority_process};
use tokio::time::sleep;

use crate::clock;

/// Niceness at [`Priority::Low`]: about a third of the share of a normal process on the same core.
const NICENESS: i32 = 5;
/// Length of one window of observation.
const WINDOW: Duration = Duration::from_secs(2);
/// A child starves if it got less than this part of one core in a window: one in `SHARE`.
const SHARE: u32 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// Like the node itself.
    Normal,
    /// A part of each core, also on a busy machine.
    Low,
    /// Otherwise idle cores only (`SCHED_IDLE`). Niceness disturbs the node more: even at nice 19, a process keeps its
    /// core for the rest of its slice when another one wakes up.
    Idle,
}

impl Priority {
    /// Sets the priority of a process. Best effort: without it, compiling only disturbs other work more.
    pub(super) fn set(self, process: u32) {
        let Ok(process) = i32::try_from(process) else { return };
        match self {
            Self::Normal => {}
            Self::Low => {
                let _ = setpriority_process(Pid::from_raw(process), NICENESS);
            }
            Self::Idle => idle(process),
        }
    }
}

#[allow(unsafe_code)]
fn idle(process: libc::pid_t) {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter outlives the call, which only reads it.
    unsafe { libc::sched_setscheduler(process, libc::SCHED_IDLE, &raw const priority) };
}

/// Returns once the process got almost no CPU time for a whole window. Never returns if its time cannot be read.
pub(super) async fn starves(process: u32) {
    let mut before = clock::process_cpu(process);
    loop {
        sleep(WINDOW).await;
        let now = clock::process_cpu(process);
        match (before, now) {
            (Some(before), Some(now)) if is_starved(now.saturating_sub(before)) => return,
            (_, None) => return pending().await,
            _ => before = now,
        }
    }
}

/// `used`: CPU time in one window.
fn is_starved(used: Duration) -> bool {
    used * SHARE < WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_starves_below_a_tenth_of_a_core() {
        assert!(is_starved(Duration::ZERO));
        assert!(is_starved(Duration::from_millis(199)));
        assert!(!is_starved(Duration::from_millis(200)));
        assert!(!is_starved(WINDOW));
    }

    #[tokio::test(start_paused = true)]
    async fn stopped_process_starves() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        starves(child.id()).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
