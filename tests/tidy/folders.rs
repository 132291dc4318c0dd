//! Size of folders: so few files that a reader finds one by the names.

use std::collections::BTreeMap;

use super::{FILES, none};

/// The trees whose folders are counted.
const TREES: &[&str] = &["src/", "bench/src/", "tests/it/"];

/// Most files of one folder. Files of its subfolders do not count.
const MOST: usize = 15;

/// Folders that may hold more files, each with its reason.
const LARGE: &[(&str, &str)] = &[("src", "the modules of the layer table")];

#[test]
fn folders_have_at_most_15_files() {
    none("at most 15 files a folder: sort them by subject into subfolders", &faults(&FILES));
}

/// Folders of [`TREES`] with too many files.
fn faults(files: &[String]) -> Vec<String> {
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files.iter().filter(|file| TREES.iter().any(|tree| file.starts_with(tree))) {
        let (folder, _) = file.rsplit_once('/').expect("a path below one of TREES");
        *folders.entry(folder).or_default() += 1;
    }
    let is_large = |folder: &str| LARGE.iter().any(|(large, _)| *large == folder);
    let crowded = folders.into_iter().filter(|(folder, files)| *files > MOST && !is_large(folder));
    crowded.map(|(folder, files)| format!("{folder}: {files} files")).collect()
}
