//! `intakes`: the topics from which back ends are heard besides the push API.
//!
//! Whose engine it is, is said once: an intake without an address of its own uses that of `bus`, with its user and password.

use super::bus::{Bus, KafkaConfig, RedisConfig};
use super::credential::Credential;
use super::properties::Properties;
use super::read::Secret;

item! {
    /// One topic that the node consumes.
    pub struct Intake {
        /// `redis` (a pub/sub channel, at most once), `redis-stream` or `kafka` (a consumer group, at least once).
        pub kind: IntakeKind,
        /// The channel, stream or topic. What can never be accepted goes to the stream or topic of this name with `:dead` (Kafka: `.dead`) behind it.
        pub topic: String = "chat".to_owned() => "chat",
        /// Consumer group: its members share the records. A `redis` intake has none; its nodes take turns.
        pub group: String = "skylark".to_owned() => "skylark",
        /// Redis: where it is, as in `bus.redis`; empty = the one of `bus.redis`, with its user and password.
        pub url: String = String::new() => "\"\"",
        /// Kafka: where it is, `host:port` by commas; empty = the one of `bus.kafka`, with its user, password and properties.
        pub brokers: String = String::new() => "\"\"",
        /// User, where `url` or `brokers` is given.
        pub user: String = String::new() => "\"\"",
        /// Password, where `url` or `brokers` is given; best as `{file: …}` or `{env: …}`.
        pub password: Credential [Secret(0)] = Credential::default() => "\"\"",
        /// Kafka: properties of librdkafka for this intake; they win over those of `bus.kafka`, where that is used.
        pub properties: Properties = Properties::default() => "{}",
    }
}

words! {
    /// Engines of an intake.
    pub enum IntakeKind {
        /// A pub/sub channel.
        Redis = "redis",
        /// A stream, read by a consumer group.
        RedisStream = "redis-stream",
        /// A topic, read by a consumer group.
        Kafka = "kafka",
    }
}

impl Intake {
    /// The way to its Redis: its own, or that of the bus.
    #[must_use]
    pub fn redis(&self, bus: &Bus) -> RedisConfig {
        if self.url.is_empty() {
            return bus.redis.clone();
        }
        let (url, user, password) = (self.url.clone(), self.user.clone(), self.password.clone());
        RedisConfig { url, user, password, ..bus.redis.clone() }
    }
    /// The way to its Kafka: its own, or that of the bus with its own properties on top.
    #[must_use]
    pub fn kafka(&self, bus: &Bus) -> KafkaConfig {
        let mut kafka = bus.kafka.clone();
        if !self.brokers.is_empty() {
            (kafka.brokers, kafka.user, kafka.password) =
                (self.brokers.clone(), self.user.clone(), self.password.clone());
            kafka.properties.0.clear();
        }
        kafka.properties.0.extend(self.properties.0.clone());
        kafka
    }
}
