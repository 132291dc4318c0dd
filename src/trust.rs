//! Trusted certificates of Skylark's own TLS clients: the system's bundle and one file of the operator.
//!
//! Independent of connections.

pub(crate) mod roots;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

/// The trusted certificates, read when the first connection needs them.
pub struct Trust {
    ca: PathBuf,
    key: &'static str,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Trust {
    /// Trusts the system's certificates, and those in `ca` (PEM) unless it is empty. `key` is the configuration key of
    /// `ca`.
    #[must_use]
    pub fn new(ca: PathBuf, key: &'static str) -> Self {
        Self { ca, key, config: OnceCell::new() }
    }

    /// The TLS client configuration.
    ///
    /// # Errors
    /// The message names the file that cannot be read, or says that no certificate was found.
    pub async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let read = || async {
            let (ca, key) = (self.ca.clone(), self.key);
            tokio::task::spawn_blocking(move || config(&ca, key)).await.map_err(|error| error.to_string())?
        };
        self.config.get_or_try_init(read).await.cloned()
    }
}

/// Describes the fault of a certificate file that `key` of the configuration names; `None` if the file is valid.
#[must_use]
pub fn fault(ca: &Path, key: &str) -> Option<String> {
    match certificates(ca) {
        Ok(found) if found.is_empty() => {
            Some(format!("{key}: {}: expected certificates in PEM form, got none", ca.display()))
        }
        Ok(_) => None,
        Err(error) => Some(format!("{key}: {error}")),
    }
}

fn config(ca: &Path, key: &str) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if let Some(bundle) = roots::bundle() {
        // A bundle may hold old certificates that no library accepts. They are not the operator's fault.
        roots.add_parsable_certificates(certificates(&bundle)?);
    }
    if !ca.as_os_str().is_empty() {
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| format!("{key}: {}: {error}", ca.display()))?;
        }
    }
    if roots.is_empty() {
        return Err(format!("no trusted certificates: install the system's bundle, or set {key}"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}
