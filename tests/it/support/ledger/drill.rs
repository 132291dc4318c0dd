//! One complete drill: a cluster, its clients, its load, the faults, and the verdict.
//!
//! Drills are short by default; `DRILL=long` runs the long form and `SEED` sets another seed. A failed drill prints
//! both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::crowd::{Crowd, Guests};
use super::load::{Load, Plan};
use super::{Clock, Counted, Moment, Verdict, Window, judge};
use crate::support::dice::{Dice, given};
use crate::support::gateway::cluster::Cluster;

/// True if the long form is requested.
pub fn is_long() -> bool {
    std::env::var("DRILL").is_ok_and(|length| length == "long")
}

/// Selects a value by the form of the drill.
pub fn pick<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// The seed of this run. If the test fails, it prints how to reproduce the run.
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

    /// The drill succeeded, so that its end prints nothing.
    pub fn succeed(&self) {
        self.is_good.store(true, Ordering::Relaxed);
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if !self.is_good.load(Ordering::Relaxed) {
            let (long, seed, name) = (pick("", "DRILL=long "), self.seed, self.name);
            eprintln!("run it again: {long}SEED={seed} cargo test --test it {name} -- --nocapture");
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
    /// For the table: number of users, devices per user, and the start of the load.
    sizes: (u32, u32),
    loaded: Moment,
}

impl Drill {
    /// Connects all clients, then starts the publishers.
    pub async fn begin(name: &'static str, cluster: Cluster, guests: &Guests, plan: &Plan) -> Self {
        let seed = Seed::of(name);
        let (cluster, clock, mut dice) = (Arc::new(cluster), Clock::start(), seed.dice());
        let crowd = Crowd::gather(guests, &cluster, clock).await;
        let (sizes, loaded) = ((guests.users, guests.devices), clock.now());
        let load = Load::start(plan, &cluster, clock, &mut dice);
        Self { cluster, crowd, dice, clock, seed, load, windows: Mutex::default(), sizes, loaded }
    }

    /// Duration of the load so far.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.clock.now() - self.loaded)
    }

    /// Moves a random device to a random node, mostly to another one.
    pub fn move_one(&mut self) {
        let (device, place) = (self.dice.roll(self.crowd.len()), self.dice.roll(self.cluster.len()));
        self.crowd.send_to(device, place);
    }

    /// Waits until `more` further messages were accepted.
    pub async fn taken(&self, more: u64) {
        let mut taken = self.load.taken();
        let goal = *taken.borrow() + more;
        let is_reached = timeout(LONGEST, taken.wait_for(|count| *count >= goal)).await.is_ok();
        assert!(is_reached, "expected {goal} accepted messages, got {}", *taken.borrow());
    }

    /// Waits until a node has refused one more message.
    pub async fn refused(&self) {
        let mut refused = self.load.refused();
        let goal = *refused.borrow() + 1;
        let is_reached = timeout(LONGEST, refused.wait_for(|count| *count >= goal)).await.is_ok();
        assert!(is_reached, "expected a refused message, got none");
    }

    /// Runs the load for this time.
    pub async fn run_for(&self, time: Duration) {
        let mut taken = self.load.taken();
        // The count is never reached: only the time limit ends the wait.
        let _ = timeout(time, taken.wait_for(|count| *count == u64::MAX)).await;
    }

    /// Marks the duration of `breaking` as a fault. A loss in it is allowed if it is declared.
    pub async fn broken<T>(&self, breaking: impl Future<Output = T>) -> T {
        let from = self.clock.now();
        let value = breaking.await;
        self.windows.lock().push(Window { from, to: self.clock.now() });
        value
    }

    /// Ends load and clients, and compares their records.
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

    /// Ends the drill and fails unless the verdict is exact.
    pub async fn end_exact(self) -> Verdict {
        let verdict = self.end().await;
        assert!(verdict.is_exact(), "{verdict}");
        verdict
    }
}

/// A row of the table in docs/drills.md. Markers count as messages but not for the rate.
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

/// A load that accepts no message for this time is stuck.
const LONGEST: Duration = Duration::from_secs(120);
