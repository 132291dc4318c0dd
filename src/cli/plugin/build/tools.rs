//! Tools needed per language, a check for them, and the command that installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::Recipe;

/// Required programs, and the command that installs them.
pub(super) struct Tools {
    programs: &'static [&'static str],
    install: &'static str,
}

impl Tools {
    pub(super) fn of(recipe: Recipe) -> Self {
        let (programs, install): (&[&str], &str) = match recipe {
            Recipe::Rust => (&["cargo", "rustc"], "curl --proto '=https' -sSf https://sh.rustup.rs | sh"),
            Recipe::Node => (&["node", "npm"], "sudo apt-get install nodejs npm"),
            Recipe::Python => (&["make", "python3"], "sudo apt-get install make python3 python3-venv"),
            Recipe::C => (
                &["make", "clang-22", "rustc"],
                "sudo apt-get install make clang-22 lld-22 wasi-libc libclang-rt-22-dev-wasm32 (and Rust, whose linker makes components: curl --proto '=https' -sSf https://sh.rustup.rs | sh)",
            ),
            Recipe::Go => (
                &["make", "go", "rustc"],
                "sudo apt-get install make golang-go (Go 1.24 or newer: on Debian 12 from backports, or as https://go.dev/doc/install says; and Rust, whose linker makes components: curl --proto '=https' -sSf https://sh.rustup.rs | sh)",
            ),
        };
        Self { programs, install }
    }

    /// # Errors
    /// Names the missing programs and the command that installs them.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let missing: Vec<&str> = self.programs.iter().copied().filter(|program| !is_there(program)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        bail!("{} is not installed; install it with: {}", missing.join(" and "), self.install)
    }
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The way to build a Rust component on this machine.
pub(super) enum RustTarget {
    /// The target is installed.
    Wasip2,
    /// Debian's compiler with the source of std; the linker of the sysroot builds the component.
    BuildStd { rustc: PathBuf, tools: PathBuf },
}

/// # Errors
/// Neither is available. Names the command that installs the target.
pub(super) fn rust_target() -> anyhow::Result<RustTarget> {
    let sysroot = output_of(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(&sysroot).join("lib/rustlib/wasm32-wasip2").is_dir() {
        return Ok(RustTarget::Wasip2);
    }
    let files = output_of(Command::new("dpkg").args(["-L", "rustc-web"])).unwrap_or_default();
    if let Some(rustc) = files.lines().find(|line| line.ends_with("/bin/rustc")) {
        let version = output_of(Command::new("rustc").arg("-vV"))?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let tools = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin");
        return Ok(RustTarget::BuildStd { rustc: rustc.into(), tools });
    }
    bail!(
        "the Rust target wasm32-wasip2 is not installed; install it with: rustup target add wasm32-wasip2 \
         (where targets cannot be downloaded: sudo apt-get install --no-install-recommends rustc-web rust-web-src)"
    )
}

impl RustTarget {
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("cargo");
        match self {
            Self::Wasip2 => {
                command.args(["build", "--release", "--target", "wasm32-wasip2"]);
            }
            Self::BuildStd { rustc, tools } => {
                command
                    .env("RUSTC", rustc)
                    .env("RUSTC_BOOTSTRAP", "1")
                    .args([
                        "rustc",
                        "--release",
                        "-Zbuild-std=std,panic_abort",
                        "--target",
                        "wasm32-unknown-unknown",
                        "--",
                    ])
                    .arg("-C")
                    .arg(format!("linker={}", tools.join("wasm-component-ld").display()))
                    .args(["-C", "linker-flavor=wasm-lld", "-C"])
                    .arg(format!("link-arg=--wasm-ld-path={}", tools.join("gcc-ld/wasm-ld").display()));
            }
        }
        command
    }

    /// Folder of the component in the target directory.
    pub(super) fn folder(&self) -> &'static str {
        match self {
            Self::Wasip2 => "wasm32-wasip2/release",
            Self::BuildStd { .. } => "wasm32-unknown-unknown/release",
        }
    }
}

/// Output of a program without trailing white space.
fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
