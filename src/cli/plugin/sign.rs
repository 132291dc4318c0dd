//! `skylark plugin keygen` and `skylark plugin sign`: create keys and signatures for `plugins.signing_keys`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::cli::print;
use crate::plugin::trust::SigningKey;

#[derive(Debug, clap::Args)]
pub(super) struct Keygen {
    /// File for the private key; it must not exist yet.
    file: PathBuf,
}

impl Keygen {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let text = SigningKey::generate()?;
        let public = SigningKey::parse(&text)?.public();
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file);
        let written = file.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()));
        written.with_context(|| format!("cannot write {}", self.file.display()))?;
        eprintln!("the private key is in {}: keep it where plugins are released, not on a node", self.file.display());
        print(&format!("plugins:\n  signing_keys: [\"{public}\"]"))
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Sign {
    /// Components; each signature is written beside its component as NAME.wasm.sig.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Private key written by `skylark plugin keygen`.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

impl Sign {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(&self.key).with_context(|| format!("cannot read {}", self.key.display()))?;
        let key = SigningKey::parse(&text).with_context(|| format!("cannot read {}", self.key.display()))?;
        for file in &self.files {
            print(&sign(&key, file)?.display().to_string())?;
        }
        Ok(())
    }
}

fn sign(key: &SigningKey, file: &Path) -> anyhow::Result<PathBuf> {
    if file.extension().is_none_or(|kind| kind != "wasm") {
        bail!("{}: expected a file whose name ends with .wasm", file.display());
    }
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (to, aside) = (file.with_extension("wasm.sig"), file.with_extension("wasm.sig.tmp"));
    std::fs::write(&aside, key.sign(&bytes) + "\n").with_context(|| format!("cannot write {}", aside.display()))?;
    std::fs::rename(&aside, &to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(to)
}
