//! A second try for a call that ran out of time: the machine may have been slow instead of the guest.
//!
//! The second call gets a new instance and a thread of its own, so that no worn instance or busy worker decides the
//! result. Its failure is the one that counts. Only a call without effects is repeated: that of a filter, or of an auth
//! or access plugin that neither sent a request nor wrote a key. Writes of a failed call were never committed. But a
//! plugin that writes may mean to count its attempts, so it is not asked twice.
//!
//! [`ExtraCalls`](super::version::extra_calls::ExtraCalls) bounds the retries. Beyond the bound the first failure
//! counts.

use std::sync::Arc;

use metrics::counter;

use super::source::CallSource;
use super::version::Version;
use super::version::extra_calls::Purpose;
use crate::plugin::guest::bindings::exports::skylark::plugin::access;
use crate::plugin::guest::bindings::exports::skylark::plugin::auth::Answer;
use crate::plugin::guest::bindings::exports::skylark::plugin::filter::Verdict;
use crate::plugin::guest::counters::CounterAdditions;
use crate::plugin::guest::failure::{Failure, Kind};
use crate::plugin::guest::instance::Instance;
use crate::plugin::guest::state::{Publish, Staged};
use crate::plugin::{Claim, JoinRequest, Transport};
use crate::telemetry::names;

/// Asks a filter again if `first` says that its time was over. `counted` holds the first call's additions to counters.
///
/// # Errors
/// The second call's failure; `first` if there is no second call.
pub(in crate::plugin) async fn judge(
    version: &Arc<Version>,
    source: CallSource<'_>,
    counted: CounterAdditions,
    publish: Publish,
    first: Failure,
) -> Result<Verdict, Failure> {
    repeat_call(version, source, counted, first, async move |instance| instance.judge(publish).await).await
}

/// Asks an auth plugin again if `first` says that its time was over. Returns its answer and its staged work. The caller
/// ensures that the first call had no effect ([`Instance::had_effects`]).
///
/// # Errors
/// The second call's failure; `first` if there is no second call.
pub(in crate::plugin) async fn admit(
    version: &Arc<Version>,
    source: CallSource<'_>,
    counted: CounterAdditions,
    (transport, claim): (&Transport, &Claim),
    first: Failure,
) -> Result<(Answer, Staged), Failure> {
    let (transport, claim) = (transport.clone(), claim.clone());
    let call = async move |instance: &mut Instance| {
        let answer = instance.admit(&transport, &claim).await?;
        Ok((answer, instance.take_staged()))
    };
    repeat_call(version, source, counted, first, call).await
}

/// Asks an access plugin again, as [`admit`] does.
///
/// # Errors
/// The second call's failure; `first` if there is no second call.
pub(in crate::plugin) async fn join(
    version: &Arc<Version>,
    source: CallSource<'_>,
    counted: CounterAdditions,
    request: &JoinRequest,
    first: Failure,
) -> Result<access::Answer, Failure> {
    let request = request.clone();
    repeat_call(version, source, counted, first, async move |instance| instance.join(&request).await).await
}

async fn repeat_call<T: Send + 'static>(
    version: &Arc<Version>,
    source: CallSource<'_>,
    counted: CounterAdditions,
    first: Failure,
    call: impl AsyncFnOnce(&mut Instance) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if !matches!(first.kind, Kind::Cpu | Kind::Wall) {
        return Err(first);
    }
    let Some(permit) = version.extra_calls.try_acquire(Purpose::Retry, source.id().source_hash) else {
        count_retry(version, "refused");
        return Err(first);
    };
    let asked = Arc::clone(version);
    let second = permit.run(async move || call_new_instance(&asked, counted, call).await).await;
    // A panic of the second call counts as its failure.
    let second = match second.unwrap_or_else(|| Err(first.clone())) {
        // The guest was not asked: there is no room for a new instance.
        Err(failure) if failure.kind == Kind::Full => {
            count_retry(version, "refused");
            return Err(first);
        }
        second => second,
    };
    count_retry(version, if second.is_ok() { "answered" } else { "failed" });
    tracing::debug!(plugin = %version.name, %first, answered = second.is_ok(), "plugin call repeated after it ran out of time");
    second
}

async fn call_new_instance<T>(
    version: &Version,
    counted: CounterAdditions,
    call: impl AsyncFnOnce(&mut Instance) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut instance = Box::new(Instance::new(&version.blueprint).await?);
    instance.repeat(counted);
    let answer = call(&mut instance).await?;
    if instance.replacement_reason().is_none() {
        version.pool.put(instance);
    }
    Ok(answer)
}

fn count_retry(version: &Version, outcome: &'static str) {
    counter!(names::PLUGIN_RETRIES, "plugin" => version.name.to_string(), "outcome" => outcome).increment(1);
}
