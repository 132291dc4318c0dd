//! `skylark plugin new`: creates a folder that builds and passes its tests as it is.
//!
//! Uses the templates in `plugins/templates`. Copies everything that a build needs from this repository (wit, SDK,
//! bindings).

mod files;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::cli::print;

/// Name of the plugin in the templates.
const PLACEHOLDER: &str = "my-plugin";
/// Maximum length of a plugin name.
const MAX_NAME: usize = 64;
/// Names reserved by a toolchain.
const RESERVED_NAMES: [&str; 7] = ["test", "core", "std", "alloc", "plugin", "skylark", "skylark-plugin"];

#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// Name of the plugin and its folder: small letters, digits and hyphens.
    #[arg(value_parser = name)]
    name: String,
    /// Programming language.
    #[arg(long, value_enum)]
    lang: Lang,
    /// Role: admits clients, judges messages, answers keys, receives events, or decides about rooms.
    #[arg(long, value_enum)]
    role: RoleName,
    /// Parent directory of the new folder.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lang {
    Rust,
    /// TypeScript.
    Ts,
    /// JavaScript.
    Js,
    Python,
    C,
    Go,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleName {
    Auth,
    Filter,
    Handler,
    Events,
    Access,
}

fn name(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let starts = text.starts_with(|first: char| first.is_ascii_lowercase());
    if !is_plain || !starts || text.ends_with('-') || text.len() > MAX_NAME {
        return Err(format!(
            "expected a small letter, then small letters, digits and hyphens, at most {MAX_NAME}, got {text:?}"
        ));
    }
    if RESERVED_NAMES.contains(&text) {
        return Err(format!("{text:?} is a reserved name of the toolchain: choose another one"));
    }
    Ok(text.to_owned())
}

impl New {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let folder = self.dir.join(&self.name);
        if folder.exists() {
            bail!("{} exists already: choose another name, or remove it", folder.display());
        }
        for (path, contents) in self.files() {
            write(&folder.join(&path), &contents)?;
        }
        let source = format!("{}/{}", folder.display(), self.lang.source());
        print(&format!(
            "created {}: code in {source}, manifest in {}.toml, tests in cases.yaml",
            folder.display(),
            self.name
        ))?;
        for (line, what) in [
            (format!("cd {}", folder.display()), ""),
            ("skylark plugin build".to_owned(), "builds the component"),
            ("skylark plugin test".to_owned(), "runs cases.yaml; --watch runs it after each change"),
            (
                "skylark plugin dev".to_owned(),
                "installs each change into a running node (--into its plugins.dir, --url)",
            ),
        ] {
            print(format!("  {line:<30} {what}").trim_end())?;
        }
        Ok(())
    }

    /// Paths in the new folder, and contents.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let role = self.role.as_str();
        let mut all = Vec::new();
        for (path, contents) in files::FILES {
            if let Some(destination) = self.destination(path, role) {
                all.push((destination, self.with_name(contents)));
            }
        }
        match self.lang {
            Lang::Rust => all.push(("wit/skylark.wit".to_owned(), files::WIT.to_vec())),
            Lang::Ts | Lang::Js | Lang::Python => all.push(("wit/deps/skylark.wit".to_owned(), files::WIT.to_vec())),
            // The bindings already contain the interface; Go's bindings include their part of it.
            Lang::C | Lang::Go => {}
        }
        all
    }

    /// Destination of a file of `plugins/`; `None` if this plugin does not need it.
    fn destination(&self, path: &str, role: &str) -> Option<String> {
        if let Some(file) = path.strip_prefix("templates/role/") {
            let file = file.strip_prefix(role)?.strip_prefix('/')?;
            return match (file, self.lang) {
                ("world.wit", Lang::Rust | Lang::C | Lang::Go) => None,
                ("world.wit", _) => Some("wit/world.wit".to_owned()),
                _ => Some(file.replace(PLACEHOLDER, &self.name)),
            };
        }
        if let Some(file) = path.strip_prefix("templates/") {
            let file = file.strip_prefix(self.lang.as_str())?.strip_prefix('/')?;
            return match file.split_once('.') {
                Some((stem, _)) if stem == role => Some(self.lang.source().to_owned()),
                Some((stem, _)) if RoleName::ALL.iter().any(|other| other.as_str() == stem) => None,
                _ => Some(file.to_owned()),
            };
        }
        match (self.lang, path.split_once('/')?) {
            (Lang::Rust, ("sdk", file)) => Some(format!("skylark/sdk/{file}")),
            (Lang::Go, ("sdk-go", file)) | (Lang::Ts | Lang::Js, ("sdk-js", file)) => Some(format!("skylark/{file}")),
            (Lang::C, ("sdk-c", file)) => {
                let own = file.strip_prefix(role);
                let file = match own.and_then(|rest| rest.strip_prefix('/')) {
                    Some(generated) => generated,
                    None if own == Some(".h") || file.starts_with("skylark.") => file,
                    None if file == "alarms.h" && ["handler", "events"].contains(&role) => file,
                    None if file == "receipts.h" && role == "events" => file,
                    None => return None,
                };
                Some(format!("skylark/{file}"))
            }
            _ => None,
        }
    }

    fn with_name(&self, contents: &[u8]) -> Vec<u8> {
        match std::str::from_utf8(contents) {
            Ok(text) => text.replace(PLACEHOLDER, &self.name).into_bytes(),
            Err(_) => contents.to_vec(),
        }
    }
}

