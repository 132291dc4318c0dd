//! What `skylark check` finds wrong with a Kafka, asked of a real one.

use skylark::broker::kafka::check::check;
use skylark::config::{Bus, KafkaConfig};

use crate::support::bus::{Bus as _, Seat, SharedKafka};
use crate::support::client::within;
use crate::support::kafka::{kafka, unique};

fn bus(kafka: KafkaConfig) -> Bus {
    Bus { prefix: unique("check"), kafka, ..Bus::default() }
}

fn plain() -> KafkaConfig {
    KafkaConfig { brokers: kafka().bootstrap.clone(), ..KafkaConfig::default() }
}

fn as_user(user: &str, password: &str) -> KafkaConfig {
    let (user, password) = (user.to_owned(), password.to_owned());
    KafkaConfig { brokers: kafka().users.clone(), user, password, ..KafkaConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_is_as_it_should_be_has_no_fault() {
    assert_eq!(within("a check", check(&bus(plain()))).await, [""; 0]);
    assert_eq!(within("a check", check(&bus(as_user("skylark", "lark-secret")))).await, [""; 0]);
    // With its topics there, and a node on them.
    let shared = SharedKafka::start();
    let seat = Seat::take(&shared, "n1", 1).await;
    let mut config = skylark::config::Config::default();
    shared.configure(&mut config);
    assert_eq!(within("a check", check(&config.bus)).await, [""; 0]);
    assert!(seat.broker().faults().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_in_words_that_help() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let away = within("a check", check(&bus(KafkaConfig { brokers: nobody.clone(), ..KafkaConfig::default() }))).await;
    assert!(matches!(&away[..], [one] if one.contains(&nobody) && one.ends_with("nobody listens there")), "{away:?}");
    let wrong = within("a check", check(&bus(as_user("skylark", "wrong")))).await;
    assert!(matches!(&wrong[..], [one] if one.ends_with("user and password are not what it expects")), "{wrong:?}");
    let barred = within("a check", check(&bus(as_user("stranger", "strange-secret")))).await;
    assert!(barred.len() == 2 && barred.iter().all(|fault| fault.contains("authorization failed")), "{barred:?}");
    let odd =
        KafkaConfig { properties: skylark::config::Properties([("linger.mss".into(), "1".into())].into()), ..plain() };
    let odd = within("a check", check(&bus(odd))).await;
    assert!(matches!(&odd[..], [one] if one.contains("linger.mss")), "{odd:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_were_made_otherwise_are_told() {
    let bus = Bus { record_bytes: 8 << 20, ..bus(plain()) };
    kafka().create_topic(&format!("{}.bus", bus.prefix), 2).await;
    kafka().create_topic(&format!("{}.members", bus.prefix), 3).await;
    let faults = within("a check", check(&bus)).await;
    let tells = |words: &str| faults.iter().any(|fault| fault.contains(words));
    assert!(
        tells("expected max.message.bytes") && tells("expected 1: only one") && tells("expected cleanup.policy"),
        "{faults:?}"
    );
}
