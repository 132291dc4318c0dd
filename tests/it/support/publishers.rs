//! Back ends that share no code with Skylark: the snippets of the guides in [`GUIDES`], run unchanged with client
//! libraries of their languages. `tests/publishers/install` installs the clients.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One snippet: its engine, its language and its text.
#[derive(Debug)]
pub struct Snippet {
    engine: String,
    language: String,
    text: String,
}

/// The documents with snippets.
const GUIDES: [&str; 2] = ["docs/guides/push-by-redis-or-kafka.md", "docs/guides/dead-letters.md"];

/// Every snippet of the guides, found by the comment above it: `<!-- publisher: redis php -->`.
fn snippets() -> Vec<Snippet> {
    let text = GUIDES.map(|guide| std::fs::read_to_string(root().join(guide)).unwrap()).join("\n");
    let mut found = Vec::new();
    for part in text.split("<!-- publisher: ").skip(1) {
        let (head, rest) = part.split_once(" -->\n```").expect("the comment has a code block below");
        let (engine, language) = head.split_once(' ').expect("the comment names an engine and a language");
        let (fence, rest) = rest.split_once('\n').unwrap();
        assert_eq!(fence, language, "the language of the block differs from its comment");
        let (body, _) = rest.split_once("\n```\n").expect("the code block ends");
        found.push(Snippet { engine: engine.to_owned(), language: language.to_owned(), text: format!("{body}\n") });
    }
    found
}

impl Snippet {
    /// The only snippet of the guides for an engine and a language.
    pub fn of(engine: &str, language: &str) -> Self {
        let mut found: Vec<Self> = snippets();
        found.retain(|snippet| snippet.engine == engine && snippet.language == language);
        assert_eq!(found.len(), 1, "expected one snippet for {engine} in {language}");
        found.remove(0)
    }

    /// Replaces the topic `chat`, for a server that tests share.
    pub fn on_topic(mut self, topic: &str) -> Self {
        self.text = self.text.replace("\"chat", &format!("\"{topic}"));
        self
    }

    /// Runs the snippet against the server at `to`. Its failure fails the test.
    pub fn run(&self, to: &str) {
        let folder = tempfile::tempdir().unwrap();
        let from = if self.engine.starts_with("kafka") { "127.0.0.1:9092" } else { "127.0.0.1:6379" };
        let apart = |at: &str| at.rsplit_once(':').map(|(host, port)| format!("'{host}', {port}")).unwrap();
        let text = self.text.replace(from, to).replace(&apart(from), &apart(to));
        assert_ne!(text, self.text, "the snippet does not contain {from}");
        let output = self.command(folder.path(), &text).current_dir(folder.path()).output();
        let output = output.unwrap_or_else(|error| panic!("{self:?}: {error}; tests/run installs what it needs"));
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{} {}:\n{}{}",
            self.engine,
            self.language,
            said(&output.stdout),
            said(&output.stderr)
        );
    }

    fn command(&self, folder: &Path, text: &str) -> Command {
        let put = |name: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let with = |program: PathBuf, file: &str| {
            let mut command = Command::new(program);
            command.arg(put(file));
            command
        };
        match &*self.language {
            "sh" => {
                let mut command = Command::new("bash");
                command.arg("-euc").arg(text);
                command
            }
            "php" => with("php".into(), "push.php"),
            "python" => with(installed("python/bin/python"), "push.py"),
            "java" => {
                let mut command = Command::new("java");
                command.arg("-cp").arg(installed("java").join("*")).arg(put("Push.java"));
                command
            }
            "go" => {
                for name in ["go.mod", "go.sum"] {
                    std::fs::copy(root().join("tests/publishers/go").join(name), folder.join(name)).unwrap();
                }
                put("main.go");
                let mut command = Command::new("go");
                command.args(["run", "-mod=mod", "."]);
                command
            }
            other => panic!("no command runs the language {other}"),
        }
    }
}

/// A client that `tests/publishers/install` has installed.
fn installed(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder has a parent");
    let path = target.join("publishers").join(name);
    assert!(path.exists(), "{} does not exist: run tests/publishers/install", path.display());
    path
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
