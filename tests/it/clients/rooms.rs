//! Client operations: tags, rooms, and messages between clients.

use rustix::process::Signal;
use serde_json::json;

use crate::support::client::{Client, Dial};
use crate::support::gateway::{Gateway, Setup};
use crate::support::token::Claims;
use crate::support::wire::Form;

#[tokio::test]
async fn rooms_are_joined_and_left() {
    let gateway = Setup::default().yaml("clients:\n  publish: true\n  rooms: 2\n  open_rooms: ['*']").start();
    let mut client = gateway.connect("a", Form::YunqueJson).await;
    for (key, room, code) in [
        ("room_join", "one", "200"),
        ("room_join", "one", "200"),
        ("room_join", "two", "200"),
        ("room_leave", "one", "200"),
        ("room_join", "three", "200"),
        ("room_leave", "nowhere", "200"),
        ("room_join", "", "400"),
        ("room_join", "a,b", "400"),
    ] {
        let reply = client.ask(key, json!({"room": room})).await;
        assert_eq!(reply["code"], code, "{key} {room}: {reply}");
    }
    let over = client.ask("room_join", json!({"room": "one too many"})).await;
    assert!(over["code"] != "200" && over["message"].is_string(), "{over}");
    let rooms = gateway.get("/rooms").await.data();
    let mut names: Vec<&str> = rooms["items"].as_array().unwrap().iter().map(|r| r["room"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["three", "two"], "an empty room is listed");
}

#[tokio::test]
async fn room_disappears_with_its_last_connection() {
    let gateway = Gateway::start();
    let (client, _) = gateway.connect_as(Claims::of("a").rooms(&["lobby"]), Form::YunquePb).await;
    assert_eq!(gateway.get("/rooms").await.data()["items"][0]["room"], "lobby");
    client.close().await;
    let data = gateway.post("/send/room", json!({"message": {"action": "chat"}, "room": "lobby"})).await.data();
    assert_eq!(data["delivered"], 0, "{data}");
    assert_eq!(gateway.get("/rooms").await.data()["items"], json!([]));
}

#[tokio::test]
async fn clients_talk_to_users_and_to_rooms_they_are_in() {
    let gateway = Gateway::start();
    let mut a = gateway.connect("a", Form::YunqueJson).await;
    let mut b = gateway.connect("b", Form::CimPb).await;
    let reply = a.ask("message", json!({"to": "user:b", "action": "chat", "content": "hi", "sender": "root"})).await;
    assert_eq!((&reply["code"], &reply["data"]["delivered"]), (&json!("200"), &json!("1")), "{reply}");
    let message = b.message().await;
    assert_eq!(
        (&message["content"], &message["sender"]),
        (&json!("hi"), &json!("a")),
        "the sender is not the token's user"
    );
    assert_eq!(message["id"].to_string(), reply["data"]["id"].as_str().unwrap());

    let outside = a.ask("message", json!({"to": "room:lobby", "content": "hi"})).await;
    assert_eq!(outside["code"], "403", "{outside}");
    for client in [&mut a, &mut b] {
        assert_eq!(client.ask("room_join", json!({"room": "lobby"})).await["code"], "200");
    }
    let inside = a.ask("message", json!({"to": "room:lobby", "content": "hi all"})).await;
    assert_eq!((&inside["code"], &inside["data"]["delivered"]), (&json!("200"), &json!("1")), "{inside}");
    assert_eq!(b.message().await["content"], "hi all");
    assert_eq!(a.drain().await.len(), 0, "the publisher's own connection got a copy");

    let nobody = a.ask("message", json!({"to": "user:gone", "content": "hi"})).await;
    assert_eq!((&nobody["code"], &nobody["data"]["offline"]), (&json!("200"), &json!("gone")), "{nobody}");
    for bad in [
        json!({"content": "hi"}),
        json!({"to": "everyone"}),
        json!({"to": "user:"}),
        json!({"to": "user:b", "id": "x"}),
    ] {
        assert_eq!(a.ask("message", bad.clone()).await["code"], "400", "{bad}");
    }
    assert_eq!(
        a.ask("message", json!({"to": "user:b", "action": "999"})).await["code"],
        "403",
        "a client sent the reserved action 999"
    );
}

#[tokio::test]
async fn publishing_is_off_unless_it_is_switched_on() {
    let gateway = Setup::default().yaml("clients:\n  publish: false").start();
    let mut a = gateway.connect("a", Form::YunquePb).await;
    let mut b = gateway.connect("b", Form::YunquePb).await;
    assert_eq!(a.ask("message", json!({"to": "user:b", "content": "hi"})).await["code"], "403");
    assert_eq!(b.drain().await.len(), 0);
}

#[tokio::test]
async fn a_tag_is_set_shown_and_removed() {
    let gateway = Gateway::start();
    let mut client = gateway.connect("a", Form::CimJson).await;
    assert_eq!(client.ask("client_set_tag", json!({"tag": "blue"})).await["code"], "200");
    assert_eq!(gateway.get("/connections").await.data()["items"][0]["tag"], "blue");
    assert_eq!(client.ask("client_remove_tag", json!({})).await["code"], "200");
    assert_eq!(gateway.get("/connections").await.data()["items"][0].get("tag"), None);
}

#[tokio::test]
async fn a_room_that_is_not_open_is_for_tokens_that_name_it() {
    let gateway = Setup::default().yaml("clients:\n  publish: true\n  open_rooms: [lobby]").start();
    let claims = |uid: &str| Claims::of(uid).with("join", json!(["news:*", "board"]));
    let (mut reader, _) = gateway.connect_as(claims("a"), Form::YunqueJson).await;
    for (room, code) in [("lobby", "200"), ("news:1", "200"), ("board", "200"), ("board2", "403"), ("new", "403")] {
        let reply = reader.ask("room_join", json!({"room": room})).await;
        assert_eq!(reply["code"], code, "{room}: {reply}");
    }
    // Fields that a client sends are not claims.
    let mut other = gateway.connect("b", Form::YunqueJson).await;
    other.ask("client_bind", json!({"deviceName": "x", "join": "*", "claims": {"join": "*"}})).await;
    let refused = other.ask("room_join", json!({"room": "news:1", "join": "*"})).await;
    assert_eq!(
        (&refused["code"], &refused["message"]),
        (&json!("403"), &json!("room: news:1 is not open to this client"))
    );
    assert_eq!(other.ask("message", json!({"to": "room:news:1", "content": "hi"})).await["code"], "403");
    let row = gateway.get("/connections?uid=b").await.data()["items"][0].clone();
    assert_eq!((&row["facts"], &row["claims"]), (&json!({"deviceName": "x"}), &json!({})), "{row}");
    let row = gateway.get("/connections?uid=a").await.data()["items"][0].clone();
    assert_eq!(row["claims"], json!({"join": "news:*,board"}), "{row}");

    // A refresh brings new claims; rooms joined by the API need no claim.
    let token = Claims::of("a").with("join", json!("board2")).mint();
    assert_eq!(reader.ask("client_refresh", json!({"token": token})).await["code"], "200");
    assert_eq!(reader.ask("room_join", json!({"room": "news:2"})).await["code"], "403");
    assert_eq!(reader.ask("room_join", json!({"room": "board2"})).await["code"], "200");
    let joined = gateway.post("/room/join", json!({"room": "news:1", "uid": "b"})).await.data();
    assert_eq!(joined["joined"], 1, "{joined}");
}

#[tokio::test]
async fn no_room_is_open_by_default_and_the_start_says_so() {
    let gateway = Setup::default().no_plugins().plugin("fault-auth").yaml("clients:\n  publish: false").start();
    let warning = "no room is open and no access plugin is live";
    gateway.said(warning).await;
    let checked = || {
        let output = gateway.folder.command("check").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(checked().contains(&format!("warning: clients.open_rooms: {warning}")), "{}", checked());
    let text = std::fs::read_to_string(gateway.folder.config()).unwrap();
    std::fs::write(gateway.folder.config(), text.replace("publish: false", "open_rooms: [lobby]")).unwrap();
    assert!(!checked().contains(warning), "{}", checked());
    let form = Form::YunqueJson;
    let dial = Dial::path("/ws?token=a").subprotocol(form.subprotocol());
    let mut client = Client::dial(gateway.address("ws"), form, dial).await.unwrap();
    assert_eq!(client.reply().await["key"], "client_bind");
    assert_eq!(client.ask("room_join", json!({"room": "lobby"})).await["code"], "403");
    gateway.signal(Signal::HUP);
    while client.ask("room_join", json!({"room": "lobby"})).await["code"] == "403" {}
    assert_eq!(client.ask("room_join", json!({"room": "other"})).await["code"], "403");
}
