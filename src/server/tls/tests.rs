//! TLS over real sockets: slow, greedy and silent peers, and changing files.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::path::PathBuf;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::session::MAX_WRITE;
use super::*;
use crate::node::Socket as _;

/// A folder with a certificate for `localhost`.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        files.renew();
        files
    }

    fn names(&self) -> TlsFiles {
        TlsFiles { cert: self.path("cert.pem"), key: self.path("key.pem") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a new pair.
    fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(self.path("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(self.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }

    fn certificate(&self) -> Result<Arc<Certificate>, TlsError> {
        let config = crate::config::Config::default();
        let listener = Listener { tls: Some(self.names()), ..config.listeners[0].clone() };
        Certificate::of(&listener).map(|certificate| certificate.expect("it is to speak TLS"))
    }

    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(certificates(&self.path("cert.pem")).unwrap().remove(0)).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

/// Both ends of a connection with small kernel buffers.
async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let client = TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(8 * 1024).unwrap();
    let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&server, 8 * 1024).unwrap();
    (server, client)
}

async fn pair() -> (MaybeTlsStream, TlsStream<TcpStream>) {
    let files = Files::new();
    let (server, client) = sockets().await;
    let certificate = files.certificate().unwrap();
    let connector = files.connector();
    let (server, client) = tokio::join!(
        certificate.accept(server, Duration::from_secs(20)),
        connector.connect(ServerName::try_from("localhost").unwrap(), client),
    );
    (server.unwrap(), client.unwrap())
}

/// Queued buffers, written as a shard does.
struct Writer(VecDeque<Vec<u8>>);

impl Writer {
    /// Writes until the queue is empty (`true`) or the socket accepts no more.
    fn flush(&mut self, stream: &MaybeTlsStream) -> bool {
        while !self.0.is_empty() {
            let parts: Vec<IoSlice<'_>> = self.0.iter().take(64).map(|run| IoSlice::new(run)).collect();
            match stream.try_write(&parts) {
                Ok(0) => panic!("a socket that takes nothing is broken"),
                Ok(written) => self.advance(written),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(e) => panic!("{e}"),
            }
        }
        true
    }

    fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let run = self.0.front_mut().expect("no more is written than there was");
            if run.len() > written {
                run.drain(..written);
                return;
            }
            written -= run.len();
            self.0.pop_front();
        }
    }
}

/// `count` buffers of growing sizes, and their concatenation.
fn runs(count: usize, step: usize) -> (Writer, Vec<u8>) {
    let byte = |at: usize| u8::try_from(at % 251).unwrap();
    let runs: VecDeque<Vec<u8>> = (1..=count).map(|n| (0..n * step + 1).map(|i| byte(i * n)).collect()).collect();
    let all = runs.iter().flatten().copied().collect();
    (Writer(runs), all)
}

#[tokio::test]
async fn blocked_tls_writer_resumes_in_order() {
    for (count, step) in [(1, 300_000), (700, 1), (40, 500), (9, 20_000)] {
        let (stream, mut client) = pair().await;
        let (mut writer, all) = runs(count, step);
        let mut got = Vec::new();
        let mut stops = 0;
        while !writer.flush(&stream) {
            stops += 1;
            assert!(!writer.0.is_empty(), "a writer that holds nothing would never come back");
            let writable = poll_fn(|cx| stream.poll_writable(cx));
            tokio::pin!(writable);
            loop {
                let mut part = [0; 3000];
                tokio::select! {
                    biased;
                    ready = &mut writable => break ready.unwrap(),
                    read = client.read(&mut part) => got.extend(&part[..read.unwrap()]),
                }
            }
        }
        let mut rest = vec![0; all.len() - got.len()];
        client.read_exact(&mut rest).await.unwrap();
        got.extend(rest);
        assert!(got == all, "{count} runs, step {step}");
        assert!(stops > 0 || all.len() < 250_000, "nothing was blocked");
    }
}

#[tokio::test]
async fn slow_tls_consumer_loses_only_runs_not_yet_started() {
    let (stream, mut client) = pair().await;
    let (mut writer, all) = runs(5000, 3);
    assert!(!writer.flush(&stream));
    // Data that the socket has not seen is dropped and replaced by a last message.
    let unsent: usize = writer.0.iter().map(Vec::len).sum();
    let begun = writer.0.pop_front().unwrap();
    assert_eq!(begun.len(), 1, "of all that was encrypted, one byte is kept back");
    writer.0 = [begun, b"bye".to_vec()].into();
    let expected = [&all[..=all.len() - unsent], b"bye"].concat();
    let read = tokio::spawn(async move {
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        got
    });
    while !writer.flush(&stream) {
        poll_fn(|cx| stream.poll_writable(cx)).await.unwrap();
    }
    stream.shutdown(false);
    assert!(read.await.unwrap() == expected);
}

