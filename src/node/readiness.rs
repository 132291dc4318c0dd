//! Readiness of the node: the reasons for which it should get no traffic.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::cluster::membership::Membership;
use crate::broker::Broker;
use crate::plugin::{PluginHost, PluginState};

/// Collects the faults of the node's parts.
pub(super) struct Readiness {
    broker: Arc<dyn Broker>,
    plugins: Arc<dyn PluginHost>,
    membership: Arc<Membership>,
    /// Faults of components (intakes, id reservation, the node itself), by name of the component.
    ailing: Mutex<BTreeMap<Arc<str>, String>>,
}

impl Readiness {
    pub(super) fn new(broker: Arc<dyn Broker>, plugins: Arc<dyn PluginHost>, membership: Arc<Membership>) -> Self {
        Self { broker, plugins, membership, ailing: Mutex::default() }
    }

    /// One short sentence for each reason. Empty if the node is ready.
    pub(super) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.membership.is_draining() {
            reasons.push("the node is draining".to_owned());
        }
        reasons.extend(self.broker.faults());
        reasons.extend(self.membership.trouble());
        let plugins = self.plugins.status();
        if !plugins.iter().any(|p| p.state == PluginState::Live && p.roles.contains(&"auth")) {
            reasons.push("no auth plugin is live: every client is refused".to_owned());
        }
        for plugin in plugins.iter().filter(|p| p.state == PluginState::Missing) {
            reasons.push(format!("plugin {}: its file is missing, and its role refuses all calls", plugin.name));
        }
        reasons.extend(self.plugins.faults());
        reasons.extend(self.ailing.lock().iter().map(|(way, why)| format!("{way}: {why}")));
        reasons
    }

    /// Sets the fault of a component, or clears it with `None`.
    pub(super) fn set_ailing(&self, way: &Arc<str>, why: Option<String>) {
        let mut ailing = self.ailing.lock();
        match why {
            Some(why) => ailing.insert(Arc::clone(way), why),
            None => ailing.remove(way),
        };
    }
}
