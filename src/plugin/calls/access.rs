//! Room access: asks the access plugins in order. The first one that does not abstain decides.

use std::sync::Arc;

use super::lease::Lease;
use super::retry;
use super::snapshot::{Gate, Snapshot};
use super::source::CallSource;
use super::version::Version;
use super::version::stats::{self, Outcome};
use crate::code::Code;
use crate::plugin::guest::bindings::exports::skylark::plugin::access::Answer;
use crate::plugin::guest::convert;
use crate::plugin::guest::failure::Failure;
use crate::plugin::guest::manifest::matching::Rules;
use crate::plugin::{Access, JoinRequest, Role};

/// Asks the plugins in order until one decides.
pub(in crate::plugin) async fn join(snapshot: &Snapshot, request: &JoinRequest) -> Access {
    // The joins that a missing plugin would have refused are not known, so its rooms are unavailable.
    if let Some(plugin) = snapshot.access.iter().find_map(|gate| gate.shut_for(request)) {
        stats::not_answered(plugin, Role::Access, Failure::missing().kind);
        return Access::Unavailable;
    }
    for gate in &snapshot.access {
        let Gate::Live(served) = gate else { continue };
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

impl Gate {
    /// The missing plugin, if it would have been asked.
    fn shut_for(&self, request: &JoinRequest) -> Option<&Arc<str>> {
        match self {
            Self::Shut { plugin, rules } if wants(rules, request) => Some(plugin),
            Self::Shut { .. } | Self::Live(_) => None,
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
    let mut lease = Lease::take(version).await?;
    let answer = match lease.instance().join(request).await {
        Ok(answer) => {
            lease.give_back();
            answer
        }
        Err(failure) if lease.instance().has_acted() => return Err(failure),
        Err(failure) => {
            let counted = lease.instance().take_counted();
            drop(lease);
            retry::join(version, source(request), counted, request, failure).await?
        }
    };
    let (outcome, access) = match answer {
        Answer::Allow(until) => (Outcome::Allowed, Access::Allow(until)),
        Answer::Refuse(refusal) => (Outcome::Refused, Access::Refuse(convert::refusal(refusal, Code::FORBIDDEN))),
        Answer::Abstain => (Outcome::Abstained, Access::Abstain),
    };
    begun.answered(outcome);
    Ok(access)
}
