//! The clocks of a call with made-up readings: no test waits, and none depends on the machine's speed.

use super::*;

const MS: Duration = Duration::from_millis(1);
const BUDGET: Budget = Budget { cpu: Duration::from_millis(5), wall: Duration::from_millis(500) };

/// A call with a thread and a clock that the test moves.
struct Thread {
    meter: Meter,
    reading: Reading,
}

impl Thread {
    fn new() -> Self {
        Self { meter: Meter::new(), reading: Reading { now: Instant::now(), cpu: 1, faults: 0 } }
    }

    /// The next tick that the guest meets, after this much wall time and thread CPU, and this many page faults.
    fn tick(&mut self, wall: Duration, cpu: Duration, faults: u64) -> Result<Tick, Overrun> {
        self.reading.now += wall;
        self.reading.cpu += nanos(cpu);
        self.reading.faults += faults;
        self.meter.tick_at(BUDGET, self.reading)
    }

    /// Repeats the same tick. Returns how many of them passed, and the overrun that ended the call.
    fn ticks(&mut self, most: usize, wall: Duration, cpu: Duration, faults: u64) -> (usize, Option<Overrun>) {
        for passed in 0..most {
            if let Err(overrun) = self.tick(wall, cpu, faults) {
                return (passed, Some(overrun));
            }
        }
        (most, None)
    }
}

#[test]
fn a_guest_that_spins_ends_with_its_cpu_time() {
    let (passed, overrun) = Thread::new().ticks(100, MS, MS, 0);
    assert_eq!((passed, overrun), (5, Some(Overrun::Cpu(BUDGET.cpu))));
}

#[test]
fn stolen_time_is_charged_as_one_tick_however_long_it_was() {
    // The hypervisor took 40 ms and the thread's clock counts them as its own.
    let (passed, overrun) = Thread::new().ticks(100, 40 * MS, 40 * MS, 0);
    assert_eq!((passed, overrun), (5, Some(Overrun::Cpu(BUDGET.cpu))), "four such pauses end no call");
    let mut thread = Thread::new();
    assert_eq!(thread.ticks(5, 40 * MS, 40 * MS, 0), (5, None));
}

#[test]
fn a_throttled_process_fails_no_call() {
    // A quarter of a core: stopped for 75 ms of each 100, for an hour. The guest gets next to no CPU.
    let (passed, overrun) = Thread::new().ticks(36_000, 100 * MS, Duration::from_nanos(100), 0);
    assert_eq!((passed, overrun), (36_000, None));
}

#[test]
fn page_faults_are_no_time_of_the_guest() {
    // A guest that touches new memory: a thousand faults in each tick, which fill it.
    assert_eq!(Thread::new().ticks(400, MS, MS, 1_000), (400, None));
    // One fault a tick leaves out a quarter of the tick.
    let (passed, overrun) = Thread::new().ticks(100, MS, MS, 1);
    assert_eq!((passed, overrun), (6, Some(Overrun::Cpu(BUDGET.cpu))));
}

#[test]
fn wall_time_ends_a_call_that_takes_cpu_and_is_charged_for_none() {
    // All of it is page faults, so the CPU budget never ends it. The wall budget does, at the tick after 500 ms.
    let (passed, overrun) = Thread::new().ticks(1_000, MS, MS, 1_000);
    assert_eq!((passed, overrun), (500, Some(Overrun::Wall(BUDGET.wall))));
}

#[test]
fn a_new_call_begins_with_full_budgets() {
    let mut thread = Thread::new();
    assert_eq!(thread.ticks(5, MS, MS, 0), (5, None));
    thread.meter.start();
    assert_eq!(thread.ticks(5, MS, MS, 0), (5, None));
}

#[test]
fn a_thread_that_spins_is_charged_by_its_own_clock() {
    let meter = Meter::new();
    let budget = Budget { cpu: MS, wall: Duration::from_secs(60) };
    assert_eq!(meter.tick(budget), Ok(Tick::Yield));
    let begun = clock::thread_cpu();
    // Faults of this thread leave time out, so it spins until the charge comes.
    while meter.tick(budget).is_ok() {
        assert!(clock::thread_cpu() - begun < Duration::from_secs(60), "a minute of CPU and no charge");
    }
    assert_eq!(meter.tick(budget), Err(Overrun::Cpu(MS)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_ever_ends_with_its_wall_time() {
    let meter = Meter::new();
    let budget = Budget { cpu: TICK, wall: Duration::from_secs(5) };
    let begun = Instant::now();
    let ended = meter.drive(budget, std::future::pending::<wasmtime::Result<()>>()).await;
    assert_eq!(ended.unwrap_err().downcast_ref(), Some(&Overrun::Wall(budget.wall)));
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_wait_goes_on_for_the_time_in_which_the_node_did_not_run() {
    let wall = Duration::from_millis(500);
    let begun = Instant::now();
    let mut wait = Wait::new(begun + wall, wall);
    // The process was stopped: the timer is polled 200 ms after the deadline.
    tokio::time::advance(700 * MS).await;
    let polled = poll_fn(|cx| Poll::Ready(wait.poll(cx))).await;
    assert_eq!(polled, Poll::Pending);
    poll_fn(|cx| wait.poll(cx)).await;
    assert_eq!(begun.elapsed().as_millis() / 10, 90, "200 ms more, and then it is over");
    // A node that is late again and again waits for one more wall time, not forever.
    let begun = Instant::now();
    let mut wait = Wait::new(begun + wall, wall);
    for _ in 0..9 {
        tokio::time::advance(wall + 100 * MS).await;
        if poll_fn(|cx| Poll::Ready(wait.poll(cx))).await.is_ready() {
            break;
        }
    }
    assert!(begun.elapsed() < 5 * wall, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_guest_that_spins_holds_up_no_worker() {
    let minute = Duration::from_secs(60);
    let (meter, budget) = (Meter::new(), Budget { cpu: minute, wall: minute });
    let spins = async move {
        let mut polls = 0;
        let call = poll_fn(|cx| {
            polls += 1;
            if meter.tick(budget)? == Tick::Yield {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // Blocks its thread as a spinning guest does, so the other task needs another thread.
            let (done, heard) = std::sync::mpsc::channel();
            tokio::spawn(async move { done.send(()) });
            Poll::Ready(Ok((polls, heard.recv_timeout(minute))))
        });
        meter.drive(budget, call).await.unwrap()
    };
    assert_eq!(tokio::spawn(spins).await.unwrap(), (2, Ok(())), "it yields once, and goes on off the worker");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn call_with_a_large_input_runs_off_the_workers_from_its_start() {
    for (input, off_worker) in [(LARGE, true), (LARGE - 1, false)] {
        let meter = Meter::new();
        meter.start();
        meter.set_input_bytes(input);
        let seen = meter.drive(BUDGET, async { Ok(meter.off_worker.load(Ordering::Relaxed)) }).await.unwrap();
        assert_eq!(seen, off_worker, "{input} bytes");
    }
}
