//! Whether a process has ended, by the word of the kernel that ran it: of a process elsewhere nobody here can say anything.
//!
//! A process is named by the boot of its kernel, its space of process ids, its id there, and when it began. Only who
//! stands in the same space of the same boot can look, and only where nothing is hidden from it; in every case of doubt
//! the answer is no. Knows no node.

use std::fs;
use std::io::ErrorKind;

/// The name of this process; empty where the system does not tell it, so that nobody can ever say that it has ended.
pub(super) fn own() -> String {
    own_name().unwrap_or_default()
}

/// Whether the process of this name has certainly ended.
pub(super) fn has_ended(name: &str) -> bool {
    let words: Vec<&str> = name.split(' ').collect();
    let (&[boot, space, id, began], Some((own_boot, own_space))) = (&words[..], place()) else { return false };
    (boot, space) == (own_boot.as_str(), own_space.as_str()) && id.parse().is_ok_and(|id| is_gone(id, began))
}

fn own_name() -> Option<String> {
    let (boot, space) = place()?;
    let id = std::process::id();
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, began) = state_and_start(&stat)?;
    Some(format!("{boot} {space} {id} {began}"))
}

/// The boot and the space of process ids in which this process runs, if all of the space can be seen.
fn place() -> Option<(String, String)> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = fs::read_link("/proc/self/ns/pid").ok()?;
    // A `/proc` of another space would show others under our ids; one mounted with `hidepid` hides what is not our user's.
    let is_own = fs::read_link("/proc/self").ok()?.to_str() == Some(&std::process::id().to_string());
    let is_whole = fs::read_to_string("/proc/1/stat").is_ok();
    (is_own && is_whole).then_some((boot.trim().to_owned(), space.to_str()?.to_owned()))
}

fn is_gone(id: u32, began: &str) -> bool {
    let stat = match fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(stat) => stat,
        // The second: it went while it was being read.
        Err(error) => return error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(NO_SUCH_PROCESS),
    };
    let Some((state, start)) = state_and_start(&stat) else { return false };
    if start != began {
        return true;
    }
    // Only its parent has not asked how it ended. Its first thread may have ended alone: then there are others.
    let threads = fs::read_dir(format!("/proc/{id}/task")).map_or(usize::MAX, Iterator::count);
    matches!(state, "Z" | "X") && threads <= 1
}

/// The state of a process, and when it began, in ticks since the boot. Its name, in parentheses, may hold anything.
fn state_and_start(stat: &str) -> Option<(&str, &str)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?, fields.nth(BEGAN)?))
}

/// ESRCH.
const NO_SUCH_PROCESS: i32 = 3;
/// How many fields stand between the state and when it began.
const BEGAN: usize = 18;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_has_ended_when_it_has() {
        assert!(!own().is_empty() && !has_ended(&own()));
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo up; read line"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut up = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut up).unwrap();
        let (boot, space) = place().unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let began = state_and_start(&stat).unwrap().1;
        let name = |boot: &str, space: &str, began: &str| format!("{boot} {space} {} {began}", child.id());
        let alive = name(&boot, &space, began);
        assert!(!has_ended(&alive));
        assert!(has_ended(&name(&boot, &space, "1")), "its id is another's by now");
        let elsewhere = [name("b", &space, "1"), name(&boot, "pid:[1]", "1"), String::new(), "a b c".to_owned()];
        assert!(elsewhere.iter().all(|name| !has_ended(name)), "nobody here can say");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(has_ended(&alive));
    }

    #[test]
    fn a_name_of_a_process_may_hold_anything() {
        let stat = format!("7 (a) b) S {}99 0", "1 ".repeat(BEGAN));
        assert_eq!(state_and_start(&stat), Some(("S", "99")));
        assert_eq!(state_and_start("7 (a) S 1"), None);
    }
}
