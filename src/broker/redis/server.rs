//! A Redis server behind one address. All connections to it end together once one of them proves the server unfit.
//!
//! A failover behind a stable address leaves connections to the old server open. After a READONLY answer, the other
//! connections may also be on the wrong server, above all those that only receive. Independent of keys and commands.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::client::{Client, UrlError};
use crate::backoff::Backoff;
use crate::config::RedisConfig;

/// Pause before a new connection to an unfit server.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Time without a fault after which the pauses start again at the first one.
const RESET_AFTER: Duration = Duration::from_secs(10);

/// Error codes that a retry on the same connection does not cure. The server is a replica, is loading, lost its master,
/// or refuses the credentials.
const FATAL_CODES: [&str; 5] = ["READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "WRONGPASS"];
/// Prefix of an error inside a script in Redis 6.
const IN_SCRIPT: &str = "ERR Error running script";

/// All servers of a node. Clients with the same address share one [`Server`].
#[derive(Default)]
pub struct Servers(Mutex<AHashMap<String, Arc<Server>>>);

impl Servers {
    /// Creates a client for the server in `config`. Does not connect.
    ///
    /// # Errors
    /// [`UrlError`]: the url contains no valid host.
    pub fn client(&self, config: &RedisConfig) -> Result<Arc<Client>, UrlError> {
        let client = Client::new(config)?;
        let server = Arc::clone(self.0.lock().entry(client.address()).or_insert_with(|| client.server()));
        Ok(Arc::new(client.with_server(server)))
    }
}

/// Server behind one address.
pub(super) struct Server {
    address: String,
    /// Increases each time all connections end.
    generation: watch::Sender<u64>,
    pause: Mutex<Pause>,
}

/// Pause without new connections.
struct Pause {
    backoff: Backoff,
    /// Time at which the server was found unfit, and the end of the pause.
    last: Option<(Instant, Instant)>,
    why: String,
}

/// Tells one connection when all connections to its server end.
#[derive(Clone)]
pub(super) struct ConnectionToken {
    server: Arc<Server>,
    own_generation: u64,
    generations: watch::Receiver<u64>,
}

impl Server {
    pub(super) fn new(address: String) -> Self {
        let pause = Pause { backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT), last: None, why: String::new() };
        Self { address, generation: watch::Sender::new(0), pause: Mutex::new(pause) }
    }

    /// Registers a new connection to the server.
    ///
    /// # Errors
    /// The reason why the server was found unfit, during the pause.
    pub(super) fn register(self: &Arc<Self>) -> Result<ConnectionToken, String> {
        let pause = self.pause.lock();
        if pause.last.is_some_and(|(_, until)| Instant::now() < until) {
            return Err(pause.why.clone());
        }
        let generations = self.generation.subscribe();
        let own_generation = *generations.borrow();
        Ok(ConnectionToken { server: Arc::clone(self), own_generation, generations })
    }
}

impl ConnectionToken {
    /// Waits until all connections to the server end.
    pub(super) async fn ended(&mut self) {
        let own_generation = self.own_generation;
        // This token keeps the sender alive.
        let _ = self.generations.wait_for(|generation| *generation != own_generation).await;
    }

    /// True once all connections to the server end.
    pub(super) fn is_ended(&self) -> bool {
        *self.generations.borrow() != self.own_generation
    }

    /// Ends all connections to the server if this error proves it unfit. Returns true in that case.
    pub(super) fn end_all_if_fatal(&self, error: &str) -> bool {
        let is_fatal = is_fatal(error);
        if is_fatal {
            self.end_all(error);
        }
        is_fatal
    }

    /// Ends all connections to the server, this one included. No effect if this one has already ended.
    pub(super) fn end_all(&self, why: &str) {
        let server = &self.server;
        let mut pause = server.pause.lock();
        let is_first = server.generation.send_if_modified(|generation| {
            let is_current = *generation == self.own_generation;
            *generation += u64::from(is_current);
            is_current
        });
        if !is_first {
            return;
        }
        let now = Instant::now();
        if pause.last.is_none_or(|(last, _)| now.duration_since(last) >= RESET_AFTER) {
            pause.backoff.reset();
        }
        pause.last = Some((now, now + pause.backoff.wait()));
        why.clone_into(&mut pause.why);
        drop(pause);
        tracing::warn!(
            server = server.address,
            why,
            "redis server cannot be used; closing all connections to it and reconnecting"
        );
    }
}

/// True for an error that proves the server unfit. Checks only error codes, because the text may contain names that
/// clients choose.
fn is_fatal(error: &str) -> bool {
    let has_code = |text: &str| FATAL_CODES.iter().any(|code| text == *code || text.starts_with(&format!("{code} ")));
    has_code(error)
        || (error.starts_with(IN_SCRIPT) && error.rsplit_once(": -").is_some_and(|(_, text)| has_code(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_prove_a_server_unfit() {
        for error in [
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "ERR Error running script (call to f_1): @user_script:7: @user_script: 7: -READONLY You can't write against a read only replica.",
        ] {
            assert!(is_fatal(error), "{error}");
        }
        for error in [
            "NOPERM No permissions to access the 'sky:u:READONLY x' channel",
            "ERR no READONLY ",
            "NOAUTHX y",
            "ERR Error running script (call to f_1): @user_script:7: the key a: b",
            "",
        ] {
            assert!(!is_fatal(error), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unfit_server_ends_all_connections_once_and_is_dialled_with_back_off() {
        let server = Arc::new(Server::new("h:1".to_owned()));
        let [mut one, two] = [server.register().unwrap(), server.register().unwrap()];
        assert!(!one.end_all_if_fatal("NOPERM this user has no permissions") && !one.is_ended());
        assert!(two.end_all_if_fatal("READONLY you can't"));
        one.ended().await;
        assert!(one.is_ended() && two.is_ended());
        assert_eq!(server.register().map(drop).unwrap_err(), "READONLY you can't", "nothing dials at once");
        tokio::time::advance(FIRST_WAIT).await;
        let next = server.register().unwrap();
        one.end_all("an answer that came late");
        assert!(!next.is_ended(), "a connection that has ended says nothing of the new ones");
        let mut waits = Vec::new();
        for _ in 0..8 {
            server.register().unwrap().end_all("READONLY again");
            let ended = Instant::now();
            while server.register().is_err() {
                tokio::time::advance(Duration::from_millis(10)).await;
            }
            waits.push(ended.elapsed());
        }
        assert!(waits[7] > 4 * FIRST_WAIT && waits.iter().all(|wait| *wait <= 2 * LONGEST_WAIT), "{waits:?}");
        tokio::time::advance(RESET_AFTER).await;
        server.register().unwrap().end_all("READONLY later");
        tokio::time::advance(FIRST_WAIT).await;
        assert!(server.register().is_ok(), "the waits begin anew");
    }
}
