//! In-memory host for unit tests of a plugin's logic. Each thread, and so each test, has its own host.
//!
//! The host keeps the state of one plugin and stages nothing: effects and writes are visible at once. It enforces no
//! limits and grants and has no conflicts; only the real host does.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::crypto::PublicKey;
use crate::directory::Presence;
use crate::history::{self, StreamName};
use crate::http::Response;
use crate::log::Level;
use crate::login::Account;
use crate::outbox::Error;
use crate::{Message, Target};

/// The state that the plugin reads, and the effects that the plugin made.
#[derive(Debug, Clone)]
pub struct Host {
    /// The `[settings]` table as JSON.
    pub settings: String,
    /// Milliseconds since 1970.
    pub now: u64,
    /// Calls of the monotonic clock; each adds one nanosecond.
    pub ticks: u64,
    /// Users and their connections.
    pub online: BTreeMap<String, Vec<Presence>>,
    /// Keys, their values, and the millisecond at which they expire.
    pub kv: BTreeMap<String, (Vec<u8>, Option<u64>)>,
    /// The amounts that each counter (a name and a window in seconds) counted, with the millisecond of each.
    pub counters: BTreeMap<(String, u32), Vec<(u64, u32)>>,
    /// Signatures that [`crypto::verify`](crate::crypto::verify) accepts: key, data, signature.
    pub signatures: Vec<(PublicKey, Vec<u8>, Vec<u8>)>,
    /// Number of random blocks made; the random bytes are the same in each run.
    pub randoms: u64,
    /// Responses of [`http`](crate::http) by method and URL: `GET https://keys.example/`. All other URLs are
    /// unreachable.
    pub answers: BTreeMap<String, Response>,
    /// Kept messages of each stream, oldest first; none = the node keeps no messages.
    pub history: Option<Vec<(StreamName, Vec<Message>)>>,
    /// Timers: the millisecond at which each is due, and the data.
    pub timers: BTreeMap<String, (u64, Vec<u8>)>,
    /// Effects, oldest first.
    pub effects: Vec<Effect>,
    /// Log lines, oldest first.
    pub lines: Vec<(Level, String)>,
}

/// One effect on other clients.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A message to a target.
    Push(Target, Box<Message>),
    /// Adds a user to a room.
    Join(String, String),
    /// Removes a user from a room.
    Leave(String, String),
    /// Closes connections with this reason.
    Kick(Target, String),
    /// Binds a connection to a user.
    Login(u64, Box<Account>),
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::new(Host::default());
}

/// Gives access to the host of this thread.
pub fn with<T>(look: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with(|host| look(&mut host.borrow_mut()))
}

/// Makes a user online, with one connection of the given number.
pub fn connect(uid: &str, cid: u64) {
    let presence = Presence { cid, device: None, channel: None, rooms: Vec::new() };
    with(|host| host.online.entry(uid.to_owned()).or_default().push(presence));
}

/// Advances the clock.
pub fn advance(milliseconds: u64) {
    with(|host| host.now += milliseconds);
}

/// Appends a message to a stream of the history.
pub fn keep(name: StreamName, message: Message) {
    with(|host| {
        let streams = host.history.get_or_insert_default();
        match streams.iter_mut().find(|(other, _)| *other == name) {
            Some((_, kept)) => kept.push(message),
            None => streams.push((name, vec![message])),
        }
    });
}

pub(crate) fn kept(name: &StreamName) -> Result<Vec<Message>, history::Error> {
    with(|host| {
        let streams = host.history.as_ref().ok_or(history::Error::Off)?;
        Ok(streams.iter().find(|(other, _)| other == name).map(|(_, kept)| kept.clone()).unwrap_or_default())
    })
}

/// Takes the due timers in order: name and data, for [`Alarms::on_timer`](crate::Alarms::on_timer).
pub fn take_due_timers() -> Vec<(String, Vec<u8>)> {
    with(|host| {
        let now = host.now;
        let mut due: Vec<_> =
            host.timers.iter().filter(|(_, (at, _))| *at <= now).map(|(name, (at, _))| (*at, name.clone())).collect();
        due.sort();
        let taken = due.into_iter().filter_map(|(_, name)| host.timers.remove_entry(&name));
        taken.map(|(name, (_, data))| (name, data)).collect()
    })
}

/// Takes the pushes since the last call, oldest first.
pub fn take_pushes() -> Vec<(Target, Message)> {
    let effects = with(|host| std::mem::take(&mut host.effects));
    let pushes = effects.into_iter().filter_map(|effect| match effect {
        Effect::Push(target, message) => Some((target, *message)),
        _ => None,
    });
    pushes.collect()
}

pub(crate) fn effect(effect: Effect) -> Result<(), Error> {
    with(|host| host.effects.push(effect));
    Ok(())
}

impl Host {
    pub(crate) fn stored(&self, key: &str) -> Option<Vec<u8>> {
        let (value, ends) = self.kv.get(key)?;
        ends.is_none_or(|at| self.now < at).then(|| value.clone())
    }

    pub(crate) fn store(&mut self, key: &str, value: &[u8], ttl: Option<u32>) {
        let ends = ttl.map(|seconds| self.now + u64::from(seconds) * 1_000);
        self.kv.insert(key.to_owned(), (value.to_vec(), ends));
    }
}

/// Empty settings, no users, and a clock fixed in 2026.
impl Default for Host {
    fn default() -> Self {
        Self {
            settings: "{}".to_owned(),
            now: 1_790_000_000_000,
            ticks: 0,
            online: BTreeMap::new(),
            kv: BTreeMap::new(),
            counters: BTreeMap::new(),
            signatures: Vec::new(),
            randoms: 0,
            answers: BTreeMap::new(),
            history: Some(Vec::new()),
            timers: BTreeMap::new(),
            effects: Vec::new(),
            lines: Vec::new(),
        }
    }
}
