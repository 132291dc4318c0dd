//! HTTP client for plugins: HTTP/1.1, with or without TLS, with connection reuse.
//!
//! Each name is resolved once and every address is checked. The connection goes to a checked address, so a DNS change
//! in between has no effect. Follows no redirects and uses no proxy. Knows plugins by name only.

mod pool;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::plugin::fetch::{Fetch, FetchError, FetchRequest, FetchResponse, Scheme, Url};
use crate::trust::Trust;
use pool::{Key, Pool, Sender};

/// Maximum concurrent requests over all plugins.
const MAX_CONCURRENT: usize = 256;
/// Time to connect to one address, so that the next one still gets a try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum addresses tried per name.
const MAX_ADDRESSES: usize = 4;
/// Maximum headers of a response, and maximum bytes of its head.
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 32 << 10;
const USER_AGENT_VALUE: &str = concat!("skylark/", env!("CARGO_PKG_VERSION"));

/// The HTTP client.
pub(super) struct HttpClient {
    permits: Semaphore,
    pool: Pool,
    trust: Trust,
}

trait ReadWrite: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> ReadWrite for T {}

impl HttpClient {
    /// Trusts the system's certificates, and those in the PEM file `ca` unless it is empty.
    pub(super) fn new(ca: PathBuf) -> Self {
        Self {
            permits: Semaphore::new(MAX_CONCURRENT),
            pool: Pool::default(),
            trust: Trust::new(ca, "plugins.http_ca"),
        }
    }

    async fn send(&self, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
        let key = Key::of(request);
        let permits = |address: IpAddr| request.networks.permits(address);
        // The server may close an idle connection at this moment; the request is then retried on another one.
        while let Some(idle) = self.pool.take(&key, permits) {
            match exchange(idle.sender, request).await {
                Ok((answer, sender)) => return Ok(self.put_back(key, idle.address, sender, answer)),
                Err(ExchangeError { may_retry: true, .. }) => {}
                Err(ExchangeError { error, .. }) => return Err(error),
            }
        }
        let (sender, address) = self.dial(request).await?;
        let (answer, sender) = exchange(sender, request).await.map_err(|failed| failed.error)?;
        Ok(self.put_back(key, address, sender, answer))
    }

    fn put_back(&self, key: Key, address: IpAddr, sender: Sender, answer: FetchResponse) -> FetchResponse {
        self.pool.put(key, address, sender);
        answer
    }

    /// Resolves the name once and connects to a permitted address.
    async fn dial(&self, request: &FetchRequest) -> Result<(Sender, IpAddr), FetchError> {
        let url = &request.url;
        let found: Vec<SocketAddr> = lookup_host((url.host.as_str(), url.port))
            .await
            .map_err(|error| FetchError::Unreachable(format!("{url}: the host name does not resolve: {error}")))?
            .collect();
        let permitted: Vec<_> = found.iter().filter(|found| request.networks.permits(found.ip())).collect();
        if let (true, Some(first)) = (permitted.is_empty(), found.first()) {
            let (plugin, address) = (&request.plugin, first.ip());
            return Err(FetchError::Denied(format!(
                "{url} is at {address}, which is not a public address: grant it in {plugin}.toml under [http]: private = [\"{address}\"]"
            )));
        }
        let mut why = format!("{url}: the host name has no address");
        for address in permitted.into_iter().take(MAX_ADDRESSES) {
            match timeout(CONNECT_TIMEOUT, self.connect(url, *address)).await {
                Ok(Ok(sender)) => return Ok((sender, address.ip())),
                Ok(Err(error)) => why = format!("{url} at {address}: {error}"),
                Err(_) => why = format!("{url} at {address}: no connection within {CONNECT_TIMEOUT:?}"),
            }
        }
        Err(FetchError::Unreachable(why))
    }

    async fn connect(&self, url: &Url, address: SocketAddr) -> Result<Sender, String> {
        let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let stream: Pin<Box<dyn ReadWrite>> = match url.scheme {
            Scheme::Http => Box::pin(tcp),
            Scheme::Https => {
                let connector = TlsConnector::from(self.trust.config().await?);
                let name = ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
                Box::pin(connector.connect(name, tcp).await.map_err(|error| error.to_string())?)
            }
        };
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        // Ends when its sender is dropped or the server closes.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

impl Fetch for HttpClient {
    fn fetch(&self, request: FetchRequest) -> BoxFuture<'_, Result<FetchResponse, FetchError>> {
        async move {
            let Ok(_permit) = self.permits.try_acquire() else { return Err(FetchError::Busy) };
            timeout(request.timeout, self.send(&request)).await.unwrap_or(Err(FetchError::Timeout))
        }
        .boxed()
    }
}

/// A failed exchange.
struct ExchangeError {
    error: FetchError,
    /// True if no response came and a retry is safe.
    may_retry: bool,
}

impl ExchangeError {
    fn fatal(error: FetchError) -> Self {
        Self { error, may_retry: false }
    }
}

async fn exchange(mut sender: Sender, request: &FetchRequest) -> Result<(FetchResponse, Sender), ExchangeError> {
    let message = message(request).map_err(ExchangeError::fatal)?;
    let is_safe = matches!(request.method.as_str(), "GET" | "HEAD");
    let answered = async {
        sender.ready().await?;
        sender.send_request(message).await
    };
    let answer = answered.await.map_err(|error| ExchangeError {
        may_retry: error.is_canceled() || error.is_closed() || is_safe && error.is_incomplete_message(),
        error: FetchError::Broken(format!("{}: {error}", request.url)),
    })?;
    let answer = read(answer, request).await.map_err(ExchangeError::fatal)?;
    Ok((answer, sender))
}

fn message(request: &FetchRequest) -> Result<Request<Full<Bytes>>, FetchError> {
    let broken = |error: hyper::http::Error| FetchError::Broken(error.to_string());
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|error| broken(error.into()))?;
    let mut message = Request::builder().method(method).uri(request.url.path.as_str());
    for (name, value) in &request.headers {
        message = message.header(name, value);
    }
    let mut message = message.body(Full::new(Bytes::from(request.body.clone()))).map_err(broken)?;
    let host = HeaderValue::from_str(&request.url.authority()).map_err(|error| broken(error.into()))?;
    message.headers_mut().insert(HOST, host);
    message.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT_VALUE));
    Ok(message)
}

async fn read(answer: Response<hyper::body::Incoming>, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, request.max_body).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            FetchError::TooLarge
        } else {
            FetchError::Broken(format!("{}: the response ended early: {error}", request.url))
        }
    })?;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    Ok(FetchResponse { status: head.status.as_u16(), headers: headers.collect(), body: body.to_bytes().to_vec() })
}
