//! Rules that concern several keys, or that the type of one key cannot express.

mod history;
mod warn;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;

use super::read::fault::{Fault, nearest};
use super::read::one_of;
use super::read::value::Value;
use super::{Config, IntakeKind, Service};
use crate::authority::Authority;
use crate::id::Room;

/// Keywords for a group of origins.
const ORIGIN_WORDS: [&str; 4] = ["same-origin", "same-host", "loopback", "*"];
/// Length of an Ed25519 public key in bytes.
const KEY_BYTES: usize = 32;
/// Maximum length of the prefix of keys and channels, in bytes.
const MAX_PREFIX: usize = 64;
const REDIS_SCHEMES: [&str; 2] = ["redis", "rediss"];
const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

/// Adds the faults of `config`. A key with an earlier fault holds a placeholder, so rules skip it. `only_v6`: `[::]`
/// does not accept IPv4 on this machine.
pub(super) fn check(config: &Config, tree: &Value, only_v6: bool, faults: &mut Vec<Fault>) {
    let faulty: Vec<String> = faults.iter().map(|fault| fault.path.clone()).collect();
    let mut rules = Rules { config, tree, only_v6, faulty, faults };
    rules.listeners();
    rules.api();
    rules.clients();
    rules.durations();
    rules.plugins();
    rules.intakes();
    rules.bus();
    rules.history();
    rules.log();
}

struct Rules<'a> {
    config: &'a Config,
    tree: &'a Value,
    only_v6: bool,
    faulty: Vec<String>,
    faults: &'a mut Vec<Fault>,
}

