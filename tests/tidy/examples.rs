//! The page of whole examples: each role in each language, as its template has it.

use std::fmt::Write as _;

const ROLES: [(&str, &str); 4] = [
    ("filter", "judges each publish once"),
    ("auth", "decides who gets in"),
    ("handler", "answers the keys that it owns"),
    ("events", "hears of what happens"),
];
/// Folder and suffix of the template, name of the language, word for the highlighter.
const LANGUAGES: [(&str, &str, &str); 5] = [
    ("rust", "rs", "Rust"),
    ("ts", "ts", "TypeScript"),
    ("js", "js", "JavaScript"),
    ("python", "py", "Python"),
    ("c", "c", "C"),
];

/// The page, from the files that `read` gives.
pub fn page(read: impl Fn(&str) -> String) -> String {
    let mut page = String::from(
        "# Each role in each language\n\nThese are the templates of `skylark plugin new`, whole; made by `BLESS=1 cargo test --test tidy`. A role does the same in every language, and passes the same cases.\nWhat it all means stands in [plugins.md](plugins.md), what may be called in [plugin-reference.md](plugin-reference.md).\n",
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
    page
}
