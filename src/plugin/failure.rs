//! Why a call of a plugin did not give an answer, in words for logs, metrics and the role's failure answer.

use wasmtime::Error;

use super::limits::Overrun;

/// Grouped as operators ask: what should I raise, or whom should I ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The guest trapped, exited, or broke the interface's rules.
    Trap,
    /// Its CPU time ended.
    Cpu,
    /// Its wall time ended.
    Wall,
    /// It asked for more memory than it may have, then gave up.
    Memory,
    /// It handed over too much.
    Bytes,
    /// Every instance is busy and no more may be made.
    Full,
    /// Nothing would bound its time.
    Ticker,
    /// `lifecycle.start` said no.
    Start,
    /// It answered with something that is not valid.
    Answer,
    /// It returned an error of its own.
    Declared,
    /// The key-value store did not take its writes.
    Kv,
    /// Its circuit is open: the guest was not asked.
    Open,
}

impl Kind {
    /// The metric label.
    pub(super) const fn as_str(self) -> &'static str {
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
            Self::Declared => "declared",
            Self::Kv => "kv",
            Self::Open => "open",
        }
    }

    /// Whether the guest is to blame, so that its circuit has to know.
    pub(super) const fn is_guests_fault(self) -> bool {
        !matches!(self, Self::Full | Self::Ticker | Self::Declared | Self::Kv | Self::Open)
    }
}

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub(super) struct Failure {
    pub(super) kind: Kind,
    words: String,
}

impl Failure {
    pub(super) fn new(kind: Kind, words: impl Into<String>) -> Self {
        Self { kind, words: words.into() }
    }

    /// What wasmtime's error means; `short_of_memory` if a growth was refused during the call.
    pub(super) fn of(error: &Error, short_of_memory: bool) -> Self {
        if let Some(overrun) = error.chain().find_map(|cause| cause.downcast_ref::<Overrun>()) {
            let kind = match overrun {
                Overrun::Cpu(_) => Kind::Cpu,
                Overrun::Wall(_) => Kind::Wall,
                Overrun::Bytes(_) => Kind::Bytes,
            };
            return Self::new(kind, overrun.to_string());
        }
        // wasmtime's own type for it is private.
        let root = error.root_cause();
        if root.to_string().contains("fuel allocated for hostcalls") {
            return Self::new(Kind::Bytes, "handed over too much at once");
        }
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Self::new(Kind::Full, "the pool of plugin instances is full");
        }
        if short_of_memory {
            return Self::new(Kind::Memory, format!("ran out of its memory: {root}"));
        }
        Self::new(Kind::Trap, root.to_string())
    }
}
