//! Calls of the plugins that own SendBody keys. Effects and writes are committed before the reply goes out.

use std::sync::Arc;

use super::commit::{self, CommitResult};
use super::lease::InstanceLease;
use super::source::CallSource;
use super::version::Version;
use super::version::stats::CallOutcome;
use crate::code::Code;
use crate::message::Entries;
use crate::plugin::guest::failure::{Cause, Failure, Kind};
use crate::plugin::guest::{answers, convert};
use crate::plugin::{Answer, Call, Role, UNAVAILABLE};

/// Returns the plugin's answer. Without one, the code is 403 if the caller's input made it invalid, else 503.
pub(in crate::plugin) async fn handle(version: &Arc<Version>, call: &Call) -> Answer {
    match ask(version, call).await {
        Ok(answer) => answer,
        Err(failure) => {
            version.failed(Role::Handler, &failure, &CallSource::caller(call));
            let (code, message) = match (failure.cause(), failure.kind) {
                (Cause::Caller, _) => (Code::FORBIDDEN, failure.to_string()),
                // The plugin's own error text is meant for its caller.
                (_, Kind::Declared) => (Code::UNAVAILABLE, format!("plugin {} failed: {failure}", version.name)),
                _ => (Code::UNAVAILABLE, UNAVAILABLE.to_owned()),
            };
            Answer { code, message, data: Entries::new() }
        }
    }
}

async fn ask(version: &Arc<Version>, call: &Call) -> Result<Answer, Failure> {
    for _ in 0..=commit::RETRIES {
        let begun = version.begin(|| CallSource::caller(call))?;
        let mut lease = InstanceLease::take(version).await?;
        let reply = lease.instance().handle(call).await?;
        let staged = lease.instance().take_staged();
        lease.return_to_pool();
        let reply = match reply {
            Ok(reply) => reply,
            Err(words) => {
                begun.guest_works();
                return Err(Failure::new(Kind::Declared, convert::cut(words)));
            }
        };
        let answer = answers::reply(reply, call)?;
        match commit::commit(&version.blueprint.context, Role::Handler, staged).await? {
            CommitResult::Committed => {
                begun.answered(CallOutcome::Handled);
                return Ok(answer);
            }
            CommitResult::Conflict => begun.guest_works(),
        }
    }
    Err(commit::too_many_conflicts())
}
