//! SendBody keys that plugins own: one call, its effects and writes committed before its reply goes out.

use std::sync::Arc;

use super::commit::{self, Ended};
use super::failure::{Failure, Kind};
use super::pool::Lease;
use super::stats::Outcome;
use super::version::Version;
use super::{Answer, Call, Role, convert};
use crate::message::Entries;

/// The plugin's answer, or `"503"` in its place.
pub(super) async fn handle(version: &Arc<Version>, call: &Call) -> Answer {
    match ask(version, call).await {
        Ok(answer) => answer,
        Err(failure) => {
            version.failed(Role::Handler, &failure);
            let message = format!("plugin {} failed: {failure}", version.name);
            Answer { code: "503".to_owned(), message, data: Entries::new() }
        }
    }
}

async fn ask(version: &Arc<Version>, call: &Call) -> Result<Answer, Failure> {
    for _ in 0..=commit::RETRIES {
        let begun = version.begin()?;
        let mut lease = Lease::take(version).await?;
        let reply = lease.instance().handle(call).await?;
        let staged = lease.instance().take_staged();
        lease.give_back();
        let reply = match reply {
            Ok(reply) => reply,
            Err(words) => {
                begun.lives();
                return Err(Failure::new(Kind::Declared, convert::cut(words)));
            }
        };
        let answer = convert::answer(reply).map_err(|fault| Failure::new(Kind::Answer, fault))?;
        match commit::commit(&version.blueprint.context, Role::Handler, staged).await? {
            Ended::Committed => {
                begun.answered(Outcome::Handled);
                return Ok(answer);
            }
            Ended::Conflict => begun.lives(),
        }
    }
    Err(commit::too_many_conflicts())
}
