//! The push API: the original's paths and bodies, the additional ones, and the response of each.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::gateway::{Gateway, Setup};
use crate::support::push_sample;
use crate::support::token::Claims;
use crate::support::wire::Form;

#[tokio::test]
async fn the_documents_body_works_on_every_path_of_the_original() {
    let gateway = Gateway::start();
    let mut user = gateway.connect("1074", Form::YunqueJson).await;
    let mut uid1 = gateway.connect("uid1", Form::YunquePb).await;
    let sample = push_sample();
    let mut http = gateway.http().await;
    for (path, body, to_user, to_uid1) in [
        ("/send", sample.clone(), 1, 0),
        ("/send/all", sample.clone(), 1, 1),
        ("/send/sendList", json!([sample]), 1, 0),
        ("/send/toUids", json!({"message": sample, "uids": ["uid1", "uid2"]}), 0, 1),
    ] {
        let answer = http.post(path, &body).await;
        assert_eq!((answer.status, answer.json()["code"].as_i64()), (200, Some(200)), "{path}: {}", answer.body);
        assert_eq!(user.drain().await.len(), to_user, "{path}");
        assert_eq!(uid1.drain().await.len(), to_uid1, "{path}");
    }
}

#[tokio::test]
async fn push_to_an_offline_user_succeeds_and_lists_it() {
    let gateway = Gateway::start();
    let _here = gateway.connect("here", Form::YunquePb).await;
    let data = gateway.post("/send", push_sample()).await.data();
    assert_eq!((&data["delivered"], &data["offline"]), (&json!(0), &json!(["1074"])), "{data}");
    let body = json!({"message": {"action": "chat"}, "uids": ["here", "gone", "here"]});
    let data = gateway.post("/send/toUids", body).await.data();
    assert_eq!(
        (&data["delivered"], &data["offline"]),
        (&json!(1), &json!(["gone"])),
        "a user named twice did not get one copy: {data}"
    );
}

#[tokio::test]
async fn users_may_be_numbers_as_php_sends_them() {
    let gateway = Gateway::start();
    let mut user = gateway.connect("1074", Form::YunquePb).await;
    let mut http = gateway.http().await;
    for (path, body) in [
        ("/send", json!({"receiver": 1074, "sender": 1078, "action": "chat"})),
        ("/send/toUids", json!({"message": {"action": "chat"}, "uids": [1074]})),
        ("/send/sendList", json!([{"receiver": 1074, "action": "chat", "id": "12"}])),
    ] {
        http.post(path, &body).await.data();
        assert_eq!(user.drain().await.len(), 1, "{path}");
    }
}

#[tokio::test]
async fn values_of_content_are_delivered_as_text() {
    let gateway = Gateway::start();
    let mut user = gateway.connect("1074", Form::YunqueJson).await;
    let content = json!({"n": 1, "f": 1.5, "b": true, "o": {"a": [1, 2]}, "none": null, "text": "t"});
    let body = json!({"receiver": "1074", "action": "chat", "content": content, "unknown key": {"ignored": true}});
    gateway.post("/send", body).await.data();
    let seen = user.message().await["content"].clone();
    assert_eq!(seen, json!({"n": "1", "f": "1.5", "b": "true", "o": "{\"a\":[1,2]}", "text": "t"}));
}

