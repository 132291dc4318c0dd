//! Both sides of TLS over loopback: certificate and key of a node under test, and a client that trusts them.
//!
//! The pair is fixed and public. It protects nothing: the bench gives it only to nodes that it starts itself, and only
//! the bench trusts it. Generating one at run time would cost every build a dependency.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Valid for `localhost`, until 2120.
pub(crate) const CERT: &str = include_str!("tls/cert.pem");
pub(crate) const KEY: &str = include_str!("tls/key.pem");

/// Opens connections that trust only [`CERT`], each with a full handshake.
#[derive(Debug, Clone)]
pub(crate) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// # Errors
    /// This build of rustls lacks a supported protocol version.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(CERT.as_bytes())?)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A resumed handshake would be a different measurement.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn connect(&self) -> anyhow::Result<ClientConnection> {
        Ok(ClientConnection::new(Arc::clone(&self.0), ServerName::try_from("localhost")?)?)
    }
}
