//! Faults of a guest by name. A host must survive each of them.

use std::hint::black_box;

/// The faults that [`commit`] knows.
pub const NAMES: [&str; 5] = ["trap", "spin", "hog", "overflow", "flood"];

/// Commits the named fault; any other name does nothing.
///
/// - `trap`: panics, which executes an `unreachable` instruction.
/// - `spin`: loops forever without a call of the host.
/// - `hog`: allocates memory until an allocation fails.
/// - `overflow`: recurses until the stack overflows.
/// - `flood`: logs forever.
pub fn commit(name: &str) {
    match name {
        "trap" => panic!("told to trap"),
        "spin" => spin(),
        "hog" => hog(),
        "overflow" => {
            overflow(1);
        }
        "flood" => loop {
            skylark_plugin::log::info("a line nobody asked for ".repeat(64));
        },
        _ => {}
    }
}

fn spin() {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn hog() {
    let mut taken = Vec::new();
    loop {
        taken.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "that is the fault")]
fn overflow(depth: u64) -> u64 {
    let here = black_box([depth; 64]);
    overflow(depth + 1) + here[0]
}
