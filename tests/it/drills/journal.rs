//! A node with a journal of its history is killed and starts again: each client gets every acknowledged message once, in
//! order, and resumes each time.

use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::client::within;
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::Http;
use crate::support::ledger::drill::{Seed, pick};
use crate::support::ledger::uid;
use crate::support::token::Claims;
use crate::support::wire::Form;

const YAML: &str = "history:\n  user: {size: 10000, bytes: 16MiB}\n  journal: {dir: ./journal}";
const PUBLISHERS: usize = 2;

/// A client that keeps its position.
struct Device {
    user: u32,
    /// Element of `resume`; null before the first bind.
    position: Value,
    /// Actions of the messages, in order.
    received: Vec<String>,
}

/// What a publisher heard of its messages: user, action, and whether it was acknowledged.
type Book = Vec<(u32, String, bool)>;

impl Device {
    /// Binds, resumes and receives to the end of the connection.
    async fn attend(mut self, gateway: Arc<Gateway>, bound: watch::Sender<usize>) -> Self {
        let mut client = gateway.dial_cim(Form::CimJson).await;
        let resume = if self.position.is_null() { json!([]) } else { json!([self.position]) };
        let token = Claims::of(&uid(self.user)).mint();
        let data = json!({"token": token, "channel": "web", "resume": resume.to_string()});
        let reply = client.ask("client_bind", data).await;
        let elements: Value = serde_json::from_str(reply["data"]["resume"].as_str().unwrap()).unwrap();
        let own = &elements[0];
        assert_eq!((&own[0], &own[1]), (&json!("u"), &json!(true)), "{reply}");
        bound.send_modify(|count| *count += 1);
        if self.position.is_null() {
            self.position = json!(["u", own[2], own[3], own[4]]);
        }
        for message in client.rest().await {
            let (offset, last) = (message["offset"].as_u64().unwrap(), self.position[2].as_u64().unwrap());
            assert_eq!(message["epoch"], self.position[1], "{message}");
            // A client drops what is not above its position; nothing may be missing.
            if offset > last {
                assert_eq!(offset, last + 1, "{message}");
                self.received.push(message["action"].as_str().unwrap().to_owned());
                self.position = json!(["u", message["epoch"], offset, message["id"]]);
            }
        }
        self
    }
}

/// Publishes to one user after the other until the node is gone or `stop` is set.
async fn publish(
    gateway: Arc<Gateway>,
    name: String,
    users: u32,
    acked: watch::Sender<usize>,
    stop: watch::Receiver<bool>,
) -> Book {
    let mut http: Http = gateway.http().await;
    let mut book = Book::new();
    for number in 0.. {
        let (user, action) = (number % users, format!("{name}-{number}"));
        let body = json!({"receiver": uid(user), "action": action}).to_string();
        let answer = http.attempt("POST", "/send", &[], body.as_bytes()).await;
        let is_acked = answer.as_ref().is_ok_and(|answer| answer.status == 200);
        assert!(is_acked || answer.is_err(), "{:?}", answer.map(|answer| answer.body));
        book.push((user, action, is_acked));
        if !is_acked || *stop.borrow() {
            break;
        }
        acked.send_modify(|count| *count += 1);
    }
    book
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_with_a_journal_loses_nothing() {
    let seed = Seed::of("a_killed_node_with_a_journal_loses_nothing");
    let mut dice = seed.dice();
    let (users, kills) = (pick(8, 200), pick(3, 20));
    let folder = Setup::default().yaml(YAML).prepare();
    std::fs::create_dir(folder.path().join("journal")).unwrap();
    let command = folder.command("serve");
    let mut gateway = Arc::new(Gateway::run(folder, command, None));
    let mut devices: Vec<Device> =
        (0..users).map(|user| Device { user, position: Value::Null, received: Vec::new() }).collect();
    let mut books = Book::new();
    for round in 0..=kills {
        let (acked, stop, bound) = (watch::Sender::new(0), watch::Sender::new(false), watch::Sender::new(0));
        let mut attending: JoinSet<Device> =
            devices.drain(..).map(|device| device.attend(Arc::clone(&gateway), bound.clone())).collect();
        let all_bound = async || {
            within("the binds", bound.subscribe().wait_for(|count| *count == users as usize)).await.unwrap();
        };
        // A client without a position gets nothing from before its first bind.
        if round == 0 {
            all_bound().await;
        }
        let publishing: JoinSet<Book> = (0..PUBLISHERS)
            .map(|at| publish(Arc::clone(&gateway), format!("{round}-{at}"), users, acked.clone(), stop.subscribe()))
            .collect();
        let most = pick(400, 4_000) + dice.roll(200);
        all_bound().await;
        within("the load", acked.subscribe().wait_for(|count| *count >= most)).await.unwrap();
        if round < kills {
            gateway.signal(Signal::KILL);
        } else {
            stop.send_replace(true);
        }
        books.extend(within("the publishers", publishing.join_all()).await.into_iter().flatten());
        if round == kills {
            gateway.signal(Signal::TERM);
        }
        within("the end of the node", gateway.ended()).await;
        while let Some(device) = within("the clients", attending.join_next()).await {
            devices.push(device.unwrap());
        }
        if round < kills {
            gateway = Arc::new(gateway.again());
        }
    }
    verify(&devices, &books);
    seed.succeed();
}

/// Each client has all acknowledged messages once, and no others than those without an answer.
fn verify(devices: &[Device], books: &Book) {
    let acked = books.iter().filter(|(.., is_acked)| *is_acked).count();
    let received: usize = devices.iter().map(|device| device.received.len()).sum();
    println!("{acked} acknowledged, {} without an answer, {received} received", books.len() - acked);
    for Device { user, received, .. } in devices {
        let mut left: std::collections::BTreeSet<&str> = received.iter().map(String::as_str).collect();
        assert_eq!(left.len(), received.len(), "user {user} received a message twice");
        for (_, action, is_acked) in books.iter().filter(|(own, ..)| own == user) {
            assert!(left.remove(action.as_str()) || !is_acked, "user {user} did not receive {action}");
        }
        assert!(left.is_empty(), "user {user} received what nobody published: {left:?}");
    }
}
