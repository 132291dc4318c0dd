//! Links between documents: the file of each exists, and so does the heading of each `#anchor`.

use std::collections::BTreeSet;
use std::path::Path;

/// The broken links of `text`, the document at `path`. `read` returns the text of a file, or nothing if it is missing.
pub fn faults(path: &str, text: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut faults = Vec::new();
    for (number, line) in prose(text) {
        for (at, _) in line.match_indices("](") {
            let link = line[at + 2..].split([')', ' ']).next().unwrap_or_default();
            if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { Some(text.to_owned()) } else { read(&folder.join(file)) };
            match target {
                None => faults.push(format!("{path}:{number}: {link} leads to no file")),
                Some(target) if !anchor.is_empty() && !anchors(&target).contains(anchor) => {
                    faults.push(format!("{path}:{number}: {link} leads to no heading"));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

/// The lines outside fenced blocks with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    })
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let Some((marks, title)) = line.split_once(' ') else { continue };
        if marks.is_empty() || !marks.chars().all(|c| c == '#') {
            continue;
        }
        let kept = title.trim().to_lowercase();
        let slug: String = kept
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let again = (1..).map(|number| format!("{slug}-{number}")).find(|other| !anchors.contains(other));
        anchors.insert(if anchors.contains(&slug) { again.unwrap_or_default() } else { slug });
    }
    anchors
}

#[test]
fn link_to_a_missing_file_or_heading_is_found() {
    let there = "# One\n\n## The `kv` keys, again\n## Twice\n## Twice\n```text\n# none\n```\n";
    let read = |path: &Path| (path == Path::new("docs/there.md")).then(|| there.to_owned());
    let text = "[a](there.md) [b](there.md#the-kv-keys-again) [c](there.md#twice-1)\n\n[d](gone.md)\n\
                [e](there.md#none) [f](#here)\n## Here\n[g](https://example.com)\n";
    assert_eq!(
        faults("docs/page.md", text, read),
        ["docs/page.md:3: gone.md leads to no file", "docs/page.md:4: there.md#none leads to no heading"]
    );
}
