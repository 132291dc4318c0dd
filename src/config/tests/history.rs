//! The section `history`: bounds of streams, rules, and values that do not fit each other.

use super::*;
use crate::config::read::Setting as _;
use crate::id::{Room, Uid};
use crate::message::StreamName;

fn load(base: &str) -> History {
    Files::new(base).load(None, &[]).unwrap().config.history
}

fn room(name: &str) -> StreamName {
    StreamName::Room(Room::parse(name).unwrap())
}

#[test]
fn history_without_a_section_is_in_memory_on_one_node() {
    let history = load("");
    assert!(history.is_on(&BusKind::Memory));
    assert!(!history.is_on(&BusKind::Redis) && !history.is_on(&BusKind::Kafka));
    let user = StreamName::User(Uid::parse("a").unwrap());
    let bounds = |name: &StreamName| {
        let StreamBounds { size, ttl, bytes } = history.bounds(name);
        (size, ttl.as_secs(), bytes)
    };
    assert_eq!(bounds(&user), (100, 600, 1 << 20));
    assert_eq!(bounds(&room("lobby")), (200, 300, 4 << 20));
    assert_eq!(bounds(&StreamName::Everyone), (100, 300, 4 << 20));
    assert_eq!((history.ttl_max.as_secs(), history.bytes), (604_800, 256 << 20));
    assert!(!load("history: {kind: off}\n").is_on(&BusKind::Memory));
    assert!(load("history: {kind: memory}\n").is_on(&BusKind::Memory));
}

#[test]
fn stream_of_a_room_has_the_bounds_of_its_first_rule() {
    let history = load(
        "history:\n  room: {size: 50}\n  rules:\n    - {action: typing, keep: no}\n    \
         - {room: \"score-*\", keep: {size: 1, ttl: 1h}, latest: yes}\n    - {room: score-1, keep: {size: 9}}\n    \
         - {room: lobby, latest: true}\n",
    );
    let bounds = |name: &str| history.bounds(&room(name));
    let expected = StreamBounds { size: 1, ttl: Duration::from_secs(3600), bytes: 4 << 20 };
    assert_eq!((bounds("score-1"), bounds("score-")), (expected, expected));
    assert_eq!((bounds("lobby").size, bounds("scor").size), (50, 50));
    let is_latest = |name: &str| history.is_latest(&Room::parse(name).unwrap());
    assert!(is_latest("score-1") && is_latest("lobby") && !is_latest("other"));
}

#[test]
fn first_rule_with_the_action_or_the_room_decides() {
    let history = load(
        "history:\n  rules:\n    - {action: chat, keep: true}\n    - {room: \"*\", keep: false}\n    \
         - {action: typing, keep: {ttl: 1m}}\n",
    );
    let keep = |action: &str, room: Option<&str>| {
        let room = room.map(|room| Room::parse(room).unwrap());
        history.rule(action, room.as_ref()).map(|rule| rule.keep.clone())
    };
    let minute = RuleBounds { size: None, ttl: Some(Duration::from_secs(60)), bytes: None };
    assert_eq!(keep("chat", Some("lobby")), Some(Keep::Yes));
    assert_eq!(keep("typing", Some("lobby")), Some(Keep::No));
    assert_eq!(keep("typing", None), Some(Keep::Within(minute)));
    assert_eq!(keep("", None), None);
}

#[test]
fn invalid_values_are_faults_with_the_expected_form() {
    assert_eq!(
        faults(
            "history:\n  kind: redis\n  user: {size: 10001}\n  room: {bytes: 17MiB}\n  rules:\n    \
             - {action: a, keep: maybe}\n    - {room: a, latest: on}\n    - {room: a, keep: {size: 0}}\n    \
             - {room: a, keep: {count: 1}}\n  keys: {}\n  on_failure: wait\n  journal: {fsync: 0s, file: a}\n"
        ),
        [
            "s.yaml:10: history.keys: no such key, expected kind, user, room, all, rules, ttl_max, bytes, on_failure or \
             journal",
            "s.yaml:2: history.kind: expected auto, memory or off, got \"redis\"",
            "s.yaml:3: history.user.size: expected a whole number from 1 to 10000, got \"10001\"",
            "s.yaml:4: history.room.bytes: expected a size such as 64KiB or 1MiB, from 1KiB to 16MiB, got \"17MiB\"",
            "s.yaml:6: history.rules[0].keep: expected yes, no or a map (size, ttl or bytes), got \"maybe\"",
            "s.yaml:7: history.rules[1].latest: expected yes, no, true or false, got \"on\"",
            "s.yaml:8: history.rules[2].keep.size: expected a whole number from 1 to 10000, got \"0\"",
            "s.yaml:9: history.rules[3].keep.count: no such key, expected size, ttl or bytes",
            "s.yaml:11: history.on_failure: expected refuse or deliver, got \"wait\"",
            "s.yaml:12: history.journal.file: no such key, expected dir or fsync",
            "s.yaml:12: history.journal.fsync: expected always, os or a duration from 1ms to 1m such as 100ms, got \"0s\"",
        ]
    );
}

