//! Failed calls of plugins: the kind of failure ([`Kind`]) and the party to blame ([`Cause`]).
//!
//! Only a failure that the guest caused counts toward its circuit and its probation.

use wasmtime::Error;

use super::limits::Overrun;
use crate::plugin::history::HistoryError;
use crate::plugin::kv::KvError;

/// Party to blame for a failed call. `docs/decisions/0020-blame.md` says how each one is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Cause {
    /// The caller's input made the answer invalid: the caller is refused with 403.
    Caller,
    /// The guest trapped, overran a limit, or gave an answer that no input explains.
    Guest,
    /// The node could not do its part: the key-value store, the history, Redis, the pool, the ticker.
    Host,
    /// The operator disabled the plugin, or its file is missing or refused.
    Operator,
}

impl Cause {
    /// The metric label.
    pub(in crate::plugin) const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Guest => "guest",
            Self::Host => "host",
            Self::Operator => "operator",
        }
    }
}

/// Kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Kind {
    /// The guest trapped, exited, or broke the interface's rules.
    Trap,
    /// The guest used up its CPU time.
    Cpu,
    /// The guest used up its wall time.
    Wall,
    /// The guest asked for more memory than it may have, then gave up.
    Memory,
    /// The guest handed over too much.
    Bytes,
    /// Every instance is busy and no more may be made.
    Full,
    /// The ticker that bounds the time of guests has ended.
    Ticker,
    /// `lifecycle.start` returned an error.
    Start,
    /// The answer is not valid, and no input explains it.
    Answer,
    /// The answer is not valid because of the caller's input.
    Input,
    /// The handler returned an error of its own. The guest is well, so the circuit does not count it.
    Declared,
    /// The key-value store did not answer, or did not take the writes.
    Kv,
    /// The history did not answer.
    History,
    /// The cluster did not answer a question of the directory in time.
    Cluster,
    /// The circuit is open: the guest was not asked.
    Open,
    /// The caller is set apart: the guest was not asked.
    Apart,
    /// The plugin's file is gone or refused: there is no guest to ask.
    Missing,
}

impl Kind {
    /// The metric label.
    pub(in crate::plugin) const fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Cpu => "cpu",
            Self::Wall => "wall",
            Self::Memory => "memory",
            Self::Bytes => "bytes",
            Self::Full => "full",
            Self::Ticker => "ticker",
            Self::Start => "start",
            Self::Answer => "answer",
            Self::Input => "input",
            Self::Declared => "declared",
            Self::Kv => "kv",
            Self::History => "history",
            Self::Cluster => "cluster",
            Self::Open => "open",
            Self::Apart => "apart",
            Self::Missing => "missing",
        }
    }

    /// The party to blame.
    pub(in crate::plugin) const fn cause(self) -> Cause {
        match self {
            Self::Input => Cause::Caller,
            Self::Full | Self::Ticker | Self::Kv | Self::History | Self::Cluster => Cause::Host,
            Self::Missing => Cause::Operator,
            Self::Trap
            | Self::Cpu
            | Self::Wall
            | Self::Memory
            | Self::Bytes
            | Self::Start
            | Self::Answer
            | Self::Declared
            | Self::Open
            | Self::Apart => Cause::Guest,
        }
    }

    /// True if the guest was asked and failed, so that its circuit and its probation count the call.
    pub(in crate::plugin) const fn counts(self) -> bool {
        matches!(self.cause(), Cause::Guest) && !matches!(self, Self::Declared | Self::Open | Self::Apart)
    }

    /// True if the guest was not asked because of an open circuit, a source set apart or a missing file.
    pub(in crate::plugin) const fn guest_not_called(self) -> bool {
        matches!(self, Self::Open | Self::Apart | Self::Missing)
    }

    /// True while the plugin can answer no caller. A caller that can wait should retry later.
    pub(in crate::plugin) const fn affects_all_callers(self) -> bool {
        matches!(self, Self::Open) || matches!(self.cause(), Cause::Host | Cause::Operator)
    }
}

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(in crate::plugin) struct Failure {
    pub(in crate::plugin) kind: Kind,
    text: String,
}

/// The service for which a call waited when its wall time ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Waiting {
    /// The key-value store.
    Store,
    /// The history.
    History,
    /// Other nodes, for the directory.
    Cluster,
}

impl Failure {
    pub(in crate::plugin) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// The plugin should serve, but its file is missing or refused.
    pub(in crate::plugin) fn missing() -> Self {
        Self::new(Kind::Missing, "its file is missing or refused")
    }

