//! The page of examples: each role in each language from its template, and each interface from the conformance plugin.

use std::fmt::Write as _;

const ROLES: [(&str, &str); 5] = [
    ("filter", "judges each publish once"),
    ("auth", "admits clients"),
    ("handler", "answers the keys that it owns"),
    ("events", "follows users that come and go"),
    ("access", "decides which rooms a client may join"),
];
/// Folder and suffix of the template, name of the language, word for the highlighter.
const LANGUAGES: [(&str, &str, &str); 6] = [
    ("rust", "rs", "Rust"),
    ("ts", "ts", "TypeScript"),
    ("js", "js", "JavaScript"),
    ("python", "py", "Python"),
    ("c", "c", "C"),
    ("go", "go", "Go"),
];

const INTERFACES: [(&str, &str); 10] = [
    ("kv", "stores small values"),
    ("counters", "counts over a sliding window"),
    ("outbox", "pushes messages"),
    ("history", "reads kept messages"),
    ("directory", "lists online users"),
    ("crypto", "digests, signatures, randomness"),
    ("http", "sends requests"),
    ("login", "assigns a user to a connection"),
    ("timers", "call the plugin later"),
    ("receipts", "tells the outcome of kept messages"),
];
/// Language, and the files of its conformance plugin.
const GUESTS: [(&str, &[&str]); 5] = [
    ("rust", &["rust/src/lib.rs", "rust/src/calls.rs", "rust/src/reach.rs"]),
    ("ts", &["ts/src/plugin.ts"]),
    ("python", &["python/src/plugin.py"]),
    ("c", &["c/src/plugin.c"]),
    ("go", &["go/plugin.go", "go/calls.go"]),
];

/// Builds the page from the files that `read` returns.
pub fn page(read: impl Fn(&str) -> String) -> String {
    let mut page = String::from(
        "# Each role in each language\n\n\
        These are the complete templates of `skylark plugin new`.\n\
        `BLESS=1 cargo test --test tidy` writes this page. A role does the same in every\n\
        language and passes the same cases. The [guide](../guides/write-a-plugin.md) explains the\n\
        roles, and the [interface](plugin-interface.md) lists the functions that a plugin may call.\n",
    );
    for (role, what) in ROLES {
        let _ = write!(page, "\n## {role}: {what}\n");
        for (folder, kind, language) in LANGUAGES {
            let source = read(&format!("plugins/templates/{folder}/{role}.{kind}"));
            let _ = write!(page, "\n{language}:\n\n```{folder}\n{}\n```\n", source.trim_end());
        }
        let manifest = read(&format!("plugins/templates/role/{role}/my-plugin.toml"));
        let _ = write!(page, "\nIts manifest:\n\n```toml\n{}\n```\n", manifest.trim_end());
        let cases = read(&format!("plugins/templates/role/{role}/cases.yaml"));
        let _ = write!(page, "\nIts cases:\n\n```yaml\n{}\n```\n", cases.trim_end());
    }
    page.push_str(
        "\n# Each interface in each language\n\n\
        These parts come from the plugins of the [conformance suite](../../plugins/conformance/README.md),\n\
        which runs its cases on each of them. JavaScript is TypeScript without its types.\n",
    );
    for (interface, what) in INTERFACES {
        let _ = write!(page, "\n## {interface}: {what}\n");
        for (folder, files) in GUESTS {
            let sources = files.iter().map(|file| read(&format!("plugins/conformance/{file}")));
            let parts: Vec<String> = sources.flat_map(|source| parts(&source, interface)).collect();
            assert!(!parts.is_empty(), "no example of {interface} in {folder}");
            let language = LANGUAGES.iter().find(|(language, ..)| *language == folder).map_or("", |found| found.2);
            let _ = write!(page, "\n{language}:\n\n```{folder}\n{}\n```\n", parts.join("\n\n"));
        }
    }
    page
}

/// The parts of a source between a comment `example: NAME` and the next comment `end`, without indentation.
fn parts(source: &str, name: &str) -> Vec<String> {
    let said = |line: &str| line.trim().trim_start_matches(['/', '#']).trim().to_owned();
    let mut parts = Vec::new();
    let mut lines = source.lines();
    while lines.by_ref().any(|line| line.ends_with(&format!(" example: {name}"))) {
        let part: Vec<&str> = lines.by_ref().take_while(|line| said(line) != "end").collect();
        let indented = part.iter().filter(|line| !line.trim().is_empty());
        let margin = indented.map(|line| line.len() - line.trim_start().len()).min().unwrap_or_default();
        let part: Vec<&str> = part.iter().map(|line| line.get(margin..).unwrap_or_default()).collect();
        parts.push(part.join("\n").trim().to_owned());
    }
    parts
}
