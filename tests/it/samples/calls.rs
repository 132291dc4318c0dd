//! The `video-call` sample from end to end: two users with two dialects and one call.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::token::Claims;
use crate::support::wire::Form;

const SECRET: &str = "a secret that the media server knows too";

fn start(ring: u32) -> Gateway {
    let manifest = format!(
        "grants = [\"directory\", \"outbox\", \"timers\", \"kv\"]\n[settings]\naddress = \"wss://media.example/{{call}}?sig={{hmac}}\"\n\
         secret = \"{SECRET}\"\nring = {ring}\n"
    );
    Setup::default().plugin("video-call").manifest("video-call", &manifest).start()
}

/// The content of a push in either dialect.
fn content(message: &Value) -> Value {
    match &message["content"] {
        Value::String(text) => serde_json::from_str(text).expect("the string holds a JSON object"),
        map => map.clone(),
    }
}

async fn invite(caller: &mut Client, callee: &str) -> Value {
    caller.ask("call_invite", json!({"callee": callee})).await
}

#[tokio::test]
async fn invite_accept_and_both_have_the_same_new_address() {
    let gateway = start(60);
    let mut caller = gateway.connect("1074", Form::YunquePb).await;
    let mut callee = gateway.connect("1078", Form::CimJson).await;
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let ringing = invite(&mut caller, "1078").await;
        assert_eq!((&ringing["code"], &ringing["data"]["state"]), (&json!("200"), &json!("ringing")), "{ringing}");
        let call = ringing["data"]["call"].as_str().unwrap().to_owned();

        let rings = callee.message().await;
        assert_eq!((&rings["action"], &rings["sender"]), (&json!("901"), &json!("1074")), "{rings}");
        assert_eq!((&content(&rings)["call"], &content(&rings)["caller"]), (&json!(call), &json!("1074")), "{rings}");

        let accepted = callee.ask("call_accept", json!({"call": call})).await;
        assert_eq!(accepted["code"], "200", "{accepted}");
        let told = caller.message().await;
        assert_eq!((&told["action"], &told["sender"]), (&json!("902"), &json!("1078")), "{told}");
        let address = accepted["data"]["address"].as_str().unwrap().to_owned();
        assert_eq!(content(&told)["address"], address, "caller and callee have different addresses");
        assert_eq!(address, format!("wss://media.example/{call}?sig={}", signature(&call)));

        let ended = caller.ask("call_hangup", json!({"call": call})).await;
        assert_eq!((&ended["code"], &ended["data"]["state"]), (&json!("200"), &json!("ended")), "{ended}");
        assert_eq!(callee.message().await["action"], "905");
        addresses.push(address);
    }
    assert_ne!(addresses[0], addresses[1], "two calls have the same address");
}

