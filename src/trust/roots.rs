//! Where the system keeps the certificates that it believes in: for what plugins ask, and for the commands that speak to a node.
//!
//! Knows no certificate.

use std::path::PathBuf;

/// The bundles of Linux distributions, Alpine's and BSD's last.
pub(crate) const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What `SSL_CERT_FILE` names, whether it is there or not, else the first bundle that is.
pub(crate) fn bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|bundle| bundle.is_file()))
}
