//! Every row of `tests/vectors/frames.json` in both directions: encoded byte for byte, decoded value for value.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use serde_json::{Value, json};

use crate::message::{Entries, Message, Target};
use crate::protocol::push::{Push, PushLimits, envelope_json, envelope_protobuf, send_all};
use crate::protocol::{
    ClientFrame, Coding, Dialect, Form, FrameError, Framing, Reply, SendBody, ServerFrame, decode, encode, proto, tcp,
};

#[test]
fn every_golden_row_is_encoded_and_decoded() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/frames.json")).unwrap();
    let rows = file["frames"].as_array().unwrap();
    let mut done = 0;
    for row in rows {
        let name = row["name"].as_str().unwrap();
        if name.starts_with("bad_") {
            refused(name, row);
        } else if name.starts_with("pub_") {
            envelope(name, row);
        } else {
            match row["type"].as_i64().unwrap() {
                0 | 3 => from_client(name, row),
                _ => from_node(name, row),
            }
        }
        done += 1;
    }
    assert_eq!(done, 35);
}

fn from_node(name: &str, row: &Value) {
    let dialects = match row["dialect"].as_str().unwrap_or("both") {
        "both" => vec![Dialect::Yunque, Dialect::Cim],
        word => vec![word.trim_end_matches(".json").parse().unwrap()],
    };
    let body = |key: &str| row.get(key).or_else(|| row.get("content")).cloned().unwrap_or_default();
    for dialect in dialects {
        let (message, reply);
        let frame = match row["type"].as_i64().unwrap() {
            1 => ServerFrame::Ping,
            2 => {
                message = message_of(&body("message"));
                ServerFrame::Message(&message)
            }
            _ => {
                reply = reply_of(&body("reply"));
                ServerFrame::Reply(&reply)
            }
        };
        if let Some(text) = row["websocket_text"].as_str() {
            let written = encode(Form::websocket(dialect, Coding::Json), frame).unwrap();
            // The vectors allow any order of keys; this encoder's order is theirs.
            assert_eq!(std::str::from_utf8(payload(&written)).unwrap(), text, "{name}");
        }
        if let Some(expected) = hex(&row["websocket_hex"]) {
            let written = encode(Form::websocket(dialect, Coding::Protobuf), frame).unwrap();
            if row["decode_only"] == true {
                same_values(name, dialect, payload(&written), &expected);
            } else {
                assert_eq!(payload(&written), expected, "{name}");
            }
            let tcp = encode(Form::tcp(dialect), frame).unwrap();
            assert_eq!((tcp[0], &tcp[3..]), (payload(&written)[0], &payload(&written)[1..]), "{name}");
        }
        if let Some(expected) = hex(&row["tcp_hex"]) {
            assert_eq!(encode(Form::tcp(dialect), frame).unwrap(), expected, "{name}");
        }
    }
}

fn from_client(name: &str, row: &Value) {
    let expected = match row["type"].as_i64().unwrap() {
        0 => ClientFrame::Pong,
        _ => ClientFrame::Sent(sent_of(row.get("send_body").or_else(|| row.get("content")).unwrap())),
    };
    if let Some(text) = row["websocket_text"].as_str() {
        assert_eq!(in_key_order(decode(Coding::Json, text.as_bytes()).unwrap()), expected, "{name}");
    }
    if let Some(bytes) = hex(&row["websocket_hex"]) {
        assert_eq!(decode(Coding::Protobuf, &bytes).unwrap(), expected, "{name}");
        if let ClientFrame::Sent(sent) = &expected {
            let body = proto::SendBody {
                key: sent.key.clone(),
                timestamp: sent.timestamp,
                data: sent.data.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            };
            assert_eq!(body.encode_to_vec(), bytes[1..], "{name}: the other way, by prost");
        }
    }
    if let Some(bytes) = hex(&row["tcp_hex"]) {
        let mut buffer = BytesMut::from(&bytes[..]);
        let frame = tcp::split_tcp_frame(&mut buffer, 1024).unwrap().unwrap();
        assert!(buffer.is_empty(), "{name}");
        assert_eq!(decode(Coding::Protobuf, &frame).unwrap(), expected, "{name}");
    }
}

fn refused(name: &str, row: &Value) {
    let error = decode(Coding::Protobuf, &hex(&row["websocket_hex"]).unwrap()).unwrap_err();
    let words = error.to_string();
    let (as_expected, said) = match name {
        "bad_empty" => (error == FrameError::Empty, "type byte"),
        "bad_type_9" => (error == FrameError::UnknownType(9), "unknown type 9"),
        "bad_message_from_client" => (matches!(error, FrameError::NotFromClient(_)), "MESSAGE (2)"),
        "bad_sent_truncated" => (matches!(error, FrameError::Protobuf(_)), "a length that runs past the end"),
        "bad_sent_invalid_utf8" => (matches!(error, FrameError::Protobuf(_)), "SendBody.key: invalid string value"),
        "bad_varint_too_long" => (matches!(error, FrameError::Protobuf(_)), "a varint longer than 10 bytes"),
        _ => panic!("{name}: a row that this test does not know"),
    };
    assert!(as_expected && words.contains(said), "{name}: {words}");
}

