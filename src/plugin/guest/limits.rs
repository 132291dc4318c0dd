//! Limits of a call, an instance and a whole plugin: the defaults of the roles, the requests of the manifest, and the
//! operator's caps over both.
//!
//! Knows no component. [`memory`] counts memory and [`meter`] time. Bytes, pushes and keys are counted where they are
//! handed over.

mod memory;
mod meter;
mod rate;

use std::time::Duration;

pub(in crate::plugin) use memory::{MAX_INSTANCES, MAX_MEMORIES, MAX_TABLES, Memory};
pub(in crate::plugin) use meter::{Meter, Overrun, Tick};
pub(in crate::plugin) use rate::{LogDecision, LogRate};

use crate::config::PluginCaps;
use crate::plugin::Role;
use crate::plugin::kv::Share;

/// Time that one call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) struct Budget {
    /// CPU time of the guest, as [`meter`] counts it.
    pub(in crate::plugin) cpu: Duration,
    /// From call to answer, waits for the host included. Longer than one pause by a CPU quota, which is up to 100 ms.
    pub(in crate::plugin) wall: Duration,
}

/// Times of a call that a manifest requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::plugin) struct RequestedBudget {
    pub(in crate::plugin) cpu: Option<Duration>,
    pub(in crate::plugin) wall: Option<Duration>,
}

/// Limits that a manifest requests; a missing one is the default. They never exceed the caps, which are checked when
/// the manifest is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::plugin) struct RequestedLimits {
    /// Times of a call in every role.
    pub(in crate::plugin) every: RequestedBudget,
    /// Times of a call in one role, by its number.
    pub(in crate::plugin) roles: [RequestedBudget; Role::ALL.len()],
    /// Times of the start of an instance.
    pub(in crate::plugin) start: RequestedBudget,
    /// Bytes of one instance.
    pub(in crate::plugin) memory: Option<usize>,
    /// Table elements of one instance.
    pub(in crate::plugin) tables: Option<usize>,
    /// Handles of one instance.
    pub(in crate::plugin) handles: Option<usize>,
    /// Live instances of the plugin.
    pub(in crate::plugin) instances: Option<usize>,
    /// Calls after which an instance is replaced.
    pub(in crate::plugin) recycle: Option<usize>,
    /// Bytes that one call hands over.
    pub(in crate::plugin) host_bytes: Option<usize>,
    /// Bytes that one call logs.
    pub(in crate::plugin) log_bytes: Option<usize>,
    /// Bytes that the plugin logs in a second.
    pub(in crate::plugin) log_rate: Option<usize>,
    /// Effects of one call.
    pub(in crate::plugin) pushes: Option<usize>,
    /// Bytes in the key-value store.
    pub(in crate::plugin) kv_bytes: Option<usize>,
    /// Keys in the key-value store.
    pub(in crate::plugin) kv_keys: Option<usize>,
}

/// Limits of one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plugin) struct Limits {
    roles: [Budget; Role::ALL.len()],
    start: Budget,
    /// Bytes of linear memory and tables over one whole store.
    pub(in crate::plugin) memory: usize,
    /// Table elements over one whole store.
    pub(in crate::plugin) tables: usize,
    /// Handles that one instance may hold, the guest's own resources and the host's.
    pub(in crate::plugin) handles: usize,
    /// Live instances of one version.
    pub(in crate::plugin) instances: usize,
    /// Calls after which an instance is replaced, so that a guest's leaks stay small.
    pub(in crate::plugin) recycle: usize,
    /// Bytes that a guest may hand over in one call: in all its host calls and in its answer.
    pub(in crate::plugin) host_bytes: usize,
    /// Bytes that one call may log, printing included.
    pub(in crate::plugin) log_bytes: usize,
    /// Bytes that all its calls together may log in a second.
    pub(in crate::plugin) log_rate: usize,
    /// Most pushes, joins, leaves and kicks of one call.
    pub(in crate::plugin) pushes: usize,
    /// The plugin's part of the key-value store.
    pub(in crate::plugin) share: Share,
}

