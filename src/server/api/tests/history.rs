//! History: pages of a stream, positions in the answers of pushes, and forgetting.

use serde_json::json;

use super::*;

const MESSAGE: &str = r#"{"receiver":"1074","action":"chat","content":{"text":"hi"},"sendTime":1700000000000}"#;

/// Pushes messages to a user and returns their rows in the answers.
async fn push(bench: &Bench, count: usize) -> Vec<Value> {
    let mut rows = Vec::new();
    for _ in 0..count {
        rows.push(bench.post("/send", MESSAGE).await.data()["positions"][0].take());
    }
    rows
}

fn offsets(page: &Value) -> Vec<u64> {
    page["messages"].as_array().unwrap().iter().map(|message| message["offset"].as_u64().unwrap()).collect()
}

/// The parameters of a position.
fn after(row: &Value) -> String {
    format!("epoch={}&offset={}&id={}", row["epoch"].as_str().unwrap(), row["offset"], row["id"])
}

#[tokio::test]
async fn pushed_messages_are_read_from_their_positions() {
    let bench = Bench::with_history(|_| {});
    let rows = push(&bench, 3).await;
    assert_eq!((&rows[2]["stream"], &rows[2]["offset"]), (&json!("u:1074"), &json!(3)));
    let page = bench.get("/history?stream=u:1074").await.data();
    let top = (&page["stream"], &page["epoch"], &page["offset"], &page["id"]);
    assert_eq!(top, (&rows[2]["stream"], &rows[2]["epoch"], &rows[2]["offset"], &rows[2]["id"]));
    assert_eq!((offsets(&page), &page["missed"]), (vec![1, 2, 3], &Value::Null));
    let first = json!({"offset": 1, "id": rows[0]["id"], "action": "chat", "content": {"text": "hi"},
                       "receiver": "1074", "sendTime": 1_700_000_000_000_i64});
    assert_eq!(page["messages"][0], first);

    let second = after(&rows[1]);
    let start = format!("epoch={}&offset=0", rows[0]["epoch"].as_str().unwrap());
    for (query, expected) in [
        ("limit=2".to_owned(), vec![1, 2]),
        ("limit=2&reverse=true".into(), vec![3, 2]),
        ("limit=0".into(), vec![]),
        (second.clone(), vec![3]),
        (format!("{second}&reverse=true"), vec![1]),
        (start, vec![1, 2, 3]),
        (after(&rows[2]), vec![]),
    ] {
        let page = bench.get(&format!("/history?stream=u:1074&{query}")).await.data();
        assert_eq!((offsets(&page), &page["missed"], &page["offset"]), (expected, &Value::Null, &json!(3)), "{query}");
    }
}

#[tokio::test]
async fn position_without_its_successors_gets_the_reason_and_no_message() {
    let bench = Bench::with_history(|config| config.history.user.size = 2);
    let rows = push(&bench, 4).await;
    let epoch = rows[0]["epoch"].as_str().unwrap();
    for (query, missed) in [
        (after(&rows[0]), "trimmed"),
        ("epoch=zzzzzzzz&offset=3&id=1".into(), "epoch"),
        (format!("epoch={epoch}&offset=4&id=1"), "fork"),
        (format!("epoch={epoch}&offset=9&id=1"), "fork"),
    ] {
        let page = bench.get(&format!("/history?stream=u:1074&{query}")).await.data();
        assert_eq!((&page["missed"], offsets(&page), &page["offset"]), (&json!(missed), vec![], &json!(4)), "{query}");
    }
}

