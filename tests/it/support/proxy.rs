//! A TCP proxy that misbehaves on demand and by dice: slow, cut, silent, truncating, or tampering with WebSocket frames.
//!
//! Stands between a node and its engine (a partition) or between clients and a node (a lossy line). What it does at any
//! time is one [`Weather`] for all of its connections.

mod tamper;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::dice::Dice;
pub use tamper::{Tamper, Tampered};

/// What a connection has to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// Each piece waits up to so long.
    Slow(Duration),
    /// Every connection ends, and a new one at once.
    Cut,
    /// Nothing passes either way, nobody is told; what was held passes when the weather changes. A new connection stands
    /// and gets no answer.
    Silent,
    /// So many bytes more pass to the side that dialled, then the connection ends, in the middle of whatever it was.
    Truncate(usize),
    /// Some WebSocket messages, in protobuf, to the side that dialled are lost, doubled or swapped. For connections that
    /// begin in this weather.
    Tampering(Tamper),
}

pub struct Proxy {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    upstream: Arc<Mutex<SocketAddr>>,
    notes: Arc<Notes>,
    accepting: JoinHandle<()>,
}

/// What it has done and seen.
#[derive(Default)]
struct Notes {
    connections: AtomicUsize,
    tampered: Arc<Tampered>,
    /// What passed to the side that dialled, by connection, while it is recorded.
    tape: Mutex<Option<BTreeMap<usize, Vec<u8>>>>,
}

impl Proxy {
    /// In front of `upstream`, in clear weather.
    pub async fn start(upstream: SocketAddr, mut dice: Dice) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, notes) = (watch::Sender::new(Weather::Clear), Arc::new(Notes::default()));
        let (seen, noted) = (weather.subscribe(), Arc::clone(&notes));
        let target = Arc::new(Mutex::new(upstream));
        let upstream = Arc::clone(&target);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = *target.lock();
                tokio::spawn(carry(client, upstream, seen.clone(), dice.split(), Arc::clone(&noted)));
            }
        });
        Self { address, weather, upstream, notes, accepting }
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// New connections go to `upstream`. The others stay where they are.
    pub fn aim(&self, upstream: SocketAddr) {
        *self.upstream.lock() = upstream;
    }

    /// What tampering has done up to now.
    pub fn tampered(&self) -> &Tampered {
        &self.notes.tampered
    }

    /// Keeps what passes to the side that dialled from now on.
    pub fn record(&self) {
        *self.notes.tape.lock() = Some(BTreeMap::new());
    }

    /// What passed since [`record`](Self::record), connection by connection.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.notes.tape.lock().take().unwrap_or_default().into_values().collect()
    }

    /// How many connections came, those that were cut at once too.
    pub fn connections(&self) -> usize {
        self.notes.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        // What it carries ends with it.
        self.weather.send_replace(Weather::Cut);
    }
}

async fn carry(
    client: TcpStream,
    upstream: SocketAddr,
    weather: watch::Receiver<Weather>,
    mut dice: Dice,
    notes: Arc<Notes>,
) {
    let number = notes.connections.fetch_add(1, Ordering::Relaxed);
    if *weather.borrow() == Weather::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = Pump { weather: weather.clone(), dice: dice.split(), back: None };
    let frames = tamper::Frames::new(dice.split(), Arc::clone(&notes.tampered));
    let back = Pump { weather, dice, back: Some(Back { frames, number, notes }) };
    // The end of one direction is the end of both: neither engines nor clients use half a connection.
    tokio::select! {
        () = there.run(from_client, to_server) => {}
        () = back.run(from_server, to_client) => {}
    }
}

/// One direction of one connection.
struct Pump {
    weather: watch::Receiver<Weather>,
    dice: Dice,
    /// Set towards the side that dialled.
    back: Option<Back>,
}

struct Back {
    frames: tamper::Frames,
    /// Of the connection.
    number: usize,
    notes: Arc<Notes>,
}

impl Pump {
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 16 * 1024];
        let mut cut = self.weather.clone();
        let mut left = None::<usize>;
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                _ = cut.wait_for(|weather| *weather == Weather::Cut) => return,
            };
            let Ok(count @ 1..) = read else { return };
            let Some(weather) = self.hold().await else { return };
            let mut bytes = buffer[..count].to_vec();
            if let Some(Back { frames, number, notes }) = &mut self.back {
                bytes = frames.pass(&bytes, weather);
                if let Some(tape) = &mut *notes.tape.lock() {
                    tape.entry(*number).or_default().extend_from_slice(&bytes);
                }
                if let Weather::Truncate(most) = weather {
                    let rest = left.get_or_insert(most);
                    bytes.truncate(*rest);
                    *rest -= bytes.len();
                }
            }
            if to.write_all(&bytes).await.is_err() || left == Some(0) {
                return;
            }
        }
    }

    /// Waits as long as the weather asks; `None` when the connection is to end.
    async fn hold(&mut self) -> Option<Weather> {
        let weather = *self.weather.borrow();
        let wait = match weather {
            Weather::Slow(most) => Some(most.mul_f64(self.dice.roll(1000) as f64 / 1000.0)),
            _ => None,
        };
        if let Some(wait) = wait {
            let cut = self.weather.wait_for(|weather| *weather == Weather::Cut);
            if timeout(wait, cut).await.is_ok() {
                return None;
            }
        }
        let weather = *self.weather.wait_for(|weather| *weather != Weather::Silent).await.ok()?;
        (weather != Weather::Cut).then_some(weather)
    }
}
