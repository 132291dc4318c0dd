//! Room access: asks the access plugins in order. The first one that does not abstain decides.

use std::sync::Arc;

use super::lease::InstanceLease;
use super::retry;
use super::snapshot::{ChainEntry, Snapshot};
use super::source::CallSource;
use super::version::Version;
use super::version::stats::{self, CallOutcome};
use crate::code::Code;
use crate::plugin::guest::bindings::exports::skylark::plugin::access::Answer;
use crate::plugin::guest::convert;
use crate::plugin::guest::failure::Failure;
use crate::plugin::guest::manifest::matching::Rules;
use crate::plugin::{Access, JoinRequest, Role};

/// Asks the plugins in order until one decides.
pub(in crate::plugin) async fn join(snapshot: &Snapshot, request: &JoinRequest) -> Access {
    // The joins that a missing plugin would have refused are not known, so its rooms are unavailable.
    if let Some(plugin) = snapshot.access.iter().find_map(|entry| entry.unavailable_for(request)) {
        stats::count_unanswered(plugin, Role::Access, Failure::missing().kind);
        return Access::Unavailable;
    }
    for entry in &snapshot.access {
        let ChainEntry::Live(served) = entry else { continue };
        let Some(version) = served.choose(|| Some(request.who.uid.as_str().into())) else { continue };
        if !wants(&version.manifest.rules, request) {
            continue;
        }
        match ask(version, request).await {
            Ok(Access::Abstain) => {}
            Ok(decided) => return decided,
            Err(failure) => {
                version.failed(Role::Access, &failure, &source(request));
                return Access::Unavailable;
            }
        }
    }
    Access::Abstain
}

/// True if a plugin with these rules is asked about the join.
pub(in crate::plugin) fn wants(rules: &Rules, request: &JoinRequest) -> bool {
    rules.wants_room(Some(request.room.as_str()))
}

impl ChainEntry {
    /// The missing plugin, if it would have been asked.
    fn unavailable_for(&self, request: &JoinRequest) -> Option<&Arc<str>> {
        match self {
            Self::Unavailable { plugin, rules } if wants(rules, request) => Some(plugin),
            Self::Unavailable { .. } | Self::Live(_) => None,
        }
    }
}

/// A join's source is its user.
fn source(request: &JoinRequest) -> CallSource<'_> {
    CallSource::User(request.who.uid.as_str())
}

/// Asks one plugin.
pub(in crate::plugin) async fn ask(version: &Arc<Version>, request: &JoinRequest) -> Result<Access, Failure> {
    let begun = version.begin(|| source(request))?;
    let mut lease = InstanceLease::take(version).await?;
    let answer = match lease.instance().join(request).await {
        Ok(answer) => {
            lease.return_to_pool();
            answer
        }
        Err(failure) if lease.instance().had_effects() => return Err(failure),
        Err(failure) => {
            let counted = lease.instance().take_counted();
            drop(lease);
            retry::join(version, source(request), counted, request, failure).await?
        }
    };
    let (outcome, access) = match answer {
        Answer::Allow(until) => (CallOutcome::Allowed, Access::Allow(until)),
        Answer::Refuse(refusal) => (CallOutcome::Refused, Access::Refuse(convert::refusal(refusal, Code::FORBIDDEN))),
        Answer::Abstain => (CallOutcome::Abstained, Access::Abstain),
    };
    begun.answered(outcome);
    Ok(access)
}
