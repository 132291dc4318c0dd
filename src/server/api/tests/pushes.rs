//! Push bodies: targets, responses, and every fault of a body.

use serde_json::json;

use super::*;
use crate::claim::Refusal;
use crate::code::Code;
use crate::id::{ConnectionId, Device, NodeId, Room, Uid};
use crate::message::{Origin, Target};
use crate::node::fake::Judgement;

const SAMPLE: &str = include_str!("../../../../tests/vectors/push-sample.json");

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn uids(texts: &[&str]) -> Arc<[Uid]> {
    texts.iter().map(|t| uid(t)).collect()
}

/// Targets of the only batch that a request made.
fn targets(bench: &Bench) -> Vec<Target> {
    let mut batches = bench.fake.batches();
    assert_eq!(batches.len(), 1, "one request is one batch");
    batches.remove(0).iter().map(|envelope| envelope.target.clone()).collect()
}

#[tokio::test]
async fn the_documents_own_example_works_as_it_stands() {
    let bench = Bench::new();
    let answer = bench.post("/send", SAMPLE).await;
    assert_eq!(answer.body, r#"{"code":200,"message":"ok","data":{"id":748,"delivered":1,"nodes":1,"offline":[]}}"#);
    assert_eq!(answer.headers["content-type"], "application/json");
    let batch = bench.fake.batches().remove(0);
    let message = &batch[0].message;
    assert_eq!((batch.len(), batch[0].origin, &batch[0].target), (1, Origin::Http, &Target::User(uid("1074"))));
    assert_eq!((message.id, &*message.title, &*message.sender), (748, "标题", "1078"));
    assert_eq!((message.content.get("text"), message.extra.get("nickname")), (Some("好吗"), Some("小毛豆")));
    assert!(message.image.ends_with(".jpg") && message.timestamp > 0);

    assert_eq!(bench.post("/send/all", SAMPLE).await.data()["id"], 748);
    assert_eq!(targets(&bench), [Target::Everyone]);
    let list = bench.post("/send/sendList", format!("[{SAMPLE}]")).await.data();
    assert_eq!(list["items"], json!([{"id": 748, "delivered": 1, "nodes": 1, "offline": []}]));
    assert_eq!(targets(&bench), [Target::User(uid("1074"))]);
    let to_uids = format!(r#"{{"message":{SAMPLE},"uids":["uid1","uid2"]}}"#);
    assert_eq!(bench.post("/send/toUids", to_uids).await.data()["delivered"], 2);
    assert_eq!(targets(&bench), [Target::Users(uids(&["uid1", "uid2"]))]);
}

#[tokio::test]
async fn receipts_parameter_requests_delivery_receipts() {
    let bench = Bench::new();
    for (path, receipts) in [("/send", false), ("/send?receipts=false", false), ("/send?receipts=true", true)] {
        bench.post(path, SAMPLE).await.data();
        assert_eq!(bench.fake.batches()[0][0].receipts, receipts, "{path}");
    }
    let (status, text) = bench.post("/send/all?receipts=yes", SAMPLE).await.fault();
    assert_eq!((status, &*text), (400, "receipts: expected true or false, got \"yes\""));
}

#[tokio::test]
async fn each_path_has_its_target() {
    let bench = Bench::new();
    let everyone_but = Target::EveryoneBut(uids(&["1", "2"]));
    for (path, rest, target) in [
        ("/send/toUids", r#""uids":["1",2,"1"]"#, Target::Users(uids(&["1", "2"]))),
        ("/send/toUids", r#""uids":[1]"#, Target::User(uid("1"))),
        ("/send/room", r#""room":"lobby""#, Target::Room(Room::parse("lobby").unwrap())),
        ("/send/device", r#""uid":7,"device":"d""#, Target::Device(uid("7"), Device::parse("d").unwrap())),
        ("/send/connection", r#""cid":"9""#, Target::Connection(ConnectionId::new(9).unwrap())),
        ("/send/other", r#""uids":["1","2"]"#, everyone_but),
    ] {
        let body = format!(r#"{{"message":{{"action":"chat"}},{rest}}}"#);
        let data = bench.post(path, body.clone()).await.data();
        assert!(data["id"].as_i64().unwrap() > 0, "{body}");
        assert_eq!(targets(&bench), [target], "{body}");
    }
}

#[tokio::test]
async fn each_act_of_an_envelope_has_its_target() {
    let bench = Bench::new();
    let cid = || Target::Connection(ConnectionId::new(9).unwrap());
    let both = || Target::Users(uids(&["1", "2"]));
    for (fields, target) in [
        (r#""act":0,"Uid":"1""#, Target::Everyone),
        (r#""act":"SENDUIDS","Uid":"1,2""#, both()),
        (r#""act":1,"Uid":"1,2","Cid":17,"type":2"#, both()),
        (r#""act":2,"Uid":"1""#, Target::User(uid("1"))),
        (r#""act":3,"Uid":"1","device":"d""#, Target::Device(uid("1"), Device::parse("d").unwrap())),
        (r#""act":3,"Uid":"1","Cid":9"#, Target::ConnectionOf(uid("1"), ConnectionId::new(9).unwrap())),
        (r#""act":4,"Cid":"9""#, cid()),
        (r#""act":5"#, Target::User(uid("r"))),
        (r#""act":6,"Uid":"1,2""#, Target::EveryoneBut(uids(&["1", "2"]))),
        (r#""act":"SENDROOM","Uid":"lobby""#, Target::Room(Room::parse("lobby").unwrap())),
        (r#""Uid":"1,2""#, both()),
        (r#""Uid":"""#, Target::Everyone),
    ] {
        let body = format!(r#"{{{fields},"msg":[{{"receiver":"r"}},{{"receiver":"r"}}]}}"#);
        let data = bench.post("/publish", body).await.data();
        assert_eq!((&data["messages"], &data["counts"]["accepted"]), (&2.into(), &2.into()), "{fields}");
        assert_eq!(targets(&bench), [target.clone(), target], "{fields}");
    }
}

#[tokio::test]
async fn the_envelope_narrows_to_nodes_and_reads_protobuf() {
    let bench = Bench::new();
    let data = bench.post("/publish", r#"{"Sid":"here,there","msg":[{}]}"#).await.data();
    assert_eq!(data["items"][0]["unknownNodes"], json!(["there"]));
    let batch = bench.fake.batches().remove(0);
    assert_eq!(&*batch[0].nodes, [NodeId::parse("here").unwrap(), NodeId::parse("there").unwrap()]);

    let body = Full::from(&b"\x0a\x041074\x22\x04\x12\x02hi"[..]);
    let request = Request::post("/publish").header("content-type", "application/x-protobuf").body(body).unwrap();
    assert_eq!(bench.send(request).await.data()["delivered"], 1);
    let batch = bench.fake.batches().remove(0);
    assert_eq!((&*batch[0].message.action, &batch[0].target), ("hi", &Target::User(uid("1074"))));
}

#[tokio::test]
async fn a_list_is_one_batch_and_tells_of_each() {
    let bench = Bench::new();
    let refusal = Refusal::new(Code::FORBIDDEN, "no");
    bench.fake.judge("bad", Judgement::Reject { plugin: "filter".into(), refusal });
    bench.fake.judge("odd", Judgement::Drop { plugin: "filter".into() });
    let body = r#"[{"receiver":"1","id":1},{"receiver":2,"id":"2","action":"bad"},{"receiver":"off3","id":3},
                   {"receiver":"4","id":4,"action":"odd"}]"#;
    let data = bench.post("/send/sendList", body).await.data();
    assert_eq!(data["counts"], json!({"accepted": 2, "rejected": 1, "dropped": 1, "failed": 0}));
    assert_eq!((&data["delivered"], &data["offline"]), (&1.into(), &json!(["off3"])));
    assert_eq!(data["items"][1]["rejected"], json!({"plugin": "filter", "code": "403", "reason": "no"}));
    assert_eq!(data["items"][2], json!({"id": 3, "delivered": 0, "nodes": 1, "offline": ["off3"]}));
    assert_eq!(data["items"][3]["dropped"], json!({"plugin": "filter"}));
    assert_eq!(targets(&bench), [Target::User(uid("1")), Target::User(uid("off3"))]);

    let rejected = bench.post("/send", r#"{"receiver":"1","action":"bad"}"#).await.data();
    assert_eq!((&rejected["rejected"]["code"], &rejected["delivered"]), (&"403".into(), &0.into()));
    assert!(bench.fake.batches().is_empty());
}

#[tokio::test]
async fn each_fault_of_a_body_names_its_field_and_delivers_nothing() {
    let bench = Bench::new();
    let name = "expected a non-empty string";
    for (path, body, fault) in [
        ("/send", "", "body: expected JSON, got nothing".to_owned()),
        ("/send", "[]", "body: expected an object, got an array".into()),
        ("/send", "7", "body: expected an object, got 7".into()),
        ("/send", "{\"receiver\":\"1\"", "body: expected whole JSON".into()),
        ("/send", "{\"receiver\":\"1\"}x", "body: expected nothing after the JSON value".into()),
        ("/send", "{}", format!("receiver: {name}, got nothing")),
        ("/send", r#"{"receiver":null}"#, format!("receiver: {name}, got null")),
        ("/send", r#"{"receiver":""}"#, format!("receiver: {name}, got \"\"")),
        ("/send", r#"{"receiver":["1"]}"#, format!("receiver: {name}, got an array")),
        ("/send", r#"{"receiver":{}}"#, format!("receiver: {name}, got an object")),
        ("/send", r#"{"receiver":true}"#, format!("receiver: {name}, got true")),
        ("/send", r#"{"receiver":"a,b"}"#, "receiver: expected no comma or control character, got \"a,b\"".into()),
        ("/send", r#"{"receiver":"1","id":"x"}"#, "id: expected an integer".into()),
        ("/send", r#"{"receiver":"1","id":1.5}"#, "id: expected an integer".into()),
        ("/send", r#"{"receiver":"1","action":{}}"#, "action: expected a string".into()),
        ("/send", r#"{"receiver":"1","title":[]}"#, "title: expected a string".into()),
        ("/send", r#"{"receiver":"1","extra":[]}"#, "extra: expected".into()),
        ("/send", r#"{"receiver":"1","receiver":"2"}"#, "receiver: expected the key once".into()),
        ("/send/sendList", "{}", "body: expected an array of messages, got an object".into()),
        ("/send/sendList", "[]", "body: expected at least one message, got an empty array".into()),
        ("/send/sendList", r#"[{"receiver":"1"},null]"#, "[1]: expected an object, got null".into()),
        ("/send/sendList", r#"[{"receiver":"1"},{}]"#, format!("[1].receiver: {name}, got nothing")),
        ("/send/toUids", r#"{"uids":["1"]}"#, "message: expected an object, got nothing".into()),
        ("/send/toUids", r#"{"message":[],"uids":["1"]}"#, "message: expected an object, got an array".into()),
        ("/send/toUids", r#"{"message":{}}"#, "uids: expected an array of users, got nothing".into()),
        ("/send/toUids", r#"{"message":{},"uids":null}"#, "uids: expected an array of users, got null".into()),
        ("/send/toUids", r#"{"message":{},"uids":[]}"#, "uids: expected at least one user, got an empty array".into()),
        ("/send/toUids", r#"{"message":{},"uids":["1",null]}"#, format!("uids[1]: {name}, got null")),
        ("/send/room", r#"{"message":{}}"#, format!("room: {name}, got nothing")),
        ("/send/room", r#"{"message":{},"room":""}"#, format!("room: {name}, got \"\"")),
        ("/send/device", r#"{"message":{},"uid":"1"}"#, format!("device: {name}, got nothing")),
        ("/send/device", r#"{"message":{},"device":"d"}"#, format!("uid: {name}, got nothing")),
        (
            "/send/connection",
            r#"{"message":{},"cid":null}"#,
            "cid: expected an integer from 1 to 9007199254740991, got null".into(),
        ),
        (
            "/send/connection",
            r#"{"message":{},"cid":-1}"#,
            "cid: expected an integer from 1 to 9007199254740991, got -1".into(),
        ),
        ("/publish", "{}", "msg: expected an array of messages, got nothing".into()),
        ("/publish", r#"{"act":8,"msg":[{}]}"#, "act: expected a SendAct".into()),
        ("/publish", r#"{"act":"SENDNONE","msg":[{}]}"#, "act: expected a SendAct".into()),
        ("/publish", r#"{"type":3,"msg":[{}]}"#, "type: expected".into()),
        (
            "/publish",
            r#"{"act":4,"msg":[{}]}"#,
            "Cid: expected an integer from 1 to 9007199254740991, got nothing".into(),
        ),
        ("/publish", r#"{"act":5,"msg":[{}]}"#, format!("msg[0].receiver: {name}, got nothing")),
    ] {
        let (status, text) = bench.post(path, body).await.fault();
        assert_eq!(status, 400, "{path} {body}: {text}");
        assert!(text.starts_with(&fault), "{path} {body}: {text}");
    }
    let (status, text) = bench.post("/send", &b"{\"receiver\":\"\xff\"}"[..]).await.fault();
    assert_eq!((status, &*text), (400, "body: expected UTF-8, got byte 0xff at offset 13"));
    let (status, text) = bench.post("/send", format!("{{\"x\":{}1", "[".repeat(2000))).await.fault();
    assert_eq!(status, 400, "{text}");
    assert!(bench.fake.batches().is_empty());
}

#[tokio::test]
async fn too_many_or_too_large_is_413_and_delivers_nothing() {
    let bench = Bench::with(|config| {
        config.limits.body_bytes = 1 << 20;
        config.limits.batch = 4;
        config.limits.uids = 3;
    });
    let large = format!(r#"{{"receiver":"1","content":{{"text":"{}"}}}}"#, "x".repeat(70_000));
    for (path, body, fault) in [
        ("/send/sendList", format!("[{}]", [r#"{"receiver":"1"}"#; 5].join(",")), "messages"),
        ("/send/toUids", r#"{"message":{},"uids":[1,2,3,4]}"#.into(), "uids: expected at most 3 users, got more"),
        ("/publish", r#"{"Uid":"1,2,3,4","msg":[{}]}"#.into(), "Uid: expected at most 3 names, got more"),
        ("/send", large.clone(), "message: expected at most 65535 bytes in the yunque dialect, got 70"),
        (
            "/send/sendList",
            format!(r#"[{{"receiver":"1"}},{large}]"#),
            "[1]: expected at most 65535 bytes in the yunque",
        ),
        ("/publish", format!(r#"{{"msg":[{large}]}}"#), "msg[0]: expected at most 65535 bytes in the yunque dialect"),
    ] {
        let (status, text) = bench.post(path, body).await.fault();
        assert_eq!(status, 413, "{path}: {text}");
        assert!(text.contains(fault), "{path}: {text}");
    }
    assert!(bench.fake.batches().is_empty());
}
