//! `listeners`: addresses and their services. Defaults of a listener follow from its services.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::protocol::Dialect;

item! {
    /// One address and its services.
    pub struct Listener {
        /// Address and port; port 0 takes a free one.
        pub address: SocketAddr,
        /// Services: `ws` (WebSocket at `/ws`), `api` (the push API), `cim` (CIM's WebSocket at `/`), `cim-tcp` (CIM's
        /// TCP framing; alone on its address), `metrics` (`/metrics` and `/health/*`).
        pub serves: Vec<Service>,
        /// Dialect of a connection that chooses none: `yunque` or `cim`. On `cim` and `cim-tcp` the coding is sniffed
        /// or fixed.
        #[live]
        pub dialect: Dialect = dialect_of(serves.as_deref()) => "cim where it serves cim or cim-tcp, else yunque",
        /// Pages that may connect: exact origins, `same-origin`, `same-host` (any port), `loopback`, or `*`; an empty
        /// list allows none.
        #[live]
        pub origins: Vec<String> = origins_of(serves.as_deref()) => "[same-host] where it serves cim, else [same-origin]",
        /// Devices of a user that exclude each other: `allow_all` (none), or `cim` (android and ios; windows, mac and
        /// web).
        #[live]
        pub devices: DevicePolicy = devices_of(serves.as_deref()) => "cim where it serves cim or cim-tcp, else allow_all",
        /// Allows the token in the query (`?token=`).
        #[live]
        pub query_token: bool = true => "true",
        /// Certificate and key of a TLS listener. A changed file is reloaded while the node runs.
        pub tls: Option<TlsFiles> = None => "~, no TLS",
    }
}

item! {
    /// The files of a TLS listener.
    pub struct TlsFiles {
        /// PEM file of the certificate, followed by the intermediate certificates.
        pub cert: PathBuf,
        /// PEM file of the certificate's private key.
        pub key: PathBuf,
    }
}

keywords! {
    /// Services of a listener.
    pub enum Service {
        /// WebSocket at `/ws`.
        Ws = "ws",
        /// The push API.
        Api = "api",
        /// CIM's WebSocket at `/`, coding sniffed.
        Cim = "cim",
        /// CIM's TCP framing; shares its address with no other service.
        CimTcp = "cim-tcp",
        /// `/metrics` and `/health/*`.
        Metrics = "metrics",
    }
}

keywords! {
    /// Exclusion of a user's devices.
    pub enum DevicePolicy {
        /// Any number of devices.
        AllowAll = "allow_all",
        /// CIM's matrix: android and ios exclude each other; windows, mac and web exclude each other.
        Cim = "cim",
    }
}

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

fn dialect_of(serves: Option<&[Service]>) -> Dialect {
    if is_cim(serves) { Dialect::Cim } else { Dialect::Yunque }
}

fn devices_of(serves: Option<&[Service]>) -> DevicePolicy {
    if is_cim(serves) { DevicePolicy::Cim } else { DevicePolicy::AllowAll }
}

/// A page with CIM's SDK connects to another port than its own, so `same-origin` would refuse it.
fn origins_of(serves: Option<&[Service]>) -> Vec<String> {
    vec![if is_cim(serves) { "same-host" } else { "same-origin" }.to_owned()]
}