    /// The party to blame.
    pub(in crate::plugin) const fn cause(&self) -> Cause {
        self.kind.cause()
    }

    /// Translates wasmtime's error; `short_of_memory` if a growth was refused during the call.
    pub(in crate::plugin) fn of(error: &Error, short_of_memory: bool) -> Self {
        if let Some(overrun) = error.chain().find_map(|cause| cause.downcast_ref::<Overrun>()) {
            let kind = match overrun {
                Overrun::Cpu(_) => Kind::Cpu,
                Overrun::Wall(_) => Kind::Wall,
                Overrun::Bytes(_) => Kind::Bytes,
            };
            return Self::new(kind, overrun.to_string());
        }
        // A store that fails ends the call by a trap, for which the guest is not to blame.
        if let Some(error) = error.chain().find_map(|cause| cause.downcast_ref::<KvError>()) {
            return Self::new(Kind::Kv, error.to_string());
        }
        if let Some(error) = error.chain().find_map(|cause| cause.downcast_ref::<HistoryError>()) {
            return Self::new(Kind::History, error.to_string());
        }
        // wasmtime's type for this error is private.
        let root = error.root_cause();
        if root.to_string().contains("fuel allocated for hostcalls") {
            return Self::new(Kind::Bytes, "handed over too many bytes in one host call");
        }
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Self::new(Kind::Full, "the pool of plugin instances is full");
        }
        if short_of_memory {
            return Self::new(Kind::Memory, format!("ran out of memory: {root}"));
        }
        Self::new(Kind::Trap, root.to_string())
    }

    /// The same failure, blamed on the host if the wall time ended while the guest waited for the host.
    pub(in crate::plugin) fn with_waiting(self, waiting: Option<Waiting>) -> Self {
        match (self.kind, waiting) {
            (Kind::Wall, Some(Waiting::Store)) => {
                Self::new(Kind::Kv, format!("the key-value store did not answer: the call {}", self.text))
            }
            (Kind::Wall, Some(Waiting::History)) => {
                Self::new(Kind::History, format!("the history did not answer: the call {}", self.text))
            }
            (Kind::Wall, Some(Waiting::Cluster)) => {
                Self::new(Kind::Cluster, format!("the cluster did not answer: the call {}", self.text))
            }
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn trap_caused_by_a_store_outage_is_blamed_on_the_host() {
        let error = Error::from(KvError::Unavailable("connection refused".into())).context("error while executing");
        let failure = Failure::of(&error, true);
        assert_eq!((failure.kind, failure.cause()), (Kind::Kv, Cause::Host));
        assert_eq!(failure.to_string(), "the key-value store is unavailable: connection refused");
        let error = Error::from(HistoryError::Unavailable("timed out".into())).context("error while executing");
        let failure = Failure::of(&error, false);
        assert_eq!((failure.kind, failure.cause()), (Kind::History, Cause::Host));
        assert_eq!(failure.to_string(), "the history is unavailable: timed out");
    }

    #[test]
    fn overrun_of_wall_time_during_a_host_wait_is_blamed_on_the_host() {
        let wall = || Failure::of(&Overrun::Wall(Duration::from_millis(50)).into(), false);
        assert_eq!(wall().with_waiting(None).kind, Kind::Wall);
        assert_eq!(wall().with_waiting(Some(Waiting::Store)).kind, Kind::Kv);
        assert_eq!(wall().with_waiting(Some(Waiting::History)).kind, Kind::History);
        assert_eq!(wall().with_waiting(Some(Waiting::Cluster)).kind, Kind::Cluster);
        let trap = Failure::new(Kind::Trap, "unreachable");
        assert_eq!(trap.with_waiting(Some(Waiting::Store)).kind, Kind::Trap);
    }

    #[test]
    fn only_failures_of_a_called_guest_count() {
        for kind in [Kind::Trap, Kind::Cpu, Kind::Wall, Kind::Memory, Kind::Bytes, Kind::Start, Kind::Answer] {
            assert!(kind.counts() && !kind.affects_all_callers() && !kind.guest_not_called(), "{kind:?}");
        }
        for kind in [Kind::Full, Kind::Ticker, Kind::Kv, Kind::History, Kind::Cluster, Kind::Open, Kind::Missing] {
            assert!(!kind.counts() && kind.affects_all_callers(), "{kind:?}");
        }
        for kind in [Kind::Input, Kind::Declared, Kind::Apart] {
            assert!(!kind.counts() && !kind.affects_all_callers(), "{kind:?}");
        }
    }
}
