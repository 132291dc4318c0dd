//! File owners: the plugin directories and files that a node accepts, and the warnings of `skylark check` about
//! readable secrets.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use crate::support::gateway::{Folder, Setup};

fn run(folder: &Folder, command: &str) -> (Option<i32>, String) {
    let output = folder.command(command).output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&words).into_owned())
}

#[test]
fn a_node_does_not_start_with_plugins_that_others_may_write() {
    let folder = Setup::default().prepare();
    set_permissions(folder.plugins(), Permissions::from_mode(0o777)).unwrap();
    let mend = format!(
        "got owner uid {} and mode 0777: chmod go-w {}",
        rustix::process::geteuid(),
        folder.plugins().display()
    );
    for command in ["serve", "check"] {
        let (code, words) = run(&folder, command);
        assert_eq!(code, Some(1), "{words}");
        assert!(words.contains("write permission for the owner only") && words.contains(&mend), "{words}");
    }
    set_permissions(folder.plugins(), Permissions::from_mode(0o755)).unwrap();
    let file = folder.plugins().join("token-auth.toml");
    set_permissions(&file, Permissions::from_mode(0o664)).unwrap();
    let (code, words) = run(&folder, "check");
    let mend = format!("mode 0664: chmod go-w {}", file.display());
    assert!(
        code == Some(1) && words.contains("plugin token-auth: token-auth.toml: expected") && words.contains(&mend),
        "{words}"
    );
}

#[test]
fn check_tells_of_secrets_that_lie_open() {
    let folder = Setup::default().yaml("api:\n  keys: [{name: shop, key: {file: shop.key}}]\n").prepare();
    let key = folder.path().join("shop.key");
    std::fs::write(&key, "shop-secret-0123456789\n").unwrap();
    for (mode, told) in [
        (0o600, ""),
        (0o640, ""),
        (0o644, "every user may read it"),
        (0o660, "users other than its owner may write it"),
    ] {
        set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        let (code, words) = run(&folder, "check");
        assert_eq!(code, Some(0), "{words}");
        let warning = words.lines().find(|line| line.starts_with("warning: api.keys[0].key: "));
        assert!(
            warning.is_none() == told.is_empty() && warning.is_none_or(|warning| warning.contains(told)),
            "{words}"
        );
        assert!(!words.contains("shop-secret"), "{words}");
    }
}
