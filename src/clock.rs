//! The wall clock and the CPU clocks, as Skylark counts them.
//!
//! For what acts. What is pure (`protocol`, `session`) takes `now` as an argument and stands below this module.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Time since 1970; zero on a clock that stands before.
#[must_use]
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_millis() -> i64 {
    i64::try_from(since_1970().as_millis()).unwrap_or(i64::MAX)
}

/// CPU of the calling thread so far.
#[must_use]
pub fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

/// Page faults of the calling thread so far: each one is time that the kernel took, and that the thread's CPU clock counts.
#[must_use]
#[allow(unsafe_code)]
pub fn thread_faults() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a `rusage` of our own, which the call fills; all zeros are a valid `rusage`, too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_minflt.unsigned_abs() + usage.ru_majflt.unsigned_abs()
}

/// CPU of all threads of this process so far.
#[must_use]
pub fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
