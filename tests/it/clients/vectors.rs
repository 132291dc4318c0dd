//! The golden frames: they verify the tests' own codec, which is then the reference for the node.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::gateway::{Gateway, Setup};
use crate::support::wire::{Form, Frame, messages_pub, read_binary, read_text, sent_binary, sent_text};

fn frames() -> Vec<Value> {
    let vectors: Value = serde_json::from_str(include_str!("../../vectors/frames.json")).unwrap();
    vectors["frames"].as_array().unwrap().clone()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn frames_from_a_node_are_read_as_the_vectors_say() {
    let mut seen = 0;
    for row in frames().iter().filter(|row| row["from"].is_null()) {
        let name = row["name"].as_str().unwrap();
        let form =
            if row["dialect"].as_str().is_some_and(|d| d.starts_with("cim")) { Form::CimPb } else { Form::YunquePb };
        let expected = match row["type"].as_i64() {
            Some(1) => Frame::Ping,
            Some(2) => Frame::Message(first(row, &["message", "content"])),
            Some(4) => Frame::Reply(first(row, &["reply", "content"])),
            _ => continue,
        };
        if let Some(hex) = row["websocket_hex"].as_str() {
            assert_eq!(read_binary(form, &unhex(hex)), expected, "{name}");
        }
        if let Some(text) = row["websocket_text"].as_str() {
            assert_eq!(read_text(text), expected, "{name}");
        }
        seen += 1;
    }
    assert!(seen >= 14, "expected more rows, got {seen}");
}

#[test]
fn frames_from_clients_are_written_as_the_vectors_say() {
    let mut seen = 0;
    for row in frames().iter().filter(|row| row["type"] == 3) {
        let name = row["name"].as_str().unwrap();
        if let Some(hex) = row["websocket_hex"].as_str() {
            assert_eq!(sent_binary(&row["send_body"]), unhex(hex), "{name}");
            seen += 1;
        }
        if let Some(text) = row["websocket_text"].as_str() {
            let (ours, theirs): (Value, Value) =
                (serde_json::from_str(&sent_text(&row["content"])).unwrap(), serde_json::from_str(text).unwrap());
            assert_eq!(inner(&ours), inner(&theirs), "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 4, "expected more rows, got {seen}");
}

#[test]
fn envelopes_are_written_as_the_vectors_say() {
    let rows = frames();
    let records: Vec<&Value> = rows.iter().filter(|row| row["record_hex"].is_string()).collect();
    assert!(records.len() >= 9);
    for row in records {
        let ours = messages_pub(&row["envelope"]);
        assert_eq!(ours, unhex(row["record_hex"].as_str().unwrap()), "{}", row["name"]);
    }
}

/// The vectors are messages that are not kept, so they have no position.
#[tokio::test]
async fn golden_messages_come_out_of_the_node_byte_for_byte() {
    let gateway = Setup::default().all_devices().yaml("history:\n  kind: off").start();
    let mut seen = 0;
    for row in
        frames().iter().filter(|row| row["type"] == 2 && row["message"]["id"] == 748 && row["decode_only"].is_null())
    {
        let forms: &[Form] = if row["dialect"] == "cim" { &[Form::CimPb, Form::CimTcp] } else { &[Form::YunquePb] };
        for form in forms {
            let mut client = gateway.connect("1074", *form).await;
            gateway.post("/send", row["message"].clone()).await.data();
            client.message().await;
            assert_eq!(client.payload, unhex(row["websocket_hex"].as_str().unwrap()), "{form:?} {}", row["name"]);
            client.close().await;
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
}

#[tokio::test]
async fn golden_frames_of_clients_are_understood_and_bad_ones_end_the_connection() {
    let gateway = Gateway::start();
    for row in frames().iter().filter(|row| row["type"] == 3) {
        let key = row["send_body"]["key"].as_str().or(row["content"]["key"].as_str()).unwrap();
        let pushed = row["websocket_text"].as_str().map(Message::text);
        let message = pushed.unwrap_or_else(|| Message::binary(unhex(row["websocket_hex"].as_str().unwrap())));
        let forms: &[Form] = if message.is_text() { &[Form::YunqueJson] } else { &[Form::YunquePb, Form::CimTcp] };
        for form in forms {
            let mut client = gateway.connect("1074", *form).await;
            client.raw(message.clone()).await;
            assert_eq!(client.reply().await["key"], key, "{form:?} {}", row["name"]);
        }
    }
    for row in frames().iter().filter(|row| row["from"] == "client") {
        let mut client = gateway.connect("1074", Form::YunquePb).await;
        client.raw(Message::binary(unhex(row["websocket_hex"].as_str().unwrap()))).await;
        assert_eq!(client.close_code().await, 4500, "{}: {}", row["name"], row["error"]);
    }
}

fn first(row: &Value, names: &[&str]) -> Value {
    names.iter().map(|n| row[*n].clone()).find(Value::is_object).unwrap_or_else(|| json!({}))
}

fn inner(frame: &Value) -> (Value, Value) {
    (frame["type"].clone(), serde_json::from_str(frame["content"].as_str().unwrap()).unwrap())
}
