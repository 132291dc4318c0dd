//! What a new configuration changes, and which of it a running node can take.

use std::collections::BTreeMap;

use super::read::Setting;
use super::value::Value;
use super::{Config, Credential, Intake, IntakeKind, Limits, Listener};

/// Keys, or beginnings of keys, that a running node takes without a restart. Those of `limits` and of listeners are
/// told by [`is_live`].
const LIVE: [&str; 4] = ["clients.", "api.", "log.level", "drain."];
/// Live keys that belong to the plugin directory: they move with it.
const LIVE_PLUGINS: [&str; 3] = ["plugins.allow_remove", "plugins.require_hash", "plugins.signing_keys"];
/// Live keys that belong to a server: they move with it.
const LIVE_REDIS: [&str; 2] = ["bus.redis.user", "bus.redis.password"];
const LIVE_KAFKA: [&str; 1] = ["bus.kafka.password"];
/// Limits that size something when the node starts.
const FIXED_LIMITS: [&str; 2] = ["limits.connections", "limits.auth_calls"];
/// Keys of an intake that say who reads it. The user counts for Redis only.
const LIVE_INTAKE: [&str; 2] = ["user", "password"];
/// Keys of a listener that say where it listens, for what and how.
const PLACE: [&str; 3] = ["address", "serves", "tls"];

/// Keys that differ between two configurations, in the tree's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// A running node takes these.
    pub live: Vec<String>,
    /// These wait for a restart.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// What `new` changes.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Changes {
        let same = Same::of(self, new);
        let (old_tree, new_tree) = (self.show(), new.show());
        let (old, new) = (old_tree.leaves(), new_tree.leaves());
        let before: BTreeMap<&str, &Value> = old.iter().map(|(path, value)| (path.as_str(), *value)).collect();
        let after: BTreeMap<&str, &Value> = new.iter().map(|(path, value)| (path.as_str(), *value)).collect();
        let changed =
            new.iter().map(|(path, _)| path).filter(|path| before.get(path.as_str()) != after.get(path.as_str()));
        let gone = old.iter().map(|(path, _)| path).filter(|path| !after.contains_key(path.as_str()));
        let mut changes = Changes::default();
        for path in changed.chain(gone) {
            let list = if is_live(path, same) { &mut changes.live } else { &mut changes.needs_restart };
            list.push(path.clone());
        }
        changes
    }

    /// Takes from `new` what a running node can take, and keeps the rest.
    #[must_use]
    pub fn with_live(&self, new: &Self) -> Self {
        let Limits { connections, auth_calls, .. } = self.limits;
        let same = Same::of(self, new);
        let mut config = self.clone();
        if same.places {
            config.listeners.clone_from(&new.listeners);
        }
        config.clients = new.clients.clone();
        config.limits = Limits { connections, auth_calls, ..new.limits.clone() };
        config.api = new.api.clone();
        if same.plugins {
            config.plugins.allow_remove.clone_from(&new.plugins.allow_remove);
            config.plugins.require_hash = new.plugins.require_hash;
            config.plugins.signing_keys.clone_from(&new.plugins.signing_keys);
        }
        if same.redis {
            config.bus.redis.user.clone_from(&new.bus.redis.user);
            config.bus.redis.password.clone_from(&new.bus.redis.password);
        }
        if same.kafka {
            config.bus.kafka.password.clone_from(&new.bus.kafka.password);
        }
        if same.intakes {
            config.intakes.clone_from(&new.intakes);
        }
        config.log.level.clone_from(&new.log.level);
        config.drain = new.drain.clone();
        config
    }

    /// Whether both listen on the same addresses for the same, with certificates from the same files.
    fn has_places_of(&self, other: &Self) -> bool {
        let places = |listeners: &[Listener]| -> Vec<_> {
            listeners.iter().map(|l| (l.address, l.serves.clone(), l.tls.clone())).collect()
        };
        places(&self.listeners) == places(&other.listeners)
    }

    /// True where both read the same topics of the same engines, whatever the credentials.
    fn has_intakes_of(&self, other: &Self) -> bool {
        let plain = |intake: &Intake| {
            let user = if intake.kind == IntakeKind::Kafka { intake.user.clone() } else { String::new() };
            Intake { user, password: Credential::default(), ..intake.clone() }
        };
        let plain = |config: &Self| config.intakes.iter().map(plain).collect::<Vec<_>>();
        plain(self) == plain(other)
    }
}

/// What two configurations agree on. A live key that belongs to something that waits for a restart waits with it: keys of another
/// plugin directory do not judge this one, and another server's password does not open this one.
#[derive(Clone, Copy)]
struct Same {
    places: bool,
    plugins: bool,
    redis: bool,
    kafka: bool,
    intakes: bool,
}

impl Same {
    fn of(old: &Config, new: &Config) -> Self {
        let kafka = |config: &Config| (config.bus.kafka.brokers.clone(), config.bus.kafka.user.clone());
        Self {
            places: old.has_places_of(new),
            plugins: old.plugins.dir == new.plugins.dir,
            redis: old.bus.redis.url == new.bus.redis.url,
            kafka: kafka(old) == kafka(new),
            intakes: old.has_intakes_of(new),
        }
    }
}

/// A listener's rules change under it only as long as no listener comes, goes or moves.
fn is_live(path: &str, same: Same) -> bool {
    if path.starts_with("limits.") {
        return !FIXED_LIMITS.contains(&path);
    }
    if path.starts_with("listeners[") {
        return same.places && !PLACE.contains(&path.split('.').nth(1).unwrap_or_default());
    }
    if path.starts_with("intakes[") {
        return same.intakes && LIVE_INTAKE.contains(&path.split('.').nth(1).unwrap_or_default());
    }
    let of = |keys: &[&str]| keys.iter().any(|live| path.starts_with(live));
    of(&LIVE)
        || (same.plugins && of(&LIVE_PLUGINS))
        || (same.redis && of(&LIVE_REDIS))
        || (same.kafka && of(&LIVE_KAFKA))
}
