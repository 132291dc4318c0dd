//! What a guest can do wrong, by name: each is one that a host has to survive.

use std::hint::black_box;

/// Every word that [`commit`] knows.
pub const NAMES: [&str; 5] = ["trap", "spin", "hog", "overflow", "flood"];

/// Goes wrong in the way that is named; any other word does nothing.
///
/// - `trap`: panics, which is an `unreachable` instruction.
/// - `spin`: never returns, and calls nothing.
/// - `hog`: takes memory until it gets no more.
/// - `overflow`: calls itself until the stack ends.
/// - `flood`: logs without end.
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
