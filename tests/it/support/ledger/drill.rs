//! One drill from begin to end: a cluster, its clients, its load, what is broken meanwhile, and the verdict.
//!
//! Short by default; `DRILL=long` plays the long form and `SEED` another seed. A drill that fails says both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::crowd::{Crowd, Guests};
use super::load::{Load, Plan};
use super::{Clock, Counted, Moment, Verdict, Window, judge};
use crate::support::cluster::Cluster;
use crate::support::dice::{Dice, given};

/// Whether the long form is wanted.
pub fn is_long() -> bool {
    std::env::var("DRILL").is_ok_and(|length| length == "long")
}

/// One or the other by how long the drill may be.
pub fn pick<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// The seed of this run; tells how to play it again if the test fails.
pub struct Seed {
    name: &'static str,
    seed: u64,
    is_good: AtomicBool,
}

impl Seed {
    pub fn of(name: &'static str) -> Self {
        Self { name, seed: given("SEED", 1) as u64, is_good: AtomicBool::new(false) }
    }

    pub fn dice(&self) -> Dice {
        Dice(self.seed)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if !self.is_good.load(Ordering::Relaxed) {
            let (long, seed, name) = (pick("", "DRILL=long "), self.seed, self.name);
            eprintln!("play it again: {long}SEED={seed} cargo test --test it {name} -- --nocapture");
        }
    }
}

pub struct Drill {
    pub cluster: Arc<Cluster>,
    pub crowd: Crowd,
    pub dice: Dice,
    pub clock: Clock,
    seed: Seed,
    load: Load,
    windows: Mutex<Vec<Window>>,
    /// For the table: users and devices of each, and when the load began.
    sizes: (u32, u32),
    loaded: Moment,
}

impl Drill {
    /// Everybody connects, then publishers begin.
    pub async fn begin(name: &'static str, cluster: Cluster, guests: &Guests, plan: &Plan) -> Self {
        let seed = Seed::of(name);
        let (cluster, clock, mut dice) = (Arc::new(cluster), Clock::start(), seed.dice());
        let crowd = Crowd::gather(guests, &cluster, clock).await;
        let (sizes, loaded) = ((guests.users, guests.devices), clock.now());
        let load = Load::start(plan, &cluster, clock, &mut dice);
        Self { cluster, crowd, dice, clock, seed, load, windows: Mutex::default(), sizes, loaded }
    }

    /// How long the load has run.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.clock.now() - self.loaded)
    }

    /// Any device goes to any place: mostly to another node.
    pub fn move_one(&mut self) {
        let (device, place) = (self.dice.roll(self.crowd.len()), self.dice.roll(self.cluster.len()));
        self.crowd.send_to(device, place);
    }

    /// Lets it run until so many messages more were taken.
    pub async fn taken(&self, more: u64) {
        let mut taken = self.load.taken();
        let goal = *taken.borrow() + more;
        let is_reached = timeout(LONGEST, taken.wait_for(|count| *count >= goal)).await.is_ok();
        assert!(is_reached, "{} of {goal} messages were taken", *taken.borrow());
    }

    /// Lets it run until a node has refused one more message.
    pub async fn refused(&self) {
        let mut refused = self.load.refused();
        let goal = *refused.borrow() + 1;
        let is_reached = timeout(LONGEST, refused.wait_for(|count| *count >= goal)).await.is_ok();
        assert!(is_reached, "nothing is refused");
    }

    /// Lets it run for so long.
    pub async fn run_for(&self, time: Duration) {
        let mut taken = self.load.taken();
        // Nobody takes so many: only the time ends it.
        let _ = timeout(time, taken.wait_for(|count| *count == u64::MAX)).await;
    }

    /// Something is broken while this runs; what it hits may be lost if it is declared.
    pub async fn broken<T>(&self, breaking: impl Future<Output = T>) -> T {
        let from = self.clock.now();
        let value = breaking.await;
        self.windows.lock().push(Window { from, to: self.clock.now() });
        value
    }

    /// Ends load and clients, and holds one against the other.
    pub async fn end(mut self) -> Verdict {
        self.crowd.all_bound().await;
        let lasted = self.elapsed();
        let taken = *self.load.taken().borrow();
        let books = self.load.close().await;
        let stays = self.crowd.close(&books).await;
        let counted = Counted {
            dropped: self.cluster.counted("skylark_intake_lost_total").await,
            doubtful: self.cluster.counted("skylark_intake_doubtful_total").await,
        };
        let verdict = judge(&books, &stays, &self.windows.lock(), counted);
        println!("{verdict}\nreaders of plain channels: {counted:?}");
        println!("{}", row(&self.seed, self.sizes, (lasted, taken), &verdict));
        self.seed.is_good.store(verdict.is_exact(), Ordering::Relaxed);
        verdict
    }

    /// The same, and nothing may be wrong.
    pub async fn end_exact(self) -> Verdict {
        let verdict = self.end().await;
        assert!(verdict.is_exact(), "{verdict}");
        verdict
    }
}

/// A line of the table in docs/operations.md. Markers are messages, too, but no part of the pace.
fn row(seed: &Seed, (users, devices): (u32, u32), (lasted, taken): (Duration, u64), verdict: &Verdict) -> String {
    let Verdict { acked, nobody, refused, unknown, received, repeats, declared, slowest, .. } = verdict;
    let (name, word) = (seed.name.replace('_', " "), if verdict.is_exact() { "exact" } else { "**broken**" });
    let (seconds, pace) = (lasted.as_secs(), (taken as f64 / lasted.as_secs_f64()).round());
    format!(
        "| {name} | {} | {users} × {devices} | {seconds} s | {acked} | {pace} | {refused} / {unknown} | {received} | {repeats} | {} \
         | {} ms | {word} |",
        seed.seed,
        nobody + declared,
        slowest.as_millis(),
    )
}

/// A load that takes nothing for so long is stuck.
const LONGEST: Duration = Duration::from_secs(120);
