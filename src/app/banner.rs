//! The start message of a node: addresses of its services, topics of its intakes, and live plugins.
//!
//! One line per service, `  name  url`, then one line per plugin. The last line is `ready`. Tests and scripts read it.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::config::{Intake, Service};
use crate::node::Status;
use crate::server::ListenerAddress;

/// The message of a node named `node`.
pub(super) fn banner(node: &str, addresses: &[ListenerAddress], intakes: &[Intake], plugins: &[Status]) -> String {
    let mut text = format!("skylark {} node {node}\n", env!("CARGO_PKG_VERSION"));
    for ListenerAddress { address, serves, is_tls } in addresses {
        for service in serves {
            let (name, what) = describe(*service, *address, *is_tls);
            let _ = writeln!(text, "  {name:<8} {what}");
        }
    }
    for intake in intakes {
        let _ = writeln!(text, "  intake   {} {}", intake.kind.as_str(), intake.topic);
    }
    for plugin in plugins {
        let _ = writeln!(text, "  plugin   {} ({}) {}", plugin.name, plugin.roles.join(", "), plugin.state.as_str());
        if let Some(rejected) = &plugin.rejected {
            let _ = writeln!(text, "           its newest file is refused: {}", rejected.reason);
        }
    }
    text.push_str("ready");
    text
}

fn describe(service: Service, address: SocketAddr, is_tls: bool) -> (&'static str, String) {
    let (http, ws, tcp) = if is_tls { ("https", "wss", "tls") } else { ("http", "ws", "tcp") };
    match service {
        Service::Ws => ("ws", format!("{ws}://{address}/ws   connect here: ?token=…, or a token in the header")),
        Service::Api => ("api", format!("{http}://{address}/send   push here: POST, JSON")),
        Service::Cim => ("cim", format!("{ws}://{address}/   CIM's web SDKs")),
        Service::CimTcp => ("cim-tcp", format!("{tcp}://{address}   CIM's native SDKs")),
        Service::Metrics => ("metrics", format!("{http}://{address}/metrics")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_service_and_plugin() {
        let address = "127.0.0.1:8080".parse().unwrap();
        let serves = vec![Service::Ws, Service::Metrics];
        let text = banner("n1", &[ListenerAddress { address, serves, is_tls: false }], &[], &[]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("  ws       ws://127.0.0.1:8080/ws "), "{text}");
        assert_eq!(lines[2], "  metrics  http://127.0.0.1:8080/metrics");
        assert_eq!(lines[3], "ready");
    }

    #[test]
    fn tls_shows_in_the_scheme() {
        let address = "127.0.0.1:8443".parse().unwrap();
        let serves = vec![Service::Ws, Service::Api, Service::CimTcp];
        let text = banner("n1", &[ListenerAddress { address, serves, is_tls: true }], &[], &[]);
        for url in ["wss://127.0.0.1:8443/ws ", "https://127.0.0.1:8443/send ", "tls://127.0.0.1:8443 "] {
            assert!(text.contains(url), "{text}");
        }
    }
}
