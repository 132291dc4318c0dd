//! The memory limit of this process: of the machine, and of the cgroups (version 1 and 2) above the process.

use std::path::Path;

/// Smallest limit below `root`, the root of the file system, in bytes. `None` if none can be read.
pub(super) fn limit(root: &Path) -> Option<usize> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits: Vec<u64> = groups
        .lines()
        .filter_map(limit_file)
        .filter_map(|(tree, group, file)| {
            let tree = root.join(tree);
            let group = tree.join(group.trim_start_matches('/'));
            // In a container the path of the group may be that of the host. Its limit is at the root then.
            let above = group.ancestors().take_while(|folder| folder.starts_with(&tree));
            above.filter_map(|folder| read(&folder.join(file))?.trim().parse().ok()).min()
        })
        .collect();
    limits.extend(read(&root.join("proc/meminfo")).and_then(|text| machine(&text)));
    limits.into_iter().min().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Tree, group and limit file of a line of `/proc/self/cgroup` (`ID:CONTROLLERS:GROUP`).
fn limit_file(line: &str) -> Option<(&'static str, &str, &'static str)> {
    let (id, rest) = line.split_once(':')?;
    let (controllers, group) = rest.split_once(':')?;
    if controllers.split(',').any(|controller| controller == "memory") {
        return Some(("sys/fs/cgroup/memory", group, "memory.limit_in_bytes"));
    }
    (id == "0").then_some(("sys/fs/cgroup", group, "memory.max"))
}

/// Memory of the machine, from `/proc/meminfo`.
fn machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit on a machine with 16 GiB and these files.
    fn limit_with(files: &[(&str, &str)]) -> Option<usize> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")].iter().chain(files) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        limit(root.path())
    }

    #[test]
    fn process_without_group_has_the_memory_of_the_machine() {
        assert_eq!(limit_with(&[]), Some(16 << 30));
        let unbounded = [("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.max", "max\n")];
        assert_eq!(limit_with(&unbounded), Some(16 << 30));
        assert_eq!(limit(tempfile::tempdir().unwrap().path()), None);
    }

    #[test]
    fn groups_above_the_process_bound_it() {
        let files = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "1048576\n"),
            ("sys/fs/cgroup/a/b/memory.max", "2097152\n"),
        ];
        assert_eq!(limit_with(&files), Some(1 << 20));
        let old = [
            ("proc/self/cgroup", "4:cpu:/a\n3:hugetlb,memory:/a\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4194304\n"),
        ];
        assert_eq!(limit_with(&old), Some(4 << 20));
    }

    #[test]
    fn container_with_the_path_of_its_host_has_the_limit_at_the_root() {
        let files = [("proc/self/cgroup", "0::/docker/1f\n"), ("sys/fs/cgroup/memory.max", "8388608\n")];
        assert_eq!(limit_with(&files), Some(8 << 20));
    }
}
