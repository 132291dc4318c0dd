//! WebSocket pings as in Autobahn's cases 2.x: whole, octet by octet, in a row, and before any other frame.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::within;
use crate::support::gateway::{Gateway, Setup};

const PING: u8 = 9;
const PONG: u8 = 10;
const CLOSE: u8 = 8;
const BINARY: u8 = 2;

/// A WebSocket at byte level.
struct Raw(TcpStream);

impl Raw {
    /// Connects on the listener's path without a subprotocol.
    async fn on(gateway: &Gateway, service: &str) -> Self {
        let mut stream = TcpStream::connect(gateway.address(service)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let path = if service == "ws" { "/ws" } else { "/" };
        let ask = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within("the handshake", stream.read_u8()).await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    async fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.0.write_all(&frame(opcode, payload)).await.unwrap();
    }

    async fn send_by_octet(&mut self, opcode: u8, payload: &[u8]) {
        for byte in frame(opcode, payload) {
            self.0.write_all(&[byte]).await.unwrap();
        }
    }

    /// Reads opcode and payload of the next frame, which must be complete and unmasked.
    async fn next(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let [first, length] = [self.0.read_u8().await.unwrap(), self.0.read_u8().await.unwrap()];
            assert!(first & 0xf0 == 0x80 && length < 126, "{first:#x} {length:#x}");
            let mut payload = vec![0; length.into()];
            self.0.read_exact(&mut payload).await.unwrap();
            (first & 0x0f, payload)
        };
        within("the frame", read).await
    }

    async fn is_ponged(&mut self, payload: &[u8]) {
        assert_eq!(self.next().await, (PONG, payload.to_vec()));
    }

    /// Closes with a close handshake, which a failing connection could not complete.
    async fn leave(mut self) {
        self.send(CLOSE, &1000_u16.to_be_bytes()).await;
        let (opcode, payload) = self.next().await;
        assert_eq!((opcode, &payload[..2]), (CLOSE, &1000_u16.to_be_bytes()[..]));
    }
}

/// A masked frame; the mask is zero, so the payload is unchanged.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

#[tokio::test]
async fn ping_is_answered_before_any_frame_on_every_listener() {
    let gateway = Gateway::start();
    for service in ["ws", "cim"] {
        for payload in [&b""[..], b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", &[0xfe; 125]] {
            let mut client = Raw::on(&gateway, service).await;
            client.send(PING, payload).await;
            client.is_ponged(payload).await;
            client.send_by_octet(PING, payload).await;
            client.is_ponged(payload).await;
            client.leave().await;
        }
        let mut client = Raw::on(&gateway, service).await;
        client.send(PONG, b"unsolicited").await;
        client.send(PING, b"and one").await;
        client.is_ponged(b"and one").await;
        for payload in 0..10_u8 {
            client.send(PING, &[payload]).await;
        }
        for payload in 0..10_u8 {
            client.is_ponged(&[payload]).await;
        }
        for payload in 0..10_u8 {
            client.send_by_octet(PING, &[payload]).await;
        }
        for payload in 0..10_u8 {
            client.is_ponged(&[payload]).await;
        }
        client.leave().await;
    }
}

#[tokio::test]
async fn ping_in_two_segments_ends_no_idle_connection() {
    let setup = "limits:\n  message_timeout: 200ms\nheartbeat:\n  interval: 500ms\n  max_missed: 100";
    let gateway = Setup::default().yaml(setup).start();
    let mut client = Raw::on(&gateway, "ws").await;
    let bytes = frame(PING, b"whole");
    client.0.write_all(&bytes[..3]).await.unwrap();
    client.0.write_all(&bytes[3..]).await.unwrap();
    client.is_ponged(b"whole").await;
    // Each PING of the node comes after more idle time than a message may take.
    for _ in 0..2 {
        assert_eq!(client.next().await, (BINARY, b"\x01PING".to_vec()));
    }
    client.send(PING, b"still here").await;
    client.is_ponged(b"still here").await;
}

#[tokio::test]
async fn ping_does_not_prolong_a_message_in_fragments() {
    let gateway = Setup::default().yaml("limits:\n  message_timeout: 500ms").start();
    let mut client = Raw::on(&gateway, "ws").await;
    // A fragment of a message that never ends.
    client.0.write_all(&[BINARY, 0x81, 0, 0, 0, 0, 3]).await.unwrap();
    let (mut reading, mut writing) = client.0.into_split();
    let ping = async {
        let mut beat = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            beat.tick().await;
            if writing.write_all(&frame(PING, b"")).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut said = Vec::new();
    tokio::select! {
        _ = within("the close after an unfinished message", reading.read_to_end(&mut said)) => {}
        () = ping => {}
    }
    assert!(String::from_utf8_lossy(&said).contains("frame not finished in time"), "{said:?}");
}
