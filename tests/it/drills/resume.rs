//! All clients of a node lose their connections and come back within seconds: each gets what it missed, in order and
//! once, and the clients that stayed are served meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::storm::{Probe, STARVED};
use crate::support::client::{Client, Dial};
use crate::support::dice::{Dice, given};
use crate::support::gateway::{Gateway, Setup};
use crate::support::ledger::drill::pick;
use crate::support::token::Claims;
use crate::support::wire::Form;

/// Handshakes under way before the drill.
const DIALS: usize = 64;
/// Most messages that one client misses.
const MOST_MISSED: usize = 20;

/// A client that is away.
#[derive(Clone)]
struct Away {
    uid: String,
    /// Its positions as elements of `resume`: its own stream, and that of everyone.
    positions: Value,
    /// Number of messages that it missed.
    missed: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_reconnect_and_resume_recover_and_starve_nobody() {
    come_back(pick(500, 10_000), pick(Duration::from_secs(1), Duration::from_secs(10))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnects_in_one_second_resume_and_recover() {
    come_back(pick(200, 5_000), Duration::from_secs(1)).await;
}

/// `count` clients come back, spread over the time `within`.
async fn come_back(count: usize, within: Duration) {
    let mut dice = Dice(given("SEED", 1) as u64);
    let limits = "limits:\n  connections_per_ip: 0\n  connects_per_ip: 0\n";
    let gateway = Arc::new(Setup::default().yaml(limits).start());
    let mut away = leave(&gateway, count).await;
    for (at, client) in away.iter_mut().enumerate() {
        client.missed = dice.roll(MOST_MISSED + 1);
        // Some clients have messages that are larger than a page.
        push(&gateway, client, if at % 50 == 0 { 4_000 } else { 100 }).await;
    }
    gateway.post("/send/all", json!({"action": "all"})).await.data();

    let mut probe = Probe::at(&gateway).await;
    let calm = probe.push_while(|pushes| pushes < 200).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&is_over);
    let probing = tokio::spawn(async move { probe.push_while(|_| !watched.load(Ordering::SeqCst)).await });
    let (begun, refused) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let mut pace = interval(within / u32::try_from(count).unwrap());
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut returning = JoinSet::new();
    for client in away {
        pace.tick().await;
        returning.spawn(recover(Arc::clone(&gateway), client, Arc::clone(&refused)));
    }
    let clients = returning.join_all().await;
    let settled = begun.elapsed();
    is_over.store(true, Ordering::SeqCst);
    let meanwhile = probing.await.unwrap();
    let refused = refused.load(Ordering::SeqCst);
    println!(
        "{count} clients recovered within {settled:.1?}, {refused} after a refusal; a push took {calm} before, \
         {meanwhile} meanwhile"
    );
    assert!(meanwhile.worst < STARVED, "{meanwhile}");
    drop(clients);
}

/// Connects the clients, notes their positions, and drops them.
async fn leave(gateway: &Arc<Gateway>, count: usize) -> Vec<Away> {
    let dials = Arc::new(Semaphore::new(DIALS));
    let mut leaving = JoinSet::new();
    for number in 0..count {
        let (gateway, dials) = (Arc::clone(gateway), Arc::clone(&dials));
        leaving.spawn(async move {
            let _permit = dials.acquire().await.unwrap();
            let uid = format!("away-{number}");
            let (_client, reply) = dial(&gateway, &uid, &json!([])).await;
            let answer = answer(&reply).expect("the node is not busy");
            let positions = answer.iter().map(|one| json!([one[0], one[2], one[3], one[4]])).collect();
            Away { uid, positions, missed: 0 }
        });
    }
    leaving.join_all().await
}

async fn push(gateway: &Gateway, client: &Away, bytes: usize) {
    if client.missed == 0 {
        return;
    }
    let text = "x".repeat(bytes);
    let message =
        |number: usize| json!({"receiver": client.uid, "action": number.to_string(), "content": {"text": text}});
    let list: Vec<Value> = (0..client.missed).map(message).collect();
    gateway.post("/send/sendList", Value::Array(list)).await.data();
}

async fn dial(gateway: &Gateway, uid: &str, resume: &Value) -> (Client, Value) {
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("token", &Claims::of(uid).mint())
        .append_pair("resume", &resume.to_string())
        .finish();
    let form = Form::YunqueJson;
    let dial = Dial::path(format!("/ws?{query}")).subprotocol(form.subprotocol());
    let pipe = gateway.pipe("ws").await;
    let mut client = Client::dial_over(pipe, gateway.address("ws"), form, dial).await.expect("an upgrade");
    let reply = client.reply().await;
    (client, reply)
}

/// The elements of the answer to a resume. `Err` is the time to wait if the node is busy.
fn answer(reply: &Value) -> Result<Vec<Value>, Duration> {
    if reply["code"] == "503" {
        let retry: u64 = reply["data"]["retry"].as_str().unwrap().parse().unwrap();
        assert!((1_000..=5_000).contains(&retry), "{reply}");
        return Err(Duration::from_millis(retry));
    }
    assert_eq!(reply["code"], "200", "{reply}");
    Ok(serde_json::from_str(reply["data"]["resume"].as_str().unwrap()).unwrap())
}

/// Connects until the node accepts the client, and compares what it receives with what it missed.
async fn recover(gateway: Arc<Gateway>, away: Away, refused: Arc<AtomicUsize>) -> Client {
    let (mut client, elements) = loop {
        let (mut client, reply) = dial(&gateway, &away.uid, &away.positions).await;
        match answer(&reply) {
            Ok(elements) => break (client, elements),
            Err(retry) => {
                refused.fetch_add(1, Ordering::SeqCst);
                assert_eq!(client.close_code().await, 4007);
                let mut later = interval(retry);
                later.tick().await;
                later.tick().await;
            }
        }
    };
    for (element, missed) in elements.iter().zip([away.missed, 1]) {
        assert_eq!(element[1], true, "{element}");
        assert_eq!(element[5], json!(missed), "{element}");
    }
    let mut own = 0;
    for _ in 0..=away.missed {
        let message = client.message().await;
        if message["stream"] == "all" {
            assert_eq!(message["action"], "all");
            continue;
        }
        assert_eq!(message["action"], own.to_string(), "{}", away.uid);
        own += 1;
    }
    assert_eq!(own, away.missed);
    client
}
