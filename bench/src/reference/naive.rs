//! A naive server: tokio-tungstenite with its defaults, the stream split, a channel and two tasks per connection.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::{LOOPBACK, number, request};
use crate::load::wire::PUSH;

type Receivers = Arc<Mutex<Vec<Option<mpsc::Sender<Message>>>>>;

/// Messages queued for one connection.
const QUEUE: usize = 256;

/// Serves until it is killed.
pub(super) fn run() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(LOOPBACK).await?;
        crate::print(&format!("ready {}", listener.local_addr()?))?;
        let receivers = Receivers::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream, Arc::clone(&receivers)));
        }
    })
}

async fn serve(stream: TcpStream, receivers: Receivers) -> anyhow::Result<()> {
    let mut start = [0; PUSH.len()];
    // The four bytes arrive in one segment, because both sides are on this machine.
    stream.peek(&mut start).await?;
    if start == PUSH { publish(stream, &receivers).await } else { receive(stream, &receivers).await }
}

async fn receive(stream: TcpStream, receivers: &Receivers) -> anyhow::Result<()> {
    let (queue, mut queued) = mpsc::channel(QUEUE);
    let mut who = None;
    #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let look = |request: &Request, response: Response| {
        who = request.uri().path_and_query().and_then(|path| number(path.as_str()));
        // Registered before the response is sent, so that a connected receiver misses nothing.
        if let Some(who) = who {
            list(receivers, who, queue);
        }
        Ok(response)
    };
    // The default read buffer makes this future large, which is part of the measurement.
    let socket = Box::pin(tokio_tungstenite::accept_hdr_async(stream, look)).await?;
    let (mut sink, mut stream) = socket.split();
    let who = who.context("a receiver sends its number")?;
    tokio::spawn(async move {
        while let Some(message) = queued.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
    });
    while let Some(Ok(_)) = stream.next().await {}
    receivers.lock()[who] = None;
    Ok(())
}

fn list(receivers: &Receivers, who: usize, queue: mpsc::Sender<Message>) {
    let mut receivers = receivers.lock();
    if receivers.len() <= who {
        receivers.resize(who + 1, None);
    }
    receivers[who] = Some(queue);
}

async fn publish(mut stream: TcpStream, receivers: &Receivers) -> anyhow::Result<()> {
    let mut inbox = Vec::with_capacity(64 * 1024);
    stream.read_exact(&mut [0; PUSH.len()]).await?;
    while stream.read_buf(&mut inbox).await? > 0 {
        let mut used = 0;
        while let Some((items, len)) = request(&inbox[used..]) {
            for item in items {
                let message = Message::Binary(Bytes::copy_from_slice(item.body));
                let queues = receivers.lock()[item.first..item.first + item.count].to_vec();
                for queue in queues.into_iter().flatten() {
                    let _ = queue.send(message.clone()).await;
                }
            }
            used += len;
            stream.write_all(b".").await?;
        }
        inbox.drain(..used);
    }
    Ok(())
}
