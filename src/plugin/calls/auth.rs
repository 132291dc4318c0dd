//! Admission: asks the auth plugins in order. The first one that does not abstain decides; everything else refuses.

use std::sync::Arc;

use super::commit::{self, CommitResult};
use super::lease::InstanceLease;
use super::retry;
use super::snapshot::{ChainEntry, Snapshot};
use super::source::CallSource;
use super::version::Version;
use super::version::stats::{self, CallOutcome};
use crate::code::Code;
use crate::plugin::guest::bindings::exports::skylark::plugin::auth::Answer;
use crate::plugin::guest::counters::CounterAdditions;
use crate::plugin::guest::failure::{Cause, Failure};
use crate::plugin::guest::manifest::share;
use crate::plugin::guest::state::Staged;
use crate::plugin::guest::{answers, convert};
use crate::plugin::{Admission, Claim, Refusal, Role, Transport, UNAVAILABLE};

/// Asks the plugins in order until one decides.
pub(in crate::plugin) async fn admit(
    snapshot: &Snapshot,
    transport: &Transport,
    claim: &Claim,
) -> Result<Admission, Refusal> {
    // A missing plugin makes the whole role refuse, because the clients that it would have refused are not known.
    if let Some(plugin) = snapshot.auth.iter().find_map(ChainEntry::unavailable_plugin) {
        stats::count_unanswered(plugin, Role::Auth, Failure::missing().kind);
        return Err(unavailable());
    }
    for entry in &snapshot.auth {
        let ChainEntry::Live(served) = entry else { continue };
        let Some(version) = served.choose(|| Some(share::claimant(transport, claim))) else { continue };
        match ask(version, transport, claim).await {
            Ok(Some(decided)) => return decided,
            Ok(None) => {}
            Err(failure) => {
                version.failed(Role::Auth, &failure, &CallSource::claimant(transport, claim));
                return Err(match failure.cause() {
                    Cause::Caller => Refusal::new(Code::FORBIDDEN, failure.to_string()),
                    Cause::Guest | Cause::Host | Cause::Operator => unavailable(),
                });
            }
        }
    }
    if snapshot.auth.is_empty() {
        return Err(unavailable());
    }
    Err(Refusal::new(Code::UNAUTHORIZED, "no auth plugin recognizes these credentials"))
}

/// The text is fixed: details of the failure are for the operator only.
fn unavailable() -> Refusal {
    Refusal::new(Code::UNAVAILABLE, UNAVAILABLE)
}

/// Decision of one plugin; `None` if it abstains.
pub(in crate::plugin) async fn ask(
    version: &Arc<Version>,
    transport: &Transport,
    claim: &Claim,
) -> Result<Option<Result<Admission, Refusal>>, Failure> {
    for _ in 0..=commit::RETRIES {
        let begun = version.begin(|| CallSource::claimant(transport, claim))?;
        let (answer, staged) = call(version, transport, claim).await?;
        let (outcome, decided) = match answer {
            Answer::Admit(admission) => (CallOutcome::Admit, Some(Ok(answers::admission(admission)?))),
            Answer::Refuse(refusal) => (CallOutcome::Refuse, Some(Err(convert::refusal(refusal, Code::UNAUTHORIZED)))),
            Answer::Abstain => (CallOutcome::Abstain, None),
        };
        match commit::commit(&version.blueprint.context, Role::Auth, staged).await? {
            CommitResult::Committed => {
                begun.answered(outcome);
                return Ok(decided);
            }
            CommitResult::Conflict => begun.guest_works(),
        }
    }
    Err(commit::too_many_conflicts())
}

/// Makes one call. A call that ran out of time is repeated if it had no visible effect.
async fn call(version: &Arc<Version>, transport: &Transport, claim: &Claim) -> Result<(Answer, Staged), Failure> {
    let repeat = async |counted, failure| {
        let source = CallSource::claimant(transport, claim);
        retry::admit(version, source, counted, (transport, claim), failure).await
    };
    let mut lease = match InstanceLease::take(version).await {
        Ok(lease) => lease,
        Err(failure) => return repeat(CounterAdditions::default(), failure).await,
    };
    match lease.instance().admit(transport, claim).await {
        Ok(answer) => {
            let staged = lease.instance().take_staged();
            lease.return_to_pool();
            Ok((answer, staged))
        }
        Err(failure) if lease.instance().had_effects() => Err(failure),
        Err(failure) => {
            let counted = lease.instance().take_counted();
            drop(lease);
            repeat(counted, failure).await
        }
    }
}
