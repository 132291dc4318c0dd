//! Evidence against a version on probation: the previous version judges the publish on which the new one failed.
//!
//! A filter has no effects, so it can be asked again. If both versions fail, the input is the cause and there is no
//! evidence. The previous version runs off the worker threads, within the node's bound on extra calls.

use std::sync::Arc;

use super::lease::InstanceLease;
use super::source::SourceId;
use super::version::Version;
use super::version::extra_calls::Purpose;
use crate::plugin::guest::answers;
use crate::plugin::guest::bindings::exports::skylark::plugin::filter::Verdict;
use crate::plugin::guest::failure::Failure;
use crate::plugin::guest::state::Publish;

/// Answers of the previous version that roll back a version without a single answer, even if few sources call.
const ANSWERS: u64 = 3;

/// Asks the previous version in the background. Its answer is evidence against this version.
pub(in crate::plugin) fn collect(version: &Arc<Version>, publish: Publish, source: SourceId, failure: &Failure) {
    let Some(previous) = version.previous() else { return };
    let (version, failure) = (Arc::clone(version), failure.clone());
    tokio::spawn(async move {
        let Some(permit) = version.extra_calls.acquire(Purpose::Previous, source.source_hash).await else { return };
        if permit.run(async move || gives_valid_answer(&previous, publish).await).await == Some(true) {
            version.record_evidence(source, &failure);
            if version.stats.answers() == 0 && version.breaker.evidence_count() >= ANSWERS {
                version.request_rollback(&failure);
            }
        }
    });
}

/// True if the version gives a valid answer.
async fn gives_valid_answer(version: &Arc<Version>, publish: Publish) -> bool {
    let Ok(mut lease) = InstanceLease::take(version).await else { return false };
    let before = Arc::clone(&publish.message);
    let Ok(verdict) = lease.instance().judge(publish).await else { return false };
    lease.return_to_pool();
    match verdict {
        Verdict::Replace(message) => answers::replacement(message, &before).is_ok(),
        Verdict::Allow | Verdict::Reject(_) | Verdict::Drop => true,
    }
}
