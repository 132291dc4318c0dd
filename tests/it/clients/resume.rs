//! Resume: a client that comes back receives what it missed, in order and once, or is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::client::{Client, Dial};
use crate::support::gateway::{Gateway, Setup};
use crate::support::token::Claims;
use crate::support::wire::Form;

const ROOMS: &str = "clients:\n  publish: true\n  open_rooms: ['*']";

/// Connects `uid` with `resume` and returns the bind reply.
pub(super) async fn connect(gateway: &Gateway, claims: Claims, form: Form, resume: &Value) -> (Client, Value) {
    let (token, resume) = (claims.mint(), resume.to_string());
    if form.is_cim() {
        let mut client = gateway.dial_cim(form).await;
        client.sent("client_bind", json!({"token": token, "channel": "web", "resume": resume})).await;
        let reply = client.reply().await;
        return (client, reply);
    }
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("token", &token)
        .append_pair("resume", &resume)
        .finish();
    let dial = Dial::path(format!("/ws?{query}")).subprotocol(form.subprotocol());
    let pipe = gateway.pipe("ws").await;
    let mut client = Client::dial_over(pipe, gateway.address("ws"), form, dial).await.expect("an upgrade");
    let reply = client.reply().await;
    (client, reply)
}

/// The elements of the answer in a REPLY.
pub(super) fn resumed(reply: &Value) -> Vec<Value> {
    assert_eq!(reply["code"], "200", "{reply}");
    let text = reply["data"]["resume"].as_str().unwrap_or_else(|| panic!("no resume in {reply}"));
    serde_json::from_str(text).unwrap()
}

/// Position of a message in its stream, as an element of `resume`.
pub(super) fn position(stream: &str, message: &Value) -> Value {
    json!([stream, message["epoch"], message["offset"], message["id"]])
}

/// Position in an element of the answer, as an element of `resume`.
pub(super) fn told(element: &Value) -> Value {
    json!([element[0], element[2], element[3], element[4]])
}

pub(super) async fn push(gateway: &Gateway, uid: &str, action: &str) {
    gateway.post("/send", json!({"receiver": uid, "action": action})).await.data();
}

pub(super) async fn actions(client: &mut Client, count: usize) -> Vec<String> {
    let mut actions = Vec::new();
    for _ in 0..count {
        actions.push(client.message().await["action"].as_str().unwrap().to_owned());
    }
    actions
}

#[tokio::test]
async fn client_that_was_away_receives_what_it_missed_in_every_form() {
    let gateway = Gateway::start();
    for form in Form::ALL {
        let uid = format!("{form:?}");
        let (mut client, reply) = connect(&gateway, Claims::of(&uid), form, &json!([])).await;
        let answer = resumed(&reply);
        assert_eq!(answer.iter().map(|e| e[0].as_str().unwrap()).collect::<Vec<_>>(), ["u", "all"], "{reply}");
        assert!(answer.iter().all(|element| element[1] == true && element[5] == 0), "{reply}");
        push(&gateway, &uid, "seen").await;
        let seen = client.message().await;
        assert_eq!((&seen["action"], &seen["offset"]), (&json!("seen"), &json!(1)), "{seen}");
        assert_eq!(seen["epoch"], answer[0][2]);
        client.close().await;
        for action in ["one", "two"] {
            push(&gateway, &uid, action).await;
        }
        gateway.post("/send/all", json!({"action": "three"})).await.data();
        let resume = json!([position("u", &seen), told(&answer[1])]);
        let (mut client, reply) = connect(&gateway, Claims::of(&uid), form, &resume).await;
        let answer = resumed(&reply);
        assert_eq!((&answer[0][1], &answer[0][5]), (&json!(true), &json!(2)), "{reply}");
        assert_eq!((&answer[1][1], &answer[1][5]), (&json!(true), &json!(1)), "{reply}");
        assert_eq!(actions(&mut client, 3).await, ["one", "two", "three"]);
        push(&gateway, &uid, "live").await;
        let live = client.message().await;
        assert_eq!((&live["action"], &live["offset"]), (&json!("live"), &json!(4)));
    }
}

