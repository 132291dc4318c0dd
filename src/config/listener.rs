//! Defaults of a listener, which follow from the services it has.

use std::net::SocketAddr;

use super::{DevicePolicy, Dialect, Listener, Service};

impl Listener {
    /// The listener of a configuration that sets none.
    pub(super) fn plain() -> Self {
        let serves = vec![Service::Ws, Service::Api, Service::Metrics];
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            dialect: dialect_of(Some(&serves)),
            origins: origins_of(Some(&serves)),
            devices: devices_of(Some(&serves)),
            serves,
            query_token: true,
            tls: None,
        }
    }

    /// True if it serves `service`.
    #[must_use]
    pub fn has(&self, service: Service) -> bool {
        self.serves.contains(&service)
    }
}

fn is_cim(serves: Option<&[Service]>) -> bool {
    serves.is_some_and(|serves| serves.contains(&Service::Cim) || serves.contains(&Service::CimTcp))
}

pub(super) fn dialect_of(serves: Option<&[Service]>) -> Dialect {
    if is_cim(serves) { Dialect::Cim } else { Dialect::Yunque }
}

pub(super) fn devices_of(serves: Option<&[Service]>) -> DevicePolicy {
    if is_cim(serves) { DevicePolicy::Cim } else { DevicePolicy::AllowAll }
}

/// A page with CIM's SDK connects to another port than its own, so `same-origin` would refuse it.
pub(super) fn origins_of(serves: Option<&[Service]>) -> Vec<String> {
    vec![if is_cim(serves) { "same-host" } else { "same-origin" }.to_owned()]
}
