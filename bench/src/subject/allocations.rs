//! Reports the allocations of a server under test to the process that started it.

use std::io::BufRead as _;

use skylark::allocator::allocations;

use crate::print;

/// Prefix of the answer.
pub(crate) const ANSWER: &str = "allocations ";

/// Starts counting, and answers each line of standard input with the count so far.
pub(crate) fn answer_on_stdin() {
    allocations();
    // Ends with the process, or when the bench closes the pipe.
    std::thread::spawn(|| {
        let mut line = String::new();
        let mut input = std::io::stdin().lock();
        while input.read_line(&mut line).is_ok_and(|read| read > 0) {
            line.clear();
            if print(&format!("{ANSWER}{}", allocations())).is_err() {
                return;
            }
        }
    });
}
