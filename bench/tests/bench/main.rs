//! Black-box tests of the bench: the built program, with small settings.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod peers;
mod runs;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The built bench, without the environment variables of the test runner.
fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skylark-bench"));
    command.stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SKYLARK__") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// Directory of the sample plugins.
fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