impl Lang {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Ts => "ts",
            Self::Js => "js",
            Self::Python => "python",
            Self::C => "c",
            Self::Go => "go",
        }
    }

    const fn source(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::Ts => "src/plugin.ts",
            Self::Js => "src/plugin.js",
            Self::Python => "src/plugin.py",
            Self::C => "src/plugin.c",
            Self::Go => "plugin.go",
        }
    }
}

impl RoleName {
    const ALL: [Self; 5] = [Self::Auth, Self::Filter, Self::Handler, Self::Events, Self::Access];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Filter => "filter",
            Self::Handler => "handler",
            Self::Events => "events",
            Self::Access => "access",
        }
    }
}

fn write(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    std::fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_embedded_as_it_is() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
        let mut there = Vec::new();
        let mut open: Vec<PathBuf> =
            ["templates", "sdk/src", "sdk-c", "sdk-go", "sdk-js"].map(|dir| root.join(dir)).into();
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { there.push(path) }
            }
        }
        there.push(root.join("sdk/Cargo.toml"));
        // Used only in this repository: combined bindings of all roles, the source of the adapter, and READMEs.
        let is_own =
            |path: &str| path.starts_with("sdk-c/all/") || path == "sdk-go/adapter.wat" || path.ends_with("README.md");
        let mut there: Vec<String> = there
            .iter()
            .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned())
            .filter(|path| !is_own(path))
            .collect();
        there.sort();
        let listed: Vec<&str> = files::FILES.iter().map(|(path, _)| *path).collect();
        let missing: Vec<&String> = there.iter().filter(|path| !listed.contains(&path.as_str())).collect();
        assert!(missing.is_empty(), "add to src/cli/plugin/new/files.rs: {missing:#?}");
    }

    #[test]
    fn each_language_and_role_has_all_its_files() {
        for lang in Lang::value_variants() {
            for role in RoleName::ALL {
                let new = New { name: "no-gossip".into(), lang: *lang, role, dir: ".".into() };
                let made = new.files();
                let has = |wanted: &str| made.iter().any(|(path, _)| path == wanted);
                for wanted in [lang.source(), "no-gossip.toml", "cases.yaml", ".gitignore"] {
                    assert!(has(wanted), "{lang:?} {role:?} has no {wanted}");
                }
                let recipe = match lang {
                    Lang::Rust => ["Cargo.toml", "skylark/sdk/Cargo.toml", "skylark/sdk/src/lib.rs", "wit/skylark.wit"],
                    Lang::Ts => ["package.json", "skylark/skylark.d.ts", "wit/world.wit", "wit/deps/skylark.wit"],
                    Lang::Js => ["package.json", "package-lock.json", "wit/world.wit", "wit/deps/skylark.wit"],
                    Lang::Python => ["Makefile", "requirements.txt", "wit/world.wit", "wit/deps/skylark.wit"],
                    Lang::C => ["Makefile", "skylark/skylark.h", "skylark/plugin.c", "skylark/plugin_component_type.o"],
                    Lang::Go => ["Makefile", "go.mod", "skylark/component", "skylark/adapter.wasm"],
                };
                recipe.iter().for_each(|wanted| assert!(has(wanted), "{lang:?} {role:?} has no {wanted}"));
                let mut paths: Vec<&String> = made.iter().map(|(path, _)| path).collect();
                let count = paths.len();
                paths.sort();
                paths.dedup();
                assert_eq!(paths.len(), count, "one place twice");
                let left = made.iter().filter(|(_, contents)| String::from_utf8_lossy(contents).contains(PLACEHOLDER));
                assert_eq!(left.count(), 0, "{lang:?} {role:?} names the template");
            }
        }
    }

    #[test]
    fn invalid_plugin_name_is_refused() {
        for bad in ["", "A", "1a", "a_b", "a-", "../a", "a b", "test", &"a".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(name("no-gossip2").as_deref(), Ok("no-gossip2"));
    }
}
