//! Rooms and kick.

use serde_json::json;

use super::*;

#[tokio::test]
async fn users_join_and_leave_with_all_their_connections() {
    let bench = Bench::new();
    bench.fake.connect("1074", "phone", "android", &[]).await;
    bench.fake.connect("1074", "desk", "windows", &["lobby"]).await;
    let one = bench.fake.connect("1075", "tab", "web", &[]).await;

    let told = bench.post("/room/join", r#"{"room":"lobby","uids":["1074",1076,"1074"]}"#).await.data();
    assert_eq!(told, json!({"room": "lobby", "joined": 1, "left": 0, "unchanged": 1, "offline": ["1076"]}));
    let told = bench.post("/room/join", format!(r#"{{"room":"lobby","cid":"{}"}}"#, one.id())).await.data();
    assert_eq!((&told["joined"], &told["offline"]), (&1.into(), &json!([])));
    assert_eq!(bench.fake.node.room("lobby").len(), 3);

    let told = bench.post("/room/leave", r#"{"room":"lobby","uid":1074}"#).await.data();
    assert_eq!((&told["left"], &told["unchanged"]), (&2.into(), &0.into()));
    assert_eq!(bench.fake.node.room("lobby").len(), 1);
}

#[tokio::test]
async fn join_over_the_room_limit_is_refused_by_connection() {
    let bench = Bench::with(|config| config.clients.rooms = 1);
    let full = bench.fake.connect("1074", "phone", "android", &["attic"]).await;
    let told = bench.post("/room/join", r#"{"room":"lobby","uid":"1074"}"#).await.data();
    assert_eq!((&told["joined"], &told["refused"][0]["cid"]), (&0.into(), &full.id().as_u64().into()));
    assert_eq!(told["refused"][0]["code"], "429");
}

#[tokio::test]
async fn kick_closes_a_user_a_device_or_a_connection() {
    let bench = Bench::new();
    let phone = bench.fake.connect("1074", "phone", "android", &[]).await;
    let desk = bench.fake.connect("1074", "desk", "windows", &[]).await;
    let other = bench.fake.connect("1075", "tab", "web", &[]).await;
    let kick = async |body: &str| bench.post("/kick", body.to_owned()).await.data()["closed"].as_u64().unwrap();
    assert_eq!(kick(r#"{"uid":"1074","device":"desk","reason":"out"}"#).await, 1);
    assert_eq!((desk.closed().map(|d| d.code), phone.closed(), other.closed()), (Some(4503), None, None));
    assert_eq!(kick(r#"{"uid":"nobody"}"#).await, 0);
    assert_eq!(kick(&format!(r#"{{"cid":{}}}"#, other.id())).await, 1);
    assert_eq!(other.closed().map(|d| d.code), Some(4503));
    // The desk connection is closing already, so only the phone is left to close.
    assert_eq!(kick(r#"{"uid":1074,"reason":null}"#).await, 1);
    assert!(phone.closed().is_some());
}

#[tokio::test]
async fn faults_name_the_field_and_change_nothing() {
    let bench = Bench::new();
    let connection = bench.fake.connect("1074", "phone", "android", &[]).await;
    for (path, body, fault) in [
        ("/room/join", "", "body: expected JSON, got nothing"),
        ("/room/join", "[]", "body: expected an object, got an array"),
        ("/room/join", "null", "body: expected an object, got null"),
        ("/room/join", "{", "body: expected whole JSON, got an early end"),
        ("/room/join", r#"{"uid":"1074"}"#, "room: expected a non-empty string, got nothing"),
        ("/room/join", r#"{"room":null,"uid":"1074"}"#, "room: expected a non-empty string, got null"),
        ("/room/join", r#"{"room":"","uid":"1074"}"#, "room: expected a non-empty string, got \"\""),
        ("/room/join", r#"{"room":["a"],"uid":"1074"}"#, "room: expected a non-empty string, got an array"),
        ("/room/join", r#"{"room":"a","uid":true}"#, "uid: expected a non-empty string, got true"),
        ("/room/join", r#"{"room":"a"}"#, "body: expected one of uid, uids, cid, got none"),
        ("/room/join", r#"{"room":"a","uid":"1","cid":2}"#, "body: expected one of uid, uids, cid, got uid and cid"),
        ("/room/leave", r#"{"room":"a","uids":"1,2"}"#, "uids: expected an array of users, got \"1,2\""),
        ("/room/leave", r#"{"room":"a","uids":[]}"#, "uids: expected at least one user, got an empty array"),
        ("/room/leave", r#"{"room":"a","uids":["1",{}]}"#, "uids[1]: expected a non-empty string, got an object"),
        ("/kick", r#"{"uids":["1"]}"#, "body: expected one of uid, cid, got none"),
        ("/kick", r#"{"cid":0}"#, "cid: expected an integer from 1 to 9007199254740991, got 0"),
        ("/kick", r#"{"cid":"x"}"#, "cid: expected an integer from 1 to 9007199254740991, got \"x\""),
        ("/kick", r#"{"uid":"1074","device":""}"#, "device: expected a non-empty string, got \"\""),
        ("/kick", r#"{"uid":"1074","reason":[]}"#, "reason: expected a string, got an array"),
    ] {
        let (status, text) = bench.post(path, body).await.fault();
        assert_eq!(status, 400, "{path} {body}");
        assert!(text.starts_with(fault), "{path} {body}: {text}");
    }
    let many = r#"{"room":"a","uids":[1,2,3,4]}"#;
    assert_eq!(bench.post("/room/join", many).await.fault(), (413, "uids: expected at most 3 users, got more".into()));
    let long = format!(r#"{{"uid":"1074","reason":"{}"}}"#, "x".repeat(1025));
    assert_eq!(bench.post("/kick", long).await.fault(), (400, "reason: expected at most 1024 bytes, got 1025".into()));
    assert!(connection.closed().is_none() && bench.fake.node.rooms().is_empty());
}
