//! The fuzz targets of `fuzz/` over their corpus and over seeded mutations of it. `fuzz/README.md` tells how libFuzzer
//! runs them.
//!
//! `MUTATIONS=N` sets the number for each target, `SEED=N` the begin. A failure shows the input.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::support::dice::{Dice, given};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 3] = [("resume", targets::resume), ("since", targets::since), ("push", targets::push)];
/// Pieces that mutations insert.
const PIECES: [&[u8]; 14] = [
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"{",
    b"}",
    b"null",
    b"-1",
    b"9007199254740992",
    b"1e308",
    b"\xff",
    b"\\u0000",
    b"r:",
];

/// The files of a target's corpus, by name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "{} has few inputs", folder.display());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One input with some changes.
fn mutated(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = corpus[dice.roll(corpus.len())].clone();
    for _ in 0..=dice.roll(6) {
        let at = dice.roll(input.len() + 1);
        match dice.roll(5) {
            0 if at < input.len() => input[at] ^= 1 << dice.roll(8),
            1 => drop(input.splice(at..at, PIECES[dice.roll(PIECES.len())].iter().copied())),
            2 => drop(input.drain(at..(at + dice.roll(8)).min(input.len()))),
            3 => {
                let other = &corpus[dice.roll(corpus.len())];
                let from = dice.roll(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let piece = input[at..(at + dice.roll(32)).min(input.len())].to_vec();
                drop(input.splice(at..at, piece));
            }
        }
    }
    input
}

#[test]
fn corpus_and_seeded_mutations_break_no_promise() {
    let mut dice = Dice(given("SEED", 15) as u64);
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        let mutations = (0..given("MUTATIONS", 4_000)).map(|_| mutated(&corpus, &mut dice));
        for input in corpus.iter().cloned().chain(mutations.collect::<Vec<_>>()) {
            let ended = catch_unwind(|| target(&input));
            assert!(ended.is_ok(), "{name} failed for {:?}", String::from_utf8_lossy(&input));
        }
    }
}