#[tokio::test]
async fn resume_that_is_impossible_is_told_for_its_stream_only() {
    let history = "history:\n  user: {size: 2}";
    let gateway = Setup::default().yaml(history).start();
    let form = Form::YunqueJson;
    let (client, reply) = connect(&gateway, Claims::of("a"), form, &json!([])).await;
    let answer = resumed(&reply);
    client.close().await;
    for action in ["1", "2", "3"] {
        push(&gateway, "a", action).await;
    }
    let (epoch, all) = (answer[0][2].clone(), told(&answer[1]));
    for (own, reason) in [
        (json!(["u", epoch, 0, 0]), "trimmed"),
        (json!(["u", "zzzzzzzz", 1, 1]), "epoch"),
        (json!(["u", epoch, 3, 1]), "fork"),
        (json!(["u", epoch, 99, 1]), "fork"),
    ] {
        let resume = json!([own, all, ["r:lobby", "zzzzzzzz", 1, 1]]);
        let (mut client, reply) = connect(&gateway, Claims::of("a"), form, &resume).await;
        let answer = resumed(&reply);
        assert_eq!(
            (&answer[0][1], &answer[0][3], &answer[0][6]),
            (&json!(false), &json!(3), &json!(reason)),
            "{reply}"
        );
        assert_eq!(answer[1][1], true, "{reply}");
        assert_eq!((&answer[2][1], &answer[2][6]), (&json!(false), &json!("not_joined")), "{reply}");
        assert_eq!(client.drain().await, [] as [Value; 0], "nothing is replayed");
    }
}

#[tokio::test]
async fn invalid_resume_names_its_fault_and_keeps_the_connection() {
    let gateway = Gateway::start();
    let mut client = gateway.dial_cim(Form::CimJson).await;
    for resume in ["x", "{}", "[[1]]", "[[\"u\",\"short\",1,1]]", "[[\"u\",\"zzzzzzzz\",-1,1]]"] {
        let data = json!({"token": Claims::of("a").mint(), "resume": resume});
        let reply = client.ask("client_bind", data).await;
        assert_eq!(reply["code"], "400", "{resume}: {reply}");
        assert!(reply["message"].as_str().unwrap().starts_with("resume"), "{reply}");
    }
    let reply = client.ask("client_bind", json!({"token": Claims::of("a").mint(), "channel": "web"})).await;
    assert_eq!(reply["code"], "200", "{reply}");
    assert_eq!(reply["data"].get("resume"), None);
}

#[tokio::test]
async fn room_is_joined_with_its_missed_messages() {
    let gateway = Setup::default().yaml(ROOMS).start();
    let room = |action: &str| json!({"message": {"action": action}, "room": "lobby"});
    let mut client = gateway.connect("a", Form::YunqueJson).await;
    let reply = client.ask("room_join", json!({"room": "lobby", "since": ""})).await;
    assert_eq!(resumed(&reply)[0][1], true, "{reply}");
    gateway.post("/send/room", room("one")).await.data();
    let one = client.message().await;
    assert_eq!((&one["stream"], &one["offset"]), (&json!("r:lobby"), &json!(1)), "{one}");
    client.close().await;
    for action in ["two", "three"] {
        gateway.post("/send/room", room(action)).await.data();
    }
    let mut client = gateway.connect("a", Form::YunqueJson).await;
    let since = format!("{}:{}:{}", one["epoch"].as_str().unwrap(), one["offset"], one["id"]);
    let reply = client.ask("room_join", json!({"room": "lobby", "since": since})).await;
    assert_eq!((&resumed(&reply)[0][1], &resumed(&reply)[0][5]), (&json!(true), &json!(2)), "{reply}");
    assert_eq!(actions(&mut client, 2).await, ["two", "three"]);
    let again = client.ask("room_join", json!({"room": "lobby", "since": since})).await;
    assert_eq!(resumed(&again)[0][6], "already_bound", "{again}");
    let mut other = gateway.connect("b", Form::CimPb).await;
    let reply = other.ask("room_join", json!({"room": "lobby", "latest": "1"})).await;
    assert_eq!(resumed(&reply)[0][5], 1, "{reply}");
    assert_eq!(actions(&mut other, 1).await, ["three"]);
    for since in ["x", "zzzzzzzz:1", "zzzzzzzz:-1:1"] {
        let reply = other.ask("room_join", json!({"room": "other", "since": since})).await;
        assert_eq!(reply["code"], "400", "{since}: {reply}");
    }
}

