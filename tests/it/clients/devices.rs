//! Several devices of one user: the exclusions between them, and the notice to the replaced device.

use serde_json::{Value, json};

use crate::support::client::{Client, Seen};
use crate::support::gateway::Gateway;
use crate::support::token::Claims;
use crate::support::wire::{Form, Frame};

async fn cim(gateway: &Gateway, form: Form, channel: &str, device: &str) -> Client {
    let mut client = gateway.dial_cim(form).await;
    let token = Claims::of("u").mint();
    let data =
        json!({"token": token, "channel": channel, "deviceId": device, "deviceName": format!("{channel} {device}")});
    let reply = client.ask("client_bind", data).await;
    assert_eq!(reply["code"], "200", "{reply}");
    client
}

/// True if the connection still works.
async fn lives(client: &mut Client) -> bool {
    client.sent("no_such_key", json!({})).await;
    loop {
        match client.next().await {
            Seen::Frame(Frame::Reply(_)) => return true,
            Seen::Frame(_) => {}
            Seen::Closed(_) => return false,
        }
    }
}

#[tokio::test]
async fn second_phone_or_desk_replaces_the_first() {
    let gateway = Gateway::start();
    for (first, second, stays) in [
        ("android", "ios", false),
        ("ios", "android", false),
        ("windows", "web", false),
        ("mac", "windows", false),
        ("android", "web", true),
        ("ios", "mac", true),
    ] {
        let mut loser = cim(&gateway, Form::CimPb, first, "one").await;
        let mut winner = cim(&gateway, Form::CimJson, second, "two").await;
        if stays {
            assert!(lives(&mut loser).await, "{second} replaced {first}");
        } else {
            let told = loser.message().await;
            let expected = (&json!("999"), &json!("0"), &json!(format!("{second} two")));
            assert_eq!((&told["action"], &told["sender"], &told["content"]), expected, "{told}");
            assert_eq!(loser.closed().await, Some((4502, "replaced by another device".into())));
        }
        assert!(lives(&mut winner).await, "{second} did not survive after {first}");
        winner.close().await;
        if stays {
            loser.close().await;
        }
    }
}

#[tokio::test]
async fn same_device_is_replaced_without_a_notice_except_tabs() {
    let gateway = Gateway::start();
    let mut old = cim(&gateway, Form::CimTcp, "android", "same").await;
    let mut new = cim(&gateway, Form::CimTcp, "android", "same").await;
    match old.next().await {
        Seen::Closed(_) => {}
        Seen::Frame(frame) => panic!("a silent replacement sent {frame:?}"),
    }
    assert!(lives(&mut new).await);
    let mut tabs = Vec::new();
    for _ in 0..3 {
        tabs.push(cim(&gateway, Form::CimPb, "web", "browser").await);
    }
    for tab in &mut tabs {
        assert!(lives(tab).await, "a tab of the same browser was replaced");
    }
}

#[tokio::test]
async fn yunque_listeners_allow_all() {
    let gateway = Gateway::start();
    let mut clients = Vec::new();
    for device in ["one", "two", "two"] {
        let mut client = gateway.connect_as(Claims::of("u").device(device), Form::YunqueJson).await.0;
        assert_eq!(client.ask("client_bind", json!({"channel": "android"})).await["code"], "200");
        clients.push(client);
    }
    for client in &mut clients {
        assert!(lives(client).await);
        assert_eq!(client.drain().await, Vec::<Value>::new());
    }
    assert_eq!(gateway.get("/getOnlineUser?uid=u").await.data()["items"][0]["connections"], 3);
}