#[tokio::test]
async fn many_runs_are_one_record() {
    let (stream, mut client) = pair().await;
    let runs: Vec<Vec<u8>> = (0..16).map(|n| vec![n; 200]).collect();
    let parts: Vec<IoSlice<'_>> = runs.iter().map(|run| IoSlice::new(run)).collect();
    assert_eq!(stream.try_write(&parts).unwrap(), 3200);
    stream.shutdown(false);
    let mut wire = Vec::new();
    client.get_mut().0.read_to_end(&mut wire).await.unwrap();
    let (mut records, mut rest) = (Vec::new(), &wire[..]);
    while let [_, _, _, high, low, body @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        records.push(length);
        rest = &body[length..];
    }
    // Inside a record, the type follows the text, and the tag follows both. The first record is the client's ticket.
    assert_eq!(records[1..], [3200 + 1 + 16, 2 + 1 + 16], "one record, and close_notify");
}

#[tokio::test]
async fn stream_with_decrypted_bytes_is_readable() {
    let (stream, mut client) = pair().await;
    let sent: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();
    let (mut got, mut buffer) = (Vec::<u8>::new(), [0; 512]);
    loop {
        poll_fn(|cx| stream.poll_readable(cx)).await.unwrap();
        match stream.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => got.extend(&buffer[..count]),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
        }
    }
    assert!(got == sent);
}

#[tokio::test]
async fn tls_stream_copies_as_async_read_and_write() {
    let (mut stream, mut client) = pair().await;
    let (_, all) = runs(300, 10);
    let (sent, heard) = (all.clone(), all.clone());
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(&mut stream);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        stream.shutdown(false);
    });
    let (mut read, mut write) = tokio::io::split(&mut client);
    let send = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let receive = async { read.read_to_end(&mut got).await.unwrap() };
    tokio::join!(send, receive);
    echo.await.unwrap();
    assert!(got == heard);
}

#[tokio::test]
async fn plain_text_on_tls_listener_is_answered_with_an_alert() {
    let files = Files::new();
    let (server, mut client) = sockets().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let certificate = files.certificate().unwrap();
    let refused = tokio::spawn(async move { certificate.accept(server, Duration::from_secs(20)).await.map(drop) });
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer[0], 21, "an alert");
    drop(client);
    assert_eq!(refused.await.unwrap(), Err("tls"));
}

#[tokio::test(start_paused = true)]
async fn handshake_beyond_its_timeout_fails() {
    let files = Files::new();
    let (server, _client) = sockets().await;
    let slow = files.certificate().unwrap().accept(server, Duration::from_secs(5)).await;
    assert_eq!(slow.map(drop), Err("tls_time"));
}

#[test]
fn a_session_is_small() {
    println!("session: {} bytes, stream: {} bytes", size_of::<Mutex<TlsSession>>(), size_of::<MaybeTlsStream>());
    assert!(size_of::<MaybeTlsStream>() <= 40, "{} bytes", size_of::<MaybeTlsStream>());
    assert!(size_of::<TlsSession>() <= 2048, "{} bytes", size_of::<TlsSession>());
    assert_eq!(MAX_WRITE, 2 * 16 * 1024);
}

#[test]
fn unusable_certificate_files_are_named() {
    let files = Files::new();
    let words = |files: &Files| files.certificate().unwrap_err().to_string();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(files.path("key.pem"), other.signing_key.serialize_pem()).unwrap();
    assert!(words(&files).contains("key.pem do not serve: "), "{}", words(&files));
    std::fs::write(files.path("key.pem"), "no key").unwrap();
    assert!(words(&files).starts_with("expected a private key in PEM form in "), "{}", words(&files));
    std::fs::write(files.path("cert.pem"), "").unwrap();
    assert!(words(&files).starts_with("expected a certificate in PEM form in "), "{}", words(&files));
    std::fs::write(files.path("cert.pem"), vec![b'x'; 2 << 20]).unwrap();
    assert!(words(&files).contains("expected at most 1048576 bytes"), "{}", words(&files));
    std::fs::remove_file(files.path("cert.pem")).unwrap();
    assert!(words(&files).starts_with("cannot read "), "{}", words(&files));
}

#[test]
fn new_certificate_is_loaded_once_stable_and_valid() {
    let files = Files::new();
    let certificate = files.certificate().unwrap();
    let first = certificate.config.load_full();
    let is_first = || Arc::ptr_eq(&certificate.config.load_full(), &first);
    certificate.reload_if_changed();
    assert!(is_first(), "nothing has changed");

    std::fs::write(files.path("key.pem"), "half of a new k").unwrap();
    certificate.reload_if_changed();
    certificate.reload_if_changed();
    certificate.reload_if_changed();
    assert!(is_first(), "what does not serve changes nothing");

    files.renew();
    certificate.reload_if_changed();
    assert!(is_first(), "it may not be whole yet");
    certificate.reload_if_changed();
    assert!(!is_first());
    let second = certificate.config.load_full();
    certificate.reload_if_changed();
    certificate.reload_if_changed();
    assert!(Arc::ptr_eq(&certificate.config.load_full(), &second), "one change is read once");
}
