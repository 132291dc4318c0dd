//! Kafka specifics: checks, identity of topics, logins, intakes, TLS, and unreadable batches.

mod check;
mod identity;
mod login;
mod source;
#[cfg(feature = "kafka-tls")]
mod tls;
mod unreadable;
