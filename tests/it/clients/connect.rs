//! Connecting: the places of a token, the bind reply, the choice of the dialect, and refusals.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{Client, Dial};
use crate::support::gateway::{Gateway, Setup};
use crate::support::token::Claims;
use crate::support::wire::{Form, messages_pub};

/// Opens a connection to `/ws` and returns it with its first frame.
async fn bound(gateway: &Gateway, form: Form, dial: Dial) -> (Client, Value) {
    let mut client = Client::dial(gateway.address("ws"), form, dial).await.expect("the upgrade succeeds");
    let reply = client.reply().await;
    assert_eq!((&reply["key"], &reply["code"]), (&json!("client_bind"), &json!("200")), "{reply}");
    (client, reply)
}

#[tokio::test]
async fn a_token_is_taken_from_every_place_it_may_stand_in() {
    let gateway = Gateway::start();
    let token = Claims::of("1074").mint();
    let origin = format!("http://{}", gateway.address("ws"));
    let ways = [
        Dial::path(format!("/ws?token={token}")),
        Dial::path("/ws").header("authorization", format!("Bearer {token}")),
        Dial::path("/ws").header("cookie", format!("theme=dark; token={token}")).header("origin", origin),
        Dial::path("/ws").subprotocol("yunque.pb").subprotocol(format!("bearer.{token}")),
    ];
    for dial in ways {
        let (client, reply) = bound(&gateway, Form::YunquePb, dial).await;
        assert_eq!(reply["data"]["uid"], "1074");
        assert!(client.subprotocol.as_deref().is_none_or(|s| s == "yunque.pb"), "{:?}", client.subprotocol);
    }
    assert!(!gateway.log().contains(&token), "the log contains a token");
}

#[tokio::test]
async fn bind_reply_has_user_node_and_address() {
    let gateway = Setup::default().yaml("node:\n  id: skylark-7\n  number: 7\n  address: ws.example.org").start();
    let claims = Claims::of("1074").device("phone-1");
    let (mut client, reply) = gateway.connect_as(claims, Form::YunqueJson).await;
    let data = &reply["data"];
    assert_eq!((&data["uid"], &data["sid"]), (&json!("1074"), &json!("skylark-7")), "{reply}");
    assert_eq!(data["address"], "ws.example.org");
    let cid: u64 = data["cid"].as_str().unwrap().parse().unwrap();
    assert_eq!(cid >> 41, 7, "the cid does not contain the node's number");
    assert!(cid < 1 << 53, "the cid exceeds the safe integers of JavaScript");
    assert!(reply["timestamp"].is_i64() && reply["code"].is_string());

    // A later bind is answered with 200 and adds its fields; it never changes the user.
    let again = client.ask("client_bind", json!({"uid": "1", "channel": "web", "deviceName": "Firefox"})).await;
    assert_eq!((&again["code"], &again["data"]["uid"]), (&json!("200"), &json!("1074")), "{again}");
    let row = gateway.get("/connections?uid=1074").await.data()["items"][0].clone();
    assert_eq!(
        (&row["uid"], &row["channel"], &row["device"]),
        (&json!("1074"), &json!("web"), &json!("phone-1")),
        "{row}"
    );
}

#[tokio::test]
async fn the_bind_reply_is_the_same_in_every_dialect_and_transport() {
    let gateway = Gateway::start();
    for form in Form::ALL {
        let expires = crate::support::token::now() + 600;
        let uid = form.subprotocol();
        let claims = Claims::of(uid).expires_in(600).device("d");
        let (client, reply) = gateway.connect_as(claims, form).await;
        let data = reply["data"].as_object().unwrap();
        let mut names: Vec<&str> = data.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["address", "cid", "expires", "sid", "uid"], "{form:?}: {reply}");
        let service = if form == Form::CimTcp {
            "cim-tcp"
        } else if form.is_cim() {
            "cim"
        } else {
            "ws"
        };
        let address = gateway.address(service).to_string();
        assert_eq!((&data["uid"], &data["sid"], &data["address"]), (&json!(uid), &json!("n1"), &json!(address)));
        assert!(data["expires"].as_str().unwrap().parse::<i64>().unwrap().abs_diff(expires) < 120, "{reply}");
        let row = gateway.get(&format!("/connections?uid={uid}")).await.data()["items"][0].clone();
        assert_eq!(row["cid"].to_string(), data["cid"].as_str().unwrap(), "{form:?}: {row}");
        client.close().await;
    }
}

