//! Plugin swaps under load: no message is lost, doubled, reordered, or judged by an older version than before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, component};
use crate::support::wire::Form;

const PRODUCERS: usize = 4;
const SWAPS: usize = 200;
const EDITS: usize = 60;

/// Progress of the swaps. Good version n is the component `stamp-v1` for even n, `stamp-v2` for odd n.
#[derive(Default)]
pub struct Progress {
    /// The newest version with its file in the directory.
    pub offered: AtomicUsize,
    /// The newest version that the node reported as live.
    pub live: AtomicUsize,
    pub done: AtomicBool,
}

/// One push: its stamp, and the range of versions that may have judged it.
pub struct Judged {
    stamp: String,
    from: usize,
    to: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_swaps_under_load_lose_nothing() {
    let gateway = Arc::new(Setup::default().plugin_as("stamp", "stamp-v1").start());
    let progress = Arc::new(Progress::default());
    let mut producers = Vec::new();
    for number in 0..PRODUCERS {
        producers.push(tokio::spawn(produce(Arc::clone(&gateway), Arc::clone(&progress), number)));
    }
    for swap in 0..SWAPS {
        if swap % 10 < 3 { break_it(&gateway, swap).await } else { replace_it(&gateway, &progress).await }
    }
    progress.done.store(true, Ordering::SeqCst);
    let mut sent = 0;
    for producer in producers {
        let ledger = producer.await.unwrap();
        sent += ledger.len();
        check(&ledger);
    }
    let good = progress.live.load(Ordering::SeqCst);
    println!("{sent} messages through {good} versions and {} refused files", SWAPS - good);
    assert_eq!(good, SWAPS * 7 / 10);
    assert!(sent > SWAPS * PRODUCERS, "expected more messages, got {sent}");
}

/// The settings file of `word-filter` is edited while four producers push. Each edit sets another mask, and every fifth
/// edit is broken. The mask of a message identifies the settings that judged it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_of_settings_under_load_lose_nothing() {
    let edit =
        |mask: usize| format!("[settings]\nmode = \"mask\"\nmask = \"{}\"\nwords = [\"gossip\"]\n", mask_of(mask));
    let gateway = Arc::new(Setup::default().plugin("word-filter").manifest("word-filter", &edit(0)).start());
    let progress = Arc::new(Progress::default());
    let mut producers = Vec::new();
    for number in 0..PRODUCERS {
        producers.push(tokio::spawn(gossip(Arc::clone(&gateway), Arc::clone(&progress), number)));
    }
    for round in 1..=EDITS {
        if round.is_multiple_of(5) {
            gateway.folder.put("word-filter.toml", format!("[settings]\nmode = \"shout {round}\"\n").as_bytes());
            gateway.plugin_until("word-filter", |p| p["rejected"].is_object() && p["state"] == "live").await;
        }
        progress.offered.store(round, Ordering::SeqCst);
        let before = gateway.plugin_until("word-filter", |_| true).await["version"].as_u64();
        gateway.folder.put("word-filter.toml", edit(round).as_bytes());
        gateway.plugin_until("word-filter", |p| p["version"].as_u64() > before && p["rejected"].is_null()).await;
        progress.live.store(round, Ordering::SeqCst);
    }
    progress.done.store(true, Ordering::SeqCst);
    let mut sent = 0;
    for producer in producers {
        sent += producer.await.unwrap();
    }
    println!("{sent} messages through {EDITS} edits");
    assert!(sent > EDITS * PRODUCERS, "expected more messages, got {sent}");
}

/// A different letter for each edit.
fn mask_of(edit: usize) -> char {
    char::from(b'A' + u8::try_from(edit % 26).unwrap())
}

/// Pushes as `produce` does. The mask of each message was in force between request and response, and no mask is older
/// than the one before.
async fn gossip(gateway: Arc<Gateway>, progress: Arc<Progress>, number: usize) -> usize {
    let uid = format!("receiver-{number}");
    let mut receiver = gateway.connect(&uid, Form::YunqueJson).await;
    let mut http = gateway.http().await;
    let (mut sent, mut edit) = (0_usize, 0);
    while !progress.done.load(Ordering::SeqCst) {
        edit = edit.max(progress.live.load(Ordering::SeqCst));
        let body = json!({"receiver": uid, "action": "chat", "title": sent.to_string(), "content": {"text": "gossip"}});
        let data = http.post("/send", &body).await.data();
        assert_eq!(
            (&data["delivered"], data.get("rejected")),
            (&json!(1), None),
            "a message was not delivered: {data}"
        );
        let message = receiver.message().await;
        assert_eq!(message["title"], sent.to_string(), "a message is lost or out of order: {message}");
        let offered = progress.offered.load(Ordering::SeqCst);
        let seen = message["content"]["text"].as_str().unwrap().to_owned();
        let found = (edit..=offered).find(|edit| seen == mask_of(*edit).to_string().repeat(6));
        edit = found.unwrap_or_else(|| panic!("message {sent} arrived as {seen:?} between edits {edit} and {offered}"));
        sent += 1;
    }
    assert_eq!(receiver.drain().await, Vec::<Value>::new(), "a message arrived twice");
    sent
}

