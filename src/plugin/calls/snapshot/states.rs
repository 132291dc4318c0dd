//! States of one plugin name, and every transition between them.
//!
//! Pure: does not know how versions are made, and writes no log. `P` is a handle to a version, so that tests need no
//! WebAssembly. A state holds only what it has: a missing plugin has no version, and only a version on probation has
//! the time at which its probation began.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::plugin::calls::version::Version;
use crate::plugin::guest::manifest::matching::Rules;
use crate::plugin::guest::manifest::share::Share;
use crate::plugin::{PluginState, Rejected, Role};

/// A probation with few calls ends after this time, or after this many times its length if that is longer.
const AT_MOST: Duration = Duration::from_secs(600);
const AT_MOST_TIMES: u32 = 20;

/// One plugin name.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::plugin) struct Entry<P = Arc<Version>> {
    pub(in crate::plugin) name: Arc<str>,
    pub(in crate::plugin) state: State<P>,
    /// Why the newest file on disk does not serve.
    pub(in crate::plugin) rejected: Option<Rejected>,
    /// The version that a rollback in an earlier run restored, and why it does not serve now.
    pub(in crate::plugin) lost: Option<Rejected>,
}

/// State of a plugin.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::plugin) enum State<P = Arc<Version>> {
    /// `live` serves all senders. The operator may go back to `previous`.
    Serving { live: P, previous: Option<P> },
    /// `live` serves all senders and is on probation: if it fails, `previous` is restored.
    OnProbation { live: P, previous: P, probation: Probation },
    /// `canary` serves its share of the senders and is on probation. `live` serves the others.
    OnCanary { live: P, canary: Canary<P>, previous: Option<P>, probation: Probation },
    /// Its manifest disabled it.
    DisabledByManifest,
    /// The operator disabled it. The entry before is restored by `enable`, and changes of its files are ignored.
    DisabledByOperator(Box<Entry<P>>),
    /// Its file was refused and no older version serves. If the plugin is fail-closed, its roles refuse.
    Refused { fail_closed: Option<FailClosed> },
    /// Its file is gone and its fail-closed roles refuse.
    Missing { fail_closed: Option<FailClosed> },
}

/// A version that serves a share of the senders beside the one that serves all others.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::plugin) struct Canary<P = Arc<Version>> {
    pub(in crate::plugin) version: P,
    pub(in crate::plugin) share: Share,
}

/// Fail-closed roles of a plugin that cannot serve in them.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::plugin) struct FailClosed {
    pub(in crate::plugin) roles: Vec<Role>,
    /// True if the plugin has served in these roles. Otherwise they are assumed, or stated by its manifest.
    pub(in crate::plugin) confirmed: bool,
    pub(in crate::plugin) order: i64,
    pub(in crate::plugin) rules: Rules,
}

/// Length of a probation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) struct ProbationRules {
    /// Fewest calls.
    pub(in crate::plugin) calls: u64,
    /// Shortest time.
    pub(in crate::plugin) time: Duration,
}

/// One probation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) struct Probation {
    since: Instant,
    /// Calls that the version had served when it began.
    calls: u64,
}

impl Probation {
    /// Begins now, for a version that has served `calls`.
    fn new(calls: u64) -> Self {
        Self { since: Instant::now(), calls }
    }

    /// True once it has lasted long enough for a version that has served `calls`.
    pub(in crate::plugin) fn is_over(&self, rules: ProbationRules, now: Instant, calls: u64) -> bool {
        let lasted = now.saturating_duration_since(self.since);
        let enough_calls = calls.saturating_sub(self.calls) >= rules.calls;
        (enough_calls && lasted >= rules.time) || lasted >= AT_MOST.max(rules.time.saturating_mul(AT_MOST_TIMES))
    }
}

impl<P> State<P> {
    /// The state that operators see.
    pub(in crate::plugin) const fn public_state(&self) -> PluginState {
        match self {
            Self::Serving { .. } | Self::OnProbation { .. } | Self::OnCanary { .. } => PluginState::Live,
            Self::DisabledByManifest | Self::DisabledByOperator(_) => PluginState::Disabled,
            Self::Refused { .. } => PluginState::Rejected,
            Self::Missing { .. } => PluginState::Missing,
        }
    }
}

