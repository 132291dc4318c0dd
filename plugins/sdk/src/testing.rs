//! A host in memory, for tests of a plugin's logic on the machine it is written on. Each thread, so each test, has its own.
//!
//! It keeps what the real host keeps for one plugin and stages nothing: effects and writes are seen at once. Limits, grants and conflicts are the
//! real host's affair.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::crypto::PublicKey;
use crate::directory::Presence;
use crate::http::Response;
use crate::log::Level;
use crate::login::Account;
use crate::outbox::Error;
use crate::{Message, Target};

/// What the plugin sees of the world, and what it did to it.
#[derive(Debug, Clone)]
pub struct Host {
    /// The `[settings]` table as JSON.
    pub settings: String,
    /// Milliseconds since 1970.
    pub now: u64,
    /// Nanoseconds that looks at the monotonic clock took.
    pub ticks: u64,
    /// Users and their connections.
    pub online: BTreeMap<String, Vec<Presence>>,
    /// Keys, their values, and the millisecond at which they end.
    pub kv: BTreeMap<String, (Vec<u8>, Option<u64>)>,
    /// What each counter (a name and a window in seconds) counted, with the millisecond of each.
    pub counters: BTreeMap<(String, u32), Vec<(u64, u32)>>,
    /// Signatures that [`crypto::verify`](crate::crypto::verify) takes as good: key, data, signature.
    pub signatures: Vec<(PublicKey, Vec<u8>, Vec<u8>)>,
    /// Turns of the randomness, which is the same in each run.
    pub randoms: u64,
    /// What [`http`](crate::http) answers, by method and address: `GET https://keys.example/`. Anything else is unreachable.
    pub answers: BTreeMap<String, Response>,
    /// Timers: the millisecond at which each is due, and its data.
    pub timers: BTreeMap<String, (u64, Vec<u8>)>,
    /// What was pushed, joined, left and kicked, oldest first.
    pub effects: Vec<Effect>,
    /// What was logged, oldest first.
    pub lines: Vec<(Level, String)>,
}

/// One effect on others.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A message to a target.
    Push(Target, Box<Message>),
    /// A user joins a room.
    Join(String, String),
    /// A user leaves a room.
    Leave(String, String),
    /// Connections are closed with these words.
    Kick(Target, String),
    /// A connection becomes a user's.
    Login(u64, Box<Account>),
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::new(Host::default());
}

/// Looks at this thread's host, or changes it.
pub fn with<T>(look: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with(|host| look(&mut host.borrow_mut()))
}

/// Makes a user known as online, with one connection of the given number.
pub fn connect(uid: &str, cid: u64) {
    let presence = Presence { cid, device: None, channel: None, rooms: Vec::new() };
    with(|host| host.online.entry(uid.to_owned()).or_default().push(presence));
}

/// Lets time pass.
pub fn advance(milliseconds: u64) {
    with(|host| host.now += milliseconds);
}

/// Takes the timers that are due, in order: name and data, for [`Alarms::on_timer`](crate::Alarms::on_timer).
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

/// The pushes since the last look, oldest first.
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

/// No settings, no user, and a clock that stands in 2026.
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
            timers: BTreeMap::new(),
            effects: Vec::new(),
            lines: Vec::new(),
        }
    }
}
