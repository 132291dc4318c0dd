//! `intakes`: topics from which back ends publish, besides the push API.
//!
//! An intake without an address uses the engine of `bus`, with its user and password.

use super::bus::{Bus, KafkaConfig, RedisConfig};
use super::credential::Credential;
use super::properties::Properties;
use super::read::Secret;

item! {
    /// One topic that the node consumes.
    pub struct Intake {
        /// `redis` (a pub/sub channel, at most once), `redis-stream` or `kafka` (a consumer group, at least once).
        pub kind: IntakeKind,
        /// The channel, stream or topic. Dead letters go to the stream or topic of this name with the suffix `:dead`
        /// (Kafka: `.dead`).
        pub topic: String = "chat".to_owned() => "chat",
        /// Consumer group, whose members share the records. A `redis` intake has no group; its nodes take turns.
        pub group: String = "skylark".to_owned() => "skylark",
        /// Redis: address, as in `bus.redis`; empty = that of `bus.redis`, with its user and password.
        pub url: String = String::new() => "\"\"",
        /// Kafka: bootstrap brokers, `host:port`, separated by commas; empty = those of `bus.kafka`, with its user,
        /// password and properties.
        pub brokers: String = String::new() => "\"\"",
        /// User, if `url` or `brokers` is set.
        #[live(|old, _| old.kind != IntakeKind::Kafka)]
        pub user: String = String::new() => "\"\"",
        /// Password, if `url` or `brokers` is set; best as `{file: …}` or `{env: …}`.
        #[live]
        pub password: Credential [Secret(0)] = Credential::default() => "\"\"",
        /// Kafka: properties of librdkafka for this intake. They override those of `bus.kafka`, if that is used.
        pub properties: Properties = Properties::default() => "{}",
    }
}

keywords! {
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

/// Names of the intakes in metrics, logs and readiness: kind and topic. Intakes with the same kind and topic also get
/// the engine in their names, so that none hides the faults of another. A number separates those that share even the
/// engine.
#[must_use]
pub fn intake_names(intakes: &[Intake], bus: &Bus) -> Vec<String> {
    let plain: Vec<String> =
        intakes.iter().map(|intake| format!("{} {}", intake.kind.as_str(), intake.topic)).collect();
    let is_one = |name: &String| plain.iter().filter(|other| *other == name).count() == 1;
    let mut names: Vec<String> = Vec::with_capacity(plain.len());
    for (intake, name) in intakes.iter().zip(&plain) {
        let name = if is_one(name) { name.clone() } else { format!("{name} at {}", intake.engine(bus)) };
        let numbered = (2..).map(|number| format!("{name} {number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !names.contains(name));
        names.push(free.unwrap_or(name));
    }
    names
}

impl Intake {
    /// Address of the engine, without user and password.
    fn engine(&self, bus: &Bus) -> String {
        if self.kind == IntakeKind::Kafka {
            return self.kafka(bus).brokers;
        }
        let url = self.redis(bus).url;
        let address = url.split_once("://").map_or(url.as_str(), |(_, address)| address);
        address.rsplit_once('@').map_or(address, |(_, address)| address).to_owned()
    }

    /// Connection to the intake's Redis: its own, or that of the bus.
    #[must_use]
    pub fn redis(&self, bus: &Bus) -> RedisConfig {
        if self.url.is_empty() {
            return bus.redis.clone();
        }
        let (url, user, password) = (self.url.clone(), self.user.clone(), self.password.clone());
        RedisConfig { url, user, password, ..bus.redis.clone() }
    }
    /// Connection to the intake's Kafka: its own, or that of the bus with the intake's properties on top.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intakes_of_one_kind_and_topic_are_told_apart_by_their_engines() {
        let intake = |kind, url: &str, brokers: &str| Intake {
            kind,
            topic: "chat".into(),
            group: "skylark".into(),
            url: url.into(),
            brokers: brokers.into(),
            user: String::new(),
            password: Credential::default(),
            properties: Properties::default(),
        };
        let intakes = [
            intake(IntakeKind::Redis, "redis://r:1", ""),
            intake(IntakeKind::RedisStream, "redis://r:1/0", ""),
            intake(IntakeKind::RedisStream, "redis://:secret@r:1/1", ""),
            intake(IntakeKind::Kafka, "", "k:1"),
            intake(IntakeKind::Kafka, "", "k:1"),
        ];
        let expected = [
            "redis chat",
            "redis-stream chat at r:1/0",
            "redis-stream chat at r:1/1",
            "kafka chat at k:1",
            "kafka chat at k:1 2",
        ];
        assert_eq!(intake_names(&intakes, &Bus::default()), expected);
    }
}
