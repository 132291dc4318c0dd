//! The filter chain: each envelope of a batch is judged by each filter that wants it, in the order of the manifests.
//!
//! A batch goes filter by filter, so that one warm instance serves all of it. If a filter fails, its manifest decides:
//! the envelope is unjudged, or it passes. An envelope is rejected if the caller's input made the answer invalid.

use std::sync::Arc;

use super::lease::InstanceLease;
use super::snapshot::{ChainEntry, ServingVersions, Snapshot};
use super::source::CallSource;
use super::version::Version;
use super::version::stats::{self, CallOutcome};
use super::{evidence, retry};
use crate::code::Code;
use crate::message::Envelope;
use crate::plugin::guest::bindings::exports::skylark::plugin::filter::Verdict;
use crate::plugin::guest::counters::CounterAdditions;
use crate::plugin::guest::failure::{Cause, Failure};
use crate::plugin::guest::manifest::share;
use crate::plugin::guest::state::Publish;
use crate::plugin::guest::{answers, convert};
use crate::plugin::{Judgement, Refusal, Role, Unjudged};

/// Returns one judgement for each envelope, in order.
pub(in crate::plugin) async fn judge(snapshot: &Snapshot, batch: &mut [Envelope]) -> Vec<Judgement> {
    let mut judgements = pass_all(batch.len());
    for entry in &snapshot.filters {
        match entry {
            ChainEntry::Live(served) => match served.only() {
                Some(version) => filter(version, batch, &mut judgements, |_| true).await,
                None => judge_with_canary(served, batch, &mut judgements).await,
            },
            ChainEntry::Unavailable { plugin, rules } => {
                for (envelope, judgement) in batch.iter().zip(&mut judgements) {
                    if is_undecided(judgement) && rules.wants(envelope) {
                        let missing = Failure::missing();
                        stats::count_unanswered(plugin, Role::Filter, missing.kind);
                        *judgement = unjudged(plugin, &missing);
                    }
                }
            }
        }
    }
    judgements
}

/// Judgements of a batch that no filter sees.
pub(in crate::plugin) fn pass_all(count: usize) -> Vec<Judgement> {
    vec![Judgement::Pass { replaced_by: Vec::new() }; count]
}

fn is_undecided(judgement: &Judgement) -> bool {
    matches!(judgement, Judgement::Pass { .. })
}

fn unjudged(plugin: &Arc<str>, failure: &Failure) -> Judgement {
    let (reason, is_general) = (format!("plugin {plugin}: {failure}"), failure.kind.affects_all_callers());
    Judgement::Unjudged(Unjudged { plugin: Arc::clone(plugin), reason, is_general })
}

/// Two versions serve, and each envelope goes to the version of its sender. The versions are chosen first, since a
/// filter may change the sender.
async fn judge_with_canary(served: &ServingVersions, batch: &mut [Envelope], judgements: &mut [Judgement]) {
    let chosen: Vec<_> = batch.iter().map(|envelope| served.choose(|| share::publisher(envelope))).collect();
    for version in served.versions() {
        let is_chosen = |index: usize| chosen[index].is_some_and(|chosen| Arc::ptr_eq(chosen, version));
        filter(version, batch, judgements, is_chosen).await;
    }
}

/// Runs one plugin version over its share of the batch, as far as its rules match.
async fn filter(
    version: &Arc<Version>,
    batch: &mut [Envelope],
    judgements: &mut [Judgement],
    is_chosen: impl Fn(usize) -> bool,
) {
    let mut lease = None;
    for (index, (envelope, judgement)) in batch.iter_mut().zip(judgements).enumerate() {
        if !is_undecided(judgement) || !version.manifest.rules.wants(envelope) || !is_chosen(index) {
            continue;
        }
        if let Err(failure) = judge_one(version, &mut lease, envelope, judgement).await {
            failed(version, &failure, envelope);
            if failure.cause() == Cause::Caller {
                let refusal = Refusal::new(Code::FORBIDDEN, failure.to_string());
                *judgement = Judgement::Reject { plugin: Arc::clone(&version.name), refusal };
            } else if !version.manifest.allow_on_failure {
                *judgement = unjudged(&version.name, &failure);
            }
        }
    }
    if let Some(lease) = lease {
        lease.return_to_pool();
    }
}

/// Counts the failure. While this version is on probation, the previous one is asked for evidence.
fn failed(version: &Arc<Version>, failure: &Failure, envelope: &Envelope) {
    let source = CallSource::publisher(envelope);
    if version.count(Role::Filter, failure, &source) && version.has_previous() {
        evidence::collect(version, Publish::of(envelope), source.id(), failure);
    }
}

/// Has one envelope judged by the version.
async fn judge_one<'a>(
    version: &'a Arc<Version>,
    held: &mut Option<InstanceLease<'a>>,
    envelope: &mut Envelope,
    judgement: &mut Judgement,
) -> Result<(), Failure> {
    let begun = version.begin(|| CallSource::publisher(envelope))?;
    let verdict = ask(version, held, envelope).await?;
    let outcome = outcome(&verdict);
    apply(version, verdict, envelope, judgement)?;
    begun.answered(outcome);
    Ok(())
}

/// Calls the held instance or takes a new one. A failed call drops the instance; a call that ran out of time is
/// repeated.
async fn ask<'a>(
    version: &'a Arc<Version>,
    held: &mut Option<InstanceLease<'a>>,
    envelope: &Envelope,
) -> Result<Verdict, Failure> {
    let repeat = async |counted, failure| {
        let source = CallSource::publisher(envelope);
        retry::judge(version, source, counted, Publish::of(envelope), failure).await
    };
    let mut lease = match held.take() {
        Some(lease) => lease,
        None => match InstanceLease::take(version).await {
            Ok(lease) => lease,
            Err(failure) => return repeat(CounterAdditions::default(), failure).await,
        },
    };
    match lease.instance().judge(Publish::of(envelope)).await {
        Ok(verdict) => {
            *held = Some(lease);
            Ok(verdict)
        }
        Err(failure) => {
            let counted = lease.instance().take_counted();
            drop(lease);
            repeat(counted, failure).await
        }
    }
}

fn outcome(verdict: &Verdict) -> CallOutcome {
    match verdict {
        Verdict::Allow => CallOutcome::Allow,
        Verdict::Replace(_) => CallOutcome::Replace,
        Verdict::Reject(_) => CallOutcome::Reject,
        Verdict::Drop => CallOutcome::Drop,
    }
}

fn apply(
    version: &Version,
    verdict: Verdict,
    envelope: &mut Envelope,
    judgement: &mut Judgement,
) -> Result<(), Failure> {
    let plugin = &version.name;
    match verdict {
        Verdict::Allow => {}
        Verdict::Replace(message) => {
            envelope.message = Arc::new(answers::replacement(message, &envelope.message)?);
            if let Judgement::Pass { replaced_by } = judgement {
                replaced_by.push(Arc::clone(plugin));
            }
        }
        Verdict::Reject(refusal) => {
            let refusal = convert::refusal(refusal, Code::FORBIDDEN);
            *judgement = Judgement::Reject { plugin: Arc::clone(plugin), refusal };
        }
        Verdict::Drop => *judgement = Judgement::Drop { plugin: Arc::clone(plugin) },
    }
    Ok(())
}
