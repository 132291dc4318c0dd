//! A TCP proxy with faults on demand or at random: it delays, cuts, stalls, truncates, or tampers with WebSocket
//! frames.
//!
//! Runs between a node and its engine (a partition) or between clients and a node (a lossy line). One [`LineFault`] at a
//! time applies to all its connections.

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

/// The fault that a connection goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFault {
    Clear,
    /// Each chunk is delayed by up to this duration.
    Slow(Duration),
    /// Every connection is closed, new ones at once.
    Cut,
    /// No data passes in either direction and no peer notices. Held data passes when the fault changes. A new
    /// connection is accepted and gets no answer.
    Silent,
    /// This many more bytes pass to the side that dialled, then the connection ends, even within a message.
    Truncate(usize),
    /// Some protobuf WebSocket messages to the side that dialled are lost, doubled or swapped. Applies to connections
    /// that begin during this fault.
    Tampering(Tamper),
}

pub struct Proxy {
    pub address: SocketAddr,
    weather: watch::Sender<LineFault>,
    upstream: Arc<Mutex<SocketAddr>>,
    notes: Arc<Notes>,
    accepting: JoinHandle<()>,
}

/// Counters and recordings of a proxy.
#[derive(Default)]
struct Notes {
    connections: AtomicUsize,
    tampered: Arc<Tampered>,
    /// Bytes that passed to the side that dialled, by connection, while recording is on.
    tape: Mutex<Option<BTreeMap<usize, Vec<u8>>>>,
}

impl Proxy {
    /// Starts a proxy before `upstream` in clear weather.
    pub async fn start(upstream: SocketAddr, mut dice: Dice) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, notes) = (watch::Sender::new(LineFault::Clear), Arc::new(Notes::default()));
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

    pub fn set(&self, weather: LineFault) {
        self.weather.send_replace(weather);
    }

    /// Sends new connections to `upstream`; existing ones stay.
    pub fn aim(&self, upstream: SocketAddr) {
        *self.upstream.lock() = upstream;
    }

    /// Counters of the tampering so far.
    pub fn tampered(&self) -> &Tampered {
        &self.notes.tampered
    }

    /// Records the bytes that pass to the side that dialled from now on.
    pub fn record(&self) {
        *self.notes.tape.lock() = Some(BTreeMap::new());
    }

    /// The bytes since [`record`](Self::record), one entry per connection.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.notes.tape.lock().take().unwrap_or_default().into_values().collect()
    }

    /// Number of accepted connections, including those closed at once.
    pub fn connections(&self) -> usize {
        self.notes.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        // Its connections end with the proxy.
        self.weather.send_replace(LineFault::Cut);
    }
}

async fn carry(
    client: TcpStream,
    upstream: SocketAddr,
    weather: watch::Receiver<LineFault>,
    mut dice: Dice,
    notes: Arc<Notes>,
) {
    let number = notes.connections.fetch_add(1, Ordering::Relaxed);
    if *weather.borrow() == LineFault::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = Pump { weather: weather.clone(), dice: dice.split(), back: None };
    let frames = tamper::Frames::new(dice.split(), Arc::clone(&notes.tampered));
    let back = Pump { weather, dice, back: Some(Back { frames, number, notes }) };
    // The end of one direction ends both: neither engines nor clients use half-open connections.
    tokio::select! {
        () = there.run(from_client, to_server) => {}
        () = back.run(from_server, to_client) => {}
    }
}

/// One direction of one connection.
struct Pump {
    weather: watch::Receiver<LineFault>,
    dice: Dice,
    /// Set in the direction of the side that dialled.
    back: Option<Back>,
}

struct Back {
    frames: tamper::Frames,
    /// Number of the connection.
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
                _ = cut.wait_for(|weather| *weather == LineFault::Cut) => return,
            };
            let Ok(count @ 1..) = read else { return };
            let Some(weather) = self.hold().await else { return };
            let mut bytes = buffer[..count].to_vec();
            if let Some(Back { frames, number, notes }) = &mut self.back {
                bytes = frames.pass(&bytes, weather);
                if let Some(tape) = &mut *notes.tape.lock() {
                    tape.entry(*number).or_default().extend_from_slice(&bytes);
                }
                if let LineFault::Truncate(most) = weather {
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

    /// Waits as long as the fault requires; `None` if the connection must end.
    async fn hold(&mut self) -> Option<LineFault> {
        let weather = *self.weather.borrow();
        let wait = match weather {
            LineFault::Slow(most) => Some(most.mul_f64(self.dice.roll(1000) as f64 / 1000.0)),
            _ => None,
        };
        if let Some(wait) = wait {
            let cut = self.weather.wait_for(|weather| *weather == LineFault::Cut);
            if timeout(wait, cut).await.is_ok() {
                return None;
            }
        }
        let weather = *self.weather.wait_for(|weather| *weather != LineFault::Silent).await.ok()?;
        (weather != LineFault::Cut).then_some(weather)
    }
}