#[test]
fn values_that_do_not_fit_each_other_are_faults() {
    assert_eq!(
        faults("bus: {kind: redis}\nhistory: {kind: memory}\n"),
        [
            "s.yaml:2: history.kind: expected auto or off, because bus.kind is redis and other nodes cannot read the memory \
             of this node, got memory"
        ]
    );
    assert!(Files::new("bus: {kind: redis}\nhistory: {kind: auto}\n").load(None, &[]).is_ok());
    assert_eq!(
        faults(
            "history:\n  ttl_max: 1h\n  user: {ttl: 0s}\n  room: {ttl: 2h}\n  rules:\n    \
             - {action: a, room: b}\n    - {keep: no}\n    - {room: \"a*b\"}\n    \
             - {action: a, keep: {size: 1, bytes: 1KiB, ttl: 2h}, latest: yes}\n"
        ),
        [
            "s.yaml:3: history.user.ttl: expected at least 1s, got 0s",
            "s.yaml:4: history.room.ttl: expected at most history.ttl_max (1h), got 2h",
            "s.yaml:6: history.rules[0]: expected either action or room, got both",
            "s.yaml:7: history.rules[1]: expected action or room, got neither",
            "s.yaml:8: history.rules[2].room: expected a * at the end only, got \"a*b\"",
            "s.yaml:9: history.rules[3].keep.size: expected none, because the rule has an action: only a rule with a room \
             bounds a stream",
            "s.yaml:9: history.rules[3].keep.bytes: expected none, because the rule has an action: only a rule with a room \
             bounds a stream",
            "s.yaml:9: history.rules[3].latest: expected none, because the rule has an action: only a rule with a room \
             bounds a stream",
            "s.yaml:9: history.rules[3].keep.ttl: expected at most history.ttl_max (1h), got 2h",
        ]
    );
}

#[test]
fn journal_belongs_to_a_history_in_memory() {
    let problem = "and only a history in memory has a journal, got \"./j\"";
    assert_eq!(
        faults("bus: {kind: redis}\nhistory: {journal: {dir: ./j}}\n"),
        [format!("s.yaml:2: history.journal.dir: expected none, because bus.kind is redis {problem}")]
    );
    assert_eq!(
        faults("history: {kind: off, journal: {dir: ./j}}\n"),
        [format!("s.yaml:1: history.journal.dir: expected none, because history.kind is off {problem}")]
    );
    let fsync = |text: &str| {
        let files = Files::new(&format!("history: {{journal: {{dir: ./j, fsync: {text}}}}}\n"));
        files.load(None, &[]).unwrap().config.history.journal.fsync
    };
    assert_eq!(fsync("always"), Fsync::Always);
    assert_eq!(fsync("os"), Fsync::Os);
    assert_eq!(fsync("20ms"), Fsync::Every(Duration::from_millis(20)));
    assert_eq!(Config::default().history.journal.fsync.show().to_string(), "100ms");
}

#[test]
fn default_bytes_are_at_most_an_eighth_of_the_memory() {
    let bytes = |base: &str, memory: usize| {
        let files = Files::new(base);
        let loader = Loader::isolated(Some(files.path("s.yaml")), None, &[]).with_memory(memory);
        loader.load().unwrap().config.history.bytes
    };
    assert_eq!(bytes("", 64 << 30), 256 << 20);
    assert_eq!(bytes("", (1 << 30) + 12_345), 128 << 20);
    assert_eq!(bytes("", 1 << 20), 1 << 20);
    assert_eq!(bytes("history: {bytes: 512MiB}\n", 1 << 30), 512 << 20);
}

#[test]
fn history_needs_a_restart() {
    let files = Files::new("");
    let loaded = files.load(None, &[]).unwrap();
    files.write("s.yaml", "history: {user: {size: 5}, rules: [{action: typing, keep: no}]}\n");
    let reloaded = loaded.reload(&loaded.config).unwrap();
    assert_eq!(reloaded.config.history, loaded.config.history);
    assert_eq!(reloaded.changes.live, [""; 0]);
    assert!(reloaded.changes.needs_restart.contains(&"history.user.size".to_owned()), "{:?}", reloaded.changes);
}