#[tokio::test]
async fn replay_leaves_out_other_devices_and_excluded_users() {
    let gateway = Setup::default().all_devices().start();
    let form = Form::YunqueJson;
    let (client, reply) = connect(&gateway, Claims::of("a").device("phone"), form, &json!([])).await;
    let resume = Value::Array(resumed(&reply).iter().map(told).collect());
    client.close().await;
    for name in ["desk", "phone"] {
        let body = json!({"message": {"action": name}, "uid": "a", "device": name});
        gateway.post("/send/device", body).await.data();
    }
    push(&gateway, "a", "both").await;
    let (mut client, reply) = connect(&gateway, Claims::of("a").device("phone"), form, &resume).await;
    assert_eq!(resumed(&reply)[0][5], 2, "{reply}");
    assert_eq!(actions(&mut client, 2).await, ["phone", "both"]);
}

#[tokio::test]
async fn without_history_a_resume_is_answered_with_off() {
    let gateway = Setup::default().yaml("history:\n  kind: off").start();
    let (mut client, reply) = connect(&gateway, Claims::of("a"), Form::YunqueJson, &json!([])).await;
    assert!(resumed(&reply).iter().all(|element| element[1] == false && element[6] == "off"), "{reply}");
    push(&gateway, "a", "live").await;
    let message = client.message().await;
    assert_eq!((message.get("offset"), message.get("epoch")), (None, None), "{message}");
}

/// Publishers push without a pause while the client comes back again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnects_under_load_lose_and_repeat_nothing() {
    let history = "history:\n  user: {size: 10000, bytes: 16MiB}\nlimits:\n  connects_per_ip: 0\n";
    let gateway = Arc::new(Setup::default().yaml(history).start());
    let stop = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            let (gateway, stop) = (Arc::clone(&gateway), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut http = gateway.http().await;
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let body = json!({"receiver": "a", "action": format!("{publisher}"), "title": sent.to_string()});
                    http.post("/send", &body).await.data();
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    let forms = Form::ALL;
    let mut resume = json!([["u"]]);
    let mut next = [0_u64; 4];
    let mut last = 0;
    let mut receive = |message: &Value, next: &mut [u64; 4]| {
        let offset = message["offset"].as_u64().unwrap();
        assert!(last == 0 || offset == last + 1, "offset {offset} after {last}");
        last = offset;
        let publisher: usize = message["action"].as_str().unwrap().parse().unwrap();
        let number: u64 = message["title"].as_str().unwrap().parse().unwrap();
        if offset > 1 && next[publisher] != 0 {
            assert_eq!(number, next[publisher], "message of publisher {publisher}");
        }
        next[publisher] = number + 1;
        position("u", message)
    };
    for round in 0..30 {
        let (mut client, reply) = connect(&gateway, Claims::of("a"), forms[round % forms.len()], &resume).await;
        let answer = resumed(&reply);
        assert_eq!(answer[0][1], true, "round {round}: {reply}");
        for _ in 0..=round {
            let message = client.message().await;
            resume = json!([receive(&message, &mut next)]);
        }
        // Dropped without a close: unread messages are lost with the socket.
        drop(client);
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    for publisher in publishers {
        sent.push(publisher.await.unwrap());
    }
    let (mut client, reply) = connect(&gateway, Claims::of("a"), Form::YunqueJson, &resume).await;
    let answer = resumed(&reply);
    assert_eq!(answer[0][1], true, "{reply}");
    for _ in 0..answer[0][5].as_u64().expect("the first page has all messages") {
        let message = client.message().await;
        receive(&message, &mut next);
    }
    assert_eq!(next.to_vec(), sent, "every message of every publisher arrived");
}
