//! Every body, and every way in which it can be invalid.

use prost::Message as _;
use serde_json::json;

use super::*;
use crate::id::{ConnectionId, NodeId};
use crate::protocol::proto;

const LIMITS: PushLimits = PushLimits { bytes: 1 << 20, messages: 3, uids: 4 };

fn uid(text: &str) -> Uid {
    text.parse().unwrap()
}

fn users_of(names: &[&str]) -> Target {
    Target::Users(names.iter().map(|name| uid(name)).collect())
}

#[test]
fn each_body_gives_its_target() {
    let target = |push: Result<Push, FieldFault>| push.unwrap().target;
    let cid = ConnectionId::new(9).unwrap();
    assert_eq!(target(send(br#"{"receiver":1074}"#, &LIMITS)), Target::User(uid("1074")));
    assert_eq!(target(send_all(br#"{"receiver":null}"#, &LIMITS)), Target::Everyone);
    let list = send_list(br#"[{"receiver":"a"},{"receiver":2}]"#, &LIMITS).unwrap();
    assert_eq!(list.iter().map(|push| push.message.receiver.as_str()).collect::<Vec<_>>(), ["a", "2"]);
    let to = |json: &str| json.replace('§', r#""message":{"action":"chat"}"#).into_bytes();
    assert_eq!(target(send_to_uids(&to(r#"{§,"uids":["b",1,"b"]}"#), &LIMITS)), users_of(&["b", "1"]));
    assert_eq!(target(send_to_uids(&to(r#"{"uids":["b","b"],§}"#), &LIMITS)), Target::User(uid("b")));
    assert_eq!(target(send_other(&to(r#"{§,"uids":[]}"#), &LIMITS)), Target::EveryoneBut([].into()));
    assert_eq!(target(send_room(&to(r#"{§,"room":7}"#), &LIMITS)), Target::Room("7".parse().unwrap()));
    assert_eq!(
        target(send_device(&to(r#"{§,"uid":"u","device":"d"}"#), &LIMITS)),
        Target::Device(uid("u"), "d".parse().unwrap())
    );
    assert_eq!(target(send_connection(&to(r#"{§,"cid":"9"}"#), &LIMITS)), Target::Connection(cid));

    let change = room_change(br#"{"room":"r","uids":["a","b"],"uid":null}"#, &LIMITS).unwrap();
    assert_eq!((change.room.as_str(), change.target), ("r", users_of(&["a", "b"])));
    assert_eq!(room_change(br#"{"room":"r","cid":9.0}"#, &LIMITS).unwrap().target, Target::Connection(cid));
    let kicked = kick(br#"{"uid":"u","device":"d","reason":"why"}"#, &LIMITS).unwrap();
    assert_eq!((kicked.target, &*kicked.reason), (Target::Device(uid("u"), "d".parse().unwrap()), "why"));
    assert_eq!(kick(br#"{"uid":"u"}"#, &LIMITS).unwrap().target, Target::User(uid("u")));
    assert_eq!(kick(br#"{"cid":9}"#, &LIMITS).unwrap().target, Target::Connection(cid));
}

#[test]
fn a_message_is_read_whole() {
    let body = r#" {
        "id": "748", "action": "chat", "content": {"text": "好\n吗", "n": 1.10, "z": null, "o": { "a": [ true ] }},
        "sender": 1078, "receiver": 1074.0, "extra": null, "title": "t", "image": "i", "format": "f",
        "timestamp": 5, "unknown": {"deep": []}
    } "#;
    let message = send(body.as_bytes(), &LIMITS).unwrap().message;
    let expected = Message {
        id: 748,
        action: "chat".into(),
        content: [("text", "好\n吗"), ("n", "1.10"), ("o", r#"{"a":[true]}"#)].into_iter().collect(),
        sender: "1078".into(),
        receiver: "1074".into(),
        extra: Entries::new(),
        title: "t".into(),
        image: "i".into(),
        format: "f".into(),
        timestamp: 5,
    };
    assert_eq!(*message, expected);
    let plain = send_all(br#"{"content":"hi","sendTime":7,"sender":null,"id":null}"#, &LIMITS).unwrap().message;
    assert_eq!((plain.content.get("text"), plain.timestamp, plain.id), (Some("hi"), 7, 0));
    assert_eq!(*send_all(b"{}", &LIMITS).unwrap().message, Message::default());
    assert!(send_all(br#"{"content":""}"#, &LIMITS).unwrap().message.content.is_empty());
}

#[test]
fn a_fault_names_field_expectation_and_value() {
    for (body, words) in [
        ("", "body: expected JSON, got nothing"),
        (" \n", "body: expected JSON, got nothing"),
        ("null", "body: expected an object, got null"),
        ("5", "body: expected an object, got 5"),
        ("[]", "body: expected an object, got an array"),
        (r#""x""#, "body: expected an object, got \"x\""),
        ("{", "body: expected whole JSON, got an early end at line 1 column 1"),
        ("{]", "body: expected valid JSON, got a syntax error at line 1 column 2 (key must be a string)"),
        (r#"{"receiver":"a"} x"#, "body: expected nothing after the JSON value, got more at line 1 column 18"),
        ("{}", "receiver: expected a non-empty string, got nothing"),
        (r#"{"receiver":null}"#, "receiver: expected a non-empty string, got null"),
        (r#"{"receiver":""}"#, "receiver: expected a non-empty string, got \"\""),
        (r#"{"receiver":[]}"#, "receiver: expected a non-empty string, got an array"),
        (r#"{"receiver":1.5}"#, "receiver: expected a non-empty string, got 1.5"),
        (r#"{"receiver":"a,b"}"#, "receiver: expected no comma or control character, got \"a,b\""),
        (r#"{"receiver":"a","receiver":"b"}"#, "receiver: expected the key once, got it twice"),
        (r#"{"id":"x"}"#, "id: expected an integer, got \"x\""),
        (r#"{"id":1.5}"#, "id: expected an integer, got 1.5"),
        (r#"{"id":9223372036854775808}"#, "id: expected an integer, got 9223372036854775808"),
        (r#"{"action":5}"#, "action: expected a string, got 5"),
        (r#"{"title":{}}"#, "title: expected a string, got an object"),
        (r#"{"sender":true}"#, "sender: expected a non-empty string, got true"),
        (r#"{"content":5}"#, "content: expected an object or a string, got 5"),
        (r#"{"content":[]}"#, "content: expected an object or a string, got an array"),
        (r#"{"content":{"text":"\ud800"}}"#, "content.text: expected a string, got an escape that is not a character"),
        (r#"{"content":{"a b":"1","a b":"2"}}"#, "content.\"a b\": expected the key once, got it twice"),
        (r#"{"extra":"x"}"#, "extra: expected an object, got \"x\""),
        (r#"{"extra":-0.5}"#, "extra: expected an object, got -0.5"),
        (r#"{"timestamp":"now"}"#, "timestamp: expected an integer, got \"now\""),
    ] {
        assert_eq!(send(body.as_bytes(), &LIMITS).unwrap_err().to_string(), words, "{body}");
    }
    let long = format!(r#"{{"receiver":"{}"}}"#, "x".repeat(200));
    assert_eq!(
        send(long.as_bytes(), &LIMITS).unwrap_err().to_string(),
        "receiver: expected at most 128 bytes, got 200"
    );
    assert_eq!(
        send(b"{\"receiver\":\"\xe4\xba\"}", &LIMITS).unwrap_err().to_string(),
        "body: expected UTF-8, got byte 0xe4 at offset 13"
    );
}

#[test]
fn faults_below_the_top_have_a_path() {
    let words = |fault: Option<FieldFault>| fault.unwrap().to_string();
    let list = |body: &str| words(send_list(body.as_bytes(), &LIMITS).err());
    assert_eq!(list("{}"), "body: expected an array of messages, got an object");
    assert_eq!(list("[]"), "body: expected at least one message, got an empty array");
    assert_eq!(list(r#"[{"receiver":"a"},7]"#), "[1]: expected an object, got 7");
    assert_eq!(list(r#"[{"receiver":"a"},{}]"#), "[1].receiver: expected a non-empty string, got nothing");
    assert_eq!(
        list(r#"[{"content":{"a":"\udc00"}}]"#),
        "[0].content.a: expected a string, got an escape that is not a character"
    );

    let many = |body: &str| words(send_to_uids(body.as_bytes(), &LIMITS).err());
    assert_eq!(many("{}"), "message: expected an object, got nothing");
    assert_eq!(many(r#"{"message":null}"#), "message: expected an object, got null");
    assert_eq!(
        many(r#"{"message":{"content":{"a":1,"a":2}}}"#),
        "message.content.a: expected the key once, got it twice"
    );
    assert_eq!(many(r#"{"message":{}}"#), "uids: expected an array of users, got nothing");
    assert_eq!(many(r#"{"message":{},"uids":null}"#), "uids: expected an array of users, got null");
    assert_eq!(many(r#"{"message":{},"uids":"a"}"#), "uids: expected an array of users, got \"a\"");
    assert_eq!(many(r#"{"message":{},"uids":[]}"#), "uids: expected at least one user, got an empty array");
    assert_eq!(many(r#"{"message":{},"uids":["a",1,null]}"#), "uids[2]: expected a non-empty string, got null");
    assert_eq!(many(r#"{"message":{},"message":{},"uids":[]}"#), "message: expected the key once, got it twice");

    let room = |body: &str| words(room_change(body.as_bytes(), &LIMITS).err());
    assert_eq!(room("{}"), "room: expected a non-empty string, got nothing");
    assert_eq!(room(r#"{"room":"r"}"#), "body: expected one of uid, uids, cid, got none");
    assert_eq!(room(r#"{"room":"r","uid":1,"cid":1}"#), "body: expected one of uid, uids, cid, got uid and cid");
    assert_eq!(room(r#"{"room":"r","cid":0}"#), "cid: expected an integer from 1 to 9007199254740991, got 0");
    assert_eq!(words(kick(br#"{"uid":"a","reason":1}"#, &LIMITS).err()), "reason: expected a string, got 1");
}

#[test]
fn exceeded_limit_is_marked_unlike_an_invalid_value() {
    let over = |fault: Option<FieldFault>| {
        let fault = fault.unwrap();
        assert!(fault.over_limit, "{fault}");
        fault.to_string()
    };
    let small = PushLimits { bytes: 10, ..LIMITS };
    assert_eq!(over(send(&[b' '; 11], &small).err()), "body: expected at most 10 bytes, got 11");
    let list = format!("[{}]", [r#"{"receiver":"a"}"#; 4].join(","));
    assert_eq!(over(send_list(list.as_bytes(), &LIMITS).err()), "body: expected at most 3 messages, got more");
    let uids = br#"{"message":{},"uids":[1,2,3,4,5]}"#;
    assert_eq!(over(send_to_uids(uids, &LIMITS).err()), "uids: expected at most 4 users, got more");
    let nested = |levels: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(send_all(nested(31).as_bytes(), &LIMITS).is_ok());
    assert_eq!(
        over(send_all(nested(32).as_bytes(), &LIMITS).err()),
        "x: expected at most 32 levels of nesting, got more"
    );
    let in_content = |levels: usize| nested(levels).replace("{\"x\"", "{\"content\":{\"x\"").replace("]}", "]}}");
    assert!(send_all(in_content(30).as_bytes(), &LIMITS).is_ok());
    assert!(over(send_all(in_content(31).as_bytes(), &LIMITS).err()).starts_with("content.x: "));
    // Half a megabyte of brackets takes time but no stack.
    assert!(send_all("[".repeat(1 << 19).as_bytes(), &LIMITS).is_err());
    assert!(send_all(nested(1 << 18).as_bytes(), &LIMITS).is_err());
}

fn by_json(envelope: &serde_json::Value) -> Result<PubEnvelope, FieldFault> {
    envelope_json(envelope.to_string().as_bytes(), &LIMITS)
}

#[test]
fn envelope_fields_resolve_to_their_target() {
    let target = |mut envelope: serde_json::Value| {
        envelope["msg"] = json!([{"action": "chat"}]);
        by_json(&envelope).map(|resolved| resolved.pushes[0].target.clone()).map_err(|fault| fault.to_string())
    };
    assert_eq!(target(json!({})), Ok(Target::Everyone));
    assert_eq!(target(json!({"Uid": null, "act": null, "type": null})), Ok(Target::Everyone));
    assert_eq!(target(json!({"Uid": 1074})), Ok(Target::User(uid("1074"))));
    assert_eq!(target(json!({"uid": "1, 2,,1,"})), Ok(users_of(&["1", "2"])), "any case, blanks, one copy");
    assert_eq!(target(json!({"act": "SENDALL", "Uid": "1", "Cid": "junk"})), Ok(Target::Everyone));
    assert_eq!(target(json!({"act": "sendUids", "Uid": "1,2", "type": "MESSAGE"})), Ok(users_of(&["1", "2"])));
    assert_eq!(target(json!({"act": 2.0, "Uid": "1", "type": 2})), Ok(Target::User(uid("1"))));
    let five = ConnectionId::new(5).unwrap();
    let owned = Target::ConnectionOf(uid("1"), five);
    assert_eq!(target(json!({"act": 3, "Uid": "1", "Cid": "5"})), Ok(owned.clone()));
    assert_eq!(target(json!({"act": 3, "Uid": "1", "Cid": 5, "device": ""})), Ok(owned.clone()));
    assert_eq!(target(json!({"act": 4, "Uid": "1", "Cid": 5})), Ok(owned));
    let device = Target::Device(uid("1"), "d".parse().unwrap());
    assert_eq!(target(json!({"act": 3, "Uid": "1", "Cid": 5, "device": "d"})), Ok(device));
    assert_eq!(target(json!({"act": "SENDDID", "Cid": 5})), Ok(Target::Connection(five)));
    assert_eq!(target(json!({"act": 6})), Ok(Target::EveryoneBut([].into())));
    assert_eq!(target(json!({"act": 7, "Uid": "lobby"})), Ok(Target::Room("lobby".parse().unwrap())));

    for (envelope, words) in [
        (json!({"act": 8}), "act: expected a SendAct (0–7, or its name), got 8"),
        (json!({"act": "SENDSOME"}), "act: expected a SendAct (0–7, or its name), got \"SENDSOME\""),
        (json!({"type": 1}), "type: expected 2 (MESSAGE), got 1"),
        (json!({"type": 0}), "type: expected 2 (MESSAGE), got 0"),
        (json!({"type": "PING"}), "type: expected 2 (MESSAGE), got \"PING\""),
        (json!({"Uid": " , "}), "Uid: expected at least one user, got \" , \""),
        (json!({"Uid": {}}), "Uid: expected a non-empty string, got an object"),
        (json!({"Uid": "1,2,3,4,5"}), "Uid: expected at most 4 names, got more"),
        (json!({"act": 1}), "Uid: expected at least one user, got \"\""),
        (json!({"act": 2}), "Uid: expected at least one user, got \"\""),
        (json!({"act": 3, "Uid": "1,2", "Cid": 5}), "Uid: expected no comma or control character, got \"1,2\""),
        (json!({"act": 3, "Uid": "1"}), "device: expected a device, or a Cid, got nothing"),
        (json!({"act": 3, "device": "d"}), "Uid: expected a non-empty string, got \"\""),
        (json!({"act": 4}), "Cid: expected an integer from 1 to 9007199254740991, got nothing"),
        (json!({"act": 4, "Cid": 0}), "Cid: expected an integer from 1 to 9007199254740991, got nothing"),
        (json!({"act": 4, "Cid": -1}), "Cid: expected an integer from 1 to 9007199254740991, got -1"),
        (json!({"act": 5}), "msg[0].receiver: expected a non-empty string, got nothing"),
        (json!({"act": 7}), "Uid: expected a non-empty string, got \"\""),
        (json!({"Uid": "1", "uid": "2"}), "uid: expected the key once, got it twice"),
    ] {
        assert_eq!(target(envelope), Err(words.to_owned()));
    }
}

#[test]
fn user_and_connection_together_are_one_target_or_a_fault() {
    let owned = Target::ConnectionOf(uid("1"), ConnectionId::new(5).unwrap());
    let body = br#"{"message": {}, "room": "r", "uid": 1, "cid": 5}"#;
    assert_eq!(send_connection(body, &LIMITS).unwrap().target, owned);
    let kicked = kick(body, &LIMITS).map_err(|fault| fault.to_string());
    assert_eq!(kicked.unwrap_err(), "body: expected one of uid, cid, got uid and cid");
    let changed = room_change(body, &LIMITS).map_err(|fault| fault.to_string());
    assert_eq!(changed.unwrap_err(), "body: expected one of uid, uids, cid, got uid and cid");
}

#[test]
fn record_of_json_is_told_as_json() {
    let words = |body: &str| envelope(body.as_bytes(), &LIMITS).unwrap_err().to_string();
    assert_eq!(words(r#""{\"msg\":[]}""#), r#"body: expected an object, got "{\"msg\":[]}""#);
    assert_eq!(words("\"text\"\n"), "body: expected an object, got \"text\"");
    assert_eq!(words("17"), "body: expected an object, got 17");
    assert_eq!(words("\nnull"), "body: expected an object, got null");
    assert_eq!(words("[1]"), "body: expected an object, got an array");
    for body in ["\u{feff}{\"msg\":[{}]}", "\u{feff} {\"msg\":[{}]}", "\n{\"msg\":[{}]}"] {
        assert_eq!(envelope(body.as_bytes(), &LIMITS).unwrap().pushes.len(), 1, "{body:?}");
    }
    // A message without Uid also begins with a quote: its tag.
    let protobuf = [&b"\x22\x04\x12\x02hi"[..], b"\x22\x02*\0"].concat();
    assert_eq!(envelope(&protobuf, &LIMITS).unwrap().pushes.len(), 2);
}

#[test]
fn an_envelope_needs_messages_and_may_name_nodes() {
    let words = |envelope| by_json(&envelope).unwrap_err().to_string();
    assert_eq!(words(json!({})), "msg: expected an array of messages, got nothing");
    assert_eq!(words(json!({"msg": []})), "msg: expected at least one message, got an empty array");
    assert_eq!(words(json!({"msg": [{}, {"id": "x"}]})), "msg[1].id: expected an integer, got \"x\"");
    assert_eq!(words(json!({"msg": [{}, {}, {}, {}]})), "msg: expected at most 3 messages, got more");
    let nodes = by_json(&json!({"msg": [{}], "Sid": "a, b,"})).unwrap().nodes;
    assert_eq!(nodes.iter().map(NodeId::as_str).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn an_envelope_in_protobuf_is_counted_before_it_is_read() {
    let read = |body: &[u8]| envelope_protobuf(body, &LIMITS).map_err(|fault| fault.to_string());
    let encode = |envelope: proto::MessagesPub| envelope.encode_to_vec();
    let message = || vec![proto::Message::default()];
    assert_eq!(read(&[]), Err("msg: expected at least one message, got nothing".into()));
    assert_eq!(read(&[0x22, 0, 0x22, 0, 0x22, 0, 0x22, 0]), Err("msg: expected at most 3 messages, got more".into()));
    let wide = [0x1a, 5, 0x0a, 1, b'a', 0x12, 0].repeat(257);
    let mut body = vec![0x22, 0, 0x22];
    prost::encoding::encode_varint(wide.len() as u64, &mut body);
    body.extend_from_slice(&wide);
    assert_eq!(read(&body), Err("msg[1].content: expected at most 256 entries, got 257".into()));
    assert_eq!(
        read(&[0x22, 5, 0]),
        Err("body: expected a protobuf MessagesPub, got a length that runs past the end".into())
    );
    assert_eq!(
        read(&[0x0a, 1, 0xff, 0x22, 0]),
        Err("body: expected a protobuf MessagesPub, got MessagesPub.uid: invalid string value: data is not UTF-8 encoded".into())
    );
    for (act, kind, cid, words) in [
        (Some(8), None, 0, "act: expected a SendAct (0–7, or its name), got 8"),
        (None, Some(0), 0, "type: expected 2 (MESSAGE), got 0"),
        (Some(4), Some(2), -1, "Cid: expected an integer from 1 to 9007199254740991, got -1"),
        (Some(4), Some(2), 0, "Cid: expected an integer from 1 to 9007199254740991, got nothing"),
    ] {
        let envelope = proto::MessagesPub { act, r#type: kind, cid, msg: message(), ..Default::default() };
        assert_eq!(read(&encode(envelope)), Err(words.into()));
    }
    let counter = proto::MessagesPub { act: Some(0), cid: -7, msg: message(), ..Default::default() };
    assert_eq!(read(&encode(counter)).unwrap().pushes[0].target, Target::Everyone);
    // A megabyte of empty messages.
    assert!(read(&[0x22, 0].repeat(1 << 19)).is_err());
}

#[test]
fn the_first_bytes_tell_the_codings_of_an_envelope_apart() {
    let read =
        |body: &[u8]| envelope(body, &LIMITS).map(|read| read.pushes[0].target.clone()).map_err(|f| f.to_string());
    let json = json!({"Uid": "1", "msg": [{"action": "chat"}]}).to_string();
    for blanks in ["", " ", "\n", "\r\n", "\t \n"] {
        assert_eq!(read(format!("{blanks}{json}\n").as_bytes()), Ok(Target::User(uid("1"))), "{blanks:?}");
    }
    assert_eq!(read(b" [1]"), Err("body: expected an object, got an array".into()));
    // A protobuf Uid of 123 or 91 bytes begins like a JSON text after a line feed.
    for length in [0, 1, 2, 13, 32, 91, 123, 124] {
        let name = "u".repeat(length);
        let body = proto::MessagesPub { uid: name.clone(), msg: vec![proto::Message::default()], ..Default::default() };
        let target = if length == 0 { Target::Everyone } else { Target::User(uid(&name)) };
        assert_eq!(read(&body.encode_to_vec()), Ok(target), "{length}");
    }
    let padded = format!("\n{json}");
    let padded = format!("{padded}{}", " ".repeat(125 - padded.len()));
    assert_eq!(read(padded.as_bytes()), Ok(Target::User(uid("1"))), "as protobuf, a Uid of 123 bytes and nothing else");
    for junk in ["", "junk", "\n{junk", "\u{feff}{}"] {
        assert!(read(junk.as_bytes()).is_err(), "{junk:?}");
    }
    assert!(envelope(&[b' '; 11], &PushLimits { bytes: 10, ..LIMITS }).unwrap_err().over_limit);
}

#[test]
fn maps_of_a_client_are_read_from_json_text() {
    let list = |entries: Entries| entries.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Vec<_>>();
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<Vec<_>>();
    let object = r#" {"b":"x\n😀","a":1.0,"on":true,"none":null,"deep":{"k": ["v w", "q\" ,"] }} "#;
    let expected = pairs(&[("b", "x\n😀"), ("a", "1.0"), ("on", "true"), ("deep", r#"{"k":["v w","q\" ,"]}"#)]);
    assert_eq!(list(content_of(object).unwrap()), expected);
    assert_eq!(list(extra_of(object).unwrap()), expected);
    for text in ["hi", "{not json", "{\"a\":1} tail", "[1,2]", "\"quoted\"", "你好 {}"] {
        assert_eq!(list(content_of(text).unwrap()), pairs(&[("text", text)]));
        assert!(extra_of(text).unwrap_err().to_string().starts_with("extra: expected "));
    }
    assert!(content_of("").unwrap().is_empty() && extra_of("").unwrap().is_empty());
    let many = format!("{{{}}}", (0..257).map(|i| format!("\"k{i}\":1")).collect::<Vec<_>>().join(","));
    assert_eq!(content_of(&many).unwrap_err().to_string(), "content: expected at most 256 entries, got more");
}
