//! Several node processes on any engine: started, killed, frozen, drained and restarted.
//!
//! Does not know the engine: text in the configuration joins the nodes into one cluster. Each node has a name (`n1`,
//! `n2`, …) and a number. A restarted node keeps its name, number and folder, and gets new ports.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;

use super::{Gateway, Setup};
use crate::support::client::within;

/// Interval between two checks of a condition that sends no notification.
const LOOK: Duration = Duration::from_millis(20);

/// Nodes by index: `n1` is at 0.
pub struct Cluster {
    places: Vec<Place>,
}

struct Place {
    node: Mutex<Arc<Gateway>>,
    state: Mutex<State>,
    /// Number of signals sent to the node.
    acts: AtomicUsize,
}

/// The last action on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Up,
    /// Stopped by SIGSTOP: its sockets accept connections, and no request is answered.
    Frozen,
    Down,
}

impl Cluster {
    /// Starts `count` nodes with this text on the top level of their configuration, and waits until they are ready.
    pub async fn start(count: usize, yaml: &str) -> Self {
        Self::with(count, |_| Setup::default().yaml(yaml)).await
    }

    /// Starts `count` nodes that `setup` creates from their index. Name, number and address are added.
    pub async fn with(count: usize, setup: impl Fn(usize) -> Setup) -> Self {
        let started = |place: usize| {
            let (id, number, address) = (name(place), place + 1, address(place));
            let itself = format!("node:\n  id: {id}\n  number: {number}\n  address: {address}");
            let node = setup(place).yaml(&itself).start();
            Place { node: Mutex::new(Arc::new(node)), state: Mutex::new(State::Up), acts: AtomicUsize::new(0) }
        };
        // One node after the other: the first compiles the plugins for all.
        let cluster = Self { places: (0..count).map(started).collect() };
        for place in 0..count {
            cluster.ready(place).await;
        }
        cluster
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The process at this index: the current one, or the last one that ran.
    pub fn node(&self, place: usize) -> Arc<Gateway> {
        Arc::clone(&self.places[place].node.lock())
    }

    /// Number of signals for each node. A node did not run all the time if its number changed.
    pub fn acts(&self) -> Vec<usize> {
        self.places.iter().map(|place| place.acts.load(Ordering::SeqCst)).collect()
    }

    pub fn state(&self, place: usize) -> State {
        *self.places[place].state.lock()
    }

    /// The first node that is up, searched from `place` on; `place` itself if none is.
    pub fn up_from(&self, place: usize) -> usize {
        let places = (0..self.len()).map(|step| (place + step) % self.len());
        places.into_iter().find(|place| self.state(*place) == State::Up).unwrap_or(place % self.len())
    }

    /// Kills the node with SIGKILL and waits until it has exited.
    pub async fn kill(&self, place: usize) {
        self.signal(place, Signal::KILL, State::Down);
        self.node(place).ended().await;
    }

    /// Freezes the node with SIGSTOP.
    pub fn freeze(&self, place: usize) {
        self.signal(place, Signal::STOP, State::Frozen);
    }

    /// Resumes the node with SIGCONT.
    pub fn thaw(&self, place: usize) {
        self.signal(place, Signal::CONT, State::Up);
    }

    /// Sends SIGTERM and waits until the node has drained and exited.
    pub async fn drain(&self, place: usize) {
        self.signal(place, Signal::TERM, State::Down);
        self.node(place).ended().await;
    }

    /// Restarts a node that is down, and waits until it is ready.
    pub async fn restart(&self, place: usize) {
        self.come_back(place, Gateway::again).await;
    }

    /// Restarts a node that is down with another build of the command.
    pub async fn restart_as(&self, place: usize, program: &Path) {
        let program = program.to_owned();
        self.come_back(place, move |old| old.again_as(&program)).await;
    }

    async fn come_back(&self, place: usize, again: impl FnOnce(&Gateway) -> Gateway + Send + 'static) {
        assert_eq!(self.state(place), State::Down, "expected {} to be down", name(place));
        let old = self.node(place);
        // The wait for the first line runs on a blocking thread; the runtime continues with its other tasks.
        let node = tokio::task::spawn_blocking(move || again(&old)).await.unwrap();
        *self.places[place].node.lock() = Arc::new(node);
        *self.places[place].state.lock() = State::Up;
        self.ready(place).await;
    }

    fn signal(&self, place: usize, signal: Signal, state: State) {
        self.places[place].acts.fetch_add(1, Ordering::SeqCst);
        *self.places[place].state.lock() = state;
        self.node(place).signal(signal);
    }

    /// Waits until the node reports ready.
    pub async fn ready(&self, place: usize) {
        until(&format!("readiness of {}", name(place)), || self.is_ready(place)).await;
    }

    /// Waits until the node reports not ready.
    pub async fn unready(&self, place: usize) {
        until(&format!("unreadiness of {}", name(place)), async || !self.is_ready(place).await).await;
    }

    pub async fn is_ready(&self, place: usize) -> bool {
        self.node(place).get("/health/ready").await.status == 200
    }

    /// The sum of a metric over all labels on a node; 0 if the node does not export it.
    pub async fn metric(&self, place: usize, name: &str) -> f64 {
        let text = self.node(place).get("/metrics").await.body;
        let line = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let of_that_name = rest.starts_with(['{', ' ']);
            of_that_name.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        text.lines().filter_map(line).sum()
    }

    /// The sum of a counter over all nodes that are up.
    #[expect(clippy::cast_possible_truncation, reason = "a counter is a whole number")]
    pub async fn counted(&self, name: &str) -> usize {
        let mut counted = 0;
        for place in (0..self.len()).filter(|place| self.state(*place) == State::Up) {
            counted += self.metric(place, name).await as usize;
        }
        counted
    }
}

/// Name of the node at this index.
pub fn name(place: usize) -> String {
    format!("n{}", place + 1)
}

/// The advertised address of a node for its clients. No server listens there.
pub fn address(place: usize) -> String {
    format!("{}.example:8080", name(place))
}

/// Polls the condition until it is true, at most for the usual patience.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let look = async {
        let mut looks = tokio::time::interval(LOOK);
        while !is_so().await {
            looks.tick().await;
        }
    };
    within(what, look).await;
}
