//! Counts allocations of a server under test: mimalloc with a counter that is switched on by the first request.
//!
//! It is the allocator of the whole program, because Rust has only one. While counting is off, it costs a load and a
//! well-predicted branch.

use std::alloc::{GlobalAlloc, Layout};
use std::io::BufRead as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mimalloc::MiMalloc;

use super::super::print;

/// The program's allocator: mimalloc with an optional counter.
#[derive(Debug)]
pub struct Allocator;

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Prefix of the answer.
pub(super) const ANSWER: &str = "allocations ";

/// Starts counting, and answers each line of standard input with the count so far.
pub(super) fn answer_on_stdin() {
    COUNTS.store(true, Ordering::Relaxed);
    // Ends with the process, or when the bench closes the pipe.
    std::thread::spawn(|| {
        let mut line = String::new();
        let mut input = std::io::stdin().lock();
        while input.read_line(&mut line).is_ok_and(|read| read > 0) {
            line.clear();
            if print(&format!("{ANSWER}{}", ALLOCATIONS.load(Ordering::Relaxed))).is_err() {
                return;
            }
        }
    });
}

/// Starts counting in this process, and returns the count so far.
pub(in crate::cli) fn so_far() -> u64 {
    COUNTS.store(true, Ordering::Relaxed);
    ALLOCATIONS.load(Ordering::Relaxed)
}

#[inline]
fn count() {
    if COUNTS.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is forwarded to mimalloc unchanged, and so is its result. Counting uses two atomics and allocates
// nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller fulfils the contract that mimalloc requires.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { MiMalloc.realloc(old, layout, size) }
    }

    #[inline]
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(old, layout) }
    }
}
