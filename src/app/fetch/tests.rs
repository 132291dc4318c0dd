//! The HTTP client against local test servers, and against TLS with a test certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::plugin::fetch::{Network, Networks};

/// Answers each request by its path and counts connections.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => drop(serve(tls.accept(tcp).await?).await),
                        None => drop(serve(tcp).await),
                    }
                    std::io::Result::Ok(())
                });
            }
        });
        Self { port, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn request(&self, path: &str) -> FetchRequest {
        request(&format!("http://127.0.0.1:{}{path}", self.port))
    }
}

fn request(url: &str) -> FetchRequest {
    FetchRequest {
        plugin: "p".into(),
        method: "GET".to_owned(),
        url: Url::parse(url).unwrap(),
        headers: vec![("x-test".to_owned(), "told".to_owned())],
        body: Vec::new(),
        timeout: Duration::from_secs(5),
        max_body: 1_000,
        networks: Arc::new(Networks::new(vec![Network::parse("127.0.0.1").unwrap()])),
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
        read.drain(..head);
        let path = text.split(' ').nth(1).unwrap_or_default();
        let ok = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answer = match path {
            "/head" => ok(&text),
            "/redirect" => "HTTP/1.1 302 Found\r\nLocation: /head\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/large" => ok(&"x".repeat(1_001)),
            "/endless" => format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(5_000)),
            "/silent" => {
                stream.read_buf(&mut read).await?;
                return Ok(());
            }
            "/half" => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned(),
            "/close" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(),
            _ => "no http at all\r\n\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).await?;
        if ["/half", "/close", "/endless"].contains(&path) {
            return stream.shutdown().await;
        }
    }
}

fn client() -> HttpClient {
    HttpClient::new(PathBuf::new())
}

#[tokio::test]
async fn connections_are_kept_for_the_same_plugin_and_place() {
    let (server, network) = (Server::start(None).await, client());
    for _ in 0..3 {
        let answer = network.fetch(server.request("/head")).await.unwrap();
        let told = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 200);
        let host = format!("host: 127.0.0.1:{}\r\n", server.port);
        assert!(
            told.contains(&host) && told.contains("x-test: told\r\n") && told.contains("user-agent: skylark/"),
            "{told}"
        );
    }
    assert_eq!(server.connections(), 1, "three requests, one connection");
    let other = FetchRequest { plugin: "q".into(), ..server.request("/head") };
    network.fetch(other).await.unwrap();
    assert_eq!(server.connections(), 2, "another plugin has its own");
    for _ in 0..3 {
        assert_eq!(network.fetch(server.request("/close")).await.unwrap().body, b"ok");
    }
    assert_eq!(server.connections(), 4, "one that the other side closed is not used again");
}

#[tokio::test]
async fn request_to_an_ungranted_address_is_denied() {
    let (server, network) = (Server::start(None).await, client());
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let denied =
            FetchRequest { networks: Arc::default(), ..request(&format!("http://{host}:{}/head", server.port)) };
        let Err(FetchError::Denied(why)) = network.fetch(denied).await else { panic!("{host}") };
        assert!(why.contains("grant it in p.toml under [http]: private = ["), "{why}");
    }
    assert_eq!(server.connections(), 0);
    network.fetch(server.request("/head")).await.unwrap();
    let taken_back = FetchRequest { networks: Arc::default(), ..server.request("/head") };
    assert!(matches!(network.fetch(taken_back).await, Err(FetchError::Denied(_))), "nor is a kept connection used");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn redirect_is_not_followed_and_an_answer_over_a_cap_is_an_error() {
    let (server, network) = (Server::start(None).await, client());
    let answer = network.fetch(server.request("/redirect")).await.unwrap();
    assert_eq!((answer.status, answer.headers.contains(&("location".to_owned(), "/head".to_owned()))), (302, true));
    assert_eq!(server.connections(), 1, "and not followed");
    for path in ["/large", "/endless"] {
        assert_eq!(network.fetch(server.request(path)).await, Err(FetchError::TooLarge), "{path}");
    }
    for path in ["/half", "/nonsense"] {
        assert!(matches!(network.fetch(server.request(path)).await, Err(FetchError::Broken(_))), "{path}");
    }
    let slow = FetchRequest { timeout: Duration::from_millis(50), ..server.request("/silent") };
    assert_eq!(network.fetch(slow).await, Err(FetchError::Timeout));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(matches!(network.fetch(request(&format!("http://{nobody}/"))).await, Err(FetchError::Unreachable(_))));
}

#[tokio::test]
async fn tls_server_is_accepted_only_with_a_trusted_certificate() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let server = Server::start(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let trusting = HttpClient::new(ca);
    let url = format!("https://localhost:{}/head", server.port);
    for _ in 0..2 {
        assert_eq!(trusting.fetch(request(&url)).await.unwrap().status, 200);
    }
    assert_eq!(server.connections(), 1);
    let Err(FetchError::Unreachable(why)) = client().fetch(request(&url)).await else { panic!("trusted anybody") };
    assert!(why.contains("certificate"), "{why}");
    let by_address = request(&format!("https://127.0.0.1:{}/head", server.port));
    assert!(
        matches!(trusting.fetch(by_address).await, Err(FetchError::Unreachable(_))),
        "a certificate of another name"
    );
}
