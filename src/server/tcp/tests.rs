//! Client input over TCP, byte by byte, and the resulting events.

use std::future::poll_fn;

use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;

async fn pair() -> (Reader, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (Reader::new(Arc::new(MaybeTlsStream::plain(server)), 1024), client)
}

async fn hear(reader: &mut Reader) -> String {
    match poll_fn(|cx| reader.poll(cx)).await {
        ReadEvent::Message(_, payload) => format!("frame {} of {}", payload[0], payload.len() - 1),
        ReadEvent::Invalid(why) => format!("fault {}", why.code),
        ReadEvent::Disconnected => "gone".to_owned(),
        _ => "what no TCP client can say".to_owned(),
    }
}

#[tokio::test]
async fn frames_come_out_one_by_one_and_an_idle_reader_holds_nothing() {
    let (mut reader, mut client) = pair().await;
    client.write_all(b"\x00\x04\x00PONG\x03\x02\x00ab\x03").await.unwrap();
    assert_eq!(hear(&mut reader).await, "frame 0 of 4");
    assert_eq!(hear(&mut reader).await, "frame 3 of 2");
    assert!(hear(&mut reader).now_or_never().is_none());
    assert!(reader.is_mid_message(), "a type byte is the begin of a frame");
    client.write_all(&[&[0, 4][..], &[7; 1024]].concat()).await.unwrap();
    assert_eq!(hear(&mut reader).await, "frame 3 of 1024");
    assert!(hear(&mut reader).now_or_never().is_none());
    assert!(!reader.is_mid_message());
    assert_eq!(reader.buffer.capacity(), 0);
    drop(client);
    assert_eq!(hear(&mut reader).await, "gone");
}

#[tokio::test]
async fn invalid_frame_is_a_fault_with_its_code() {
    let table: [(&[u8], &str); 4] = [
        (b"\x02\x00\x00", "fault 4500"),
        (b"GET / HTTP/1.1\r\n", "fault 4500"),
        (b"\x03\x01\x04", "fault 4504"),
        (b"\x03\x05\x00ab", "gone"),
    ];
    for (bytes, expected) in table {
        let (mut reader, mut client) = pair().await;
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(hear(&mut reader).await, expected, "{bytes:?}");
    }
}
