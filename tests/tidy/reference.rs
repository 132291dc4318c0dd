//! Reads `wit/skylark.wit` for the reference page: interfaces, their types and functions, and the doc comment of each.

use std::fmt::Write as _;

/// An item with its doc comment.
struct Item {
    line: usize,
    words: String,
    text: String,
    /// Fields, cases and functions.
    inner: Vec<Item>,
}

/// The page, and every item without a doc comment.
pub fn page(wit: &str) -> (String, Vec<String>) {
    let (head, items) = parse(wit);
    let mut page = String::from(
        "# The interface, item by item\n\n\
        `BLESS=1 cargo test --test tidy` writes this page from [`wit/skylark.wit`](../../wit/skylark.wit).\n\
        The [guide](../guides/write-a-plugin.md) explains how to use the interface.\n",
    );
    let _ = write!(page, "\n{head}\n");
    for item in items.iter().filter(|item| item.text.starts_with("interface ")) {
        interface(&mut page, item);
    }
    let mut silent = Vec::new();
    gather(&items, &mut silent);
    (page, silent)
}

fn interface(page: &mut String, item: &Item) {
    let name = item.text.trim_start_matches("interface ");
    let _ = write!(page, "\n## `{name}`\n\n{}\n", item.words);
    let (functions, types): (Vec<&Item>, Vec<&Item>) =
        item.inner.iter().partition(|inner| inner.text.contains(": func("));
    if !functions.is_empty() {
        page.push_str("\n| function | |\n|---|---|\n");
        functions.iter().for_each(|inner| row(page, inner));
    }
    for inner in types {
        let _ = write!(page, "\n**`{}`**\n{}\n", inner.text, inner.words);
        if !inner.inner.is_empty() {
            page.push_str("\n| | |\n|---|---|\n");
            inner.inner.iter().for_each(|field| row(page, field));
        }
    }
}

fn row(page: &mut String, item: &Item) {
    let _ = writeln!(page, "| `{}` | {} |", item.text, item.words.replace('\n', " ").replace('|', "\\|"));
}

fn gather(items: &[Item], silent: &mut Vec<String>) {
    for item in items {
        if item.words.is_empty() && !item.text.starts_with("world ") {
            silent.push(format!("wit/skylark.wit:{}: {}", item.line, item.text));
        }
        gather(&item.inner, silent);
    }
}

/// Splits the file into the doc comment of the package and the items on the top level.
fn parse(wit: &str) -> (String, Vec<Item>) {
    let (mut head, mut words) = (String::new(), String::new());
    let mut open: Vec<Item> = vec![Item { line: 0, words: String::new(), text: String::new(), inner: Vec::new() }];
    for (line, text) in (1..).zip(wit.lines().map(str::trim)) {
        if let Some(more) = text.strip_prefix("///") {
            let _ = writeln!(words, "{}", more.trim());
            continue;
        }
        let own = std::mem::take(&mut words).trim().to_owned();
        if text.starts_with("package ") {
            head = format!("`{}`\n\n{own}", text.trim_end_matches(';').trim_start_matches("package "));
        } else if text == "}" {
            let done = open.pop().expect("a block that is open");
            open.last_mut().expect("blocks end where they began").inner.push(done);
        } else if let Some(name) = text.strip_suffix('{') {
            open.push(Item { line, words: own, text: name.trim().to_owned(), inner: Vec::new() });
        } else if !text.is_empty() && !["use ", "import ", "export ", "//"].iter().any(|other| text.starts_with(other))
        {
            let text = text.trim_end_matches([',', ';']).to_owned();
            open.last_mut().expect("the top level").inner.push(Item { line, words: own, text, inner: Vec::new() });
        }
    }
    (head, open.remove(0).inner)
}