/// Pushes numbered messages to its own receiver until the swaps are over, one at a time, and reads each back.
pub async fn produce(gateway: Arc<Gateway>, progress: Arc<Progress>, number: usize) -> Vec<Judged> {
    let uid = format!("receiver-{number}");
    let mut receiver = gateway.connect(&uid, Form::YunqueJson).await;
    let mut http = gateway.http().await;
    let mut ledger = Vec::new();
    while !progress.done.load(Ordering::SeqCst) {
        let from = progress.live.load(Ordering::SeqCst);
        let body = json!({"receiver": uid, "action": "chat", "title": ledger.len().to_string()});
        let answer = http.post("/send", &body).await;
        let to = progress.offered.load(Ordering::SeqCst);
        let data = answer.data();
        assert_eq!(
            (&data["delivered"], data.get("rejected")),
            (&json!(1), None),
            "a message was not delivered: {data}"
        );
        ledger.push(Judged { stamp: next_stamp(&mut receiver, ledger.len()).await, from, to });
    }
    assert_eq!(receiver.drain().await, Vec::<Value>::new(), "a message arrived twice");
    ledger
}

async fn next_stamp(receiver: &mut Client, sequence: usize) -> String {
    let message = receiver.message().await;
    assert_eq!(message["title"], sequence.to_string(), "a message is lost or out of order: {message}");
    message["extra"]["version"].as_str().expect("each message has the stamp of a version").to_owned()
}

/// Checks that each message was judged by an offered version that is not older than the live one or the one before.
pub fn check(ledger: &[Judged]) {
    let mut version = 0;
    for (sequence, Judged { stamp, from, to }) in ledger.iter().enumerate() {
        version = version.max(*from);
        if *stamp != format!("v{}", version % 2 + 1) {
            version += 1;
        }
        assert!(version <= *to, "message {sequence} was stamped {stamp} between versions {from} and {to}");
    }
}

async fn replace_it(gateway: &Gateway, progress: &Progress) {
    let version = progress.offered.load(Ordering::SeqCst) + 1;
    let bytes = component(if version.is_multiple_of(2) { "stamp-v1" } else { "stamp-v2" });
    progress.offered.store(version, Ordering::SeqCst);
    if version.is_multiple_of(5) {
        recreate(gateway, &bytes);
    } else {
        gateway.folder.put("stamp.wasm", &bytes);
    }
    let hash = hex(&bytes);
    gateway.plugin_until("stamp", |plugin| plugin["hash"] == hash.as_str() && plugin["state"] == "live").await;
    progress.live.store(version, Ordering::SeqCst);
}

/// Deletes the file and creates it again at once, as some editors and copy tools do.
fn recreate(gateway: &Gateway, bytes: &[u8]) {
    let path = gateway.folder.plugins().join("stamp.wasm");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Offers an invalid file and waits until the node refuses it.
async fn break_it(gateway: &Gateway, swap: usize) {
    let whole = component("stamp-v2");
    let salt = u32::try_from(swap).unwrap().to_le_bytes();
    let bytes = match swap % 5 {
        0 => whole[..whole.len() / 2 + swap].to_vec(),
        1 => [b"garbage ".as_slice(), &salt].concat(),
        // A core module; a custom section makes each one unique.
        2 => [b"\0asm\x01\0\0\0\0\x06\x01x".as_slice(), &salt].concat(),
        // A component without a role.
        3 => [b"\0asm\x0d\0\x01\0\0\x06\x01x".as_slice(), &salt].concat(),
        _ => Vec::new(),
    };
    gateway.folder.put("stamp.wasm", &bytes);
    let hash = hex(&bytes);
    let told = gateway.plugin_until("stamp", |plugin| plugin["rejected"]["hash"] == hash.as_str()).await;
    assert_eq!(told["state"], "live", "the last good version does not serve: {told}");
    assert!(told["rejected"]["reason"].as_str().is_some_and(|r| !r.is_empty()), "{told}");
}

pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