#[tokio::test]
async fn each_push_path_reaches_only_its_target() {
    let gateway = Gateway::start();
    let (mut phone, bind) = gateway.connect_as(Claims::of("a").device("phone").rooms(&["lobby"]), Form::YunquePb).await;
    let mut desk = gateway.connect_as(Claims::of("a").device("desk"), Form::YunqueJson).await.0;
    let mut other = gateway.connect_as(Claims::of("b").rooms(&["lobby"]), Form::CimPb).await.0;
    let cid = &bind["data"]["cid"];
    let number: u64 = cid.as_str().unwrap().parse().unwrap();
    let message = json!({"action": "chat"});
    let mut http = gateway.http().await;
    for (path, body, counts) in [
        ("/send/room", json!({"message": message, "room": "lobby"}), [1, 0, 1]),
        ("/send/device", json!({"message": message, "uid": "a", "device": "desk"}), [0, 1, 0]),
        ("/send/connection", json!({"message": message, "cid": cid}), [1, 0, 0]),
        ("/send/connection", json!({"message": message, "cid": number}), [1, 0, 0]),
        ("/send/other", json!({"message": message, "uids": ["b"]}), [1, 1, 0]),
        ("/send/other", json!({"message": message, "uids": ["a"]}), [0, 0, 1]),
        ("/send/room", json!({"message": message, "room": "empty"}), [0, 0, 0]),
    ] {
        let data = http.post(path, &body).await.data();
        let seen = [phone.drain().await.len(), desk.drain().await.len(), other.drain().await.len()];
        assert_eq!(seen, counts, "{path} {body}");
        assert_eq!(data["delivered"], counts.iter().sum::<usize>(), "{path} {body}: {data}");
    }
}

#[tokio::test]
async fn the_back_end_moves_users_in_and_out_of_rooms() {
    let gateway = Gateway::start();
    let (mut a, bind) = gateway.connect_as(Claims::of("a"), Form::YunquePb).await;
    let mut b = gateway.connect("b", Form::YunquePb).await;
    let cid = bind["data"]["cid"].clone();
    let mut http = gateway.http().await;
    let push = json!({"message": {"action": "chat"}, "room": "lobby"});
    for (path, body, counts) in [
        ("/room/join", json!({"room": "lobby", "uid": "a"}), [1, 0]),
        ("/room/join", json!({"room": "lobby", "uids": ["a", "b"]}), [1, 1]),
        ("/room/leave", json!({"room": "lobby", "cid": cid}), [0, 1]),
        ("/room/join", json!({"room": "lobby", "cid": cid}), [1, 1]),
        ("/room/leave", json!({"room": "lobby", "uids": ["a", "b", "gone"]}), [0, 0]),
    ] {
        http.post(path, &body).await.data();
        http.post("/send/room", &push).await.data();
        assert_eq!([a.drain().await.len(), b.drain().await.len()], counts, "{path} {body}");
        let rooms = http.get("/rooms").await.data()["items"].clone();
        let size = rooms
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["room"] == "lobby")
            .map_or(0, |r| r["connections"].as_u64().unwrap());
        assert_eq!(size, counts.iter().sum::<usize>() as u64, "{rooms}");
    }
}

#[tokio::test]
async fn online_users_are_counted_filtered_and_paged() {
    let gateway = Gateway::start();
    let mut clients = Vec::new();
    for n in 0..7 {
        clients.push(gateway.connect_as(Claims::of(&format!("u{n}")).device("d"), Form::YunquePb).await.0);
    }
    clients.push(gateway.connect_as(Claims::of("u0").device("second"), Form::YunqueJson).await.0);
    let mut http = gateway.http().await;
    let all = http.get("/getOnlineUser").await.data();
    assert_eq!((&all["users"], &all["connections"]), (&json!(7), &json!(8)), "{all}");
    let uids = |data: &Value| -> Vec<String> {
        data["items"].as_array().unwrap().iter().map(|row| row["uid"].as_str().unwrap().to_owned()).collect()
    };
    let (mut seen, mut cursor) = (Vec::new(), None::<String>);
    for _ in 0..10 {
        let path =
            cursor.map_or_else(|| "/getOnlineUser?size=3".to_owned(), |c| format!("/getOnlineUser?size=3&cursor={c}"));
        let page = http.get(&path).await.data();
        assert!(page["items"].as_array().unwrap().len() <= 3, "{page}");
        seen.extend(uids(&page));
        cursor = page["cursor"].as_str().map(str::to_owned).or_else(|| page["next"].as_str().map(str::to_owned));
        if cursor.is_none() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, (0..7).map(|n| format!("u{n}")).collect::<Vec<_>>(), "the pages do not list each user once");
    let one = http.get("/getOnlineUser?uid=u0").await.data();
    assert_eq!(one["items"][0]["devices"].as_array().unwrap().len(), 2, "{one}");
    let second = http.get("/getOnlineUser?page=2&size=5").await.data();
    assert_eq!(uids(&second).len(), 2, "{second}");
}

