//! The known keys: their age, their refresh, and the check of a token against them.
//!
//! An instance keeps the keys in memory. The key-value store shares them with other instances and nodes, and across
//! reloads. `counters` limits the fetches of all instances of a node at once, because writes to the store become
//! visible only after the call.

use jwt::{Fault, Token};
use skylark_plugin::http::Request;
use skylark_plugin::{counters, kv, log};

use crate::Settings;
use crate::keys::{self, Algorithm, Key};

/// Key of the last set in the store. The value is the fetch time, a line feed and the keys.
const SHARED: &str = "keys";
/// Counter of fetches.
const ASKED: &str = "asked";

/// Initially without keys. Times are in milliseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Source {
    keys: Vec<Key>,
    read: Option<u64>,
}

/// Result of the check of a token against the known keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    /// A known key made the signature.
    Good,
    /// The named key did not make the signature, or the key is for another algorithm.
    Bad(Fault),
    /// The token's key is not known.
    Unknown,
}

impl Source {
    /// True while the keys need no refresh.
    pub(crate) fn is_fresh(&self, settings: &Settings, now: u64) -> bool {
        self.read.is_some_and(|at| now < at + settings.ttl * 1_000)
    }

    /// True while the keys may be used, even if a refresh failed.
    pub(crate) fn is_trusted(&self, settings: &Settings, now: u64) -> bool {
        self.read.is_some_and(|at| now < at + (settings.ttl + settings.stale) * 1_000)
    }

    /// Looks for newer keys in the store, then at the issuer. Returns true if it found any.
    pub(crate) fn renew(&mut self, settings: &Settings, now: u64) -> bool {
        let is_newer = self.take_shared();
        if is_newer && self.is_fresh(settings, now) {
            return true;
        }
        self.ask(settings, now) || is_newer
    }

    fn take_shared(&mut self) -> bool {
        let Some((read, keys)) = kv::get(SHARED).and_then(|value| shared(&value)) else { return false };
        let is_newer = self.read.is_none_or(|own| own < read);
        if is_newer {
            (self.keys, self.read) = (keys, Some(read));
        }
        is_newer
    }

    fn ask(&mut self, settings: &Settings, now: u64) -> bool {
        // A node with trusted keys can wait. Without trusted keys, concurrent calls must not wait for the first fetch.
        let most = if self.is_trusted(settings, now) { 1 } else { settings.requests };
        let asked = |more| counters::add_and_read(ASKED, settings.interval, more);
        if asked(0) >= most || asked(1) > most {
            return false;
        }
        match fetch(settings) {
            Ok(body) => self.take(settings, &body, now),
            Err(why) => {
                log::warn(format!("no keys of {}: {why}", settings.url));
                false
            }
        }
    }

    fn take(&mut self, settings: &Settings, body: &[u8], now: u64) -> bool {
        let (keys, compact) = match keys::read(body) {
            Ok(read) => read,
            Err(why) => {
                log::warn(format!("no keys of {}: {why}", settings.url));
                return false;
            }
        };
        log::info(format!("{} keys of {}", keys.len(), settings.url));
        (self.keys, self.read) = (keys, Some(now));
        let seconds = u32::try_from(settings.ttl + settings.stale).unwrap_or(u32::MAX);
        if let Err(why) = kv::set(SHARED, format!("{now}\n{compact}").as_bytes(), Some(seconds)) {
            log::warn(format!("the keys stay with this instance: {why}"));
        }
        true
    }

    /// Checks the signature of a token. `algorithm` is the one that the token names.
    pub(crate) fn check(&self, token: &Token<'_>, algorithm: Algorithm) -> Check {
        let signed = |key: &&Key| key.signed(token.signed, &token.signature);
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        let Some(name) = token.key() else {
            return if fitting.any(|key| signed(&key)) { Check::Good } else { Check::Unknown };
        };
        let is_named = |key: &&Key| key.name.as_deref() == Some(name);
        match (fitting.find(is_named), self.keys.iter().find(is_named)) {
            (Some(key), _) if signed(&key) => Check::Good,
            (Some(_), _) => Check::Bad(Fault::Signature),
            (None, Some(other)) => {
                let (expected, got) = (other.algorithm.as_str().to_owned(), algorithm.as_str().to_owned());
                Check::Bad(Fault::Algorithm { expected, got })
            }
            (None, None) => Check::Unknown,
        }
    }
}

/// Parses the stored fetch time and keys.
fn shared(value: &[u8]) -> Option<(u64, Vec<Key>)> {
    let (read, body) = std::str::from_utf8(value).ok()?.split_once('\n')?;
    let (keys, _) = keys::read(body.as_bytes()).ok()?;
    Some((read.parse().ok()?, keys))
}

fn fetch(settings: &Settings) -> Result<Vec<u8>, String> {
    let request = Request::get(&settings.url).header("accept", "application/json").timeout_ms(settings.timeout_ms);
    let answer = request.send().map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(answer.body) } else { Err(format!("expected status 200, got {}", answer.status)) }
}
