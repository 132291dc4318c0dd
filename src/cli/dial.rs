//! The connection of a command to a node: a socket, with TLS if the URL requires it.
//!
//! Independent of HTTP and frames. Trusts the system's certificates by default; `--ca` names other ones.

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

/// Trusted certificates of a command's TLS connections.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Trust {
    /// PEM file of the certificates to trust, instead of the system's.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Accept any certificate: any server that answers receives the key and all data.
    #[arg(long)]
    insecure: bool,
}

/// A plain or TLS socket.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connection of a command.
pub(super) type Pipe = Box<dyn Duplex>;

/// A scheme without TLS, and its variant with TLS.
pub(super) type Schemes = [&'static str; 2];

impl Trust {
    /// Opens a connection to the node that `uri` names.
    ///
    /// # Errors
    /// The URL is invalid, no server listens there, or its certificate is not trusted.
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
            .with_context(|| format!("cannot connect to {authority}: is `skylark serve` running?"))?;
        stream.set_nodelay(true)?;
        let Some(connector) = connector else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned())
            .with_context(|| format!("expected a host name or an IP address, got {host:?}"))?;
        let secured = connector.connect(name, stream).await;
        Ok(Box::new(
            secured.with_context(|| {
                format!("the TLS handshake with {authority} failed; trusted: {}", self.description())
            })?,
        ))
    }

    fn connector(&self) -> anyhow::Result<TlsConnector> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let mut config = if self.insecure {
            let verifier = Arc::new(AcceptAny(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
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
            format!("none of the system's certificate files exists ({}): name one with --ca", roots::BUNDLES.join(", "))
        })?;
        read(&bundle)
    }

    fn description(&self) -> String {
        match &self.ca {
            _ if self.insecure => "any certificate".to_owned(),
            Some(file) => format!("the certificates in {}", file.display()),
            None => "the system's certificates; --ca names others".to_owned(),
        }
    }
}

/// Reads the certificates of a PEM file. A system bundle may contain unusable certificates; one usable certificate is
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

/// Accepts any certificate, but still verifies that the server holds its private key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
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
