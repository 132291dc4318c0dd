//! Targets that name a user and a connection: a connection of another user receives nothing, and the response says so.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::token::Claims;
use crate::support::wire::{Form, messages_pub};

async fn user(gateway: &Gateway, uid: &str) -> (Client, u64) {
    let (client, bind) = gateway.connect_as(Claims::of(uid), Form::YunquePb).await;
    (client, bind["data"]["cid"].as_str().unwrap().parse().unwrap())
}

#[tokio::test]
async fn push_to_a_users_connection_never_reaches_another_user() {
    let gateway = Gateway::start();
    let (mut alice, hers) = user(&gateway, "alice").await;
    let (mut bob, his) = user(&gateway, "bob").await;
    let mut http = gateway.http().await;
    let message = json!({"action": "chat"});
    let mut to = async |act: u64, cid: u64, protobuf: bool| -> Value {
        let envelope = json!({"act": act, "Uid": "alice", "Cid": cid, "msg": [message]});
        let answer = if protobuf {
            let kind = ("content-type", "application/x-protobuf");
            http.request("POST", "/publish", &[kind], &messages_pub(&envelope)).await
        } else {
            http.post("/publish", &envelope).await
        };
        answer.data()["items"][0].clone()
    };
    let gone = his + 1_000;
    for act in [3, 4] {
        for protobuf in [false, true] {
            let item = to(act, hers, protobuf).await;
            assert_eq!((&item["delivered"], &item["notOfUser"]), (&json!(1), &Value::Null), "{item}");
            assert_eq!(alice.message().await["action"], "chat");
            for cid in [his, gone] {
                let item = to(act, cid, protobuf).await;
                assert_eq!(item["delivered"], 0, "{item}");
                assert_eq!(item["notOfUser"], json!({"uid": "alice", "cid": cid}), "{item}");
            }
        }
    }
    let body = |cid: u64| json!({"message": {"action": "chat"}, "uid": "alice", "cid": cid});
    let data = gateway.post("/send/connection", body(his)).await.data();
    assert_eq!((&data["delivered"], &data["notOfUser"]["cid"]), (&json!(0), &json!(his)), "{data}");
    assert_eq!(gateway.post("/send/connection", body(hers)).await.data()["delivered"], 1);
    assert_eq!(alice.drain().await.len(), 1);
    assert_eq!(bob.drain().await, Vec::<Value>::new());
}

#[tokio::test]
async fn kick_and_room_change_name_a_user_or_a_connection_and_not_both() {
    let gateway = Gateway::start();
    let (_alice, _) = user(&gateway, "alice").await;
    let (mut bob, his) = user(&gateway, "bob").await;
    for path in ["/kick", "/room/join", "/room/leave"] {
        let answer = gateway.post(path, json!({"room": "lobby", "uid": "alice", "cid": his})).await;
        let (status, words) = answer.fault();
        assert!(status == 400 && words.ends_with("got uid and cid"), "{path}: {words}");
    }
    assert_eq!(gateway.get("/rooms").await.data()["items"], json!([]));
    gateway.post("/send", json!({"receiver": "bob", "action": "chat"})).await.data();
    assert_eq!(bob.message().await["action"], "chat");
}
