//! Rotation of a Kafka password under a running node: bus, roster and intake adopt the new one without a restart.

use rustix::process::Signal;
use serde_json::json;

use crate::intake::until;
use crate::support::brokers::kafka::KafkaCluster;
use crate::support::gateway::{Gateway, Setup};
use crate::support::wire::Form;

/// Stops Kafka and restarts it with another password.
async fn rotate(cluster: &KafkaCluster, password: &str) {
    cluster.kill9(1);
    cluster.set_password(1, password);
    cluster.start_node(1);
}

/// Waits until the node is ready (no `words`), or until its fault contains `words`.
async fn until_it_says(gateway: &Gateway, words: &str) {
    until(words, || async {
        let ready = gateway.get("/health/ready").await;
        let is_so = if words.is_empty() { ready.status == 200 } else { ready.body.contains(words) };
        is_so.then_some(())
    })
    .await;
}

/// Sends one message by HTTP and the bus, and one by the intake.
async fn messages_flow(cluster: &KafkaCluster, gateway: &Gateway, round: &str) {
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    let envelope =
        |way: &str| json!({"act": 2, "Uid": "1074", "msg": [{"action": "chat", "title": format!("{round} {way}")}]});
    gateway.post("/publish", envelope("http")).await.data();
    assert_eq!(client.message().await["title"], format!("{round} http"));
    cluster.kafka.send("rotated", "k", &[&envelope("intake").to_string()]).await;
    assert_eq!(client.message().await["title"], format!("{round} intake"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_password_is_taken_from_its_file_and_from_a_reload() {
    let cluster = tokio::task::spawn_blocking(|| KafkaCluster::start(1)).await.unwrap();
    cluster.kafka.create_topic("rotated", 1).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "lark-secret\n").unwrap();
    let yaml = |password: &str| {
        let way = format!("brokers: {:?}, user: skylark, password: {password}", cluster.kafka.users);
        format!("bus: {{kind: kafka, prefix: rotated, kafka: {{{way}}}}}\nintakes: [{{kind: kafka, topic: rotated}}]")
    };
    let in_file = format!("{{file: {:?}}}", file.to_str().unwrap());
    let gateway = Setup::default().yaml(&yaml(&in_file)).start();
    until_it_says(&gateway, "").await;
    messages_flow(&cluster, &gateway, "first").await;

    rotate(&cluster, "second-secret").await;
    until_it_says(&gateway, "uthentication").await;
    std::fs::write(&file, "second-secret\n").unwrap();
    until_it_says(&gateway, "").await;
    messages_flow(&cluster, &gateway, "second").await;

    rotate(&cluster, "third-secret").await;
    until_it_says(&gateway, "uthentication").await;
    let config = gateway.folder.config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&in_file, "third-secret")).unwrap();
    gateway.signal(Signal::HUP);
    until_it_says(&gateway, "").await;
    messages_flow(&cluster, &gateway, "third").await;
}
