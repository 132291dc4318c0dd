//! The sample `qr-login`: a desktop shows a code, a phone confirms it, and the desktop binds with the token it
//! receives.

use std::cell::Cell;

use serde_json::{Value, json};

use crate::support::brokers::redis::Redis;
use crate::support::client::Client;
use crate::support::gateway::cluster::Cluster;
use crate::support::gateway::{Gateway, Setup};
use crate::support::wire::Form;

fn setup() -> Setup {
    Setup::default().plugin("qr-login")
}

async fn shown(desk: &mut Client) -> Value {
    let answer = desk.ask("login_request", json!({})).await;
    assert_eq!(answer["code"], "200", "{answer}");
    answer["data"]["code"].clone()
}

async fn confirm(phone: &mut Client, code: &Value) -> Value {
    phone.ask("login_confirm", json!({"code": code})).await
}

/// Two phones read each code and confirm at the same time.
async fn one_of_two_confirms(desk: &mut Client, one: &mut Client, other: &mut Client) {
    for _ in 0..20 {
        let code = shown(desk).await;
        let (first, second) = tokio::join!(confirm(one, &code), confirm(other, &code));
        let mut codes = [first["code"].as_str().unwrap(), second["code"].as_str().unwrap()];
        codes.sort_unstable();
        assert_eq!(codes, ["200", "404"], "{first} {second}");
        assert_eq!(desk.message().await["action"], "login");
    }
}

/// Reads the message with the token, and binds the desktop with it.
async fn binds(desk: &mut Client, device: &str) -> Value {
    let message = desk.message().await;
    assert_eq!((&message["action"], &message["sender"]), (&json!("login"), &json!("1074")), "{message}");
    // cim's layout carries a map as JSON text.
    let content = match &message["content"] {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        content => content.clone(),
    };
    let bind = json!({"token": content["token"], "deviceId": device, "channel": "web"});
    let bound = desk.ask("client_bind", bind).await;
    assert_eq!(bound["data"]["expires"].as_str().unwrap(), plus_leeway(&content["expires"]), "{bound}");
    bound
}

/// The time at which token-auth closes its connections: the expiry plus a leeway of 5 s.
fn plus_leeway(expires: &Value) -> String {
    (expires.as_str().unwrap().parse::<u64>().unwrap() + 5).to_string()
}

#[tokio::test]
async fn desk_is_bound_after_the_phone_confirms_its_code() {
    let gateway = setup().start();
    let mut phone = gateway.connect("1074", Form::YunquePb).await;
    for form in [Form::CimJson, Form::CimPb, Form::CimTcp] {
        let mut desk = gateway.dial_cim(form).await;
        let early = confirm(&mut desk, &json!("b-0")).await;
        assert_eq!(early["code"], "401", "an unbound client confirmed a code: {early}");
        let code = shown(&mut desk).await;
        assert_eq!(confirm(&mut phone, &code).await["code"], "200");
        let bound = binds(&mut desk, "desk").await;
        assert_eq!((&bound["code"], &bound["data"]["uid"]), (&json!("200"), &json!("1074")), "{bound}");

        let said = phone.ask("message", json!({"to": "user:1074", "content": "are you there?"})).await;
        assert_eq!((&said["code"], &desk.message().await["sender"]), (&json!("200"), &json!("1074")), "{said}");
        assert_eq!(confirm(&mut phone, &code).await["code"], "404", "a used code was accepted again");
        let again = desk.ask("login_request", json!({})).await;
        assert_eq!(again["code"], "409", "{again}");
    }
}

#[tokio::test]
async fn second_of_two_concurrent_confirmations_gets_404() {
    let gateway = setup().start();
    let mut desk = gateway.dial_cim(Form::CimJson).await;
    let (mut one, mut other) =
        (gateway.connect("1074", Form::YunqueJson).await, gateway.connect("1074", Form::YunquePb).await);
    one_of_two_confirms(&mut desk, &mut one, &mut other).await;
}