impl Rules<'_> {
    fn plugins(&mut self) {
        if !self.has_no_fault("plugins.signing_keys") {
            return;
        }
        for (index, key) in self.config.plugins.signing_keys.iter().enumerate() {
            if base64::engine::general_purpose::STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES) {
                continue;
            }
            // The text may be the private key of the pair, so it is not shown.
            let got = key.chars().count();
            let problem = format!(
                "expected an Ed25519 public key, {KEY_BYTES} bytes as base64, got a string of {got} characters"
            );
            self.fault(&format!("plugins.signing_keys[{index}]"), &problem);
        }
    }

    fn bus(&mut self) {
        let bus = &self.config.bus;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let fits = (1..=MAX_PREFIX).contains(&bus.prefix.len()) && bus.prefix.chars().all(is_plain);
        if self.has_no_fault("bus.prefix") && !fits {
            let problem = format!("expected 1 to {MAX_PREFIX} letters, digits, `-`, `_` or `.`, got {:?}", bus.prefix);
            self.fault("bus.prefix", &problem);
        }
        self.brokers("bus.kafka.brokers", &bus.kafka.brokers);
        if self.has_no_fault("bus.redis.url") {
            self.redis_url("bus.redis.url", &bus.redis.url);
        }
    }

    /// librdkafka would treat the text before the `@` as part of the host name and print it in its errors.
    fn brokers(&mut self, path: &str, brokers: &str) {
        if brokers.contains('@') && self.has_no_fault(path) {
            self.fault(
                path,
                "expected host:port, separated by commas, without user and password: set the keys user and password instead",
            );
        }
    }

    fn redis_url(&mut self, path: &str, url: &str) {
        let expected = match url.split_once("://").filter(|(scheme, _)| REDIS_SCHEMES.contains(scheme)) {
            // The text before the `@` may be a secret, so it is not shown.
            _ if url.contains('@') => {
                return self.fault(path, "expected no user and password: set the keys user and password instead");
            }
            None => "redis://host:port or rediss://host:port",
            Some((_, rest)) if rest.is_empty() || rest.starts_with(['/', ':']) || rest.contains(['?', '#']) => {
                "a host, a port and a database number, nothing else"
            }
            Some(_) => return,
        };
        // A password may follow a `?`, too.
        let shown = url.split_once(['?', '#']).map_or(url, |(shown, _)| shown);
        self.fault(path, &format!("expected {expected}, got {shown:?}"));
    }

    fn listeners(&mut self) {
        if !self.has_no_fault("listeners") {
            return;
        }
        if self.config.listeners.is_empty() {
            self.fault("listeners", "expected at least one listener, got none");
        }
        for (index, listener) in self.config.listeners.iter().enumerate() {
            let (address, serves) = (format!("listeners[{index}].address"), format!("listeners[{index}].serves"));
            let earlier = self.config.listeners[..index].iter().map(|other| other.address).enumerate();
            for (other, taken) in earlier {
                if let Some(problem) = conflict(other, taken, listener.address, self.only_v6) {
                    self.fault(&address, &problem);
                    break;
                }
            }
            if listener.serves.is_empty() {
                self.fault(&serves, "expected at least one service, got none");
            }
            let distinct: HashSet<Service> = listener.serves.iter().copied().collect();
            if distinct.len() < listener.serves.len() {
                self.fault(&serves, "expected each service once");
            }
            if distinct.contains(&Service::CimTcp) && distinct.len() > 1 {
                self.fault(&serves, "expected cim-tcp alone: it is not HTTP and needs an address of its own");
            }
            for (at, origin) in listener.origins.iter().enumerate() {
                self.origin(&format!("listeners[{index}].origins[{at}]"), origin);
            }
        }
    }

    fn origin(&mut self, path: &str, origin: &str) {
        let is_scheme = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        };
        let is_exact = origin
            .split_once("://")
            .is_some_and(|(scheme, authority)| is_scheme(scheme) && Authority::parse(authority).is_ok());
        if !is_exact && !ORIGIN_WORDS.contains(&origin) {
            let words = one_of(&ORIGIN_WORDS);
            self.fault(
                path,
                &format!("expected an origin such as https://chat.example.com, or {words}, got {origin:?}"),
            );
            self.suggest(nearest(origin, ORIGIN_WORDS));
        }
    }

    fn api(&mut self) {
        let api = &self.config.api;
        if !self.has_no_fault("api") || !self.has_no_fault("listeners") {
            return;
        }
        for (index, key) in api.keys.iter().enumerate() {
            let before = &api.keys[..index];
            if before.iter().any(|other| other.name == key.name) {
                self.fault(
                    &format!("api.keys[{index}].name"),
                    &format!("expected a unique name, got {:?} again", key.name),
                );
            }
            if before.iter().any(|other| other.key == key.key) {
                self.fault(
                    &format!("api.keys[{index}].key"),
                    "expected a unique key, got one that an earlier entry has",
                );
            }
            // A header cannot carry it, or a proxy truncates it: every call would get 401.
            if let Some(at) = key.key.find(|c: char| c.is_whitespace() || c.is_control()) {
                let problem = format!("expected a key without blanks and line breaks, got one after byte {at}");
                self.fault(&format!("api.keys[{index}].key"), &problem);
            }
            if key.scopes.is_empty() {
                self.fault(&format!("api.keys[{index}].scopes"), "expected at least one scope, got none");
            }
        }
        let open = |listener: &super::Listener| listener.has(Service::Api) && !listener.address.ip().is_loopback();
        if api.keys.is_empty()
            && !api.insecure
            && let Some(index) = self.config.listeners.iter().position(open)
        {
            let address = self.config.listeners[index].address;
            let problem = format!(
                "expected at least one key, because the push API listens on {address} (listeners[{index}]), which is not \
                 loopback; or set api.insecure: true to let every caller push"
            );
            self.fault("api.keys", &problem);
        }
    }

    fn clients(&mut self) {
        if !self.has_no_fault("clients.open_rooms") {
            return;
        }
        for (index, pattern) in self.config.clients.open_rooms.patterns().iter().enumerate() {
            self.room_pattern(&format!("clients.open_rooms[{index}]"), pattern);
        }
    }

    /// Checks the name of a room, or a prefix followed by `*`.
    fn room_pattern(&mut self, path: &str, pattern: &str) {
        let name = pattern.strip_suffix('*').unwrap_or(pattern);
        if name.contains('*') {
            self.fault(path, &format!("expected a * at the end only, got {pattern:?}"));
        } else if !(name.is_empty() && pattern == "*")
            && let Err(error) = Room::parse(name)
        {
            let problem = format!("expected a room, a prefix followed by *, or \"*\", got {pattern:?}: {error}");
            self.fault(path, &problem);
        }
    }

    fn intakes(&mut self) {
        if !self.has_no_fault("intakes") {
            return;
        }
        for (index, intake) in self.config.intakes.iter().enumerate() {
            let path = |key: &str| format!("intakes[{index}].{key}");
            for (key, text) in [("topic", &intake.topic), ("group", &intake.group)] {
                if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
                    self.fault(&path(key), &format!("expected a name without blanks, got {text:?}"));
                }
            }
            let is_kafka = intake.kind == IntakeKind::Kafka;
            let has_own = !(intake.url.is_empty() && intake.brokers.is_empty());
            let of_another_kind = format!("expected none, because the intake is of kind {}", intake.kind.as_str());
            let alone = "expected only with an address: without one the intake uses the address and the user of bus";
            let rules = [
                ("url", !intake.url.is_empty(), !is_kafka, &*of_another_kind),
                ("brokers", !intake.brokers.is_empty(), is_kafka, &*of_another_kind),
                ("properties", !intake.properties.0.is_empty(), is_kafka, &*of_another_kind),
                ("user", !intake.user.is_empty(), has_own, alone),
                ("password", !intake.password.is_empty(), has_own, alone),
            ];
            for (key, _, _, problem) in rules.iter().filter(|(_, is_given, fits, _)| *is_given && !fits) {
                self.fault(&path(key), problem);
            }
            self.brokers(&path("brokers"), &intake.brokers);
            if !is_kafka && !intake.url.is_empty() {
                self.redis_url(&path("url"), &intake.url);
            }
            let line =
                |other: &super::Intake| (other.kind, other.topic.clone(), other.url.clone(), other.brokers.clone());
            if self.config.intakes[..index].iter().any(|other| line(other) == line(intake)) {
                self.fault(&path("topic"), &format!("expected a unique topic, got {:?} again", intake.topic));
            }
        }
    }

    fn durations(&mut self) {
        let Config { heartbeat, limits, queue, plugins, drain, cluster, .. } = self.config;
        let least = [
            ("heartbeat.interval", heartbeat.interval, Duration::from_millis(100)),
            ("limits.handshake", limits.handshake, Duration::from_millis(100)),
            ("limits.keep_alive", limits.keep_alive, Duration::from_millis(100)),
            ("limits.first_frame", limits.first_frame, Duration::from_millis(100)),
            ("limits.unbound", limits.unbound, Duration::from_millis(100)),
            ("limits.message_timeout", limits.message_timeout, Duration::from_millis(100)),
            ("queue.write_timeout", queue.write_timeout, Duration::from_millis(100)),
            ("cluster.reply_timeout", cluster.reply_timeout, Duration::from_millis(100)),
            ("plugins.rescan", plugins.rescan, Duration::from_millis(100)),
            ("plugins.ticker_lag", plugins.ticker_lag, Duration::from_millis(10)),
            ("plugins.caps.cpu", plugins.caps.cpu, Duration::from_millis(1)),
            ("plugins.caps.wall", plugins.caps.wall, Duration::from_millis(1)),
        ];
        for (path, duration, least) in least {
            if duration < least && self.has_no_fault(path) {
                let shown = |duration| humantime::format_duration(duration);
                self.fault(path, &format!("expected at least {}, got {}", shown(least), shown(duration)));
            }
        }
        let ordered = [
            ("limits.unbound_max", limits.unbound_max, "limits.unbound", limits.unbound),
            ("drain.grace", drain.grace, "drain.wait", drain.wait),
        ];
        for (path, longer, other, shorter) in ordered {
            if longer < shorter && self.has_no_fault(path) && self.has_no_fault(other) {
                let shown = |duration| humantime::format_duration(duration).to_string();
                self.fault(path, &format!("expected at least {other} ({}), got {}", shown(shorter), shown(longer)));
            }
        }
    }

    fn log(&mut self) {
        if !self.has_no_fault("log.level") {
            return;
        }
        let level = &self.config.log.level;
        // tracing's own parser would read a misspelt level as the name of a module.
        for part in level.split(',').map(str::trim) {
            let (module, name) = part.split_once('=').unwrap_or(("", part));
            let is_module = module.chars().all(|c| c.is_alphanumeric() || "_:-".contains(c));
            if !is_module || !LEVELS.contains(&name.to_lowercase().as_str()) {
                self.fault("log.level", &format!("expected {}, or module=level, got {part:?}", one_of(&LEVELS)));
                self.suggest(nearest(name, LEVELS));
            }
        }
    }

    fn has_no_fault(&self, path: &str) -> bool {
        !self.faulty.iter().any(|faulty| faulty.starts_with(path))
    }

    fn fault(&mut self, path: &str, problem: &str) {
        let source = self.tree.source_at(path);
        self.faults.push(Fault { source, path: path.to_owned(), problem: problem.to_owned(), nearest: None });
    }

    fn suggest(&mut self, nearest: Option<String>) {
        if let Some(fault) = self.faults.last_mut() {
            fault.nearest = nearest;
        }
    }
}

/// Explains why `address` cannot be bound together with `taken`, the address of `listeners[other]`.
fn conflict(other: usize, taken: SocketAddr, address: SocketAddr, only_v6: bool) -> Option<String> {
    if address.port() == 0 || address.port() != taken.port() {
        return None;
    }
    if address == taken {
        return Some(format!("expected a unique address, got {address} again"));
    }
    // Addresses that a wildcard address includes.
    let covers = |wide: SocketAddr, narrow: SocketAddr| match wide.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && narrow.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified() && (narrow.is_ipv6() || !only_v6),
    };
    let wide = [taken, address].into_iter().find(|wide| covers(*wide, if *wide == taken { address } else { taken }))?;
    let both = if wide.is_ipv6() && !only_v6 { "every IPv6 and IPv4 address" } else { "every address of its family" };
    Some(format!(
        "{address} and {taken} (listeners[{other}]) cannot be bound together: {wide} takes {both} of the machine on port {}; \
         keep one of the two, or give one another port",
        wide.port()
    ))
}
