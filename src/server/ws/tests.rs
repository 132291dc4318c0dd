//! Client input, byte by byte, and the resulting events.

use std::future::poll_fn;

use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::error::CapacityError;

use super::*;

#[test]
fn websocket_errors_have_their_close_codes() {
    let too_long = Error::Capacity(CapacityError::MessageTooLong { size: 2, max_size: 1 });
    let table = [
        (too_long, Some(4504)),
        (Error::Io(io::Error::other(TooManyFragments)), Some(4504)),
        (Error::Utf8(String::new()), Some(1007)),
        (Error::Protocol(ProtocolError::NonZeroReservedBits), Some(1002)),
        (Error::Protocol(ProtocolError::UnmaskedFrameFromClient), Some(1002)),
        (Error::Protocol(ProtocolError::ResetWithoutClosingHandshake), None),
        (Error::Io(io::ErrorKind::ConnectionReset.into()), None),
        (Error::ConnectionClosed, None),
    ];
    for (error, code) in table {
        let got = match fault(&error) {
            ReadEvent::Invalid(why) => Some(why.code),
            _ => None,
        };
        assert_eq!(got, code, "{error}");
    }
}

#[test]
fn a_close_is_echoed() {
    let frame = CloseFrame { code: 3001.into(), reason: "bye".into() };
    assert_eq!(echo(Some(frame)).code, 3001);
    assert_eq!(echo(None).code, NORMAL);
}

async fn pair(read_ahead: &[u8]) -> (Reader, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (Reader::new(Arc::new(MaybeTlsStream::plain(server)), read_ahead, 64 * 1024), client)
}

/// A masked frame. The mask is zero, so the payload is unchanged.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(short @ 0..126) => bytes.push(0x80 | short),
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

async fn hear(reader: &mut Reader) -> String {
    match poll_fn(|cx| reader.poll(cx)).await {
        ReadEvent::Message(coding, payload) if payload.len() > 20 => format!("{coding:?} of {}", payload.len()),
        ReadEvent::Message(coding, payload) => format!("{coding:?} {}", String::from_utf8_lossy(&payload)),
        ReadEvent::Ping(pong) => format!("ping {pong:x?}"),
        ReadEvent::Alive => "life".to_owned(),
        ReadEvent::Close(why) => format!("closing {}", why.code),
        ReadEvent::Invalid(why) => format!("fault {}", why.code),
        ReadEvent::Disconnected => "gone".to_owned(),
    }
}

#[tokio::test]
async fn messages_fragments_and_pings_are_read_in_order() {
    let (mut reader, mut client) = pair(&frame(0x82, b"early")).await;
    let big = vec![b'x'; 60_000];
    let parts = [
        frame(0x81, "你".as_bytes()),
        frame(0x01, b"one "),
        frame(0x89, b"?"),
        frame(0x80, b"two"),
        frame(0x8a, b""),
        frame(0x82, &big),
        frame(0x82, b"small"),
        frame(0x88, &[0x0f, 0xa1]),
    ];
    let sender = async {
        for part in parts {
            client.write_all(&part).await.unwrap();
        }
    };
    let expected = [
        "Protobuf early",
        "Json 你",
        "ping b\"\\x8a\\x01?\"",
        "Json one two",
        "life",
        "Protobuf of 60000",
        "Protobuf small",
        "closing 4001",
    ];
    let listener = async {
        for words in expected {
            assert_eq!(hear(&mut reader).await, words);
        }
        assert!(!reader.is_mid_message());
    };
    tokio::join!(sender, listener);
}

#[tokio::test]
async fn large_read_buffer_is_released_when_idle() {
    let (mut reader, mut client) = pair(b"").await;
    for _ in 0..3 {
        client.write_all(&frame(0x82, &[1; 9000])).await.unwrap();
        assert_eq!(hear(&mut reader).await, "Protobuf of 9000");
        assert!(reader.is_buffer_large);
        // An idle connection waits for more input.
        assert!(poll_fn(|cx| reader.poll(cx)).now_or_never().is_none());
        assert!(!reader.is_buffer_large);
        client.write_all(&frame(0x82, b"a")).await.unwrap();
        assert_eq!(hear(&mut reader).await, "Protobuf a");
    }
}

#[tokio::test]
async fn partial_message_is_reported_as_mid_message() {
    let (mut reader, mut client) = pair(b"").await;
    let bytes = frame(0x82, b"whole");
    for (i, byte) in bytes.iter().enumerate() {
        assert_eq!(reader.is_mid_message(), i > 0);
        client.write_all(&[*byte]).await.unwrap();
        poll_fn(|cx| reader.stream().poll_readable(cx)).await.unwrap();
        let heard = hear(&mut reader).now_or_never();
        assert_eq!(heard.is_some(), i + 1 == bytes.len(), "byte {i}");
    }
    drop(client);
    assert_eq!(hear(&mut reader).await, "gone");
}

#[tokio::test]
async fn websocket_protocol_violation_is_a_fault() {
    let fragments = [frame(0x01, b"a"), (0..1024).flat_map(|_| frame(0x00, b"")).collect()].concat();
    let table = [
        (vec![0x82, 0x01, b'a'], "fault 1002"),
        (frame(0xc2, b"a"), "fault 1002"),
        (frame(0x83, b"a"), "fault 1002"),
        (frame(0x80, b"a"), "fault 1002"),
        (frame(0x09, b"a"), "fault 1002"),
        (frame(0x81, b"\xff"), "fault 1007"),
        (frame(0x81, b"\xed\xa0\x80"), "fault 1007"),
        (frame(0x82, &vec![0; 64 * 1024 + 1]), "fault 4504"),
        (vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], "fault 4504"),
        ([frame(0x02, &vec![0; 40_000]), frame(0x80, &vec![0; 40_000])].concat(), "fault 4504"),
        (fragments, "fault 4504"),
        (frame(0x88, &[0x03, 0xed]), "closing 1002"),
        (frame(0x88, b""), "closing 1000"),
        (frame(0x88, b"a"), "fault 1002"),
        (Vec::new(), "gone"),
    ];
    for (i, (bytes, expected)) in table.into_iter().enumerate() {
        let (mut reader, mut client) = pair(b"").await;
        let sender = async move {
            // The reader may close the connection in the middle.
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            client
        };
        let (heard, _client) = tokio::join!(hear(&mut reader), sender);
        assert_eq!(heard, expected, "row {i}");
    }
}