#[tokio::test]
async fn desk_that_asks_for_its_status_stays_connected() {
    let gateway =
        setup().yaml("limits: {unbound: 4s, unbound_max: 16s, connections_per_ip: 0, connects_per_ip: 0}").start();
    let (mut desk, mut silent) = (gateway.dial_cim(Form::CimJson).await, gateway.dial_cim(Form::CimJson).await);
    let code = shown(&mut desk).await;
    let refused = silent.ask("login_status", json!({})).await;
    assert_eq!(refused["code"], "404", "a client without a code got another answer: {refused}");
    let over = Cell::new(false);
    let closing = async {
        assert_eq!(silent.close_code().await, 4001);
        over.set(true);
    };
    let asking = async {
        while !over.get() {
            assert_eq!(desk.ask("login_status", json!({})).await["code"], "200");
        }
        desk.ask("login_status", json!({})).await
    };
    let ((), last) = tokio::join!(closing, asking);
    assert_eq!(last["code"], "200", "{last}");
    let mut phone = gateway.connect("1074", Form::YunqueJson).await;
    assert_eq!(confirm(&mut phone, &code).await["code"], "200");
    assert_eq!(binds(&mut desk, "desk").await["code"], "200");
}

#[tokio::test]
async fn a_reload_forgets_no_code() {
    let gateway: Gateway = setup().start();
    let mut desk = gateway.dial_cim(Form::CimJson).await;
    let code = shown(&mut desk).await;
    let manifest = std::fs::read_to_string(gateway.folder.plugins().join("qr-login.toml")).unwrap();
    gateway.folder.put("qr-login.toml", manifest.replace("session = 86400", "session = 600").as_bytes());
    gateway.plugin_until("qr-login", |plugin| plugin["version"] == 2).await;
    let mut phone = gateway.connect("1074", Form::YunqueJson).await;
    assert_eq!(confirm(&mut phone, &code).await["code"], "200");
    assert_eq!(binds(&mut desk, "desk").await["code"], "200");
}

/// The code is in Redis, the message with the token crosses the bus, and the token is valid on either node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phone_on_another_node_confirms_a_code() {
    let redis = Redis::start();
    let cluster = Cluster::with(2, |_| setup().yaml(&redis.bus())).await;
    let (here, there) = (cluster.node(0), cluster.node(1));
    let mut phone = there.connect("1074", Form::YunquePb).await;
    for form in [Form::CimJson, Form::CimPb, Form::CimTcp] {
        let mut desk = here.dial_cim(form).await;
        let code = shown(&mut desk).await;
        let wrong = confirm(&mut phone, &json!(format!("{}0", code.as_str().unwrap()))).await;
        assert_eq!(wrong["code"], "404", "{wrong}");
        assert_eq!(desk.ask("login_status", json!({})).await["code"], "200", "the wrong code ended the login");
        assert_eq!(confirm(&mut phone, &code).await["code"], "200", "{form:?}");
        let bound = binds(&mut desk, "desk").await;
        assert_eq!((&bound["data"]["uid"], &bound["data"]["sid"]), (&json!("1074"), &json!("n1")), "{bound}");
        assert_eq!(confirm(&mut phone, &code).await["code"], "404", "a used code was accepted again");

        let said = phone.ask("message", json!({"to": "user:1074", "content": "are you there?"})).await;
        assert_eq!((&said["code"], &desk.message().await["sender"]), (&json!("200"), &json!("1074")), "{said}");
        desk.close().await;
    }

    let mut desk = here.dial_cim(Form::CimJson).await;
    let code = shown(&mut desk).await;
    assert_eq!(confirm(&mut phone, &code).await["code"], "200");
    let content: Value = serde_json::from_str(desk.message().await["content"].as_str().unwrap()).unwrap();
    let mut elsewhere = there.dial_cim(Form::CimTcp).await;
    let bound = elsewhere.ask("client_bind", json!({"token": content["token"], "channel": "web"})).await;
    assert_eq!((&bound["code"], &bound["data"]["sid"]), (&json!("200"), &json!("n2")), "{bound}");
}

/// The store shared by all nodes lets only one of two commits succeed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_confirmation_on_another_node_gets_404() {
    let redis = Redis::start();
    let cluster = Cluster::with(2, |_| setup().yaml(&redis.bus())).await;
    let mut desk = cluster.node(0).dial_cim(Form::CimJson).await;
    let mut one = cluster.node(0).connect("1074", Form::YunqueJson).await;
    let mut other = cluster.node(1).connect("1074", Form::YunquePb).await;
    one_of_two_confirms(&mut desk, &mut one, &mut other).await;
}