#[tokio::test]
async fn the_node_tells_of_itself() {
    let gateway = Setup::default().plugin("word-filter").start();
    let mut http = gateway.http().await;
    for path in ["/health/live", "/health/ready", "/connections", "/rooms", "/plugins", "/nodes"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
    let nodes = http.get("/nodes").await.data();
    assert_eq!(nodes["items"][0]["id"], "n1", "{nodes}");
    let plugins = http.get("/plugins").await.data();
    let names: Vec<&str> = plugins["items"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["token-auth", "word-filter"], "{plugins}");
    gateway.post("/send", push_sample()).await.data();
    let metrics = http.get("/metrics").await;
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"), "{:?}", metrics.headers);
    assert!(metrics.body.lines().any(|l| l.starts_with("skylark_")), "{}", metrics.body);
    assert!(!metrics.body.contains("1074"), "a metric contains a user");
}

#[tokio::test]
async fn a_list_answers_for_each_of_its_items() {
    let gateway = Setup::default().plugin("word-filter").start();
    let mut user = gateway.connect("1074", Form::YunquePb).await;
    let body = json!([
        {"receiver": "1074", "action": "chat"},
        {"receiver": "gone", "action": "chat"},
    ]);
    let data = gateway.post("/send/sendList", body).await.data();
    let items = data["items"].as_array().expect("the answer has one result for each item");
    assert_eq!((&items[0]["delivered"], &items[1]["delivered"]), (&json!(1), &json!(0)), "{data}");
    assert_eq!(items[1]["offline"], json!(["gone"]), "{data}");
    assert_eq!(user.drain().await.len(), 1);
}

#[tokio::test]
async fn kick_sends_its_reason_and_closes() {
    let gateway = Setup::default().all_devices().start();
    let (mut first, bind) = gateway.connect_as(Claims::of("a").device("one"), Form::YunquePb).await;
    let mut second = gateway.connect_as(Claims::of("a").device("two"), Form::CimJson).await.0;
    let mut third = gateway.connect_as(Claims::of("a").device("three"), Form::CimTcp).await.0;
    let mut bystander = gateway.connect("b", Form::YunquePb).await;
    let mut http = gateway.http().await;
    for (client, body) in [
        (&mut first, json!({"cid": bind["data"]["cid"], "reason": "by cid"})),
        (&mut second, json!({"uid": "a", "device": "two", "reason": "by device"})),
        (&mut third, json!({"uid": "a", "reason": "by uid"})),
    ] {
        let data = http.post("/kick", &body).await.data();
        assert_eq!(data["closed"], 1, "{data}");
        let told = client.message().await;
        assert_eq!((&told["action"], &told["sender"]), (&json!("999"), &json!("0")), "{told}");
        let closed = client.closed().await;
        assert_eq!(closed.map(|(code, _)| code), (client.form != Form::CimTcp).then_some(4503));
    }
    assert_eq!(http.post("/kick", &json!({"uid": "a"})).await.data()["closed"], 0);
    assert_eq!(bystander.drain().await.len(), 0);
}

/// Some back ends write a request and disconnect at once; others stop sending and wait for the response.
#[tokio::test]
async fn push_of_client_that_disconnects_at_once_is_delivered() {
    let gateway = Setup::default().plugin("word-filter").start();
    let mut user = gateway.connect("1074", Form::YunquePb).await;
    let body = r#"{"receiver":"1074","action":"chat","content":{"text":"x"}}"#;
    let request = format!("POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for _ in 0..50 {
        let mut leaves = TcpStream::connect(gateway.address("api")).await.unwrap();
        leaves.write_all(request.as_bytes()).await.unwrap();
        drop(leaves);
        user.message().await;

        let mut waits = TcpStream::connect(gateway.address("api")).await.unwrap();
        waits.write_all(request.as_bytes()).await.unwrap();
        waits.shutdown().await.unwrap();
        let mut answer = String::new();
        waits.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        user.message().await;
    }
}
