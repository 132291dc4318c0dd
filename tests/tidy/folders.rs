//! Size of folders: so few files that a reader finds one by the names.

use std::collections::BTreeMap;

use super::{FILES, none};

/// Most files of one folder. Files of its subfolders do not count.
const MOST: usize = 15;

/// Folders that may hold more files, each with its reason.
const LARGE: &[(&str, &str)] =
    &[("src", "the modules of the layer table"), ("docs/decisions", "numbered pages, in the order of their making")];

#[test]
fn folders_have_at_most_15_files() {
    none("at most 15 files a folder: sort them by subject into subfolders", &faults(&FILES));
}

/// Folders with too many files.
fn faults(files: &[String]) -> Vec<String> {
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files {
        let folder = file.rsplit_once('/').map_or(".", |(folder, _)| folder);
        *folders.entry(folder).or_default() += 1;
    }
    let is_large = |folder: &str| LARGE.iter().any(|(large, _)| *large == folder);
    let crowded = folders.into_iter().filter(|(folder, files)| *files > MOST && !is_large(folder));
    crowded.map(|(folder, files)| format!("{folder}: {files} files")).collect()
}
