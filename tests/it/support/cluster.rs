//! Several built nodes as processes of their own, on whatever carries them: started, killed, frozen, drained, started again.
//!
//! Knows no engine: what makes the nodes one cluster is text of their configuration. Each node has a name (`n1`, `n2`, …)
//! and a number; a node that starts again keeps both and its folder, and has new ports.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;

use super::client::within;
use super::gateway::{Gateway, Setup};

/// How often a condition is looked at that nobody tells of.
const LOOK: Duration = Duration::from_millis(20);

/// Nodes, by place: `n1` stands at 0.
pub struct Cluster {
    places: Vec<Place>,
}

struct Place {
    node: Mutex<Arc<Gateway>>,
    state: Mutex<State>,
    /// How often something was done to it.
    acts: AtomicUsize,
}

/// What was done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Up,
    /// Stopped by SIGSTOP: sockets take connections, nobody answers.
    Frozen,
    Down,
}

impl Cluster {
    /// `count` nodes, each with this text on the top level of its configuration besides its name, and ready.
    pub async fn start(count: usize, yaml: &str) -> Self {
        Self::with(count, |_| Setup::default().yaml(yaml)).await
    }

    /// The same, each made by `setup` from its place; the name, number and address are added.
    pub async fn with(count: usize, setup: impl Fn(usize) -> Setup) -> Self {
        let started = |place: usize| {
            let (id, number, address) = (name(place), place + 1, address(place));
            let itself = format!("node:\n  id: {id}\n  number: {number}\n  address: {address}");
            let node = setup(place).yaml(&itself).start();
            Place { node: Mutex::new(Arc::new(node)), state: Mutex::new(State::Up), acts: AtomicUsize::new(0) }
        };
        // One after the other: the first compiles the plugins for all.
        let cluster = Self { places: (0..count).map(started).collect() };
        for place in 0..count {
            cluster.ready(place).await;
        }
        cluster
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The process that stands there now, or the last that did.
    pub fn node(&self, place: usize) -> Arc<Gateway> {
        Arc::clone(&self.places[place].node.lock())
    }

    /// How often something was done to each node: one of which that changed did not run all the while.
    pub fn acts(&self) -> Vec<usize> {
        self.places.iter().map(|place| place.acts.load(Ordering::SeqCst)).collect()
    }

    pub fn state(&self, place: usize) -> State {
        *self.places[place].state.lock()
    }

    /// The next place from this one on whose node is up; this one if none is.
    pub fn up_from(&self, place: usize) -> usize {
        let places = (0..self.len()).map(|step| (place + step) % self.len());
        places.into_iter().find(|place| self.state(*place) == State::Up).unwrap_or(place % self.len())
    }

    /// kill -9, and it is gone.
    pub async fn kill(&self, place: usize) {
        self.signal(place, Signal::KILL, State::Down);
        self.node(place).ended().await;
    }

    /// SIGSTOP: it is there and does nothing.
    pub fn freeze(&self, place: usize) {
        self.signal(place, Signal::STOP, State::Frozen);
    }

    /// SIGCONT.
    pub fn thaw(&self, place: usize) {
        self.signal(place, Signal::CONT, State::Up);
    }

    /// SIGTERM, and waits until it has drained and ended.
    pub async fn drain(&self, place: usize) {
        self.signal(place, Signal::TERM, State::Down);
        self.node(place).ended().await;
    }

    /// A node that is down comes back, and is ready.
    pub async fn restart(&self, place: usize) {
        self.come_back(place, Gateway::again).await;
    }

    /// The same as another build of the command.
    pub async fn restart_as(&self, place: usize, program: &Path) {
        let program = program.to_owned();
        self.come_back(place, move |old| old.again_as(&program)).await;
    }

    async fn come_back(&self, place: usize, again: impl FnOnce(&Gateway) -> Gateway + Send + 'static) {
        assert_eq!(self.state(place), State::Down, "{} is not down", name(place));
        let old = self.node(place);
        // Its first line comes from a thread; the runtime goes on with its other tasks meanwhile.
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

    /// Waits until the node says that it wants traffic.
    pub async fn ready(&self, place: usize) {
        until(&format!("{} ready", name(place)), || self.is_ready(place)).await;
    }

    /// Waits until the node says that it wants none.
    pub async fn unready(&self, place: usize) {
        until(&format!("{} not ready", name(place)), async || !self.is_ready(place).await).await;
    }

    pub async fn is_ready(&self, place: usize) -> bool {
        self.node(place).get("/health/ready").await.status == 200
    }

    /// The sum of a metric's lines on a node, whatever their labels; 0 where it has none.
    pub async fn metric(&self, place: usize, name: &str) -> f64 {
        let text = self.node(place).get("/metrics").await.body;
        let line = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let of_that_name = rest.starts_with(['{', ' ']);
            of_that_name.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        text.lines().filter_map(line).sum()
    }

    /// A counter, on all nodes that are up.
    #[expect(clippy::cast_possible_truncation, reason = "a counter is a whole number")]
    pub async fn counted(&self, name: &str) -> usize {
        let mut counted = 0;
        for place in (0..self.len()).filter(|place| self.state(*place) == State::Up) {
            counted += self.metric(place, name).await as usize;
        }
        counted
    }
}

/// What the node at that place is called.
pub fn name(place: usize) -> String {
    format!("n{}", place + 1)
}

/// Where clients are told to find it; nothing is there.
pub fn address(place: usize) -> String {
    format!("{}.example:8080", name(place))
}

/// Looks until it is so, as long as anything is waited for.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let look = async {
        let mut looks = tokio::time::interval(LOOK);
        while !is_so().await {
            looks.tick().await;
        }
    };
    within(what, look).await;
}
