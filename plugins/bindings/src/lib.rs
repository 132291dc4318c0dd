//! Generates the files that other languages use from `wit/`: bindings for C in `plugins/sdk-c` and for Go in
//! `plugins/sdk-go`, types for TypeScript in `plugins/sdk-js`.
//!
//! All of them are committed, so that authors need no generator. Does not know the hand-written helpers next to them.

mod c;
mod go;
mod typescript;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

/// File contents by path below `plugins`.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Generates every file.
///
/// # Errors
/// `wit/` does not parse, or lacks a named world.
pub fn generate() -> Result<Files, Box<dyn Error>> {
    let mut files = c::generate()?;
    files.extend(go::generate()?);
    files.extend(typescript::generate()?);
    Ok(files)
}

/// The folder `plugins` of this checkout.
#[must_use]
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn wit() -> PathBuf {
    home().join("../wit")
}