#[tokio::test]
async fn oversized_frame_closes_on_every_transport() {
    let gateway =
        Setup::default().yaml("limits:\n  frame_bytes: 4KiB\n  connections_per_ip: 0\n  connects_per_ip: 0").start();
    for form in Form::ALL {
        let mut client = gateway.connect("1074", form).await;
        client.sent("client_set_tag", json!({"tag": "x".repeat(5000)})).await;
        let expected = (form != Form::CimTcp).then(|| (4504, "message too large".to_owned()));
        assert_eq!(client.closed().await, expected, "{form:?}");
    }
}

#[tokio::test]
async fn the_dialect_is_chosen_by_subprotocol_or_query_and_echoed() {
    let gateway = Gateway::start();
    let token = Claims::of("1").mint();
    for form in [Form::YunquePb, Form::YunqueJson, Form::CimPb, Form::CimJson] {
        let name = form.subprotocol();
        let dial = Dial::path(format!("/ws?token={token}")).subprotocol("x.unknown").subprotocol(name);
        let (client, _) = bound(&gateway, form, dial).await;
        assert_eq!(client.subprotocol.as_deref(), Some(name));
        let (client, _) = bound(&gateway, form, Dial::path(format!("/ws?token={token}&dialect={name}"))).await;
        assert_eq!(client.subprotocol, None);
    }
}

#[tokio::test]
async fn a_client_may_bind_by_its_first_frame() {
    let gateway = Gateway::start();
    for form in Form::ALL {
        let mut client = if form.is_cim() {
            gateway.dial_cim(form).await
        } else {
            let dial = Dial::path("/ws").subprotocol(form.subprotocol());
            Client::dial(gateway.address("ws"), form, dial).await.expect("the upgrade succeeds")
        };
        let token = Claims::of("1074").mint();
        let data = json!({"uid": "1", "token": token, "channel": "ios", "deviceId": "d-1", "deviceName": "iPhone"});
        let reply = client.ask("client_bind", data).await;
        assert_eq!((&reply["code"], &reply["data"]["uid"]), (&json!("200"), &json!("1074")), "{form:?}: {reply}");
        client.close().await;
    }
}

#[tokio::test]
async fn invalid_token_is_refused_in_band_with_a_final_close_code() {
    let gateway = Gateway::start();
    let tokens = [
        "garbage".to_owned(),
        Claims::of("1074").expires_in(-3600).mint(),
        Claims::of("1074").sign(b"another key than the operator's"),
    ];
    for token in &tokens {
        let dial = Dial::path(format!("/ws?token={token}"));
        let mut client = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await.expect("the upgrade succeeds");
        let reply = client.reply().await;
        assert_eq!((&reply["key"], &reply["code"]), (&json!("client_handshake"), &json!("401")), "{reply}");
        assert_eq!(client.close_code().await, 4501);
    }
    for form in [Form::CimPb, Form::CimJson, Form::CimTcp] {
        let mut client = gateway.dial_cim(form).await;
        client.sent("client_bind", json!({"uid": "1074"})).await;
        let reply = client.reply().await;
        assert_eq!((&reply["key"], &reply["code"]), (&json!("client_handshake"), &json!("401")), "{form:?}: {reply}");
        let closed = client.closed().await;
        assert_eq!(closed.map(|(code, _)| code), (form != Form::CimTcp).then_some(4501), "{form:?}");
    }
    assert_eq!(gateway.get("/connections").await.data()["items"], json!([]));
}

