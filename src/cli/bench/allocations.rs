//! Counts what a server under test allocates: mimalloc, and a number that grows once it is asked for.
//!
//! It is the allocator of the whole program, since Rust has one for a program; while nobody counts it costs a load and
//! a branch that is always predicted.

use std::alloc::{GlobalAlloc, Layout};
use std::io::BufRead as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mimalloc::MiMalloc;

use super::super::print;

/// The program's allocator, mimalloc, which can count.
#[derive(Debug)]
pub struct Allocator;

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// In front of the number that answers.
pub(super) const ANSWER: &str = "allocations ";

/// Counts from now on, and answers each line of standard input with the number so far.
pub(super) fn answer_on_stdin() {
    COUNTS.store(true, Ordering::Relaxed);
    // Ends with the process, or when the bench that asks is gone.
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

/// Counts from now on in this process, and tells the number so far.
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

// SAFETY: every call goes to mimalloc as it came, and what that answers goes back; counting touches two
// atomics and allocates nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that mimalloc asks for.
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
