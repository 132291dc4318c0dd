//! Location of the system's trusted certificates, for plugin requests and for commands that connect to a node.
//!
//! Does not read certificates.

use std::path::PathBuf;

/// Bundle paths of Linux distributions, then of Alpine and BSD.
pub(crate) const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Returns `SSL_CERT_FILE` if it is set, even if that file does not exist; otherwise the first existing bundle.
pub(crate) fn bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|bundle| bundle.is_file()))
}