#[tokio::test]
async fn message_for_some_readers_names_them() {
    let bench = Bench::with_history(|_| {});
    let body = r#"{"message":{"action":"chat","id":"9223372036854775807"},"uid":"1074","device":"phone"}"#;
    bench.post("/send/device", body).await.data();
    bench.post("/send/other", r#"{"message":{"action":"chat"},"uids":["1","2"]}"#).await.data();
    let page = bench.get("/history?stream=u%3A1074").await.data();
    assert_eq!((&page["id"], &page["messages"][0]["device"]), (&json!("9223372036854775807"), &json!("phone")));
    let page = bench.get("/history?stream=all").await.data();
    assert_eq!((&page["messages"][0]["except"], &page["offset"]), (&json!(["1", "2"]), &json!(1)));
}

#[tokio::test]
async fn stream_without_messages_has_a_position() {
    let bench = Bench::with_history(|_| {});
    let page = bench.get("/history?stream=r:lobby&limit=0").await.data();
    assert_eq!((&page["offset"], &page["id"], &page["messages"]), (&json!(0), &json!(0), &json!([])));
    let position = after(&page);
    bench.post("/send/room", r#"{"message":{"action":"chat"},"room":"lobby"}"#).await.data();
    let page = bench.get(&format!("/history?stream=r:lobby&{position}")).await.data();
    assert_eq!((offsets(&page), &page["missed"]), (vec![1], &Value::Null));
}

#[tokio::test]
async fn forgotten_stream_begins_again_with_another_epoch() {
    let bench = Bench::with_history(|_| {});
    let forget = async |stream: &str| {
        let body = json!({"stream": stream}).to_string();
        bench.post("/history/forget", body).await.data()["forgotten"].take()
    };
    assert_eq!(forget("u:1074").await, false);
    let row = push(&bench, 2).await.remove(1);
    assert_eq!(forget("u:1074").await, true);
    let page = bench.get(&format!("/history?stream=u:1074&{}", after(&row))).await.data();
    assert_eq!((&page["missed"], &page["offset"]), (&json!("epoch"), &json!(0)));
    assert_ne!(page["epoch"], row["epoch"]);
    assert_eq!(push(&bench, 1).await[0]["offset"], 1);
}

#[tokio::test]
async fn invalid_requests_name_field_and_value() {
    let bench = Bench::with_history(|_| {});
    let (limit, integer) = ("an integer from 0 to 100", "an integer from 0 to 9007199254740991");
    for (query, fault) in [
        ("", "stream: expected u:UID, r:ROOM or all, got nothing".to_owned()),
        ("stream=", "stream: expected u:UID, r:ROOM or all, got \"\"".into()),
        ("stream=alice", "stream: expected u:UID, r:ROOM or all, got \"alice\"".into()),
        ("stream=all&limit=101", format!("limit: expected {limit}, got \"101\"")),
        ("stream=all&limit=x", format!("limit: expected {limit}, got \"x\"")),
        ("stream=all&reverse=1", "reverse: expected true or false, got \"1\"".into()),
        ("stream=all&epoch=X", "epoch: expected eight characters of 0-9 and a-z, got \"X\"".into()),
        ("stream=all&epoch=zzzzzzzz", "offset: expected the offset of the position, got nothing".into()),
        ("stream=all&offset=1", "epoch: expected the epoch of the position, got nothing".into()),
        ("stream=all&id=1", "epoch: expected the epoch of the position, got nothing".into()),
        ("stream=all&epoch=zzzzzzzz&offset=-1", format!("offset: expected {integer}, got \"-1\"")),
        ("stream=all&epoch=zzzzzzzz&offset=1", "id: expected the id of the message at this offset, got nothing".into()),
        ("stream=all&epoch=zzzzzzzz&offset=1&id=x", "id: expected a 64-bit integer, got \"x\"".into()),
        (
            "stream=all&since=1",
            "query: expected one of stream, epoch, offset, id, limit, reverse, got \"since\"".into(),
        ),
    ] {
        assert_eq!(bench.get(&format!("/history?{query}")).await.fault(), (400, fault), "{query}");
    }
    for (body, got) in [("{}", "nothing"), (r#"{"stream":7}"#, "7"), (r#"{"stream":"x:1"}"#, "\"x:1\"")] {
        let fault = format!("stream: expected u:UID, r:ROOM or all, got {got}");
        assert_eq!(bench.post("/history/forget", body).await.fault(), (400, fault), "{body}");
    }
}

#[tokio::test]
async fn node_without_history_answers_501_and_tells_no_positions() {
    let bench = Bench::new();
    let fault = (501, "history: expected a node that keeps messages, got history.kind off".to_owned());
    assert_eq!(bench.get("/history?stream=all").await.fault(), fault);
    assert_eq!(bench.post("/history/forget", r#"{"stream":"all"}"#).await.fault(), fault);
    assert_eq!(bench.post("/send", MESSAGE).await.data().get("positions"), None);
}