fn envelope(name: &str, row: &Value) {
    let limits = PushLimits::default();
    let by_protobuf = envelope_protobuf(&hex(&row["record_hex"]).unwrap(), &limits).unwrap();
    let by_json = envelope_json(row["envelope"].to_string().as_bytes(), &limits).unwrap();
    assert_eq!(by_protobuf, by_json, "{name}");

    let messages = row["envelope"]["msg"].as_array().unwrap().iter().map(message_of).collect::<Vec<_>>();
    let targets: Vec<Target> = by_json.pushes.iter().map(|push: &Push| push.target.clone()).collect();
    assert_eq!(by_json.pushes.iter().map(|push| (*push.message).clone()).collect::<Vec<_>>(), messages, "{name}");
    let uid = |text: &str| text.parse().unwrap();
    let (target, count) = match name {
        "pub_no_act_with_uid_is_those_users" => (Target::Users([uid("1074"), uid("1078")].into()), 1),
        "pub_no_act_no_uid_is_everyone" | "pub_sendall_explicit_zero_with_uid_is_everyone" => (Target::Everyone, 1),
        "pub_senduid_two_messages" => (Target::User(uid("1074")), 2),
        "pub_senduiddid_by_device" => (Target::Device(uid("1074"), "d1".parse().unwrap()), 1),
        "pub_senddid_by_cid" => (Target::Connection(crate::id::ConnectionId::new(9_007_199_254_740_991).unwrap()), 1),
        "pub_sendother" => (Target::EveryoneBut([uid("1074"), uid("1078")].into()), 1),
        "pub_sendroom" => (Target::Room("lobby".parse().unwrap()), 1),
        "pub_sendlist" => {
            assert_eq!(targets, [Target::User(uid("1074")), Target::User(uid("1078"))]);
            return;
        }
        _ => panic!("{name}: a row that this test does not know"),
    };
    assert_eq!(targets, vec![target; count], "{name}");
    let nodes: &[&str] = if name == "pub_senduid_two_messages" { &["n1"] } else { &[] };
    assert_eq!(by_json.nodes.iter().map(crate::id::NodeId::as_str).collect::<Vec<_>>(), nodes, "{name}");
}

/// Sorts the entries, as `serde_json::Value` sorts those of the vectors.
fn in_key_order(frame: ClientFrame) -> ClientFrame {
    let ClientFrame::Sent(mut sent) = frame else { return frame };
    let sorted: std::collections::BTreeMap<_, _> = sent.data.iter().collect();
    sent.data = sorted.into_iter().collect();
    ClientFrame::Sent(sent)
}

/// The entries of a map may have any order, so prost decodes both.
fn same_values(name: &str, dialect: Dialect, ours: &[u8], theirs: &[u8]) {
    assert_eq!(ours[0], theirs[0], "{name}");
    match dialect {
        Dialect::Yunque => {
            assert_eq!(proto::Message::decode(&ours[1..]), proto::Message::decode(&theirs[1..]), "{name}");
        }
        Dialect::Cim => {
            assert_eq!(proto::cim::Message::decode(&ours[1..]), proto::cim::Message::decode(&theirs[1..]), "{name}");
        }
    }
}

fn message_of(row: &Value) -> Message {
    (*send_all(row.to_string().as_bytes(), &PushLimits::default()).unwrap().message).clone()
}

fn reply_of(row: &Value) -> Reply {
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Reply {
        key: text("key"),
        code: text("code"),
        message: text("message"),
        timestamp: row["timestamp"].as_i64().unwrap_or_default(),
        data: entries_of(&row["data"]),
    }
}

fn sent_of(row: &Value) -> SendBody {
    SendBody {
        key: row["key"].as_str().unwrap().to_owned(),
        timestamp: row["timestamp"].as_i64().unwrap(),
        data: entries_of(&row["data"]),
    }
}

fn entries_of(row: &Value) -> Entries {
    let entries = row.as_object().cloned().unwrap_or_default();
    entries.into_iter().map(|(key, value)| (key, value.as_str().unwrap().to_owned())).collect()
}

fn hex(text: &Value) -> Option<Vec<u8>> {
    let text = text.as_str()?;
    Some((0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect())
}

/// The payload of a server's frame, after the WebSocket header.
fn payload(frame: &Bytes) -> &[u8] {
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    }
}

#[test]
fn the_forms_have_names_and_places() {
    for (index, form) in Form::ALL.into_iter().enumerate() {
        assert_eq!(form.index(), index);
        let parsed = form.to_string().parse::<Form>();
        assert_eq!(parsed.is_ok(), form.framing == Framing::WebSocket);
        assert!(parsed.is_err() || parsed == Ok(form));
        assert_eq!(form.dialect.to_string().parse(), Ok(form.dialect));
    }
    assert_eq!(
        "cim.xml".parse::<Form>().unwrap_err().to_string(),
        "expected yunque.pb, yunque.json, cim.pb or cim.json, got \"cim.xml\""
    );
}

#[test]
fn the_documents_own_push_can_be_read() {
    let body = include_bytes!("../../../tests/vectors/push-sample.json");
    let push = crate::protocol::push::send(body, &PushLimits::default()).unwrap();
    assert_eq!(push.target, Target::User("1074".parse().unwrap()));
    assert_eq!((push.message.id, push.message.sender.as_str()), (748, "1078"));
    assert_eq!(push.message.content.iter().collect::<Vec<_>>(), [("text", "好吗"), ("image", ""), ("url", "")]);
    let body = json!({"message": serde_json::from_slice::<Value>(body).unwrap(), "uids": ["uid1", "uid2"]});
    let many = crate::protocol::push::send_to_uids(body.to_string().as_bytes(), &PushLimits::default()).unwrap();
    assert_eq!(many.target, Target::Users(["uid1", "uid2"].map(|uid| uid.parse().unwrap()).into()));
}
