//! Files that control the node belong to root or to the node's user, and no other user may write them.
//!
//! Checks the metadata of an open descriptor, so that the checked file is the one that is read. The directories above
//! are not checked: a replacement for a directory has to belong to root or to the node's user, too.

use std::fs::Metadata;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{StatVfsMountFlags, fstatvfs};

/// Write permission of the group and of others.
const WRITE_BY_OTHERS: u32 = 0o022;

/// Checks owner and mode of an open file or directory. `meta` is its metadata. The mode does not count on a file system
/// that is mounted read-only: Kubernetes mounts ConfigMaps like that, as directories of mode 0777.
///
/// # Errors
/// Expected and actual owner and mode, and the command that corrects them.
pub fn check(file: &impl AsFd, meta: &Metadata) -> Result<(), String> {
    let is_read_only = || fstatvfs(file).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
    let own = rustix::process::geteuid().as_raw();
    judge(own, meta.uid(), meta.mode()).or_else(|fault| {
        let is_owned = judge(own, meta.uid(), meta.mode() & !WRITE_BY_OTHERS).is_ok();
        if is_owned && is_read_only() { Ok(()) } else { Err(fault) }
    })
}

fn judge(own: u32, owner: u32, mode: u32) -> Result<(), String> {
    let (is_owned, is_closed) = (owner == 0 || owner == own, mode & WRITE_BY_OTHERS == 0);
    let mend = match (is_owned, is_closed) {
        (true, true) => return Ok(()),
        (true, false) => "chmod go-w".to_owned(),
        (false, true) => format!("chown {own}"),
        (false, false) => format!("chown {own} and chmod go-w"),
    };
    let whose = if own == 0 { "owner root".to_owned() } else { format!("owner root or uid {own} (the node's user)") };
    let mode = mode & 0o7777;
    Err(format!(
        "expected {whose} and write permission for the owner only, got owner uid {owner} and mode {mode:04o}: {mend}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_another_owner_or_writable_by_others_is_refused() {
        for (own, owner, mode, is_good) in [
            (0, 0, 0o100_644, true),
            (1000, 0, 0o100_644, true),
            (1000, 1000, 0o040_755, true),
            (1000, 1000, 0o100_600, true),
            (0, 1000, 0o100_644, false),
            (1000, 65_534, 0o100_644, false),
            (1000, 1000, 0o100_664, false),
            (1000, 1000, 0o100_646, false),
            (0, 0, 0o041_777, false),
        ] {
            assert_eq!(judge(own, owner, mode).is_ok(), is_good, "{own} {owner} {mode:o}");
        }
        let told = judge(1000, 65_534, 0o040_777).unwrap_err();
        assert_eq!(
            told,
            "expected owner root or uid 1000 (the node's user) and write permission for the owner only, got owner uid 65534 \
             and mode 0777: chown 1000 and chmod go-w"
        );
    }
}
