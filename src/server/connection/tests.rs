//! Bounds of the driver that no integration test sees.

use super::*;

#[test]
fn an_idle_connection_is_small() {
    // 100 000 idle connections hold this future each.
    let bytes = size_of::<Driver>();
    let reader = size_of::<Reader>();
    assert!(bytes <= 1024, "a driver takes {bytes} bytes, {reader} of them its reader");
}
