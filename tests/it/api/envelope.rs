//! `/publish`: the broker envelope, every SendAct, as JSON and as protobuf.

use serde_json::{Value, json};

use crate::support::acts::Cast;
use crate::support::gateway::Gateway;
use crate::support::http::Response;
use crate::support::wire::{Form, messages_pub};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

async fn publish(gateway: &Gateway, envelope: &Value, protobuf: bool) -> Response {
    let mut http = gateway.http().await;
    if protobuf {
        http.request("POST", "/publish", &[PROTOBUF], &messages_pub(envelope)).await
    } else {
        http.post("/publish", envelope).await
    }
}

#[tokio::test]
async fn every_act_in_both_codings_reaches_its_target() {
    let gateway = Gateway::start();
    let mut cast = Cast::on(&gateway).await;
    for (envelope, counts) in cast.acts() {
        for protobuf in [false, true] {
            let answer = publish(&gateway, &envelope, protobuf).await;
            assert_eq!(answer.status, 200, "{envelope}: {}", answer.body);
            let mut seen = [0; 3];
            for (at, client) in cast.clients.iter_mut().enumerate() {
                seen[at] = client.drain().await.len();
            }
            assert_eq!(seen, counts, "{envelope}, protobuf: {protobuf}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn envelope_accepts_acts_by_name_and_ids_as_digits() {
    let gateway = Gateway::start();
    let Cast { mut clients, cid } = Cast::on(&gateway).await;
    let msg = json!([{"action": "chat"}]);
    for (envelope, counts) in [
        (json!({"act": "SENDALL", "Uid": "a", "msg": msg}), [1, 1, 1]),
        (json!({"act": "SENDDID", "Cid": cid.to_string(), "msg": msg}), [1, 0, 0]),
        (json!({"act": 7.0, "Uid": "lobby", "msg": msg}), [1, 0, 1]),
    ] {
        let answer = publish(&gateway, &envelope, false).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        for (client, count) in clients.iter_mut().zip(counts) {
            assert_eq!(client.drain().await.len(), count, "{envelope}");
        }
    }
}

#[tokio::test]
async fn a_node_that_does_not_exist_is_told() {
    let gateway = Gateway::start();
    let _client = gateway.connect("a", Form::YunquePb).await;
    let envelope = json!({"act": 2, "Uid": "a", "Sid": "n1,nowhere", "msg": [{"action": "chat"}]});
    let answer = publish(&gateway, &envelope, false).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains("nowhere"), "{}", answer.body);
}

#[tokio::test]
async fn invalid_envelope_is_refused_with_its_field() {
    let gateway = Gateway::start();
    let msg = json!([{"action": "chat"}]);
    for (envelope, field) in [
        (json!({"act": 8, "msg": msg}), "act"),
        (json!({"act": "SENDNONE", "msg": msg}), "act"),
        (json!({"act": 2, "msg": msg}), "Uid"),
        (json!({"act": 3, "Uid": "a", "msg": msg}), "device"),
        (json!({"act": 4, "msg": msg}), "Cid"),
        (json!({"act": 4, "Cid": "x", "msg": msg}), "Cid"),
        (json!({"act": 5, "msg": msg}), "receiver"),
        (json!({"act": 7, "msg": msg}), "Uid"),
        (json!({"act": 2, "Uid": "a"}), "msg"),
        (json!({"act": 2, "Uid": "a", "msg": []}), "msg"),
        (json!({"act": 2, "Uid": "a", "msg": {}}), "msg"),
        (json!([]), ""),
    ] {
        let (status, words) = publish(&gateway, &envelope, false).await.fault();
        assert_eq!(status, 400, "{envelope}: {words}");
        assert!(words.contains(field), "{envelope}: {words}");
    }
    let mut http = gateway.http().await;
    for body in [&b"\x0a\xff\xff"[..], b"\xff", &[0x22; 64]] {
        let (status, words) = http.request("POST", "/publish", &[PROTOBUF], body).await.fault();
        assert_eq!(status, 400, "{words}");
    }
    // A bomb of many empty messages in few bytes: the node counts them before it decodes them.
    let bomb = [0x22, 0x00].repeat(200_000);
    let (status, words) = http.request("POST", "/publish", &[PROTOBUF], &bomb).await.fault();
    assert!(status == 400 || status == 413, "{status} {words}");
}
