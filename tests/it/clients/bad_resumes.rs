//! Bad resumes: each gets its code and words, and nothing else of the bind is lost.

use serde_json::{Value, json};

use super::resume::{actions, connect, position, push, resumed, told};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::token::Claims;
use crate::support::wire::Form;

const FORM: Form = Form::YunqueJson;

/// Pushes one message to `a` while it is away. Returns the client's positions of before.
async fn away(gateway: &Gateway) -> [Value; 2] {
    let (client, reply) = connect(gateway, Claims::of("a"), FORM, &json!([])).await;
    let answer = resumed(&reply);
    client.close().await;
    push(gateway, "a", "missed").await;
    [told(&answer[0]), told(&answer[1])]
}

/// Resumes with a bad entry for `stream` beside good ones. The answer for it must be `reason`, and the others must
/// recover. Returns the element.
async fn resume_beside(gateway: &Gateway, entry: &Value, others: &[Value], reason: &str) -> Value {
    let mut streams = vec![entry.clone()];
    streams.extend_from_slice(others);
    let (mut client, reply) = connect(gateway, Claims::of("a"), FORM, &Value::Array(streams)).await;
    let answer = resumed(&reply);
    let of = |name: &Value| answer.iter().find(|element| element[0] == *name).unwrap().clone();
    let bad = of(&entry[0]);
    assert_eq!((&bad[1], &bad[5], &bad[6]), (&json!(false), &json!(0), &json!(reason)), "{reply}");
    let mut missed = 0;
    for other in others {
        assert_eq!(of(&other[0])[1], true, "{reply}");
        missed += of(&other[0])[5].as_u64().unwrap();
    }
    for _ in 0..missed {
        client.message().await;
    }
    is_live(gateway, &mut client).await;
    bad
}

/// The client is bound and receives live messages.
async fn is_live(gateway: &Gateway, client: &mut Client) {
    push(gateway, "a", "live").await;
    assert_eq!(actions(client, 1).await, ["live"]);
}

#[tokio::test]
async fn resume_that_is_too_long_is_refused_and_the_client_can_bind() {
    let gateway = Gateway::start();
    let long = |bytes: usize| format!("[{}]", "1".repeat(bytes - 2));
    let mut client = gateway.dial_cim(Form::CimJson).await;
    let data = json!({"token": Claims::of("a").mint(), "resume": long(16_385)});
    let reply = client.ask("client_bind", data).await;
    assert_eq!(
        (&reply["code"], &reply["message"]),
        (&json!("400"), &json!("resume: expected at most 16384 bytes, got 16385"))
    );

    let many = Value::from_iter((0..129).map(|room| json!([format!("r:{room}")])));
    let data = json!({"token": Claims::of("a").mint(), "resume": many.to_string()});
    let reply = client.ask("client_bind", data).await;
    assert_eq!(
        (&reply["code"], &reply["message"]),
        (&json!("400"), &json!("resume: expected at most 128 entries, got 129"))
    );

    let data = json!({"token": Claims::of("a").mint(), "channel": "web", "resume": "[]"});
    let reply = client.ask("client_bind", data).await;
    assert_eq!(resumed(&reply).len(), 2, "{reply}");
    is_live(&gateway, &mut client).await;
}

#[tokio::test]
async fn query_that_is_too_long_is_refused_and_the_client_binds_by_a_frame() {
    let gateway = Gateway::start();
    let ones = Value::from_iter(std::iter::repeat_n(1, 2_048));
    let (mut client, reply) = connect(&gateway, Claims::of("a"), FORM, &ones).await;
    assert_eq!((&reply["key"], &reply["code"]), (&json!("client_bind"), &json!("400")), "{reply}");
    assert_eq!(reply["message"], "resume: expected at most 4096 bytes, got 4097");
    let reply = client.ask("client_bind", json!({"token": Claims::of("a").mint(), "resume": "[]"})).await;
    assert_eq!(resumed(&reply).len(), 2, "{reply}");
    is_live(&gateway, &mut client).await;
}

