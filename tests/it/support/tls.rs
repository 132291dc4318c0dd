//! Certificates created at run time, and clients that trust exactly one.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::within;

/// A certificate for `localhost` and its key.
pub struct Pair {
    cert: CertificateDer<'static>,
    cert_pem: String,
    key_pem: String,
}

impl Pair {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, cert_pem) = (made.cert.der().clone(), made.cert.pem());
        Self { cert, cert_pem, key_pem: made.signing_key.serialize_pem() }
    }

    /// Installs both files in `folder` as a certificate renewal does: beside the old ones, then renamed.
    pub fn install(&self, folder: &Path) {
        put(folder, "cert.pem", &self.cert_pem);
        put(folder, "key.pem", &self.key_pem);
    }

    /// A client that trusts this certificate and no other.
    pub fn trust(&self) -> Trust {
        self.trust_with(ALL_VERSIONS, &[])
    }

    /// A client that uses these TLS versions and offers these ALPN protocols.
    pub fn trust_with(&self, versions: &[&'static SupportedProtocolVersion], protocols: &[&str]) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add(self.cert.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Trust(TlsConnector::from(Arc::new(config)))
    }
}

/// The trust settings of a client.
#[derive(Clone)]
pub struct Trust(TlsConnector);

impl Trust {
    pub async fn secure(&self, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        within("the TLS handshake", self.0.connect(name, tcp)).await
    }
}

/// Writes a file beside its place and renames it.
pub fn put(folder: &Path, name: &str, text: &str) {
    let ready = folder.join(format!("{name}.new"));
    std::fs::write(&ready, text).unwrap();
    std::fs::rename(ready, folder.join(name)).unwrap();
}
