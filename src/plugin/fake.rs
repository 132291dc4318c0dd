//! A plugin host without plugins, for tests of everything above: admits by a rule, lets everything pass, owns no key.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::{Admission, Answer, Call, Claim, Event, Judgement, PluginHost, Refusal, Status, Transport};
use crate::id::Uid;
use crate::message::{Entries, Envelope};

type Rule = dyn Fn(&Transport, &Claim) -> Result<Admission, Refusal> + Send + Sync;

/// Stands in for plugins.
pub struct FakeHost {
    rule: Box<Rule>,
    events: Mutex<Vec<Event>>,
}

impl FakeHost {
    /// Admits by `rule`.
    pub fn new(rule: impl Fn(&Transport, &Claim) -> Result<Admission, Refusal> + Send + Sync + 'static) -> Self {
        Self { rule: Box::new(rule), events: Mutex::default() }
    }

    /// What it was told since the last look.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock())
    }
}

/// Believes everybody: who claims a uid has it.
impl Default for FakeHost {
    fn default() -> Self {
        Self::new(|_, claim| {
            let uid = claim.uid.as_deref().unwrap_or_default();
            let uid =
                Uid::parse(uid).map_err(|error| Refusal { code: "401".to_owned(), reason: format!("uid: {error}") })?;
            Ok(Admission { uid, device: None, rooms: Vec::new(), expires: None, claims: Entries::new() })
        })
    }
}

impl PluginHost for FakeHost {
    fn admit(&self, transport: Transport, claim: Claim) -> BoxFuture<'_, Result<Admission, Refusal>> {
        std::future::ready((self.rule)(&transport, &claim)).boxed()
    }

    fn judge<'a>(&'a self, batch: &'a mut [Envelope]) -> BoxFuture<'a, Vec<Judgement>> {
        std::future::ready(vec![Judgement::Pass { replaced_by: Vec::new() }; batch.len()]).boxed()
    }

    fn handle(&self, _: Call) -> BoxFuture<'_, Option<Answer>> {
        std::future::ready(None).boxed()
    }

    fn notify(&self, event: Event) {
        self.events.lock().push(event);
    }

    fn status(&self) -> Vec<Status> {
        Vec::new()
    }
}