impl Limits {
    /// Limits of a plugin with these roles on a node with `cores`. The default memory is the largest of its roles.
    pub(in crate::plugin) fn new(roles: &[Role], asked: &RequestedLimits, caps: &PluginCaps, cores: usize) -> Self {
        let memory = roles.iter().map(|role| default_memory(*role)).max().unwrap_or(DEFAULT_START_MEMORY);
        let of = |asked: Option<usize>, default: usize, cap: usize| asked.unwrap_or(default).min(cap);
        let budget = |own: RequestedBudget, every: RequestedBudget, default: Budget| Budget {
            cpu: own.cpu.or(every.cpu).unwrap_or(default.cpu).min(caps.cpu),
            wall: own.wall.or(every.wall).unwrap_or(default.wall).min(caps.wall),
        };
        Self {
            roles: Role::ALL.map(|role| budget(asked.roles[role as usize], asked.every, default_budget(role))),
            start: budget(asked.start, RequestedBudget::default(), START),
            memory: of(asked.memory, memory, caps.memory),
            tables: of(asked.tables, TABLES, caps.tables),
            handles: of(asked.handles, HANDLES, caps.handles),
            instances: of(asked.instances, cores + OVERFLOW, caps.instances),
            recycle: of(asked.recycle, RECYCLE, caps.recycle),
            host_bytes: of(asked.host_bytes, HOST_BYTES, caps.host_bytes),
            log_bytes: of(asked.log_bytes, LOG_BYTES, caps.log_bytes),
            log_rate: of(asked.log_rate, LOG_RATE, caps.log_rate),
            pushes: of(asked.pushes, PUSHES, caps.pushes),
            share: Share {
                bytes: of(asked.kv_bytes, Share::default().bytes, caps.kv_bytes),
                keys: of(asked.kv_keys, Share::default().keys, caps.kv_keys),
            },
        }
    }

    /// The longest wall time of a call in one of these roles.
    pub(in crate::plugin) fn longest_wall(&self, roles: &[Role]) -> Duration {
        roles.iter().map(|role| self.roles[*role as usize].wall).max().unwrap_or(self.start.wall)
    }

    /// Budget of a call in this role; `None` is the start of an instance.
    pub(in crate::plugin) fn budget(&self, role: Option<Role>) -> Budget {
        role.map_or(self.start, |role| self.roles[role as usize])
    }
}

const fn default_budget(role: Role) -> Budget {
    let (cpu, wall) = match role {
        Role::Auth | Role::Access => (50, 2_000),
        Role::Filter => (5, 500),
        Role::Handler | Role::Events => (50, 5_000),
    };
    Budget { cpu: Duration::from_millis(cpu), wall: Duration::from_millis(wall) }
}

const fn default_memory(role: Role) -> usize {
    match role {
        Role::Auth | Role::Access => 32 << 20,
        Role::Filter => 16 << 20,
        Role::Handler | Role::Events => 64 << 20,
    }
}

/// Budget of instantiation and `lifecycle.start` together.
const START: Budget = Budget { cpu: Duration::from_millis(500), wall: Duration::from_secs(5) };
const DEFAULT_START_MEMORY: usize = 16 << 20;
const TABLES: usize = 32_768;
const HANDLES: usize = 1_024;
/// Instances beyond one for each core.
const OVERFLOW: usize = 32;
const RECYCLE: usize = 100_000;
const HOST_BYTES: usize = 8 << 20;
const LOG_BYTES: usize = 16 << 10;
const LOG_RATE: usize = 64 << 10;
const PUSHES: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_changes_only_the_limits_that_it_names() {
        let tick = Duration::from_millis(1);
        let mut asked =
            RequestedLimits { every: RequestedBudget { cpu: Some(tick), wall: None }, ..RequestedLimits::default() };
        asked.roles[Role::Handler as usize].wall = Some(tick);
        let limits = Limits::new(&[Role::Filter, Role::Handler], &asked, &PluginCaps::default(), 2);
        assert_eq!((limits.memory, limits.instances), (64 << 20, 34));
        assert_eq!(limits.budget(Some(Role::Filter)), Budget { cpu: tick, wall: Duration::from_millis(500) });
        assert_eq!(limits.budget(Some(Role::Handler)), Budget { cpu: tick, wall: tick });
        assert_eq!(limits.budget(None), START);
    }

    #[test]
    fn operator_cap_below_a_default_applies_without_a_manifest() {
        let caps = PluginCaps { cpu: Duration::from_millis(2), memory: 1 << 20, pushes: 3, ..PluginCaps::default() };
        let limits = Limits::new(&[Role::Auth], &RequestedLimits::default(), &caps, 2);
        assert_eq!(limits.budget(Some(Role::Auth)).cpu, caps.cpu);
        assert_eq!(limits.budget(None).cpu, caps.cpu);
        assert_eq!((limits.memory, limits.pushes), (1 << 20, 3));
    }
}
