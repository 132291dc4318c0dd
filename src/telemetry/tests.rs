//! The log file's name, the level, and the page of metrics.

use std::collections::HashSet;

use super::*;
use crate::config::{Config, Rotation};

#[test]
fn metric_names_are_unique_and_follow_their_kind() {
    let names: HashSet<&str> = names::ALL.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names.len(), names::ALL.len());
    for (name, kind, text) in names::ALL {
        assert!(name.starts_with("skylark_"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
        assert!(*kind != "histogram" || name.ends_with("_seconds"), "{name} needs buckets");
        assert!(text.trim().ends_with('.'), "{name}: {text}");
    }
}

#[test]
fn the_page_shows_descriptions_and_buckets() {
    let metrics = Metrics::install();
    metrics::histogram!(names::HTTP_SECONDS, "route" => "/test").record(0.003);
    let page = Metrics::install().render();
    assert!(page.contains("# HELP skylark_http_seconds Time from the head"), "{page}");
    assert!(page.contains("skylark_http_seconds_bucket{route=\"/test\",le=\"0.005\"} 1"), "{page}");
    assert_eq!(page.is_empty(), metrics.render().is_empty());
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let mut log = Config::default().log;
    log.file = dir.path().join("file/skylark.log");
    let error = file_writer(&log, &Unwritten::default()).err().unwrap();
    assert!(error.to_string().starts_with("log.file: cannot write "), "{error}");
    log.level = "skylark=loud".to_owned();
    let error = Telemetry::start(&log).err().unwrap();
    assert!(error.to_string().contains("got \"skylark=loud\""), "{error}");
}

#[test]
fn rotation_removes_old_files_and_dates_names_before_the_extension() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    for day in 1..=4 {
        std::fs::write(dir.path().join(format!("node.2020-01-0{day}.log")), "").unwrap();
    }
    // Files of other programs with similar names.
    let others = ["node-2.2020-01-01.log", "node.log", "node.old.log", "node.2020-01-01.log.gz", "nodes.log", "node"];
    for name in others {
        std::fs::write(dir.path().join(name), "theirs").unwrap();
    }
    std::fs::create_dir(dir.path().join("node.2020-01-09.log")).unwrap();
    let mut log = Config::default().log;
    (log.file, log.keep) = (dir.path().join("node.log"), 2);
    let (mut file, guard, _) = file_writer(&log, &Unwritten::default()).unwrap().unwrap();
    file.write_all(b"line\n").unwrap();
    drop(guard);
    let is_ours = |name: &String| !others.contains(&name.as_str()) && !name.contains("-09.");
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let (mut ours, theirs): (Vec<String>, Vec<String>) = names.partition(is_ours);
    ours.sort();
    assert_eq!((ours.len(), theirs.len()), (2, others.len() + 1), "{ours:?} {theirs:?}");
    assert_eq!(ours[0], "node.2020-01-04.log");
    assert_eq!(std::fs::read_to_string(dir.path().join(&ours[1])).unwrap(), "line\n");
    log.rotation = Rotation::Never;
    log.file = dir.path().join("one.log");
    drop(file_writer(&log, &Unwritten::default()).unwrap());
    assert!(dir.path().join("one.log").exists());
}

#[test]
fn moved_log_file_is_created_again() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let mut log = Config::default().log;
    (log.file, log.rotation) = (dir.path().join("node.log"), Rotation::Never);
    let (mut file, guard, next) = file_writer(&log, &Unwritten::default()).unwrap().unwrap();
    std::fs::rename(&log.file, dir.path().join("node.log.1")).unwrap();
    *next.lock() = Some(open_file(&log).unwrap());
    file.write_all(b"line\n").unwrap();
    drop((file, guard));
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!((read("node.log.1"), read("node.log")), (String::new(), "line\n".to_owned()));
}

#[test]
fn lines_that_a_full_disk_refuses_are_counted() {
    use std::io::Write as _;
    let mut log = Config::default().log;
    (log.file, log.rotation) = ("/dev/full".into(), Rotation::Never);
    let unwritten = Unwritten::default();
    let (mut file, guard, _) = file_writer(&log, &unwritten).unwrap().unwrap();
    for _ in 0..3 {
        file.write_all(b"line\n").unwrap();
    }
    drop((file, guard));
    assert_eq!(unwritten.load(Ordering::Relaxed), 3);
}

#[test]
fn log_level_trace_does_not_log_client_frames() {
    for level in ["trace", "tungstenite=trace", "info,tungstenite=trace"] {
        let filter = parse_level(level).unwrap().to_string();
        assert!(filter.contains("tungstenite=warn") && !filter.contains("tungstenite=trace"), "{filter}");
    }
}

#[test]
fn logged_values_are_removed_and_lines_are_capped() {
    assert_eq!(without_value(&"type: expected an integer, got \"secret, got x\""), "type: expected an integer");
    assert_eq!(without_value(&"body: expected all of it within 10s"), "body: expected all of it within 10s");
    assert_eq!(capped(&"云".repeat(1000)).chars().count(), LINE_CHARS);
    assert_eq!(capped("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
    assert!(capped(&"\u{1}".repeat(65_536)).len() < LINE_BYTES + 10);
}

#[test]
fn log_lines_per_address_are_limited() {
    let told = |ip: &str| (0..1_000).filter(|_| may_log(ip.parse().unwrap())).count();
    let first = told("192.0.2.1");
    assert!((10..=20).contains(&first), "{first}");
    assert!(told("192.0.2.2") >= 10, "another address has its own share");
    let nets: usize = (0..100).map(|host| told(&format!("2001:db8::{host}"))).sum();
    assert!(nets <= 20, "a /64 is one address: {nets}");
}
