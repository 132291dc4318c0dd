//! TLS of a listener: its certificate and key, read at the start and again whenever the files change.
//!
//! rustls lives here and in `socket`. Knows no HTTP and no frame: what a client says inside is the listener's protocol,
//! as it is without TLS.

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

use super::socket::Stream;
use crate::config::{Listener, Service, TlsFiles};
use renewal::Seen;
pub(super) use renewal::spawn as renew;
pub(super) use session::Session;

/// Largest file of certificates or keys, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Tickets that a client gets with a handshake: it needs one to come back without a full one.
const TICKETS: usize = 1;
/// Neither h2 nor anything else is spoken here.
const HTTP: &[u8] = b"http/1.1";

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that does not hold what it should.
    #[error("expected {expected} in PEM form in {}: {source}", path.display())]
    Pem {
        /// What should be in it.
        expected: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it is not.
        source: pem::Error,
    },
    /// A certificate and a key that cannot serve together.
    #[error("{} and {} do not serve: {source}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// What a listener shows to those who come: its certificate, as it is now.
#[derive(Debug)]
pub(super) struct Certificate {
    files: TlsFiles,
    /// cim-tcp is no HTTP, so nothing is agreed on there.
    is_http: bool,
    config: ArcSwap<ServerConfig>,
    seen: Mutex<Seen>,
}

impl Certificate {
    /// Reads the files of `listener`; `None` where it is plain.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub(super) fn of(listener: &Listener) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(files) = listener.tls.clone() else { return Ok(None) };
        let is_http = !listener.has(Service::CimTcp);
        let seen = Mutex::new(Seen::now(&files));
        let config = ArcSwap::from_pointee(read(&files, is_http)?);
        Ok(Some(Arc::new(Self { files, is_http, config, seen })))
    }

    /// Speaks TLS on `tcp` and waits for the end of the handshake, at most for `limit`.
    ///
    /// # Errors
    /// The label of the metric: `tls` or, when it took too long, `tls_time`.
    pub(super) async fn welcome(&self, tcp: TcpStream, limit: Duration) -> Result<Stream, &'static str> {
        let stream = Stream::secured(tcp, self.config.load_full()).map_err(|error| {
            tracing::error!(%error, "no TLS session can be made");
            "tls"
        })?;
        match tokio::time::timeout(limit, stream.handshake()).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "tls handshake");
                if error.kind() == io::ErrorKind::InvalidData {
                    // The alert says why; it would be lost if the socket were closed over unread bytes.
                    crate::node::Socket::shutdown(&stream, false);
                    stream.linger().await;
                }
                Err("tls")
            }
            Err(_) => Err("tls_time"),
        }
    }
}

/// What is wrong with the certificates of `listeners`, a line for each.
#[must_use]
pub fn faults(listeners: &[Listener]) -> Vec<String> {
    let fault = |(at, listener): (usize, &Listener)| {
        let error = Certificate::of(listener).err()?;
        Some(format!("listeners[{at}].tls: {error}"))
    };
    listeners.iter().enumerate().filter_map(fault).collect()
}

/// Reads a pair and makes of it all that a handshake needs.
fn read(files: &TlsFiles, is_http: bool) -> Result<ServerConfig, TlsError> {
    let TlsFiles { cert, key } = files;
    let unfit = |source| TlsError::Pair { cert: cert.clone(), key: key.clone(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(certificates(cert)?, private_key(key)?)
        .map_err(unfit)?;
    if is_http {
        config.alpn_protocols = vec![HTTP.to_vec()];
    }
    // What a client needs to come back stands in its ticket, encrypted: nothing is remembered here, whoever comes.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(unfit)?;
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
        // Asked before it is opened: a fifo would keep us waiting.
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
