//! Differences between two configurations, split into those a running node can apply and those that need a restart.

use std::collections::BTreeMap;

use super::read::Setting;
use super::read::value::Value;
use super::{Config, Credential, Intake, IntakeKind, Limits, Listener};

/// Keys or prefixes of keys that a running node applies without a restart. [`is_live`] decides for `limits` and
/// listeners.
const LIVE: [&str; 4] = ["clients.", "api.", "log.level", "drain."];
/// Live keys that depend on the plugin directory: they change together with it.
const LIVE_PLUGINS: [&str; 3] = ["plugins.allow_remove", "plugins.require_hash", "plugins.signing_keys"];
/// Live keys that depend on a server: they change together with its address.
const LIVE_REDIS: [&str; 2] = ["bus.redis.user", "bus.redis.password"];
const LIVE_KAFKA: [&str; 1] = ["bus.kafka.password"];
/// Limits that size structures when the node starts.
const FIXED_LIMITS: [&str; 2] = ["limits.connections", "limits.auth_calls"];
/// Credentials of an intake. The user counts for Redis only.
const LIVE_INTAKE: [&str; 2] = ["user", "password"];
/// Keys of a listener that define its address, its services and its TLS.
const PLACE: [&str; 3] = ["address", "serves", "tls"];

/// Keys that differ between two configurations, in the order of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// A running node applies these.
    pub live: Vec<String>,
    /// These take effect after a restart.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Compares this configuration with `new`.
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

    /// Takes the live keys from `new` and keeps the others.
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

    /// True if both listen on the same addresses for the same services, with certificates from the same files.
    fn has_places_of(&self, other: &Self) -> bool {
        let places = |listeners: &[Listener]| -> Vec<_> {
            listeners.iter().map(|l| (l.address, l.serves.clone(), l.tls.clone())).collect()
        };
        places(&self.listeners) == places(&other.listeners)
    }

    /// True if both read the same topics of the same engines, regardless of the credentials.
    fn has_intakes_of(&self, other: &Self) -> bool {
        let plain = |intake: &Intake| {
            let user = if intake.kind == IntakeKind::Kafka { intake.user.clone() } else { String::new() };
            Intake { user, password: Credential::default(), ..intake.clone() }
        };
        let plain = |config: &Self| config.intakes.iter().map(plain).collect::<Vec<_>>();
        plain(self) == plain(other)
    }
}

/// Parts that two configurations have in common. A live key that belongs to a part that needs a restart waits for the
/// restart, too. Signing keys of another plugin directory do not apply to this one. The password of another server does
/// not open this one.
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

/// The rules of a listener are live only if no listener was added, removed or moved.
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
