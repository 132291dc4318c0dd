//! TLS of a listener: certificate and key, read at the start and again when the files change.
//!
//! Only this module and `socket` use rustls. Independent of HTTP and frames: the listener's protocol runs inside TLS as
//! it does without.

mod renewal;
mod session;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;

use super::socket::MaybeTlsStream;
use crate::config::{Listener, Service, TlsFiles};
use renewal::FileStates;
pub(super) use renewal::spawn as renew;
pub(super) use session::TlsSession;

/// Maximum size of a certificate or key file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Tickets sent per handshake: a client needs one to resume without a full handshake.
const TICKETS: usize = 1;
/// The only ALPN protocol; h2 is not supported.
const HTTP: &[u8] = b"http/1.1";

/// A certificate is unusable.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file lacks the expected contents.
    #[error("expected {expected} in PEM form in {}: {source}", path.display())]
    Pem {
        /// Expected contents.
        expected: &'static str,
        /// The file.
        path: PathBuf,
        /// Details.
        source: pem::Error,
    },
    /// Certificate and key do not belong together.
    #[error("{} and {} do not serve: {source}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Details.
        source: rustls::Error,
    },
}

/// The current certificate of a listener.
#[derive(Debug)]
pub(super) struct Certificate {
    files: TlsFiles,
    /// True for HTTP listeners. cim-tcp negotiates no ALPN protocol.
    is_http: bool,
    config: ArcSwap<ServerConfig>,
    seen: Mutex<FileStates>,
}

impl Certificate {
    /// Reads the files of `listener`; `None` for a plain listener.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub(super) fn of(listener: &Listener) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(files) = listener.tls.clone() else { return Ok(None) };
        let is_http = !listener.has(Service::CimTcp);
        let seen = Mutex::new(FileStates::now(&files));
        let config = ArcSwap::from_pointee(read(&files, is_http)?);
        Ok(Some(Arc::new(Self { files, is_http, config, seen })))
    }

    /// Performs the TLS handshake on `tcp` within `limit`.
    ///
    /// # Errors
    /// The reason label of the metric: `tls`, or `tls_time` after a timeout.
    pub(super) async fn accept(&self, tcp: TcpStream, limit: Duration) -> Result<MaybeTlsStream, &'static str> {
        let stream = MaybeTlsStream::tls(tcp, self.config.load_full()).map_err(|error| {
            tracing::error!(%error, "creating a TLS session failed");
            "tls"
        })?;
        match tokio::time::timeout(limit, stream.handshake()).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                if error.kind() == io::ErrorKind::InvalidData {
                    // The alert names the reason. Closing the socket over unread bytes would lose it.
                    crate::node::Socket::shutdown(&stream, false);
                    stream.linger().await;
                }
                Err("tls")
            }
            Err(_) => Err("tls_time"),
        }
    }
}

/// Faults of the certificates of `listeners`, one line each.
#[must_use]
pub fn faults(listeners: &[Listener]) -> Vec<String> {
    let fault = |(at, listener): (usize, &Listener)| {
        let error = Certificate::of(listener).err()?;
        Some(format!("listeners[{at}].tls: {error}"))
    };
    listeners.iter().enumerate().filter_map(fault).collect()
}

/// Reads certificate and key and builds the TLS configuration.
fn read(files: &TlsFiles, is_http: bool) -> Result<ServerConfig, TlsError> {
    let TlsFiles { cert, key } = files;
    let unusable = |source| TlsError::Pair { cert: cert.clone(), key: key.clone(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates(cert)?, private_key(key)?)
        .map_err(unusable)?;
    if is_http {
        config.alpn_protocols = vec![HTTP.to_vec()];
    }
    // The state needed to resume is in the client's ticket, encrypted. The server stores no session.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(unusable)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = TICKETS;
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { expected: "a certificate", path: path.to_owned(), source };
    let bytes = contents(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(failed)?;
    if chain.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let failed = |source| TlsError::Pem { expected: "a private key", path: path.to_owned(), source };
    PrivateKeyDer::from_pem_slice(&contents(path)?).map_err(failed)
}

fn contents(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        // Checked before opening, because opening a fifo would block.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("expected a file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(io::Error::other(format!("expected at most {MAX_FILE} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
