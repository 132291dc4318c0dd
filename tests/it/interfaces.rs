//! What plugins may use, from end to end: the test guest `probe` calls it as its client says.

use serde_json::json;

use crate::support::gateway::{Gateway, Setup};
use crate::support::wire::Form;

const GRANTS: &str = "grants = [\"directory\", \"login\", \"kv\", \"counters\"]";

fn start() -> Gateway {
    Setup::default().plugin("probe").manifest("probe", GRANTS).start()
}

#[tokio::test]
async fn a_phone_lets_the_connection_in_that_waits() {
    let gateway = start();
    let mut desk = gateway.dial_cim(Form::CimJson).await;
    let mut phone = gateway.connect("1074", Form::YunquePb).await;
    let waiting = desk.ask("probe_me", json!({})).await;
    assert_eq!((&waiting["code"], &waiting["data"]["uid"]), (&json!("200"), &json!("")), "{waiting}");
    let cid = waiting["data"]["value"].clone();
    let login = json!({"cid": cid, "uid": "1074", "device": "desk", "channel": "web", "room": "lobby"});
    assert_eq!(phone.ask("probe_login", login).await["code"], "200");

    let told = desk.reply().await;
    assert_eq!(
        (&told["key"], &told["code"], &told["data"]["uid"]),
        (&json!("client_bind"), &json!("200"), &json!("1074"))
    );
    assert_eq!(told["data"]["cid"], cid);
    assert_eq!(desk.ask("probe_me", json!({})).await["data"]["uid"], "1074");
    let known = phone.ask("probe_directory", json!({"uid": "1074"})).await;
    assert_eq!((&known["data"]["devices"], &known["data"]["rooms"]), (&json!("desk"), &json!("lobby")), "{known}");

    // It speaks as that user, in that room, and is reached as that user.
    let said = desk.ask("message", json!({"to": "room:lobby", "content": "hi"})).await;
    assert_eq!(said["code"], "200", "{said}");
    let pushed = phone.ask("message", json!({"to": "user:1074", "content": "to myself"})).await;
    assert_eq!(pushed["data"]["delivered"], "1", "{pushed}");
    let message = desk.message().await;
    assert_eq!(message["sender"], "1074", "{message}");

    // The next one that is let in with a device of that kind takes its place.
    let mut other = gateway.dial_cim(Form::CimPb).await;
    let cid = other.ask("probe_me", json!({})).await["data"]["value"].clone();
    let login = json!({"cid": cid, "uid": "1074", "device": "laptop", "channel": "mac"});
    assert_eq!(phone.ask("probe_login", login).await["code"], "200");
    assert_eq!(desk.message().await["action"], "999");
    assert_eq!(desk.close_code().await, 4502);
    assert_eq!(other.reply().await["key"], "client_bind");
}

#[tokio::test]
async fn a_guest_signs_in_and_leaves_what_was_the_guests() {
    let gateway = start();
    let mut guest = gateway.connect("guest-1", Form::YunqueJson).await;
    guest.ask("room_join", json!({"room": "visitors"})).await;
    let cid = guest.ask("probe_me", json!({})).await["data"]["value"].clone();
    guest.sent("probe_login", json!({"cid": cid, "uid": "1074", "room": "members"})).await;
    let (first, second) = (guest.reply().await, guest.reply().await);
    assert_eq!((&first["key"], &second["key"]), (&json!("client_bind"), &json!("probe_login")), "{first} {second}");
    let nobody = guest.ask("probe_directory", json!({"uid": "guest-1"})).await;
    assert_eq!(nobody["data"]["rooms"], "", "{nobody}");
    let member = guest.ask("probe_directory", json!({"uid": "1074"})).await;
    assert_eq!(member["data"]["rooms"], "members", "{member}");
    let refused = guest.ask("message", json!({"to": "room:visitors", "content": "hi"})).await;
    assert_eq!(refused["code"], "403", "{refused}");
    let gone = guest.ask("probe_login", json!({"cid": "4503599627370496", "uid": "1"})).await;
    assert!(gone["message"].as_str().unwrap().contains("Gone"), "{gone}");
}