#[tokio::test]
async fn unknown_stream_is_answered_and_the_others_recover() {
    let gateway = Gateway::start();
    let others = away(&gateway).await;
    for name in ["p:later", "", "U", "r"] {
        let bad = resume_beside(&gateway, &json!([name, "zzzzzzzz", 1, 1]), &others, "unknown").await;
        assert_eq!((&bad[2], &bad[3]), (&json!(""), &json!(0)), "{bad}");
    }
}

#[tokio::test]
async fn stream_of_another_user_is_unknown() {
    let gateway = Gateway::start();
    let others = away(&gateway).await;
    push(&gateway, "b", "secret").await;
    let page = gateway.get("/history?stream=u:b&limit=0").await.data();
    let entry = json!(["u:b", page["epoch"], 0, 0]);
    let bad = resume_beside(&gateway, &entry, &others, "unknown").await;
    assert_eq!((&bad[2], &bad[3]), (&json!(""), &json!(0)), "the answer tells nothing about the stream: {bad}");
}

#[tokio::test]
async fn epoch_that_never_was_is_told_with_the_position() {
    let gateway = Gateway::start();
    let [own, all] = away(&gateway).await;
    let bad = resume_beside(&gateway, &json!(["u", "zzzzzzzz", own[2], own[3]]), &[all], "epoch").await;
    assert_eq!((&bad[2], &bad[3]), (&own[1], &json!(1)), "{bad}");
}

#[tokio::test]
async fn offset_above_the_top_is_told_as_a_fork() {
    let gateway = Gateway::start();
    let [own, all] = away(&gateway).await;
    for offset in [2_u64, 9_007_199_254_740_991] {
        let bad = resume_beside(&gateway, &json!(["u", own[1], offset, 7]), std::slice::from_ref(&all), "fork").await;
        assert_eq!(bad[2], own[1], "{bad}");
    }
}

#[tokio::test]
async fn room_that_the_client_may_not_join_is_refused_and_tells_nothing() {
    let gateway = Setup::default().yaml("clients:\n  open_rooms: ['lobby']").start();
    let others = away(&gateway).await;
    let secret = json!({"message": {"action": "secret"}, "room": "secret"});
    gateway.post("/send/room", secret.clone()).await.data();
    let page = gateway.get("/history?stream=r:secret").await.data();
    let entry = json!(["r:secret", page["epoch"], 0, 0]);
    let bad = resume_beside(&gateway, &entry, &others, "not_joined").await;
    assert_eq!((&bad[2], &bad[3]), (&json!(""), &json!(0)), "{bad}");

    let mut client = gateway.connect("a", FORM).await;
    let since = format!("{}:0:0", page["epoch"].as_str().unwrap());
    for data in [json!({"room": "secret", "since": since}), json!({"room": "secret", "latest": "1"})] {
        let reply = client.ask("room_join", data).await;
        assert_eq!((&reply["code"], reply["data"].get("resume")), (&json!("403"), None), "{reply}");
    }
    let reply = client.ask("room_join", json!({"room": "lobby", "since": ""})).await;
    assert_eq!(resumed(&reply)[0][1], true, "{reply}");
    gateway.post("/send/room", secret).await.data();
    is_live(&gateway, &mut client).await;
}

#[tokio::test]
async fn malformed_since_is_refused_and_the_client_can_join() {
    let gateway = Setup::default().yaml("clients:\n  open_rooms: ['*']").start();
    let mut client = gateway.connect("a", FORM).await;
    for since in ["x", "zzzzzzzz:1", "short:1:1", "zzzzzzzz:-1:1", "zzzzzzzz:9007199254740992:1"] {
        let reply = client.ask("room_join", json!({"room": "lobby", "since": since})).await;
        let words = format!("since: expected epoch:offset:id or an empty text, got {since:?}");
        assert_eq!((&reply["code"], &reply["message"]), (&json!("400"), &json!(words)));
    }
    let reply = client.ask("room_join", json!({"room": "lobby", "since": "zzzzzzzz:1:1"})).await;
    assert_eq!(resumed(&reply)[0][6], "epoch", "{reply}");
    gateway.post("/send/room", json!({"message": {"action": "live"}, "room": "lobby"})).await.data();
    let live = client.message().await;
    assert_eq!(position("r:lobby", &live)[2], 1, "{live}");
}
