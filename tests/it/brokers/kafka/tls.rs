//! Kafka over TLS with a password, as bus and as intake: the real broker and built nodes. Behind the feature
//! `kafka-tls`; tests/kafka/README.md has the command.

use serde_json::json;

use crate::support::brokers::kafka::{self, unique};
use crate::support::gateway::Setup;
use crate::support::gateway::cluster::Cluster;
use crate::support::wire::Form;

/// Connection settings for the Kafka user, with these additional properties of librdkafka.
fn way(kafka: &kafka::Kafka, password: &str, properties: &str) -> String {
    let brokers = &kafka.users;
    format!("brokers: {brokers:?}, user: skylark, password: {password}, properties: {{{properties}}}")
}

fn check(yaml: &str) -> (bool, String) {
    let folder = Setup::default().no_plugins().yaml(yaml).prepare();
    let output = folder.command("check").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_and_an_intake_speak_tls_with_a_password() {
    let (own, ca) = tokio::task::spawn_blocking(kafka::KafkaCluster::start_over_tls).await.unwrap();
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let (topic, prefix) = (unique("tls"), unique("tls"));
        own.kafka.create_topic(&topic, 1).await;
        let properties = |ca: &std::path::Path| {
            format!("security.protocol: sasl_ssl, sasl.mechanisms: {mechanism}, ssl.ca.location: {}", ca.display())
        };
        let yaml = |way: &str| {
            let bus = format!("bus: {{kind: kafka, prefix: {prefix}, kafka: {{{way}}}}}");
            format!("{bus}\nintakes: [{{kind: kafka, topic: {topic}}}]")
        };
        let good = yaml(&way(&own.kafka, "lark-secret", &properties(&ca)));
        let (is_good, said) = check(&good);
        assert!(is_good && said.contains("bus: ok (kafka)"), "{mechanism}: {said}");

        let cluster = Cluster::start(2, &good).await;
        let mut client = cluster.node(1).connect("1074", Form::YunqueJson).await;
        cluster.node(0).post("/send", json!({"receiver": "1074", "action": "by-the-bus"})).await.data();
        assert_eq!(client.message().await["action"], "by-the-bus", "{mechanism}");
        let envelope = json!({"act": 2, "Uid": "1074", "msg": [{"action": "by-the-topic"}]}).to_string();
        own.kafka.send(&topic, "1074", &[&envelope]).await;
        assert_eq!(client.message().await["action"], "by-the-topic", "{mechanism}");

        let (is_good, said) = check(&yaml(&way(&own.kafka, "wrong", &properties(&ca))));
        assert!(!is_good && said.contains("check user and password"), "{mechanism}: {said}");
        let strange = tempfile::NamedTempFile::new().unwrap();
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(strange.path(), other.cert.pem()).unwrap();
        let (is_good, said) = check(&yaml(&way(&own.kafka, "lark-secret", &properties(strange.path()))));
        assert!(!is_good && said.contains("ssl.ca.location does not trust its certificate"), "{mechanism}: {said}");
    }
}
