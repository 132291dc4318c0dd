//! The documents are correct: each command of the documents in [`PLAYED`] is run unchanged, and [`snippets`] checks the
//! other blocks of every document.
//!
//! Two things differ from a reader's terminal. `cargo run --release --` is the binary that is already built. Free ports
//! replace the fixed ones through the variables that an operator would use.

mod examples;
mod snippets;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::support::brokers::redis::free_address;
use crate::support::terminals::{Desk, blocks};

/// Their `sh` blocks are typed into terminals. The Chinese README has the blocks of the English one; tests/tidy.rs
/// checks this.
const PLAYED: [&str; 8] = [
    "README.md",
    "README.zh-CN.md",
    "docs/tutorials/first-push.md",
    "docs/tutorials/first-plugin.md",
    "docs/tutorials/first-cluster.md",
    "docs/guides/sign-plugins.md",
    "docs/guides/tls.md",
    "docs/reference/http-api.md",
];

/// The addresses of `config/skylark-dev.yaml`, in the order of its listeners.
const DEV: [&str; 3] = ["127.0.0.1:8080", "127.0.0.1:34567", "127.0.0.1:23456"];

/// `cargo run --release -- …` and `skylark …` run the built binary, and the output of `curl` ends with a newline. In the
/// background `$!` is the binary, as with Cargo. The command that runs the tests only has to exist.
const PRELUDE: &str = r#"set -e
cargo() {
  [ "$1 $2 $3" = "run --release --" ] || return 9
  shift 3
  if [ $BASHPID = $$ ]; then "$BUILT" "$@"; else exec "$BUILT" "$@"; fi
}
skylark() { "$BUILT" "$@"; }
curl() { command curl "$@" && echo; }
tests/run() { test -x "$ROOT/tests/run"; }
examples/cluster/up() { SKYLARK=$BUILT "$ROOT/examples/cluster/up"; }
"#;

/// A document and the settings to run it.
struct Play {
    text: String,
    variables: Vec<(String, String)>,
    /// Text that runs before the document.
    first: String,
    /// The terminal for `sh` blocks that name none.
    standard: Option<&'static str>,
    /// Terminals that may still run a program at the end.
    open_ended: &'static [&'static str],
}

impl Play {
    fn of(document: &'static str) -> Self {
        assert!(PLAYED.contains(&document), "{document}");
        let variables = vec![
            ("BUILT".to_owned(), env!("CARGO_BIN_EXE_skylark").to_owned()),
            ("ROOT".to_owned(), root().to_str().unwrap().to_owned()),
            ("SKYLARK__PLUGINS__CACHE".to_owned(), format!("{}/compiled", env!("CARGO_TARGET_TMPDIR"))),
        ];
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        Self { text, variables, first: String::new(), standard: None, open_ended: &[] }
    }

    /// Replaces the ports of `--env dev` with free ones.
    fn with_ports(mut self) -> Self {
        for (at, (port, dev)) in free().iter().zip(DEV).enumerate() {
            self.variables.push((format!("SKYLARK__LISTENERS__{at}__ADDRESS"), port.to_string()));
            for text in [&mut self.text, &mut self.first] {
                *text = text.replace(dev, &port.to_string());
            }
        }
        self
    }

    fn run(self) {
        let folder = tempfile::tempdir().unwrap();
        for part in ["config", "plugins/dist"] {
            copy(&root().join(part), &folder.path().join(part));
        }
        let played = blocks(&self.text, self.standard);
        assert!(played.iter().any(|b| b.kind == "sh"), "the document has no `sh` block");
        let mut desk = Desk::new(folder.path(), PRELUDE, &self.variables);
        for block in blocks(&self.first, None).iter().chain(&played) {
            desk.play(block);
        }
        desk.finish(self.open_ended);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Three addresses that were free a moment ago.
fn free() -> Vec<SocketAddr> {
    let held: Vec<TcpListener> = DEV.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

#[test]
fn commands_of_the_readme_work_as_shown() {
    Play { open_ended: &["1", "2", "5"], ..Play::of("README.md").with_ports() }.run();
}

#[test]
fn examples_of_the_push_api_reference_work_as_shown() {
    let first = "\
<!-- terminal 1 -->
```sh
cargo run --release -- serve --env dev
```
<!-- terminal 1 -->
```text
ready
```
<!-- terminal 3 -->
```sh
skylark connect --env dev --uid 1074 --device phone-1 --url 'ws://127.0.0.1:8080/ws?channel=android'
room_join {\"room\": \"lobby\"}
```
<!-- terminal 3 -->
```text
{…\"room_join\",\"code\":\"200\"…
```
";
    let play = Play { first: first.to_owned(), standard: Some("2"), ..Play::of("docs/reference/http-api.md") };
    Play { open_ended: &["1", "3"], ..play.with_ports() }.run();
}

#[test]
fn the_first_push_is_as_its_tutorial_says() {
    Play { open_ended: &["1", "2"], ..Play::of("docs/tutorials/first-push.md").with_ports() }.run();
}

/// The nodes and Redis listen on free ports instead of those of the script.
#[test]
fn the_first_cluster_is_as_its_tutorial_says() {
    let mut play = Play::of("docs/tutorials/first-cluster.md");
    let [redis, nodes @ ..] = [(); 4].map(|()| free_address());
    for (number, node) in (1..).zip(nodes) {
        play.text = play.text.replace(&format!("127.0.0.1:808{number}"), &node.to_string());
    }
    play.text = play.text.replace("127.0.0.1:6390", &redis.to_string());
    play.variables.push(("PORTS".to_owned(), nodes.map(|node| node.port().to_string()).join(" ")));
    play.variables.push(("REDIS_PORT".to_owned(), redis.port().to_string()));
    Play { open_ended: &["1", "2"], ..play }.run();
}

#[test]
fn a_node_speaks_tls_as_its_guide_says() {
    let mut play = Play::of("docs/guides/tls.md");
    play.text = play.text.replace(":8443", &format!(":{}", free()[0].port()));
    Play { open_ended: &["2"], ..play }.run();
}

/// The plugin is in C, which builds in a second; `tests/authors` covers the other languages. The guide signs the plugin
/// of the tutorial.
#[test]
fn a_plugin_is_made_and_signed_as_its_document_says() {
    let mut play = Play::of("docs/tutorials/first-plugin.md");
    play.text = format!("{}\n{}", play.text, Play::of("docs/guides/sign-plugins.md").text);
    assert!(play.text.contains("--lang rust --role filter"));
    play.text = play.text.replace("--lang rust --role filter", "--lang c --role filter");
    Play { open_ended: &["1", "2"], ..play.with_ports() }.run();
}
