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
    component_faults: Mutex<BTreeMap<Arc<str>, String>>,
}

impl Readiness {
    pub(super) fn new(broker: Arc<dyn Broker>, plugins: Arc<dyn PluginHost>, membership: Arc<Membership>) -> Self {
        Self { broker, plugins, membership, component_faults: Mutex::default() }
    }

    /// One short sentence for each reason. Empty if the node is ready.
    pub(super) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.membership.is_draining() {
            reasons.push("the node is draining".to_owned());
        }
        reasons.extend(self.broker.faults());
        reasons.extend(self.membership.fault());
        let plugins = self.plugins.status();
        if !plugins.iter().any(|p| p.state == PluginState::Live && p.roles.contains(&"auth")) {
            reasons.push("no auth plugin is live: every client is refused".to_owned());
        }
        for plugin in plugins.iter().filter(|p| p.state == PluginState::Missing) {
            reasons.push(format!("plugin {}: its file is missing, and its role refuses all calls", plugin.name));
        }
        reasons.extend(self.plugins.faults());
        reasons.extend(self.component_faults.lock().iter().map(|(component, why)| format!("{component}: {why}")));
        reasons
    }

    /// Sets the fault of a component, or clears it with `None`.
    pub(super) fn set_component_fault(&self, component: &Arc<str>, why: Option<String>) {
        let mut faults = self.component_faults.lock();
        match why {
            Some(why) => faults.insert(Arc::clone(component), why),
            None => faults.remove(component),
        };
    }
}