fn signature(call: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("address,{call}").as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn reject_busy_and_cancel_reach_the_other_side() {
    let gateway = start(60);
    let mut a = gateway.connect("a", Form::CimTcp).await;
    let mut b = gateway.connect("b", Form::YunqueJson).await;
    for (by_callee, key, data, action) in [
        (true, "call_reject", json!({}), "903"),
        (true, "call_reject", json!({"reason": "busy"}), "904"),
        (false, "call_cancel", json!({}), "906"),
    ] {
        let call = invite(&mut a, "b").await["data"]["call"].clone();
        assert_eq!(b.message().await["action"], "901");
        let mut data = data;
        data["call"] = call.clone();
        let (actor, other) = if by_callee { (&mut b, &mut a) } else { (&mut a, &mut b) };
        assert_eq!(actor.ask(key, data.clone()).await["code"], "200", "{key}");
        let told = other.message().await;
        assert_eq!((&told["action"], &content(&told)["call"]), (&json!(action), &call), "{key}");
        let late = b.ask("call_accept", json!({"call": call})).await;
        assert_eq!(late["code"], "408", "{key}: {late}");
    }
}

#[tokio::test]
async fn unauthorized_call_request_is_refused_with_its_code() {
    let gateway = start(60);
    let mut a = gateway.connect("a", Form::YunquePb).await;
    let mut b = gateway.connect("b", Form::YunquePb).await;
    let mut c = gateway.connect("c", Form::YunquePb).await;
    assert_eq!(invite(&mut a, "nobody").await["code"], "404");
    assert_eq!(a.ask("call_invite", json!({})).await["code"], "400");
    let call = invite(&mut a, "b").await["data"]["call"].clone();
    let busy = invite(&mut c, "b").await;
    assert_eq!(busy["code"], "409", "{busy}");
    for key in ["call_accept", "call_reject", "call_cancel", "call_hangup"] {
        let reply = c.ask(key, json!({"call": call})).await;
        assert_eq!(reply["code"], "403", "{key} of a third user was not refused: {reply}");
    }
    assert_eq!(a.ask("call_accept", json!({"call": call})).await["code"], "403", "the caller accepted its own call");
    assert_eq!(b.ask("call_cancel", json!({"call": call})).await["code"], "403", "the callee cancelled the call");
    assert_eq!(b.message().await["action"], "901");
    assert_eq!(c.drain().await.len(), 0);
    let mut stranger = gateway.dial_cim(Form::CimPb).await;
    assert_eq!(stranger.ask("call_invite", json!({"callee": "a"})).await["code"], "401");
}

#[tokio::test]
async fn answer_after_the_time_to_live_is_408() {
    let gateway = start(1);
    let mut a = gateway.connect("a", Form::YunquePb).await;
    let mut b = gateway.connect("b", Form::YunquePb).await;
    let call = invite(&mut a, "b").await["data"]["call"].clone();
    assert_eq!(b.message().await["action"], "901");
    // b is busy while the call rings; the test waits for the end of the ringing.
    let mut c = gateway.connect("c", Form::YunquePb).await;
    let free = async { while invite(&mut c, "b").await["code"] == "409" {} };
    crate::support::client::within("the end of the ringing", free).await;
    let late = b.ask("call_accept", json!({"call": call})).await;
    assert_eq!(late["code"], "408", "{late}");
}

#[tokio::test]
async fn an_invitation_that_nobody_answers_ends_for_both() {
    let gateway = start(1);
    let mut a = gateway.connect("a", Form::YunqueJson).await;
    let mut b = gateway.connect("b", Form::CimPb).await;
    let call = invite(&mut a, "b").await["data"]["call"].clone();
    assert_eq!(b.message().await["action"], "901");
    for client in [&mut a, &mut b] {
        let told = client.message().await;
        assert_eq!((&told["action"], &content(&told)["reason"]), (&json!("906"), &json!("timeout")), "{told}");
        assert_eq!(content(&told)["call"], call);
    }
    assert_eq!(b.ask("call_accept", json!({"call": call})).await["code"], "408");
}

#[tokio::test]
async fn two_who_call_each_other_at_once_end_with_one_call() {
    let gateway = start(60);
    let mut a = gateway.connect("a", Form::YunquePb).await;
    let mut b = gateway.connect("b", Form::CimPb).await;
    for round in 0..10 {
        let (by_a, by_b) = tokio::join!(invite(&mut a, "b"), invite(&mut b, "a"));
        assert_eq!((&by_a["code"], &by_b["code"]), (&json!("200"), &json!("200")), "{round}: {by_a} {by_b}");
        assert_eq!(by_a["data"]["call"], by_b["data"]["call"], "round {round}: two calls were created");
        let states = [&by_a["data"]["state"], &by_b["data"]["state"]];
        assert!(states.contains(&&json!("accepted")) && states.contains(&&json!("ringing")), "{states:?}");
        assert_eq!(a.ask("call_hangup", json!({"call": by_a["data"]["call"]})).await["code"], "200");
        a.drain().await;
        b.drain().await;
    }
}

#[tokio::test]
async fn answer_stops_the_ringing_of_other_devices() {
    let gateway = start(60);
    let mut a = gateway.connect("a", Form::YunqueJson).await;
    let mut phone = gateway.connect_as(Claims::of("b").device("phone"), Form::YunquePb).await.0;
    let mut desk = gateway.connect_as(Claims::of("b").device("desk"), Form::YunqueJson).await.0;
    let call = invite(&mut a, "b").await["data"]["call"].clone();
    assert_eq!(
        (phone.message().await["action"].clone(), desk.message().await["action"].clone()),
        (json!("901"), json!("901"))
    );
    assert_eq!(phone.ask("call_accept", json!({"call": call})).await["code"], "200");
    let told = desk.message().await;
    assert_eq!((&told["action"], &content(&told)["elsewhere"]), (&json!("902"), &json!("true")), "{told}");
    assert_eq!(content(&told).get("address"), None);
    assert_eq!(a.drain().await.len(), 1, "the other side was not notified once");
    assert_eq!(desk.ask("call_accept", json!({"call": call})).await["code"], "409");
}