/// Transitions between the states.
impl<P: Clone> Entry<P> {
    /// Enters a state without notes.
    fn enter(name: &Arc<str>, state: State<P>) -> Self {
        Self { name: Arc::clone(name), state, rejected: None, lost: None }
    }

    /// A version that serves alone, without probation.
    pub(in crate::plugin) fn serving(name: &Arc<str>, live: P) -> Self {
        Self::enter(name, State::Serving { live, previous: None })
    }

    /// A version was accepted: it serves all senders, or its share if another version serves already. It is on
    /// probation if there is a version to go back to. `is_healthy` says that a version's circuit is closed.
    pub(in crate::plugin) fn accept(
        before: Option<Self>,
        name: &Arc<str>,
        version: P,
        share: Option<Share>,
        is_healthy: impl FnOnce(&P) -> bool,
    ) -> Self {
        let probation = Probation::new(0);
        let (live, previous) = before.map_or((None, None), |before| before.state.into_versions());
        let state = match (share, live) {
            (Some(share), Some(live)) => {
                State::OnCanary { live, canary: Canary { version, share }, previous, probation }
            }
            (None, Some(before)) => {
                // A rollback passes over a version with an open circuit if there is an older one.
                let previous = previous.filter(|_| !is_healthy(&before)).unwrap_or(before);
                State::OnProbation { live: version, previous, probation }
            }
            (_, None) => State::Serving { live: version, previous: None },
        };
        Self::enter(name, state)
    }

    /// The probation of a canary is over: it serves all senders, on a new probation. `calls` is the number of calls
    /// that it has served. Returns the version that served the others.
    pub(in crate::plugin) fn promote(&mut self, calls: u64) -> Option<P> {
        let State::OnCanary { live, canary, .. } = &self.state else { return None };
        let (before, live) = (live.clone(), canary.version.clone());
        self.state = State::OnProbation { live, previous: before.clone(), probation: Probation::new(calls) };
        Some(before)
    }

    /// The probation of the live version is over. The previous one is kept for the operator.
    pub(in crate::plugin) fn end_probation(&mut self) {
        if let State::OnProbation { live, previous, .. } = &self.state {
            self.state = State::Serving { live: live.clone(), previous: Some(previous.clone()) };
        }
    }

    /// Goes back: the canary is dropped, or the previous version serves again. Returns the version that is rolled back.
    pub(in crate::plugin) fn roll_back(&mut self) -> Option<P> {
        let (state, rolled_back) = match &self.state {
            State::OnCanary { live, canary, previous, .. } => {
                (State::Serving { live: live.clone(), previous: previous.clone() }, canary.version.clone())
            }
            State::OnProbation { live, previous, .. } | State::Serving { live, previous: Some(previous) } => {
                (State::Serving { live: previous.clone(), previous: None }, live.clone())
            }
            _ => return None,
        };
        self.state = state;
        Some(rolled_back)
    }

    /// The manifest disables the plugin.
    pub(in crate::plugin) fn disable_by_manifest(name: &Arc<str>) -> Self {
        Self::enter(name, State::DisabledByManifest)
    }

    /// The operator disables the plugin. A canary and a probation end, and the rest is kept for `enable`.
    pub(in crate::plugin) fn disable_by_operator(mut self) -> Self {
        self.state = match self.state {
            State::OnCanary { live, previous, .. } => State::Serving { live, previous },
            State::OnProbation { live, previous, .. } => State::Serving { live, previous: Some(previous) },
            state => state,
        };
        let name = Arc::clone(&self.name);
        Self::enter(&name, State::DisabledByOperator(Box::new(self)))
    }

    /// The operator enables the plugin: the entry before it was disabled is back.
    pub(in crate::plugin) fn enable(self) -> Self {
        match self.state {
            State::DisabledByOperator(before) => *before,
            _ => self,
        }
    }

    /// A file of a plugin without an entry was refused. `fail_closed` are the roles that refuse without it.
    pub(in crate::plugin) fn refused(name: &Arc<str>, fail_closed: Option<FailClosed>) -> Self {
        Self::enter(name, State::Refused { fail_closed })
    }

