//! One push in every dialect: the message that each kind of client receives, the recipients, and the order.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Setup};
use crate::support::token::Claims;
use crate::support::wire::Form;
use crate::support::{PUSH_SAMPLE, push_sample};

/// The sample of the documents as a client of this form must receive it.
fn expected(form: Form) -> Value {
    let sample = push_sample();
    if !form.is_cim() {
        return sample;
    }
    json!({
        "id": 748, "action": "chat", "sender": "1078", "receiver": "1074", "title": "标题",
        "content": sample["content"], "extra": sample["extra"],
    })
}

/// Removes time and position, and parses cim's texts that hold a map, because their key order varies.
fn normal(form: Form, mut message: Value) -> Value {
    let position = ["offset", "epoch"].map(|key| message.as_object_mut().unwrap().remove(key));
    assert!(position.iter().all(Option::is_some), "a message to a user is kept: {message}");
    let stamp = if form.is_cim() { "timestamp" } else { "sendTime" };
    let at = message.as_object_mut().unwrap().remove(stamp).expect("the message has a time");
    assert!(at.as_i64().unwrap() > 1_700_000_000_000, "the time is not in milliseconds since 1970");
    if form.is_cim() {
        for field in ["content", "extra"] {
            message[field] = serde_json::from_str(message[field].as_str().expect("the field is a string"))
                .expect("the string holds a JSON object");
        }
    }
    message
}

#[tokio::test]
async fn the_documents_push_reaches_every_kind_of_client() {
    let gateway = Setup::default().all_devices().start();
    let mut clients = Vec::new();
    for form in Form::ALL {
        clients.push(gateway.connect_as(Claims::of("1074").device(form.subprotocol()), form).await.0);
    }
    let answer = gateway
        .http()
        .await
        .request("POST", "/send", &[("content-type", "application/json")], PUSH_SAMPLE.as_bytes())
        .await;
    let data = answer.data();
    let mut got = 0;
    for mut client in clients {
        for message in client.drain().await {
            assert_eq!(normal(client.form, message), expected(client.form), "{:?}", client.form);
            got += 1;
        }
    }
    assert_eq!((&data["id"], &data["delivered"], &data["offline"]), (&json!(748), &json!(got), &json!([])), "{data}");
    assert_eq!(got, 5);
}

#[tokio::test]
async fn content_with_only_a_text_is_plain_text_in_cim() {
    let gateway = Gateway::start();
    let mut clients = Vec::new();
    for form in [Form::CimPb, Form::CimJson] {
        clients.push(gateway.connect(form.subprotocol(), form).await);
    }
    gateway.post("/send/all", json!({"action": "chat", "content": {"text": "好吗 \"quoted\""}})).await.data();
    for client in &mut clients {
        let message = client.message().await;
        assert_eq!(message["content"], "好吗 \"quoted\"", "{:?}", client.form);
        assert_eq!(message.get("extra"), None);
    }
}

#[tokio::test]
async fn a_list_arrives_whole_and_in_order() {
    let gateway = Gateway::start();
    let mut clients = Vec::new();
    for form in Form::ALL {
        clients.push(gateway.connect(&format!("{form:?}"), form).await);
    }
    let envelope = |round: usize| {
        let messages: Vec<Value> =
            (0..100).map(|n| json!({"action": "n", "title": (round * 100 + n).to_string()})).collect();
        json!({"msg": messages})
    };
    for round in 0..5 {
        let data = gateway.post("/publish", envelope(round)).await;
        assert_eq!(data.status, 200, "{}", data.body);
    }
    for client in &mut clients {
        let titles: Vec<String> =
            client.drain().await.iter().map(|m| m["title"].as_str().unwrap().to_owned()).collect();
        assert_eq!(titles, (0..500).map(|n| n.to_string()).collect::<Vec<_>>(), "{:?}", client.form);
    }
}

#[tokio::test]
async fn message_without_an_id_gets_a_growing_one() {
    let gateway = Gateway::start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    let mut last = 0;
    for _ in 0..3 {
        let told = gateway.post("/send", json!({"receiver": "1074", "action": "chat"})).await.data()["id"].clone();
        let id = client.message().await["id"].clone();
        assert_eq!(id, told);
        let id = id.as_i64().unwrap();
        assert!(id > last && id < 1 << 53);
        last = id;
    }
}

#[tokio::test]
async fn message_too_large_for_one_dialect_is_rejected() {
    let gateway = Setup::default().yaml("limits:\n  body_bytes: 4194304").start();
    let mut client = gateway.connect("1074", Form::YunquePb).await;
    let big = json!({"receiver": "1074", "action": "chat", "content": {"text": "x".repeat(70_000)}});
    let answer = gateway.post("/send", big).await;
    let (status, words) = answer.fault();
    assert_eq!(status, 413, "{words}");
    assert!(words.contains("dialect, got 70"), "the fault does not name the dialect: {words}");
    // Control characters grow sixfold in cim's text only; one such message fails its whole batch.
    let cim = json!({"receiver": "1074", "content": {"text": "\u{1}".repeat(20_000), "more": "x"}});
    let fits = json!({"receiver": "1074", "action": "chat"});
    for (path, body, field) in [
        ("/send", cim.clone(), "message"),
        ("/send/sendList", json!([fits, cim]), "[1]"),
        ("/publish", json!({"Uid": "1074", "msg": [fits, cim]}), "msg[1]"),
    ] {
        let (status, words) = gateway.post(path, body).await.fault();
        assert!(status == 413 && words.contains("cim") && words.starts_with(field), "{path}: {words}");
    }
    assert_eq!(client.drain().await, Vec::<Value>::new());
}

#[tokio::test]
async fn all_devices_of_a_user_get_a_copy_and_nobody_else() {
    let gateway = Gateway::start();
    let mut phone = gateway.connect_as(Claims::of("a").device("phone"), Form::YunquePb).await.0;
    let mut desk = gateway.connect_as(Claims::of("a").device("desk"), Form::YunqueJson).await.0;
    let mut other = gateway.connect("b", Form::YunquePb).await;
    let data = gateway.post("/send", json!({"receiver": "a", "action": "chat"})).await.data();
    assert_eq!(data["delivered"], 2, "{data}");
    assert_eq!((phone.drain().await.len(), desk.drain().await.len(), other.drain().await.len()), (1, 1, 0));
}
