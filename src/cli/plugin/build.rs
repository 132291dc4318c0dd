//! `skylark plugin build`: detects the build system of a folder, checks for its tools, and runs its own build.
//!
//! The recipe belongs to the folder (`Cargo.toml`, `package.json`, `Makefile`). This module only knows the needed
//! tools.

mod tools;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, bail};
use toml::Table;

use crate::cli::print;
use tools::Tools;

#[derive(Debug, clap::Args)]
pub(super) struct Build {
    /// The plugin's folder.
    #[arg(default_value = ".")]
    dir: PathBuf,
}

impl Build {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let file = build(&self.dir)?;
        let size = std::fs::metadata(&file)?.len();
        print(&format!("{}: {size} bytes, built in {:.1} s", file.display(), begun.elapsed().as_secs_f64()))
    }
}

/// Build system of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recipe {
    Rust,
    Node,
    Python,
    C,
    Go,
}

impl Recipe {
    /// Detects the build system by the files of the folder.
    ///
    /// # Errors
    /// No known build system was found.
    pub(super) fn of(dir: &Path) -> anyhow::Result<Self> {
        let has = |file: &str| dir.join(file).is_file();
        let source = |kind: &str| has_kind(dir, kind) || has_kind(&dir.join("src"), kind);
        Ok(match () {
            () if has("Cargo.toml") => Self::Rust,
            () if has("package.json") => Self::Node,
            () if has("Makefile") && source("py") => Self::Python,
            () if has("Makefile") && has("go.mod") => Self::Go,
            () if has("Makefile") && source("c") => Self::C,
            () => bail!(
                "{}: expected Cargo.toml (Rust), package.json (JavaScript, TypeScript), or a Makefile with .py or .c files or a go.mod, got none",
                dir.display()
            ),
        })
    }
}

fn has_kind(dir: &Path, kind: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|found| found == kind))
}

/// Builds the folder and returns the component, placed in it as `NAME.wasm` beside its manifest and cases.
///
/// # Errors
/// No build system, a missing tool (with the command that installs it), a failed build, or no component.
pub(super) fn build(dir: &Path) -> anyhow::Result<PathBuf> {
    let recipe = Recipe::of(dir)?;
    let tools = Tools::of(recipe);
    tools.check()?;
    let begun = SystemTime::now();
    match recipe {
        Recipe::Rust => return rust(dir),
        Recipe::Node => node(dir)?,
        Recipe::Python | Recipe::C | Recipe::Go => run(Command::new("make").current_dir(dir))?,
    }
    copy_to_folder(dir, &newest(&dir.join("dist"), begun)?)
}

fn rust(dir: &Path) -> anyhow::Result<PathBuf> {
    let manifest = std::fs::read_to_string(dir.join("Cargo.toml"))?;
    let table: Table = manifest.parse().with_context(|| format!("cannot read {}", dir.join("Cargo.toml").display()))?;
    let package = table.get("package").and_then(|package| package.get("name")).and_then(|name| name.as_str());
    let Some(package) = package else {
        bail!("{}: expected [package] name, got none", dir.join("Cargo.toml").display())
    };
    let target = tools::rust_target()?;
    run(target.command().current_dir(dir))?;
    let output =
        Command::new("cargo").args(["metadata", "--format-version", "1", "--no-deps"]).current_dir(dir).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cannot read cargo metadata")?;
    let Some(folder) = metadata["target_directory"].as_str() else { bail!("cargo metadata names no target directory") };
    let built = Path::new(folder).join(target.folder()).join(format!("{}.wasm", package.replace('-', "_")));
    let file = dir.join(format!("{package}.wasm"));
    replace_file(&built, &file)?;
    Ok(file)
}

fn node(dir: &Path) -> anyhow::Result<()> {
    if !dir.join("node_modules").is_dir() {
        let how = if dir.join("package-lock.json").is_file() { "ci" } else { "install" };
        run(Command::new("npm").args([how, "--no-fund", "--no-audit"]).current_dir(dir))?;
    }
    run(Command::new("npm").args(["run", "--silent", "build"]).current_dir(dir))
}

/// Prints the command and runs it with its output shown.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let shown = words.join(" ");
    eprintln!("$ {shown}");
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

/// The component of this build, or an earlier one if the build had nothing to do.
fn newest(dist: &Path, begun: SystemTime) -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(dist).with_context(|| format!("the build created no folder {}", dist.display()))?;
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "wasm") {
            found.push((path.metadata()?.modified()?, path));
        }
    }
    found.sort();
    let fresh = found.iter().filter(|(modified, _)| *modified >= begun).count();
    match found.pop() {
        Some((_, path)) if fresh <= 1 => Ok(path),
        Some(_) => bail!("{}: expected one component, the build created {fresh}", dist.display()),
        None => bail!("{}: expected a component, got none", dist.display()),
    }
}

/// Copies a component from `dist/` to the folder with its manifest.
fn copy_to_folder(dir: &Path, built: &Path) -> anyhow::Result<PathBuf> {
    let name = built.file_name().context("a component has a name")?;
    let file = dir.join(name);
    replace_file(built, &file)?;
    Ok(file)
}

/// Writes the file atomically, because a node or a test may read it. A node requires files that only their owner may
/// write.
pub(super) fn replace_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    let name = to.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let aside = to.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    std::fs::copy(from, &aside).with_context(|| format!("cannot copy {} to {}", from.display(), aside.display()))?;
    let mode = std::fs::metadata(&aside).map(|meta| meta.permissions().mode() & 0o755);
    mode.and_then(|mode| std::fs::set_permissions(&aside, PermissionsExt::from_mode(mode)))
        .with_context(|| format!("cannot set the mode of {}", aside.display()))?;
    std::fs::rename(&aside, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_folder_decide_its_build_recipe() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        assert!(Recipe::of(at).unwrap_err().to_string().contains("expected Cargo.toml"));
        let files = [
            ("Makefile", None),
            ("src/plugin.c", Some(Recipe::C)),
            ("go.mod", Some(Recipe::Go)),
            ("package.json", Some(Recipe::Node)),
            ("Cargo.toml", Some(Recipe::Rust)),
        ];
        std::fs::create_dir(at.join("src")).unwrap();
        for (file, recipe) in files {
            std::fs::write(at.join(file), "").unwrap();
            assert_eq!(Recipe::of(at).ok(), recipe, "{file}");
        }
    }
}
