//! The plugin author's commands: new, build, check, bench, dev.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::gateway::{Gateway, skylark};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the exit code, and standard output followed by standard error.
fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), told)
}

fn plugin(command: &str) -> Command {
    let mut skylark = skylark();
    skylark.args(["plugin", command]);
    skylark
}

/// A folder for a plugin's source, and a folder with the only programs on the path.
struct Bench {
    dir: TempDir,
    tools: TempDir,
}

impl Bench {
    fn with(files: &[&str]) -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap(), tools: tempfile::tempdir().unwrap() };
        std::fs::create_dir(bench.dir.path().join("src")).unwrap();
        files.iter().for_each(|file| std::fs::write(bench.dir.path().join(file), "").unwrap());
        bench
    }

    /// Creates a program that runs this shell script.
    fn tool(&self, name: &str, script: &str) {
        let file = self.tools.path().join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn build(&self) -> (Option<i32>, String) {
        run(plugin("build").arg(self.dir.path()).env("PATH", self.tools.path()))
    }
}

fn sample(name: &str) -> PathBuf {
    Path::new(ROOT).join("plugins/dist").join(name)
}

#[test]
fn build_says_which_command_installs_what_is_missing() {
    for (files, words) in [
        (&["Cargo.toml"][..], &["cargo and rustc is not installed", "https://sh.rustup.rs"][..]),
        (&["package.json"], &["node and npm", "apt-get install nodejs npm"]),
        (&["Makefile", "src/plugin.py"], &["make and python3", "python3-venv"]),
        (
            &["Makefile", "src/plugin.c"],
            &["clang-22", "apt-get install make clang-22 lld-22 wasi-libc libclang-rt-22-dev-wasm32"],
        ),
        (&["Makefile", "go.mod"], &["make and go and rustc", "https://go.dev/doc/install"]),
        (&["Makefile"], &["expected Cargo.toml (Rust), package.json"]),
    ] {
        let (code, told) = Bench::with(files).build();
        assert_eq!(code, Some(1), "{told}");
        words.iter().for_each(|word| assert!(told.contains(word), "expected {word:?} in:\n{told}"));
    }
    let rust = Bench::with(&[]);
    std::fs::write(rust.dir.path().join("Cargo.toml"), "[package]\nname = \"x\"\n").unwrap();
    rust.tool("cargo", "exit 1");
    rust.tool("rustc", "echo /nowhere");
    let (code, told) = rust.build();
    assert!(code == Some(1) && told.contains("rustup target add wasm32-wasip2"), "{told}");
}

#[test]
fn build_runs_the_folders_own_recipe_and_keeps_what_it_makes() {
    let bench = Bench::with(&["Makefile", "src/plugin.c"]);
    let copy =
        format!("/bin/mkdir -p dist && /bin/cp {} dist/mine.wasm && echo made", sample("word-filter.wasm").display());
    bench.tool("make", &copy);
    bench.tool("clang-22", "");
    bench.tool("rustc", "");
    let (code, told) = bench.build();
    let file = bench.dir.path().join("mine.wasm");
    assert!(
        code == Some(0) && told.contains("made") && told.contains("$ make") && told.contains("mine.wasm: "),
        "{told}"
    );
    assert!(file.is_file());
    let (code, told) = run(plugin("check").arg(&file));
    assert_eq!(code, Some(0), "{told}");

    bench.tool("make", "echo no such header >&2; exit 2");
    let (code, told) = bench.build();
    assert!(code == Some(1) && told.contains("no such header") && told.contains("make failed"), "{told}");
    bench.tool("make", "/bin/rm -rf dist");
    let (code, told) = bench.build();
    assert!(code == Some(1) && told.contains("the build created no folder"), "{told}");
}

#[test]
fn check_tells_what_a_component_is_and_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("video-call.wasm");
    std::fs::copy(sample("video-call.wasm"), &file).unwrap();
    let (code, told) = run(plugin("check").arg(&file));
    assert_eq!(code, Some(1), "{told}");
    for words in [
        "would be refused",
        "roles        handler",
        "interface    skylark:plugin@0.1.",
        "needs        grants = [\"directory\", \"outbox\", \"timers\", \"kv\"]",
        "put this line into video-call.toml: grants = [\"directory\", \"outbox\", \"timers\", \"kv\"]",
    ] {
        assert!(told.contains(words), "expected {words:?} in:\n{told}");
    }
    std::fs::copy(sample("video-call.toml"), dir.path().join("video-call.toml")).unwrap();
    let (code, told) = run(plugin("check").arg(&file));
    assert!(code == Some(0) && told.contains("would be loaded") && told.contains("call_invite"), "{told}");

    let file = dir.path().join("word-filter.wasm");
    std::fs::copy(sample("word-filter.wasm"), &file).unwrap();
    std::fs::write(file.with_extension("toml"), "grants = [\"directory\"]\n[match]\nkeys = [\"k\"]\n").unwrap();
    let output = plugin("check").arg("--json").arg(&file).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let warnings =
        ["grants directory, which the plugin does not import", "match.keys has no effect: the plugin is not a handler"];
    assert_eq!(report["warnings"], serde_json::json!(warnings));
    assert_eq!((&report["roles"], &report["faults"]), (&serde_json::json!(["filter"]), &serde_json::json!([])));
}

