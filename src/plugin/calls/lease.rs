//! Leases of instances: a call takes a warm one, else makes one.
//!
//! A call takes the instance of its own slot, else steals one, else makes one, up to the bound on live instances. It
//! never waits for another call.

use std::sync::Arc;

use metrics::counter;

use super::version::Version;
use crate::plugin::guest::failure::{Failure, Kind};
use crate::plugin::guest::instance::Instance;
use crate::telemetry::names;

/// An instance for one call, or for several of one batch.
///
/// Only [`InstanceLease::return_to_pool`] returns the instance to the pool. Any other drop (an error, a time-out, a
/// caller that went away) drops its store and requests a new instance.
pub(in crate::plugin) struct InstanceLease<'a> {
    version: &'a Arc<Version>,
    instance: Option<Box<Instance>>,
}

impl<'a> InstanceLease<'a> {
    /// Takes a warm instance or makes one.
    pub(in crate::plugin) async fn take(version: &'a Arc<Version>) -> Result<Self, Failure> {
        if !version.blueprint.ticker.is_alive() {
            return Err(Failure::new(Kind::Ticker, "the plugin ticker has ended: the call would have no time limit"));
        }
        let pool = &version.pool;
        if let Some(instance) = pool.take() {
            return Ok(Self { version, instance: Some(instance) });
        }
        // The caller waits, so its wall time is the bound, even where a start may take longer.
        let wall = version.blueprint.context.limits.longest_wall(&version.roles);
        let instance = Box::new(Instance::within(&version.blueprint, wall).await?);
        version.stats.count_one_shot();
        Ok(Self { version, instance: Some(instance) })
    }

    pub(in crate::plugin) fn instance(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("a lease has an instance until it is dropped")
    }

    /// Returns a healthy instance to the pool.
    pub(in crate::plugin) fn return_to_pool(mut self) {
        let memory = self.instance().memory();
        self.version.stats.record_memory(memory);
        if let Some(why) = self.instance().replacement_reason() {
            self.instance = None;
            self.replace(why);
        } else if let Some(instance) = self.instance.take() {
            self.version.pool.put(instance);
        }
    }
}

impl InstanceLease<'_> {
    fn replace(&self, why: &'static str) {
        counter!(names::PLUGIN_RECYCLED, "plugin" => self.version.name.to_string(), "reason" => why).increment(1);
        self.version.request_warm_up();
    }
}

impl Drop for InstanceLease<'_> {
    fn drop(&mut self) {
        if self.instance.take().is_some() {
            self.replace("error");
        }
    }
}
