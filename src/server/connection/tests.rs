//! Size limits of the driver that integration tests cannot see.

use super::*;

/// The size of the future that a function returns, without calling it.
fn size_of_future<A, F: Future>(_: fn(A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn an_idle_connection_is_small() {
    // A hundred thousand idle connections each hold this, in addition to the hub's state.
    let (task, driver, reader) = (size_of_future(run), size_of::<Driver>(), size_of::<Reader>());
    let words = format!("task {task} bytes, driver {driver}, {reader} of them its reader");
    assert!(task + driver <= 1024, "{words}");
    assert!(size_of::<ConnectionStart>() <= 256, "start {} bytes", size_of::<ConnectionStart>());
}
