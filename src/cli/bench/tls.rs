//! Both sides of TLS over loopback: the pair of files that a node under test serves with, and a client that trusts it.
//!
//! The pair is fixed and known to everyone who reads this tree. It guards nothing: the bench alone gives it to nodes
//! that it starts itself, and it alone trusts it. Making one at run time would cost every build a dependency.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// For `localhost`, until 2120.
pub(super) const CERT: &str = include_str!("tls/cert.pem");
pub(super) const KEY: &str = include_str!("tls/key.pem");

/// Opens connections that trust [`CERT`] and nothing else, each with a whole handshake.
#[derive(Debug, Clone)]
pub(super) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// # Errors
    /// This build of rustls cannot speak.
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(CERT.as_bytes())?)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A resumed handshake would be another measurement.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    pub(super) fn connect(&self) -> anyhow::Result<ClientConnection> {
        Ok(ClientConnection::new(Arc::clone(&self.0), ServerName::try_from("localhost")?)?)
    }
}