#[tokio::test]
async fn client_without_an_auth_plugin_is_refused() {
    let gateway = Setup::default().no_plugins().start();
    let token = Claims::of("1074").mint();
    let dial = Dial::path(format!("/ws?token={token}"));
    let mut client = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await.expect("the upgrade succeeds");
    assert_eq!(client.reply().await["key"], "client_handshake");
    let ready = gateway.get("/health/ready").await;
    assert_eq!(ready.status, 503, "{}", ready.body);
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_is_refused() {
    let gateway = Gateway::start();
    let token = Claims::of("1074").mint();
    let own = format!("http://{}", gateway.address("ws"));
    for (origin, good) in [(own.as_str(), true), ("https://evil.example", false), ("null", false)] {
        let dial = Dial::path("/ws").header("origin", origin).header("cookie", format!("token={token}"));
        let dialled = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await;
        match dialled {
            Ok(mut client) if good => assert_eq!(client.reply().await["code"], "200", "{origin}"),
            Ok(mut client) => assert_eq!(client.close_code().await, 4505, "{origin}"),
            Err((status, body)) => assert!(!good && status == 403, "{origin}: {status} {body}"),
        }
    }
    // Without an Origin, a token outside a cookie is accepted and one in a cookie is refused.
    let dial = Dial::path("/ws").header("cookie", format!("token={token}"));
    if let Ok(mut client) = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await {
        assert!(client.close_code().await >= 4500, "a cookie without an Origin was accepted");
    }
}

#[tokio::test]
async fn a_foreign_origin_on_a_cim_listener_is_told_in_band() {
    let gateway = Gateway::start();
    let dial = Dial::path("/").header("origin", "https://evil.example");
    let mut client =
        Client::dial(gateway.address("cim"), Form::CimJson, dial).await.expect("the upgrade always succeeds");
    client.sent("client_bind", json!({"token": Claims::of("1074").mint()})).await;
    let reply = client.reply().await;
    assert_eq!((&reply["key"], &reply["code"]), (&json!("client_handshake"), &json!("401")), "{reply}");
    assert_eq!(client.close_code().await, 4505);
}

#[tokio::test]
async fn invalid_frame_closes_the_connection() {
    let gateway = Gateway::start();
    let bad: &[&[u8]] = &[b"", b"\x09\x00", b"\x02\x08\xec\x05", b"\x03\x0a\x0bcl", b"\x03\x0a\x02\xff\xff"];
    for payload in bad {
        let mut client = gateway.connect("1074", Form::YunquePb).await;
        client.raw(Message::binary(payload.to_vec())).await;
        assert_eq!(client.close_code().await, 4500, "{payload:?}");
    }
    for text in ["", "{", "[]", r#"{"type":9}"#, r#"{"type":2,"content":"{}"}"#, r#"{"type":3,"content":{"key":"x"}}"#]
    {
        let mut client = gateway.connect("1074", Form::YunqueJson).await;
        client.raw(Message::text(text)).await;
        assert_eq!(client.close_code().await, 4500, "{text}");
    }
    let mut client = gateway.connect("1074", Form::YunquePb).await;
    client.raw(Message::binary(vec![3; 70_000])).await;
    let closed = client.closed().await;
    assert!(
        closed.is_none_or(|(code, _)| code == 4504 || code == 1009),
        "a frame over the limit got another close code"
    );
    // The original's SDKs send malformed PONGs; each counts as a sign of life.
    let mut client = gateway.connect("1074", Form::YunquePb).await;
    for pong in [&b"\0PONG"[..], b"\0PON\0", b"\0"] {
        client.raw(Message::binary(pong.to_vec())).await;
    }
    assert_eq!(client.ask("client_set_tag", json!({"tag": "t"})).await["code"], "200");
}

#[tokio::test]
async fn unknown_key_is_answered_with_404() {
    let gateway = Gateway::start();
    for form in Form::ALL {
        let mut client = gateway.connect("1074", form).await;
        let reply = client.ask("no_such_key", json!({"a": "b"})).await;
        assert_eq!(reply["code"], "404", "{form:?}: {reply}");
    }
}

#[tokio::test]
async fn unbound_connection_gets_no_message_and_is_closed() {
    let gateway = Setup::default().yaml("limits:\n  unbound: 5s\n  unbound_max: 5s").start();
    let dial = Dial::path("/ws").subprotocol("yunque.pb");
    let mut client = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await.expect("the upgrade succeeds");
    assert_eq!(client.ask("room_join", json!({"room": "lobby"})).await["code"], "401");
    let pushed = gateway.post("/send/all", json!({"action": "chat"})).await.data();
    assert_eq!(pushed["delivered"], 0, "{pushed}");
    assert_eq!(client.closed().await, Some((4001, "not bound in time".into())));
}

#[tokio::test]
async fn a_token_that_expires_closes_unless_it_was_refreshed() {
    let gateway = Gateway::start();
    let (mut stale, _) = gateway.connect_as(Claims::of("stale").expires_in(6), Form::YunquePb).await;
    let (mut fresh, _) = gateway.connect_as(Claims::of("fresh").expires_in(6), Form::YunqueJson).await;
    let other = fresh.ask("client_refresh", json!({"token": Claims::of("somebody else").mint()})).await;
    assert_ne!(other["code"], "200", "{other}");
    let reply = fresh.ask("client_refresh", json!({"token": Claims::of("fresh").mint()})).await;
    assert_eq!(reply["code"], "200", "{reply}");
    assert_eq!(stale.closed().await, Some((4002, "token expired".into())));
    // By then the first token of the other client has expired too.
    assert_eq!(fresh.ask("client_set_tag", json!({"tag": "still here"})).await["code"], "200");
}

#[tokio::test]
async fn envelope_without_any_client_is_accepted() {
    let gateway = Gateway::start();
    let body = messages_pub(&json!({"msg": [{"action": "chat"}]}));
    let mut http = gateway.http().await;
    let answer = http.request("POST", "/publish", &[("content-type", "application/x-protobuf")], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}
