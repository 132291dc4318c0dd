//! Size of folders: so few files that a reader finds one by the names.

use std::collections::BTreeMap;

use super::{FILES, none};

/// Most files of one folder. Files of its subfolders do not count.
const MOST: usize = 15;

/// Folders that may hold more files, each with its reason.
const LARGE: &[(&str, &str)] = &[("src", "the modules of the layer table")];

#[test]
fn folders_have_at_most_15_files() {
    none("at most 15 files a folder: sort them by subject into subfolders", &faults(&FILES));
}

/// Folders of `src/` and `tests/it/` with too many files.
fn faults(files: &[String]) -> Vec<String> {
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files.iter().filter(|file| file.starts_with("src/") || file.starts_with("tests/it/")) {
        let (folder, _) = file.rsplit_once('/').expect("a path below src/ or tests/it/");
        *folders.entry(folder).or_default() += 1;
    }
    let is_large = |folder: &str| LARGE.iter().any(|(large, _)| *large == folder);
    let crowded = folders.into_iter().filter(|(folder, files)| *files > MOST && !is_large(folder));
    crowded.map(|(folder, files)| format!("{folder}: {files} files")).collect()
}
