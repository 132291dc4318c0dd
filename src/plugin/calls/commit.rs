//! Applies the staged work of a call: key-value writes first, since they may conflict, then timers and effects.

use tokio::time::timeout;

use crate::plugin::Role;
use crate::plugin::guest::failure::{Failure, Kind};
use crate::plugin::guest::state::{Context, Staged};
use crate::plugin::kv::KvError;

/// How often a call is run again after its reads have changed.
pub(in crate::plugin) const RETRIES: u32 = 3;

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum CommitResult {
    /// All staged work took effect.
    Committed,
    /// Nothing took effect: the call must be run again.
    Conflict,
}

/// Commits everything or nothing. A store that does not answer within the wall time of a call fails the call. The store
/// may then have taken the writes or not, and the effects are not applied.
pub(in crate::plugin) async fn commit(context: &Context, role: Role, staged: Staged) -> Result<CommitResult, Failure> {
    let wall = context.limits.budget(Some(role)).wall;
    let Staged { hops, effects, kv, timers, .. } = staged;
    if kv.writes.is_empty() && effects.is_empty() && timers.is_empty() {
        return Ok(CommitResult::Committed);
    }
    if !(kv.writes.is_empty() && kv.reads.is_empty()) {
        let taken = context.kv.commit(&context.plugin, kv, context.limits.share);
        match timeout(wall, taken).await {
            Ok(Ok(())) => {}
            Ok(Err(KvError::Conflict)) => return Ok(CommitResult::Conflict),
            Ok(Err(error)) => return Err(Failure::new(Kind::Kv, error.to_string())),
            Err(_) => {
                let words = format!("the key-value store did not commit the writes within the wall time of {wall:?}");
                return Err(Failure::new(Kind::Kv, words));
            }
        }
    }
    if !timers.is_empty() {
        context.timers.apply(&context.plugin, timers, context.time.instant());
    }
    if !effects.is_empty() {
        match context.services.get() {
            Some(services) => services.commit(effects, hops).await,
            None => {
                tracing::warn!(plugin = %context.plugin, "effects of a plugin call dropped: the node is not started yet");
            }
        }
    }
    Ok(CommitResult::Committed)
}

pub(in crate::plugin) fn too_many_conflicts() -> Failure {
    Failure::new(Kind::Kv, format!("its writes conflicted with other calls {} times in a row", RETRIES + 1))
}
