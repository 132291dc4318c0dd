//! Pages, cursors, filters and counts; status pages of the node.

use super::*;
use crate::node::{PluginCommand, PluginState, Rejected, Status};

/// 1074 on two devices, 1075 on one, 1076 on one; 1074's phone and 1076 are in the lobby.
async fn crowd() -> Bench {
    let bench = Bench::new();
    bench.fake.connect("1074", "phone", "android", &["lobby", "attic"]).await;
    bench.fake.connect("1075", "tab", "web", &[]).await;
    bench.fake.connect("1074", "desk", "windows", &[]).await;
    bench.fake.connect("1076", "tab", "web", &["lobby"]).await;
    bench
}

fn uids(data: &Value) -> Vec<&str> {
    data["items"].as_array().unwrap().iter().map(|item| item["uid"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn users_are_listed_once_with_their_devices() {
    let data = crowd().await.get("/getOnlineUser").await.data();
    assert_eq!(uids(&data), ["1074", "1075", "1076"]);
    assert_eq!((&data["users"], &data["connections"]), (&3.into(), &4.into()));
    assert_eq!((&data["page"], &data["pages"], &data["size"]), (&1.into(), &1.into(), &100.into()));
    assert!(data.get("cursor").is_none());
    let devices = data["items"][0]["devices"].as_array().unwrap();
    assert_eq!(data["items"][0]["connections"], 2);
    assert_eq!(devices.iter().map(|d| d["device"].as_str().unwrap()).collect::<Vec<_>>(), ["phone", "desk"]);
    assert_eq!(devices[0]["rooms"], serde_json::json!(["attic", "lobby"]));
    assert_eq!(devices[0]["channel"], "android");
    assert!(devices[0]["since"].as_i64().unwrap() > 1_700_000_000_000);
}

#[tokio::test]
async fn pages_and_cursors_show_everyone_once() {
    let bench = crowd().await;
    for path in ["/getOnlineUser", "/connections"] {
        let all = bench.get(path).await.data();
        let whole = all["items"].as_array().unwrap().clone();
        let mut paged = Vec::new();
        for page in 1..=4 {
            let data = bench.get(&format!("{path}?size=1&page={page}")).await.data();
            assert_eq!(data["pages"], whole.len());
            paged.extend(data["items"].as_array().unwrap().clone());
        }
        assert_eq!(paged, whole, "{path} by page");

        let mut by_cursor = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let data = bench.get(&format!("{path}?size=1&cursor={cursor}")).await.data();
            assert_eq!((&data["users"], &data["connections"]), (&3.into(), &4.into()));
            by_cursor.extend(data["items"].as_array().unwrap().clone());
            let Some(next) = data.get("cursor") else { break };
            cursor = next.as_str().unwrap().to_owned();
        }
        assert_eq!(by_cursor, whole, "{path} by cursor");
    }
}

#[tokio::test]
async fn a_cursor_is_stable_while_others_come_and_go() {
    let bench = crowd().await;
    let first = bench.get("/connections?size=2").await.data();
    assert_eq!(uids(&first), ["1074", "1075"]);
    let gone = first["items"][0]["cid"].as_u64().unwrap();
    let connection = bench.fake.node.connection(gone).unwrap();
    bench.fake.node.detach(&connection).await;
    bench.fake.connect("1077", "new", "web", &[]).await;
    let rest = bench.get(&format!("/connections?size=9&cursor={}", first["cursor"].as_str().unwrap())).await.data();
    assert_eq!(uids(&rest), ["1074", "1076", "1077"]);
}

#[tokio::test]
async fn filters_narrow_both_items_and_counts() {
    let bench = crowd().await;
    for (query, users, connections) in [
        ("uid=1074", vec!["1074"], 2),
        ("room=lobby", vec!["1074", "1076"], 2),
        ("channel=web", vec!["1075", "1076"], 2),
        ("device=tab&room=lobby", vec!["1076"], 1),
        ("uid=1074&device=desk", vec!["1074"], 1),
        ("uid=1074&room=cellar", vec![], 0),
        ("uid=nobody", vec![], 0),
    ] {
        let data = bench.get(&format!("/getOnlineUser?{query}")).await.data();
        assert_eq!(uids(&data), users, "{query}");
        assert_eq!((&data["users"], &data["connections"]), (&users.len().into(), &connections.into()), "{query}");
        let data = bench.get(&format!("/connections?{query}&size=1")).await.data();
        assert_eq!(data["connections"], connections, "{query}");
        assert_eq!(data["pages"], connections, "{query}");
    }
    let data = bench.get("/getOnlineUser?channel=web&size=1").await.data();
    assert_eq!(uids(&data), ["1075"]);
    let data = bench
        .get(&format!("/getOnlineUser?channel=web&size=1&cursor={}", data["cursor"].as_str().unwrap()))
        .await
        .data();
    assert_eq!((uids(&data), &data["users"]), (vec!["1076"], &2.into()));
}

#[tokio::test]
async fn connection_row_has_user_device_and_claims() {
    let bench = crowd().await;
    let data = bench.get("/connections?device=phone").await.data();
    let row = &data["items"][0];
    assert_eq!((&row["uid"], &row["device"], &row["channel"]), (&"1074".into(), &"phone".into(), &"android".into()));
    assert_eq!(row["claims"]["plan"], "gold");
    assert!(row["cid"].as_u64().is_some_and(|cid| cid < 1 << 53));
    assert!(row.get("expires").is_none() && row.get("tag").is_none());
}

#[tokio::test]
async fn rooms_are_listed_by_name() {
    let bench = crowd().await;
    let data = bench.get("/rooms").await.data();
    let rooms = serde_json::json!([{"room": "attic", "connections": 1}, {"room": "lobby", "connections": 2}]);
    assert_eq!((&data["items"], &data["rooms"]), (&rooms, &2.into()));
    let data = bench.get("/rooms?size=1").await.data();
    assert_eq!((&data["items"][0]["room"], &data["cursor"]), (&"attic".into(), &"attic".into()));
    let data = bench.get("/rooms?size=1&cursor=attic").await.data();
    assert_eq!(data["items"][0]["room"], "lobby");
    assert!(data.get("cursor").is_none() && data.get("page").is_none());
    assert_eq!(bench.get("/rooms?page=9").await.data()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn node_row_has_addresses_roles_and_counts() {
    let bench = crowd().await;
    let node = &bench.get("/nodes").await.data()["items"][0];
    assert_eq!(node["addresses"], serde_json::json!([{"address": "127.0.0.1:8080", "serves": ["ws", "api"]}]));
    assert_eq!((&node["roles"], &node["connections"]), (&serde_json::json!(["gateway"]), &4.into()));
    assert_eq!((&node["address"], &node["users"]), (&"127.0.0.1:8080".into(), &3.into()));
    assert_eq!((&node["incarnation"], &node["draining"]), (&1.into(), &false.into()));
    assert_eq!(node["id"], bench.fake.node.id().as_str());
    assert_eq!(node["uptime"], 0);
    assert_eq!(bench.get("/").await.data()["name"], "skylark");
    assert_eq!(bench.get("/plugins").await.data()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn node_alone_is_chosen_for_every_client() {
    let bench = Bench::new();
    for query in ["uid=1074", "ip=192.0.2.1", "uid=1074&ip=2001:db8::1"] {
        let chosen = bench.get(&format!("/nodes/choose?{query}")).await.data();
        assert_eq!((&chosen["id"], &chosen["address"]), (&"n1".into(), &"127.0.0.1:8080".into()), "{query}");
    }
    for (query, fault) in [
        ("", "query: expected uid or ip, got neither"),
        ("?ip=here", "ip: expected an IP address, got \"here\""),
        ("?uid=a,b", "uid: expected no comma or control character, got \"a,b\""),
    ] {
        assert_eq!(bench.get(&format!("/nodes/choose{query}")).await.fault(), (400, fault.to_owned()));
    }
    bench.fake.node.begin_drain();
    let (status, text) = bench.get("/nodes/choose?uid=1").await.fault();
    assert_eq!((status, &*text), (503, "no node accepts connections: all are full, draining or unreachable"));
}

#[tokio::test]
async fn plugins_are_shown_and_make_the_node_ready() {
    let bench = Bench::new();
    let plugin = |name: &str, state, role| Status {
        name: name.into(),
        state,
        roles: vec![role],
        version: 2,
        hash: "ab".into(),
        size: 9,
        keys: vec!["call_invite".into()],
        since: 1_700_000_000_000,
        calls: 3,
        failures: 1,
        circuit: (state == PluginState::Live).then_some("closed"),
        rejected: (state == PluginState::Missing).then(|| Rejected { hash: String::new(), reason: "gone".into() }),
        ..Status::default()
    };
    bench.fake.set_plugins(vec![plugin("token-auth", PluginState::Live, "auth")]);
    assert_eq!(bench.get("/health/ready").await.data()["status"], "ready");
    assert_eq!(bench.get("/nodes").await.data()["items"][0]["ready"], true);

    bench.fake.set_plugins(vec![
        plugin("token-auth", PluginState::Live, "auth"),
        plugin("gate", PluginState::Missing, "filter"),
    ]);
    let shown = bench.get("/plugins").await.data();
    assert_eq!((&shown["items"][0]["version"], &shown["items"][0]["rejected"]), (&2.into(), &Value::Null));
    assert_eq!(shown["items"][1]["rejected"]["reason"], "gone");
    let (status, text) = bench.get("/health/ready").await.fault();
    assert_eq!((status, &*text), (503, "not ready: plugin gate: its file is missing, and its role refuses all calls"));

    bench.fake.set_plugins(vec![plugin("token-auth", PluginState::Live, "auth")]);
    bench.fake.set_plugin_faults(&["the plugin ticker has ended: plugins are not called"]);
    let (status, text) = bench.get("/health/ready").await.fault();
    assert_eq!((status, &*text), (503, "not ready: the plugin ticker has ended: plugins are not called"));
}

#[tokio::test]
async fn plugin_command_reaches_the_host_and_returns_the_status() {
    let bench = Bench::new();
    bench.fake.set_plugins(vec![Status { name: "gate".into(), state: PluginState::Live, ..Status::default() }]);
    for (word, meant) in [
        ("enable", PluginCommand::Enable),
        ("disable", PluginCommand::Disable),
        ("reload", PluginCommand::Reload),
        ("rollback", PluginCommand::RollBack),
        ("readmit", PluginCommand::Readmit),
    ] {
        let told = bench.post(&format!("/plugins/gate/{word}"), "").await.data();
        assert_eq!((&told["name"], &told["state"]), (&"gate".into(), &"live".into()));
        assert_eq!(bench.fake.commands(), [("gate".to_owned(), meant)]);
    }
    let (status, text) = bench.post("/plugins/none/reload", "").await.fault();
    assert_eq!((status, &*text), (404, "plugin none: there is no plugin of this name"));
    for (path, expected) in [("/plugins//reload", 404), ("/plugins/gate/explode", 404), ("/plugins/a/b/reload", 404)] {
        assert_eq!(bench.post(path, "").await.fault().0, expected, "{path}");
    }
    assert_eq!(bench.get("/plugins/gate/reload").await.fault().0, 405);
}

#[tokio::test]
async fn health_and_metrics_answer_probes() {
    let bench = Bench::new();
    assert_eq!(bench.get("/health/live").await.status, 200);
    let ready = bench.get("/health/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json()["data"]["reasons"][0].as_str().unwrap().contains("no auth plugin"));
    let metrics = bench.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    let counted = "skylark_http_requests_total{route=\"/health/ready\",status=\"503\"} ";
    assert!(metrics.body.contains(counted), "{}", metrics.body);
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
}

#[tokio::test]
async fn readiness_tells_addresses_to_keys_only() {
    const SECRET: &str = "eyes-secret-0123456789";
    let key = ApiKey { name: "eyes".into(), key: SECRET.into(), scopes: vec![Scope::Read] };
    let (open, guarded) = (Bench::new(), Bench::with(|config| config.api.keys = vec![key]));
    let probe = |key: Option<&str>| {
        let request = key.iter().fold(Request::get("/health/ready"), |request, key| request.header("x-api-key", *key));
        request.body(Full::<Bytes>::default()).unwrap()
    };
    for (bench, key, serves, told) in [
        (&guarded, None, Service::Metrics, false),
        (&guarded, Some("guess"), Service::Metrics, false),
        (&guarded, Some(SECRET), Service::Metrics, true),
        (&open, None, Service::Metrics, false),
        (&open, None, Service::Api, true),
    ] {
        bench
            .fake
            .node
            .set_component_fault(&"kafka chat".into(), Some("kafka is unavailable: 10.0.0.7:9092: refused".into()));
        let got = bench.send_to(probe(key), &[serves]).await;
        assert_eq!((got.status, got.body.contains("kafka chat")), (503, true), "{}", got.body);
        assert_eq!(got.body.contains("10.0.0.7"), told, "{key:?} {serves:?}: {}", got.body);
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let bench = Bench::new();
    let head = bench.send(Request::head("/health/live").body(Full::<Bytes>::default()).unwrap()).await;
    let whole = bench.get("/health/live").await.body.len();
    assert_eq!((head.status, &*head.body, &head.headers[CONTENT_LENGTH]), (200, "", &whole.into()));
}
