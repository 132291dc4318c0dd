//! Configuration of the bus: its engine and the connection to that engine.

use std::path::PathBuf;
use std::time::Duration;

use super::credential::Credential;
use super::properties::Properties;
use super::read::{Bounded, Bytes, Secret};

section! {
    /// Communication between nodes.
    pub struct Bus {
        /// Engine: `memory` (one node, nothing shared), `redis` or `kafka`.
        pub kind: BusKind = BusKind::Memory,
        /// Prefix of every key and channel of this cluster. Clusters that share an engine need different prefixes.
        pub prefix: String = "skylark".to_owned(),
        /// Maximum size of a record between nodes; a larger message is refused.
        pub record_bytes: usize [Bytes(128 << 10, 64 << 20)] = 1 << 20,
        /// Time that the node stays subscribed for a user after the last connection left, or for a room after the last
        /// member left.
        pub linger: Duration = Duration::from_secs(5),
        /// Connection to Redis.
        pub redis: RedisConfig,
        /// Connection to Kafka.
        pub kafka: KafkaConfig,
    }
}

keywords! {
    /// Engines of the bus.
    pub enum BusKind {
        /// One node, nothing shared.
        Memory = "memory",
        /// Redis 6.2 or later, or a server that speaks its protocol.
        Redis = "redis",
        /// Kafka 2.5 or later.
        Kafka = "kafka",
    }
}

section! {
    /// Connection to Redis.
    pub struct RedisConfig {
        /// Address: `redis://host:port`, or `rediss://host:port` for TLS, with the number of the database after a
        /// slash. User and password are separate keys, never part of the address.
        pub url: String = "redis://127.0.0.1:6379".to_owned(),
        /// The ACL user; empty = the default user.
        #[live(|old, new| old.url == new.url)]
        pub user: String = String::new(),
        /// Password of the user, best as `{file: …}` or `{env: …}`; empty = none.
        #[live(|old, new| old.url == new.url)]
        pub password: Credential [Secret(0)] = Credential::default(),
        /// PEM file of certificates that `rediss://` trusts besides the system's; empty = none.
        pub ca: PathBuf = PathBuf::new(),
    }
}

section! {
    /// Connection to Kafka.
    pub struct KafkaConfig {
        /// Addresses of the bootstrap brokers, `host:port`, separated by commas.
        pub brokers: String = "127.0.0.1:9092".to_owned(),
        /// User (SASL PLAIN, unless `properties` name another mechanism); empty = no authentication.
        pub user: String = String::new(),
        /// Password of the user, best as `{file: …}` or `{env: …}`; empty = none.
        #[live(|old, new| old.brokers == new.brokers && old.user == new.user)]
        pub password: Credential [Secret(0)] = Credential::default(),
        /// Partitions of the topic between nodes, used when Skylark creates it.
        pub partitions: u16 [Bounded(1, 1_000)] = 8,
        /// Properties of librdkafka, as a map. `security.protocol: sasl_ssl` requires the cargo feature `kafka-tls`.
        pub properties: Properties = Properties::default(),
    }
}
