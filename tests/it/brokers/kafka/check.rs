//! The findings of `skylark check` on a real Kafka, as the bus and as an intake.

use serde_json::json;
use skylark::broker::kafka::KafkaSource;
use skylark::broker::kafka::check::{check, check_topic};
use skylark::broker::source::Source;
use skylark::config::{Bus, KafkaConfig};
use skylark::vital::Vitals;

use crate::support::brokers::bus::{Bus as _, Seat, SharedKafka};
use crate::support::brokers::kafka::{kafka, unique};
use crate::support::client::{PATIENCE, within};
use crate::support::gateway::Setup;
use crate::support::gateway::cluster::Cluster;
use crate::support::wire::Form;

fn bus(kafka: KafkaConfig) -> Bus {
    Bus { prefix: unique("check"), kafka, ..Bus::default() }
}

fn plain() -> KafkaConfig {
    KafkaConfig { brokers: kafka().bootstrap.clone(), ..KafkaConfig::default() }
}

fn as_user(user: &str, password: &str) -> KafkaConfig {
    let (user, password) = (user.to_owned(), password.into());
    KafkaConfig { brokers: kafka().users.clone(), user, password, ..KafkaConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_is_as_it_should_be_has_no_fault() {
    assert_eq!(within("the check", check(&bus(plain()))).await, [""; 0]);
    assert_eq!(within("the check", check(&bus(as_user("skylark", "lark-secret")))).await, [""; 0]);
    // With existing topics and a node on them.
    let shared = SharedKafka::start();
    let seat = Seat::take(&shared, "n1", 1).await;
    let mut config = skylark::config::Config::default();
    shared.configure(&mut config);
    assert_eq!(within("the check", check(&config.bus)).await, [""; 0]);
    assert!(seat.broker().faults().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_of_faulty_kafka_reports_the_cause() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let away =
        within("the check", check(&bus(KafkaConfig { brokers: nobody.clone(), ..KafkaConfig::default() }))).await;
    assert!(
        matches!(&away[..], [one] if one.contains(&nobody) && one.ends_with("no process listens on this port")),
        "{away:?}"
    );
    let wrong = within("the check", check(&bus(as_user("skylark", "wrong")))).await;
    assert!(matches!(&wrong[..], [one] if one.ends_with("check user and password")), "{wrong:?}");
    let barred = within("the check", check(&bus(as_user("stranger", "strange-secret")))).await;
    assert!(barred.len() == 2 && barred.iter().all(|fault| fault.contains("authorization failed")), "{barred:?}");
    let odd =
        KafkaConfig { properties: skylark::config::Properties([("linger.mss".into(), "1".into())].into()), ..plain() };
    let odd = within("the check", check(&bus(odd))).await;
    assert!(matches!(&odd[..], [one] if one.contains("linger.mss")), "{odd:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_were_made_otherwise_are_told() {
    let bus = Bus { record_bytes: 8 << 20, ..bus(plain()) };
    kafka().create_topic(&format!("{}.bus", bus.prefix), 2).await;
    kafka().create_topic(&format!("{}.members", bus.prefix), 3).await;
    let faults = within("the check", check(&bus)).await;
    let tells = |words: &str| faults.iter().any(|fault| fault.contains(words));
    assert!(
        tells("expected max.message.bytes") && tells("expected 1 partition, got 3") && tells("expected cleanup.policy"),
        "{faults:?}"
    );
}

async fn intake(kafka: KafkaConfig, topic: &str, group: &str) -> Vec<String> {
    within("the check", check_topic(&kafka, topic, group)).await
}

/// Repeats the check until it has this number of findings: rights take a moment to reach the broker.
async fn of_the_stranger(topic: &str, count: usize) -> Vec<String> {
    let begun = std::time::Instant::now();
    loop {
        let faults = intake(as_user("stranger", "strange-secret"), topic, &format!("{topic}-group")).await;
        if faults.len() == count {
            return faults;
        }
        assert!(begun.elapsed() < PATIENCE, "expected {count} faults, got {faults:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_an_intake_can_read_has_no_fault_whoever_reads_it_already() {
    let topic = unique("fed");
    kafka().create_topic(&topic, 2).await;
    let group = format!("{topic}-group");
    assert_eq!(intake(plain(), &topic, &group).await, [""; 0]);
    assert_eq!(intake(as_user("skylark", "lark-secret"), &topic, &group).await, [""; 0]);
    // With a member in the group. It keeps its partitions and receives records during the check.
    let mut source =
        KafkaSource::join(&kafka().clients("n1"), &topic, &group, "kafka test", &Vitals::default()).unwrap();
    kafka().send(&topic, "k", &["before"]).await;
    let taken = within("the record", source.take()).await.unwrap();
    let positions: Vec<_> = taken.iter().map(|record| record.position.clone()).collect();
    source.complete(&positions).await.unwrap();
    assert_eq!(intake(plain(), &topic, &group).await, [""; 0]);
    kafka().send(&topic, "k", &["after"]).await;
    let taken = within("the record", source.take()).await.unwrap();
    assert_eq!(taken.iter().map(|record| &record.payload[..]).collect::<Vec<_>>(), [b"after"]);
    within("the close of the source", source.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_thing_that_keeps_an_intake_from_its_topic_is_told_with_what_to_do() {
    let topic = unique("barred");
    let missing = intake(plain(), &topic, "skylark").await;
    assert!(
        matches!(&missing[..], [one] if one.contains(&format!("topic {topic} is missing: create it"))),
        "{missing:?}"
    );
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let away = intake(KafkaConfig { brokers: nobody.clone(), ..KafkaConfig::default() }, &topic, "skylark").await;
    assert!(
        matches!(&away[..], [one] if one.contains(&nobody) && one.ends_with("no process listens on this port")),
        "{away:?}"
    );
    let wrong = intake(as_user("skylark", "wrong"), &topic, "skylark").await;
    assert!(matches!(&wrong[..], [one] if one.ends_with("check user and password")), "{wrong:?}");

    // The stranger starts without rights and gets one after the other.
    kafka().create_topic(&topic, 1).await;
    let (dead, group) = (format!("{topic}.dead"), format!("{topic}-group"));
    let faults = of_the_stranger(&topic, 3).await;
    let tells = |fault: &String, words: [&str; 3]| words.iter().all(|words| fault.contains(words));
    assert!(
        tells(&faults[0], [&format!("topic {topic}:"), "topic authorization failed", "allow it READ on the topic"]),
        "{faults:?}"
    );
    assert!(tells(&faults[1], [&group, "group authorization failed", "allow it READ on the group"]), "{faults:?}");
    assert!(tells(&faults[2], [&dead, "topic authorization failed", "allow it WRITE"]), "{faults:?}");
    kafka().allow("stranger", &[["read", "topic", &topic]]).await;
    let faults = of_the_stranger(&topic, 2).await;
    assert!(faults[0].contains(&group) && faults[1].contains(&dead), "{faults:?}");
    kafka().allow("stranger", &[["describe", "group", &group]]).await;
    let faults = of_the_stranger(&topic, 2).await;
    assert!(
        faults[0].contains("allow it READ on the group"),
        "DESCRIBE on the group must not pass for READ: {faults:?}"
    );
    kafka().allow("stranger", &[["read", "group", &group], ["write,create", "topic", &dead]]).await;
    assert_eq!(of_the_stranger(&topic, 0).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_what_is_wrong_with_an_intake() {
    let (topic, brokers) = (unique("told"), &kafka().bootstrap);
    let yaml = format!("intakes: [{{kind: kafka, topic: {topic}, brokers: {brokers:?}}}]");
    let folder = Setup::default().no_plugins().yaml(&yaml).prepare();
    let check = || {
        let output = folder.command("check").output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    let (is_good, said) = check();
    let told = format!("intake kafka {topic}: kafka: topic {topic} is missing: create it");
    assert!(!is_good && said.contains(&told) && said.contains("1 in the intakes"), "{said}");
    kafka().create_topic(&topic, 1).await;
    let (is_good, said) = check();
    assert!(is_good && said.contains(&format!("intake kafka {topic}: ok")), "{said}");
}

/// The rights table of docs/guides/kafka-bus.md: operations, kind and name of each.
fn rights() -> Vec<[String; 3]> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/kafka-bus.md")).unwrap();
    let (_, rest) = text.split_once("| operations | on |").expect("the document has the rights table");
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let right = |row: &str| {
        let words: Vec<&str> = row.split(['|', '`']).map(str::trim).filter(|word| !word.is_empty()).collect();
        [words[0].replace(", ", ",").to_lowercase(), words[1].to_owned(), words[2].to_owned()]
    };
    rows.map(right).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rights_are_enough_for_bus_and_intake() {
    let (prefix, topic) = (unique("least"), unique("least"));
    kafka().create_topic(&topic, 1).await;
    let rights = rights();
    assert_eq!(rights.len(), 5, "{rights:?}");
    let named = |name: &str| match name {
        "chat.dead" => format!("{topic}.dead"),
        "chat" | "skylark" => topic.clone(),
        own => own.replace("skylark", &prefix),
    };
    let rights: Vec<[String; 3]> =
        rights.into_iter().map(|[operations, kind, name]| [operations, kind, named(&name)]).collect();
    let rights: Vec<[&str; 3]> = rights.iter().map(|right| right.each_ref().map(String::as_str)).collect();
    kafka().allow("stranger", &rights).await;

    let way = format!("brokers: {:?}, user: stranger, password: strange-secret", kafka().users);
    let bus = format!("bus: {{kind: kafka, prefix: {prefix}, kafka: {{{way}}}}}");
    let yaml = format!("{bus}\nintakes: [{{kind: kafka, topic: {topic}, group: {topic}}}]");
    let cluster = Cluster::start(1, &yaml).await;
    let mut client = cluster.node(0).connect("1074", Form::YunqueJson).await;
    let envelope = |action: &str| json!({"act": 2, "Uid": "1074", "msg": [{"action": action}]});
    cluster.node(0).post("/publish", envelope("by-http")).await.data();
    assert_eq!(client.message().await["action"], "by-http");
    kafka().send(&topic, "k", &["junk", &envelope("by-topic").to_string()]).await;
    assert_eq!(client.message().await["action"], "by-topic");
    assert_eq!(kafka().read(&format!("{topic}.dead"), 1).await[0].payload, b"junk");
    let folder = Setup::default().no_plugins().yaml(&yaml).prepare();
    let output = folder.command("check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The broker compresses what it gets: Kafka's own zstd, not librdkafka's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_the_bus_that_their_broker_compresses_by_zstd_serve_clients_and_have_no_fault() {
    let prefix = unique("zstd");
    let zstd = ("compression.type", "zstd");
    kafka().create_topic_with(&format!("{prefix}.bus"), &[zstd, ("max.message.bytes", "4194304")]).await;
    kafka().create_topic_with(&format!("{prefix}.members"), &[zstd, ("cleanup.policy", "compact")]).await;
    let cluster = Cluster::start(2, &kafka().bus(&prefix)).await;
    let mut client = cluster.node(1).connect("1074", Form::YunqueJson).await;
    for at in 0..10 {
        let message = json!({"action": "chat", "title": at.to_string(), "receiver": "1074"});
        cluster.node(0).post("/send", message).await.data();
        assert_eq!(client.message().await["title"], at.to_string());
    }
    let folder = Setup::default().no_plugins().yaml(&kafka().bus(&prefix)).prepare();
    let output = folder.command("check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
