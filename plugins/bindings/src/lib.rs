//! What other languages than Rust see of `wit/`: the bindings for C in `plugins/sdk-c` and for Go in `plugins/sdk-go`, the types for TypeScript in
//! `plugins/sdk-js`.
//!
//! All are committed, so that an author needs no generator. Knows nothing of the helpers beside them that are written by hand.

mod c;
mod go;
mod typescript;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

/// What a file holds, by its path below `plugins`.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Every file.
///
/// # Errors
/// `wit/` does not parse, or names a world that is not there.
pub fn generate() -> Result<Files, Box<dyn Error>> {
    let mut files = c::generate()?;
    files.extend(go::generate()?);
    files.extend(typescript::generate()?);
    Ok(files)
}

/// The `plugins` of this checkout.
#[must_use]
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn wit() -> PathBuf {
    home().join("../wit")
}
