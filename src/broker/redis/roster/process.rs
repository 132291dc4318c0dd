//! Detects that a process on this machine has exited. Processes on other machines cannot be checked.
//!
//! A process name consists of the boot id, the pid namespace, the pid and the start time. Only a process with the same
//! boot id and pid namespace can check it, and only if `/proc` hides no process. In case of doubt the process counts as
//! running. Independent of nodes.

use std::fs;
use std::io::ErrorKind;

/// Name of this process. Empty if the system does not provide it; then no check can succeed.
pub(super) fn name_of_this_process() -> String {
    own_name().unwrap_or_default()
}

/// True once the process with this name has certainly exited.
pub(super) fn has_exited(name: &str) -> bool {
    let parts: Vec<&str> = name.split(' ').collect();
    let (&[boot, namespace, id, started], Some((own_boot, own_namespace))) = (&parts[..], boot_and_namespace()) else {
        return false;
    };
    (boot, namespace) == (own_boot.as_str(), own_namespace.as_str())
        && id.parse().is_ok_and(|id| has_exited_here(id, started))
}

fn own_name() -> Option<String> {
    let (boot, namespace) = boot_and_namespace()?;
    let id = std::process::id();
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, started) = state_and_start(&stat)?;
    Some(format!("{boot} {namespace} {id} {started}"))
}

/// Boot id and pid namespace of this process, if all processes of the namespace are visible.
fn boot_and_namespace() -> Option<(String, String)> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    // `/proc` of another namespace maps pids to other processes. With `hidepid`, `/proc` hides processes of other
    // users.
    let is_own = fs::read_link("/proc/self").ok()?.to_str() == Some(&std::process::id().to_string());
    let is_whole = fs::read_to_string("/proc/1/stat").is_ok();
    (is_own && is_whole).then_some((boot.trim().to_owned(), namespace.to_str()?.to_owned()))
}

fn has_exited_here(id: u32, started: &str) -> bool {
    let stat = match fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(stat) => stat,
        // The second case: the process exited during the read.
        Err(error) => return error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(NO_SUCH_PROCESS),
    };
    let Some((state, start)) = state_and_start(&stat) else { return false };
    if start != started {
        return true;
    }
    // A zombie has exited and waits for its parent. If only its main thread has exited, other threads remain.
    let threads = fs::read_dir(format!("/proc/{id}/task")).map_or(usize::MAX, Iterator::count);
    matches!(state, "Z" | "X") && threads <= 1
}

/// State of a process and its start time in ticks since boot. The name in parentheses may contain any character.
fn state_and_start(stat: &str) -> Option<(&str, &str)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?, fields.nth(START_FIELD)?))
}

/// ESRCH.
const NO_SUCH_PROCESS: i32 = 3;
/// Number of fields between the state and the start time.
const START_FIELD: usize = 18;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_has_ended_when_it_has() {
        assert!(!name_of_this_process().is_empty() && !has_exited(&name_of_this_process()));
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo up; read line"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut up = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut up).unwrap();
        let (boot, namespace) = boot_and_namespace().unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let started = state_and_start(&stat).unwrap().1;
        let name = |boot: &str, namespace: &str, started: &str| format!("{boot} {namespace} {} {started}", child.id());
        let alive = name(&boot, &namespace, started);
        assert!(!has_exited(&alive));
        assert!(has_exited(&name(&boot, &namespace, "1")), "its id is another's by now");
        let elsewhere = [name("b", &namespace, "1"), name(&boot, "pid:[1]", "1"), String::new(), "a b c".to_owned()];
        assert!(elsewhere.iter().all(|name| !has_exited(name)), "nobody here can say");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(has_exited(&alive));
    }

    #[test]
    fn a_name_of_a_process_may_hold_anything() {
        let stat = format!("7 (a) b) S {}99 0", "1 ".repeat(START_FIELD));
        assert_eq!(state_and_start(&stat), Some(("S", "99")));
        assert_eq!(state_and_start("7 (a) S 1"), None);
    }
}
