//! What an operator may set for the bus: which engine carries it, and the way to that engine.

use std::path::PathBuf;
use std::time::Duration;

use super::credential::Credential;
use super::properties::Properties;
use super::read::{Bounded, Bytes, Secret};

section! {
    /// Node to node.
    pub struct Bus {
        /// Which engine: `memory` (one node, nothing shared), `redis` or `kafka`.
        pub kind: BusKind = BusKind::Memory,
        /// What every key and channel of this cluster begins with: clusters that share an engine need different ones.
        pub prefix: String = "skylark".to_owned(),
        /// Largest record between nodes; a message that needs more is refused.
        pub record_bytes: usize [Bytes(128 << 10, 64 << 20)] = 1 << 20,
        /// So long after a user's last connection, or a room's last member, left this node, it still receives for them.
        pub linger: Duration = Duration::from_secs(5),
        /// The way to Redis.
        pub redis: RedisConfig,
        /// The way to Kafka.
        pub kafka: KafkaConfig,
    }
}

words! {
    /// Engines of the bus.
    pub enum BusKind {
        /// One node, nothing shared.
        Memory = "memory",
        /// Redis 6.2 or later, or what speaks its protocol.
        Redis = "redis",
        /// Kafka 2.5 or later.
        Kafka = "kafka",
    }
}

section! {
    /// The way to Redis.
    pub struct RedisConfig {
        /// Where it is: `redis://host:port`, with TLS `rediss://host:port`; behind a slash the database's number. User and password stand below, never here.
        pub url: String = "redis://127.0.0.1:6379".to_owned(),
        /// The ACL user; empty = the default user.
        pub user: String = String::new(),
        /// Its password, best as `{file: …}` or `{env: …}`; empty = none.
        pub password: Credential [Secret(0)] = Credential::default(),
        /// Certificates that `rediss://` trusts besides the system's, a PEM file; empty = none.
        pub ca: PathBuf = PathBuf::new(),
    }
}

section! {
    /// The way to Kafka.
    pub struct KafkaConfig {
        /// Addresses at which it is asked first, `host:port` by commas.
        pub brokers: String = "127.0.0.1:9092".to_owned(),
        /// Who asks (SASL PLAIN, unless `properties` name another mechanism); empty = nobody.
        pub user: String = String::new(),
        /// The user's password, best as `{file: …}` or `{env: …}`; empty = none.
        pub password: Credential [Secret(0)] = Credential::default(),
        /// Partitions of the topic between nodes, where Skylark has to create it.
        pub partitions: u16 [Bounded(1, 1_000)] = 8,
        /// Properties of librdkafka, as a map. `security.protocol: sasl_ssl` wants the cargo feature `kafka-tls`.
        pub properties: Properties = Properties::default(),
    }
}