    /// The newest file was refused. A version that serves goes on, and a role that refuses goes on refusing.
    pub(in crate::plugin) fn refuse(&mut self, rejected: Rejected) {
        self.rejected = Some(rejected);
        match &mut self.state {
            State::Missing { fail_closed } => self.state = State::Refused { fail_closed: fail_closed.take() },
            State::DisabledByManifest => self.state = State::Refused { fail_closed: None },
            State::Serving { .. }
            | State::OnProbation { .. }
            | State::OnCanary { .. }
            | State::DisabledByOperator(_)
            | State::Refused { .. } => {}
        }
    }

    /// The file is gone, or was there in an earlier run: its fail-closed roles refuse.
    pub(in crate::plugin) fn missing(name: &Arc<str>, fail_closed: Option<FailClosed>) -> Self {
        Self::enter(name, State::Missing { fail_closed })
    }
}

impl<P> State<P> {
    /// The live and the previous version.
    fn into_versions(self) -> (Option<P>, Option<P>) {
        match self {
            Self::Serving { live, previous } | Self::OnCanary { live, previous, .. } => (Some(live), previous),
            Self::OnProbation { live, previous, .. } => (Some(live), Some(previous)),
            Self::DisabledByManifest | Self::DisabledByOperator(_) | Self::Refused { .. } | Self::Missing { .. } => {
                (None, None)
            }
        }
    }
}

/// Parts of the state.
impl<P> Entry<P> {
    /// The version that serves all senders but the canary's.
    pub(in crate::plugin) fn live(&self) -> Option<&P> {
        match &self.state {
            State::Serving { live, .. } | State::OnProbation { live, .. } | State::OnCanary { live, .. } => Some(live),
            State::DisabledByManifest
            | State::DisabledByOperator(_)
            | State::Refused { .. }
            | State::Missing { .. } => None,
        }
    }

    /// The version that serves a share of the senders.
    pub(in crate::plugin) fn canary(&self) -> Option<&Canary<P>> {
        if let State::OnCanary { canary, .. } = &self.state { Some(canary) } else { None }
    }

    /// The version that served before the live one.
    pub(in crate::plugin) fn previous(&self) -> Option<&P> {
        match &self.state {
            State::Serving { previous, .. } | State::OnCanary { previous, .. } => previous.as_ref(),
            State::OnProbation { previous, .. } => Some(previous),
            State::DisabledByManifest
            | State::DisabledByOperator(_)
            | State::Refused { .. }
            | State::Missing { .. } => None,
        }
    }

    /// The version on probation, and its probation.
    pub(in crate::plugin) fn probation(&self) -> Option<(&P, Probation)> {
        match &self.state {
            State::OnProbation { live, probation, .. } => Some((live, *probation)),
            State::OnCanary { canary, probation, .. } => Some((&canary.version, *probation)),
            _ => None,
        }
    }

    /// The version that a rollback would restore.
    pub(in crate::plugin) fn rollback_target(&self) -> Option<&P> {
        if self.canary().is_some() { self.live() } else { self.previous() }
    }

    /// The fail-closed roles that the plugin should serve and cannot.
    pub(in crate::plugin) fn fail_closed(&self) -> Option<&FailClosed> {
        match &self.state {
            State::Refused { fail_closed } | State::Missing { fail_closed } => fail_closed.as_ref(),
            _ => None,
        }
    }

    /// The entry that `enable` restores; `None` unless the operator disabled the plugin.
    pub(in crate::plugin) fn before_disable(&self) -> Option<&Self> {
        if let State::DisabledByOperator(before) = &self.state { Some(before) } else { None }
    }

    /// True if the file was refused and no older version serves.
    pub(in crate::plugin) fn is_refused(&self) -> bool {
        matches!(self.state, State::Refused { .. })
    }

    /// True if the file is gone and the role refuses.
    pub(in crate::plugin) fn is_missing(&self) -> bool {
        matches!(self.state, State::Missing { .. })
    }

    /// All versions that serve, or that a rollback may restore.
    pub(in crate::plugin) fn versions(&self) -> impl Iterator<Item = &P> {
        let canary = self.canary().map(|canary| &canary.version);
        self.live().into_iter().chain(canary).chain(self.previous())
    }

    /// The versions that answer calls.
    pub(in crate::plugin) fn serving_versions(&self) -> impl Iterator<Item = &P> {
        self.live().into_iter().chain(self.canary().map(|canary| &canary.version))
    }
}

#[cfg(test)]
mod tests;
