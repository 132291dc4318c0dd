//! The examples of `config/examples`, `examples/cluster` and compose.yaml: the node reads each of them, and everything
//! that can run here is run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::brokers::kafka::{kafka, unique};
use crate::support::brokers::redis::{Redis, free_address};
use crate::support::client::{Client, Dial};
use crate::support::gateway::{Gateway, Setup, skylark};
use crate::support::http::Http;
use crate::support::token::Claims;
use crate::support::wire::Form;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Environment variables of a node in the examples.
const PLACES: [(&str, &str); 6] = [
    ("NODE", "n1"),
    ("NUMBER", "1"),
    ("LISTEN", "127.0.0.1:0"),
    ("ADDRESS", "ws://localhost/ws"),
    ("REDIS", "redis://localhost"),
    ("API_KEY", "a-key-of-the-examples"),
];

#[test]
fn every_example_configuration_is_valid() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("config/examples")).unwrap() {
        let path = entry.unwrap().path();
        let output = skylark().arg("config").arg("--config").arg(&path).envs(PLACES).output().unwrap();
        assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        count += 1;
    }
    assert!(count > 0);
}

/// A value of compose.yaml as text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The containers cannot run here, but Skylark's commands can. Each node uses the command and environment of
/// compose.yaml, and servers of this machine replace the other services.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_of_compose_are_a_cluster_that_kafka_feeds() {
    let compose = std::fs::read_to_string(root().join("compose.yaml")).unwrap();
    let compose: Value = serde_saphyr::from_str(&compose).unwrap();
    let (redis, topic) = (Redis::start(), unique("compose"));
    kafka().create_topic(&topic, 2).await;
    let services = &compose["services"];
    let here = [
        ("redis://redis:6379", redis.url()),
        ("kafka:9092", kafka().bootstrap.clone()),
        ("topic: chat", format!("topic: {topic}")),
        ("0.0.0.0:8080", "127.0.0.1:0".to_owned()),
        ("${API_KEY:-change-me-before-you-publish}", PLACES[5].1.to_owned()),
    ];
    let command = |service: &Value, name: Option<&str>| {
        let recipe = service["build"]["dockerfile_inline"].as_str().unwrap();
        let entry = recipe.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
        let entry: Vec<String> = serde_json::from_str(entry).unwrap();
        assert_eq!(&entry[..2], ["skylark", "serve"]);
        let mut command = skylark();
        command.current_dir(root()).arg(name.unwrap_or("serve")).args(&entry[2..]);
        for (name, value) in service["environment"].as_object().unwrap() {
            let value = here.iter().fold(text(value), |value, (there, here)| value.replace(there, here));
            command.env(name, value);
        }
        // The container has its own cache path because it has no home. This path saves compile time.
        command.env("SKYLARK__PLUGINS__CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"));
        command
    };
    let checked = command(&services["n1"], Some("check")).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let mut nodes = Vec::new();
    for name in ["n1", "n2", "n3"] {
        let service = &services[name];
        for needed in service["depends_on"].as_object().unwrap().keys() {
            assert!(services[needed].is_object(), "{name} depends on the unknown service {needed}");
        }
        let (outside, inside) = service["ports"][0].as_str().unwrap().split_once(':').unwrap();
        assert!(text(&service["environment"]["ADDRESS"]).ends_with(&format!("localhost:{outside}/ws")));
        assert!(text(&service["environment"]["LISTEN"]).ends_with(inside));
        let folder = Setup::default().no_plugins().prepare();
        nodes.push(Gateway::run(folder, command(service, None), None));
    }
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(node.connect("1074", Form::YunqueJson).await);
    }
    kafka().send(&topic, "1074", &[r#"{"Uid":"1074","msg":[{"action":"across"}]}"#]).await;
    for client in &mut clients {
        assert_eq!(client.message().await["action"], "across");
    }
}

/// The image cannot be built here. The test checks that each folder copied by its recipe exists and that its topic is
/// the nodes' one.
#[test]
fn compose_names_existing_files() {
    let compose = std::fs::read_to_string(root().join("compose.yaml")).unwrap();
    let copied = compose.lines().filter_map(|line| line.trim().strip_prefix("COPY --from=build /src/"));
    let copied: Vec<&str> = copied.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(copied, ["target/release/skylark", "config", "plugins/dist"]);
    assert!(copied[1..].iter().all(|folder| root().join(folder).is_dir()));
    let compose: Value = serde_saphyr::from_str(&compose).unwrap();
    let services = &compose["services"];
    let created: Vec<String> = services["topic"]["command"].as_array().unwrap().iter().map(text).collect();
    let topic = created.iter().skip_while(|word| *word != "--topic").nth(1).unwrap();
    let intakes = text(&services["n1"]["environment"]["SKYLARK__INTAKES"]);
    assert!(intakes.contains(&format!("topic: {topic},")) && intakes.contains(&created[2]), "{intakes}: {created:?}");
    assert!(text(&services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]).contains(&created[2]));
}

/// `examples/cluster/up`: three nodes start, a push to one reaches a client of another, and all processes exit.
#[tokio::test]
async fn the_cluster_of_plain_processes_comes_up_and_goes_down() {
    let [redis, first, second, third] = [(); 4].map(|()| free_address());
    let ports = [first, second, third].map(|address| address.port().to_string()).join(" ");
    let mut up = Command::new(root().join("examples/cluster/up"))
        .env("SKYLARK", env!("CARGO_BIN_EXE_skylark"))
        .env("PORTS", ports)
        .env("REDIS_PORT", redis.port().to_string())
        .env("API_KEY", PLACES[5].1)
        .env("SKYLARK__PLUGINS__CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"))
        .env("SKYLARK__DRAIN__WAIT", "0s")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.take_while(|line| line != "ready").collect();
    assert_eq!(said.iter().filter(|line| line.contains("push to")).count(), 3, "{said:?}");

    let dial = Dial::path(format!("/ws?token={}", Claims::of("1074").mint()));
    let mut client = Client::dial(first, Form::YunquePb, dial).await.unwrap();
    assert_eq!(client.reply().await["data"]["sid"], "n1");
    let mut http = Http::connect(third).await;
    http.headers.push(("x-api-key", PLACES[5].1.to_owned()));
    http.post("/send", &json!({"receiver": "1074", "action": "across"})).await.data();
    assert_eq!(client.message().await["action"], "across");

    let pid = rustix::process::Pid::from_raw(up.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(up.wait().unwrap().success());
    assert_eq!(client.close_code().await, 4003);
    for address in [redis, first, second, third] {
        assert!(std::net::TcpListener::bind(address).is_ok(), "a process still listens on {address}");
    }
}