#[test]
fn new_makes_a_folder_for_each_language_and_role() {
    let dir = tempfile::tempdir().unwrap();
    let new = |name: &str, lang: &str, role: &str| {
        run(plugin("new").args([name, "--lang", lang, "--role", role, "--dir"]).arg(dir.path()))
    };
    for (lang, source) in [
        ("rust", "src/lib.rs"),
        ("ts", "src/plugin.ts"),
        ("js", "src/plugin.js"),
        ("python", "src/plugin.py"),
        ("c", "src/plugin.c"),
        ("go", "plugin.go"),
    ] {
        for role in ["auth", "filter", "handler", "events"] {
            let name = format!("my-{lang}-{role}");
            let (code, told) = new(&name, lang, role);
            assert!(code == Some(0) && told.contains(source) && told.contains("skylark plugin build"), "{told}");
            let folder = dir.path().join(&name);
            assert!(folder.join(source).is_file() && folder.join(format!("{name}.toml")).is_file(), "{name}");
            assert!(folder.join("cases.yaml").is_file(), "{name}");
        }
    }
    let (code, told) = new("my-c-auth", "c", "auth");
    assert!(code == Some(1) && told.contains("exists already"), "{told}");
    for (name, lang, words) in
        [("../up", "c", "expected a small letter"), ("good", "cobol", "[possible values: rust, ts")]
    {
        let (code, told) = new(name, lang, "auth");
        assert!(code == Some(2) && told.contains(words), "{told}");
    }
}

#[test]
fn bench_measures_each_role_by_its_own_cases() {
    let file = sample("token-auth.wasm");
    let output = plugin("bench").args(["--calls", "200", "--json"]).arg(&file).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let auth = &told["roles"][0];
    assert_eq!((&auth["role"], &auth["calls"]), (&"auth".into(), &200.into()), "{told}");
    assert_eq!(auth["asked"], "the case \"a token that is good says who it is\"");
    for figure in ["mean_us", "p50_us", "p99_us", "allocations", "budget_us"] {
        assert!(auth[figure].as_f64().unwrap() > 0.0, "{figure}: {told}");
    }
    for figure in ["compile_ms", "cold_start_us", "memory_bytes", "memory_limit_bytes"] {
        assert!(told[figure].as_f64().unwrap() > 0.0, "{figure}: {told}");
    }
    let (_, told) = run(plugin("bench").args(["--calls", "200"]).arg(sample("word-filter.wasm")));
    assert!(
        told.contains("its budget of 30 ms CPU") && told.contains("for a publish that the rules keep out"),
        "{told}"
    );
    let (code, told) = run(plugin("bench").arg(Path::new(ROOT).join("Cargo.toml")));
    assert!(code == Some(1) && told.contains("expected a file whose name ends with .wasm"), "{told}");
}

/// Skips lines of a child until one contains `words`.
fn until(lines: &mut impl Iterator<Item = String>, words: &str) -> String {
    lines
        .find(|line| line.contains(words))
        .unwrap_or_else(|| panic!("expected a line with {words:?}, the output ended"))
}

#[tokio::test]
async fn dev_keeps_a_plugin_live_and_follows_its_log() {
    let gateway = Gateway::start();
    let bench = Bench::with(&["Makefile", "src/plugin.c"]);
    let guest = Path::new(ROOT).join("plugins/testing/dist/fault-filter.wasm");
    bench.tool("make", &format!("/bin/mkdir -p dist && /bin/cp {} dist/mine.wasm", guest.display()));
    bench.tool("clang-22", "");
    bench.tool("rustc", "");
    let mut child = plugin("dev")
        .arg(".")
        // Configuration and working directory are not those of the node; the node itself reports its plugin directory.
        .current_dir(bench.dir.path())
        .args(["--url", &format!("http://{}", gateway.address("api"))])
        .env("PATH", bench.tools.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    until(&mut said, "mine is live, version 1");
    until(&mut told, "waiting for a change");
    let answer = gateway.post("/send/all", json!({"action": "trap"})).await;
    assert!(answer.body.contains("mine"), "{}", answer.body);
    until(&mut said, "panicked");

    // A change of the manifest leaves the component unchanged.
    std::fs::write(bench.dir.path().join("mine.toml"), "order = 7\n").unwrap();
    until(&mut said, "mine is live, version 2");
    until(&mut told, "waiting for a change");

    // A failed build changes nothing in the node.
    bench.tool("make", "echo no such header >&2; exit 2");
    std::fs::write(bench.dir.path().join("src/plugin.c"), "broken").unwrap();
    until(&mut told, "make failed");
    gateway.plugin_until("mine", |mine| mine["state"] == "live").await;

    // A refused component is reported.
    bench.tool("make", "echo nonsense > dist/mine.wasm");
    std::fs::write(bench.dir.path().join("src/plugin.c"), "other").unwrap();
    until(&mut told, "this is not WebAssembly");
    child.kill().unwrap();
    child.wait().unwrap();
}
