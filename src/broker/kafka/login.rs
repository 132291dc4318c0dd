//! User and password of the clients of one Kafka. The password is re-read while Kafka is unreachable, and given to
//! running clients.
//!
//! librdkafka connects by itself and has no hook for a new password. So each client error wakes one task. It reads the
//! password file at once and then every second for [`WATCH`]. A new password goes to every client that uses them, and
//! librdkafka uses it for the next connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, Producer};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::native::set_credentials;
use crate::config::{Credential, KafkaConfig};

/// Interval of the reads after an error. They go on for [`WATCH`], because librdkafka reports the same error only once
/// in 30 s.
const REREAD: Duration = Duration::from_secs(1);
const WATCH: Duration = Duration::from_secs(60);

/// A running client that takes another password.
pub(super) trait Client: Send + Sync {
    fn set(&self, user: &str, password: &str) -> Result<(), KafkaError>;
}

impl<C: ConsumerContext> Client for BaseConsumer<C> {
    fn set(&self, user: &str, password: &str) -> Result<(), KafkaError> {
        set_credentials(self.client(), user, password)
    }
}

impl<C: ConsumerContext + 'static> Client for StreamConsumer<C> {
    fn set(&self, user: &str, password: &str) -> Result<(), KafkaError> {
        set_credentials(self.client(), user, password)
    }
}

impl<C: ClientContext> Client for AdminClient<C> {
    fn set(&self, user: &str, password: &str) -> Result<(), KafkaError> {
        set_credentials(self.inner(), user, password)
    }
}

impl<C: ClientContext + 'static> Client for FutureProducer<C> {
    fn set(&self, user: &str, password: &str) -> Result<(), KafkaError> {
        set_credentials(self.client(), user, password)
    }
}

/// Credentials of the clients of one Kafka cluster.
pub(super) struct Login {
    /// Empty = anonymous.
    user: String,
    password: Mutex<Password>,
    clients: Mutex<Vec<Weak<dyn Client>>>,
    /// Notified when a client has an error, and when the login is dropped.
    error_signal: Arc<Notify>,
}

struct Password {
    source: Credential,
    /// Password of the last read.
    text: String,
}

impl Login {
    /// Creates the credentials. The operator's properties override `user` and `password`.
    pub(super) fn new(user: &str, password: Credential, properties: &BTreeMap<String, Credential>) -> Self {
        let user = properties.get("sasl.username").map_or(user, Credential::text).to_owned();
        let source = properties.get("sasl.password").cloned().unwrap_or(password);
        let password = Mutex::new(Password { text: source.text().to_owned(), source });
        Self { user, password, clients: Mutex::default(), error_signal: Arc::default() }
    }

    /// Returns the user and the password of the last read, or `None` if anonymous.
    pub(super) fn current(&self) -> Option<(String, String)> {
        (!self.user.is_empty()).then(|| (self.user.clone(), self.password.lock().text.clone()))
    }

    /// Notification for client errors.
    pub(super) fn error_signal(&self) -> Arc<Notify> {
        Arc::clone(&self.error_signal)
    }

    /// Registers a client for later passwords. Must run within a Tokio runtime.
    pub(super) fn track(self: &Arc<Self>, client: Weak<dyn Client>) {
        let mut clients = self.clients.lock();
        clients.retain(|client| client.strong_count() > 0);
        if clients.is_empty() && !self.user.is_empty() {
            tokio::spawn(watch(self.error_signal(), Arc::downgrade(self)));
        }
        clients.push(client);
    }

    /// Replaces the password with the one in `config`.
    pub(super) fn set(&self, config: &KafkaConfig) {
        let source = config.properties.0.get("sasl.password").unwrap_or(&config.password).clone();
        let text = source.text().to_owned();
        self.password.lock().source = source;
        self.distribute(&text);
    }

    /// Reads the password again and passes a changed one to the clients. Blocks on the file system.
    fn reload(&self) {
        let source = self.password.lock().source.clone();
        if source.file().is_none() {
            return;
        }
        match source.read() {
            Ok(text) => self.distribute(&text),
            Err(error) => tracing::warn!(%error, "kafka password cannot be read; the last one stays in use"),
        }
    }

    fn distribute(&self, text: &str) {
        if std::mem::replace(&mut self.password.lock().text, text.to_owned()) == text {
            return;
        }
        tracing::info!(user = self.user, "kafka password changed; clients use it for new connections");
        let clients: Vec<Arc<dyn Client>> = self.clients.lock().iter().filter_map(Weak::upgrade).collect();
        for client in clients {
            if let Err(error) = client.set(&self.user, text) {
                tracing::warn!(%error, "kafka client refused the new password");
            }
        }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.error_signal.notify_one();
    }
}

/// Re-reads the password while clients have errors. Ends with the login or with its last client.
async fn watch(error_signal: Arc<Notify>, login: Weak<Login>) {
    loop {
        error_signal.notified().await;
        let mut until = Instant::now() + WATCH;
        while Instant::now() < until {
            let Some(login) = login.upgrade() else { return };
            if tokio::task::spawn_blocking(move || login.reload()).await.is_err() {
                return;
            }
            if timeout(REREAD, error_signal.notified()).await.is_ok() {
                until = Instant::now() + WATCH;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kept(Mutex<Vec<(String, String)>>);

    impl Client for Kept {
        fn set(&self, user: &str, password: &str) -> Result<(), KafkaError> {
            self.0.lock().push((user.to_owned(), password.to_owned()));
            Ok(())
        }
    }

    #[tokio::test]
    async fn password_of_a_reload_reaches_clients_that_run_and_those_to_come() {
        let login = Arc::new(Login::new("u", "first".into(), &BTreeMap::new()));
        let client = Arc::new(Kept(Mutex::default()));
        let weak: Weak<dyn Client> = Arc::downgrade(&client) as _;
        login.track(weak);
        let config = |password: &str| KafkaConfig { password: password.into(), ..KafkaConfig::default() };
        login.set(&config("first"));
        assert!(client.0.lock().is_empty(), "it is the same");
        login.set(&config("second"));
        assert_eq!(*client.0.lock(), [("u".to_owned(), "second".to_owned())]);
        assert_eq!(login.current(), Some(("u".to_owned(), "second".to_owned())));
    }

    #[test]
    fn properties_win_over_user_and_password() {
        let properties = [("sasl.username", "pu"), ("sasl.password", "pp")];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.into())).into();
        assert_eq!(Login::new("u", "p".into(), &properties).current(), Some(("pu".to_owned(), "pp".to_owned())));
        assert_eq!(Login::new("", "".into(), &BTreeMap::new()).current(), None);
    }
}
