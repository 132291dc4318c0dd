//! The way of a command to a node: a socket, and TLS over it where the URL says so.
//!
//! Knows no HTTP and no frame. By default it believes whom the system believes; a certificate of one's own is named.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use hyper::Uri;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::trust::roots;

/// Whom a command believes, where it speaks TLS.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Trust {
    /// PEM file of the certificates that a node's must come from, in place of the system's.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Believe any certificate: whoever answers gets the key and all that is sent.
    #[arg(long)]
    insecure: bool,
}

/// A socket, or TLS over one.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What a command speaks through.
pub(super) type Pipe = Box<dyn Duplex>;

/// A scheme without TLS, and the same with it.
pub(super) type Schemes = [&'static str; 2];

impl Trust {
    /// Opens a connection to the node that `uri` names.
    ///
    /// # Errors
    /// No such URL, nobody who listens there, or no certificate to believe.
    pub(super) async fn dial(&self, uri: &Uri, [plain, secure]: Schemes) -> anyhow::Result<Pipe> {
        let authority =
            uri.authority().with_context(|| format!("expected a URL such as {plain}://host:port, got {uri}"))?;
        let is_secure = match uri.scheme_str() {
            Some(scheme) if scheme == plain => false,
            Some(scheme) if scheme == secure => true,
            _ => bail!("expected a URL that begins with {plain}:// or {secure}://, got {uri}"),
        };
        let host = authority.host().trim_matches(['[', ']']);
        let port = authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let connector = if is_secure { Some(self.connector()?) } else { None };
        let stream = TcpStream::connect((host, port))
            .await
            .with_context(|| format!("no node answers at {authority}; does `skylark serve` run?"))?;
        stream.set_nodelay(true)?;
        let Some(connector) = connector else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned()).with_context(|| format!("no certificate names {host:?}"))?;
        let secured = connector.connect(name, stream).await;
        Ok(Box::new(secured.with_context(|| format!("no TLS with {authority}, believing {}", self.words()))?))
    }

    fn connector(&self) -> anyhow::Result<TlsConnector> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let mut config = if self.insecure {
            let anyone = Arc::new(Anyone(provider));
            builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth()
        } else {
            builder.with_root_certificates(self.roots()?).with_no_client_auth()
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }

    fn roots(&self) -> anyhow::Result<RootCertStore> {
        if let Some(file) = &self.ca {
            return read(file);
        }
        let bundle = roots::bundle().with_context(|| {
            format!("found none of the system's certificates ({}); name one by --ca", roots::BUNDLES.join(", "))
        })?;
        read(&bundle)
    }

    fn words(&self) -> String {
        match &self.ca {
            _ if self.insecure => "any certificate".to_owned(),
            Some(file) => format!("what {} holds", file.display()),
            None => "the system's certificates; --ca names others".to_owned(),
        }
    }
}

/// Every certificate of a PEM file. A system's bundle may hold some that are too odd to be believed: one that serves is
/// enough.
fn read(file: &Path) -> anyhow::Result<RootCertStore> {
    let expected = || format!("expected certificates in PEM form in {}", file.display());
    let certificates = CertificateDer::pem_file_iter(file).with_context(expected)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.collect::<Result<Vec<_>, _>>().with_context(expected)?);
    if roots.is_empty() {
        bail!(expected());
    }
    Ok(roots)
}

/// Believes any certificate; that its owner is at the other end is still looked at.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
