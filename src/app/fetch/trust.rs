//! Which certificates plugins' requests trust: the system's bundle, and one more file of the operator's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

use crate::app::roots;

/// What is trusted; read when the first request needs it.
pub(super) struct Trust {
    ca: PathBuf,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Trust {
    pub(super) fn new(ca: PathBuf) -> Self {
        Self { ca, config: OnceCell::new() }
    }

    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let read = || async {
            let ca = self.ca.clone();
            tokio::task::spawn_blocking(move || config(&ca)).await.map_err(|error| error.to_string())?
        };
        self.config.get_or_try_init(read).await.cloned()
    }
}

fn config(ca: &Path) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if let Some(bundle) = roots::bundle() {
        // A bundle holds old certificates that no library takes; they are not the operator's fault.
        roots.add_parsable_certificates(certificates(&bundle)?);
    }
    if !ca.as_os_str().is_empty() {
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| format!("plugins.http_ca: {}: {error}", ca.display()))?;
        }
    }
    if roots.is_empty() {
        return Err("there are no certificates to trust: install the system's, or set plugins.http_ca".to_owned());
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
