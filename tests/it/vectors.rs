//! The golden frames: what the tests' own codec is held to, so that the node is measured with a true rule.

use serde_json::{Value, json};

use crate::support::wire::{Form, Frame, messages_pub, read_binary, read_text, sent_binary, sent_text};

fn frames() -> Vec<Value> {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/frames.json")).unwrap();
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
    assert!(seen >= 14, "only {seen} rows");
}

#[test]
fn what_clients_say_is_written_as_the_vectors_say() {
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
    assert!(seen >= 4, "only {seen} rows");
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

fn first(row: &Value, names: &[&str]) -> Value {
    names.iter().map(|n| row[*n].clone()).find(Value::is_object).unwrap_or_else(|| json!({}))
}

fn inner(frame: &Value) -> (Value, Value) {
    (frame["type"].clone(), serde_json::from_str(frame["content"].as_str().unwrap()).unwrap())
}
