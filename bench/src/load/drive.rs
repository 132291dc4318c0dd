//! Drives load through a generator and extracts the measured part: closed loop for capacity, open loop for latency.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mio::Interest;
use mio::unix::SourceFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::os::fd::AsRawFd as _;

use super::generator::{Generator, TIMER};
use super::traffic::Traffic;
use crate::results::sample::{Sample, Unit, Work};
use crate::results::stats::Latency;
use crate::subject::Subject;
use crate::subject::meter::{Cost, Meter};

/// Concurrency of requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    /// Publishing connections.
    pub(crate) pipes: u32,
    /// Requests in flight on each.
    pub(crate) depth: u32,
}

/// One request at a time.
pub(crate) const ONE: Flow = Flow { pipes: 1, depth: 1 };

/// Times of warm-up and measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) warm: Duration,
    pub(crate) window: Duration,
}

/// Time without progress after which missing deliveries are given up.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Publishing connections of an open loop; enough that one slow response delays few requests.
const OPEN_PIPES: u32 = 16;
/// Maximum usage of one core by the generator in a latency run.
const BUSIEST: f64 = 0.7;

/// Keeps a fixed number of requests in flight. A slow generator then cannot favour the server by letting it write more
/// at once.
pub(crate) fn closed(
    generator: &mut Generator,
    subject: &Subject,
    traffic: &mut Traffic,
    flow: Flow,
    timing: Timing,
) -> anyhow::Result<Sample> {
    let mut run = Run::start(generator, subject, traffic, flow.pipes)?;
    let window = u64::from(flow.pipes * flow.depth) * run.each;
    let mut cut = Cuts::new(timing);
    loop {
        // A request with many deliveries is only cut at its end.
        let is_even = flow.pipes * flow.depth > 1 || run.outstanding() == 0;
        if is_even && cut.look(&mut run)? {
            break;
        }
        for pipe in 0..flow.pipes {
            while run.generator.in_flight(pipe) < flow.depth as usize && run.outstanding() + run.each <= window {
                let stamp = run.generator.now();
                run.send(pipe, stamp)?;
            }
        }
        run.wait(Duration::from_millis(100))?;
    }
    run.end(&cut)
}

/// Pushes `count` requests, one at a time, and calls `look` after each.
pub(crate) fn requests(
    generator: &mut Generator,
    subject: &Subject,
    traffic: &mut Traffic,
    count: u32,
    mut look: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Sample> {
    let mut run = Run::start(generator, subject, traffic, 1)?;
    let mut cut = Cuts::new(Timing { warm: Duration::ZERO, window: Duration::ZERO });
    cut.look(&mut run)?;
    for _ in 0..count {
        let stamp = run.generator.now();
        run.send(0, stamp)?;
        while run.outstanding() > 0 || run.generator.in_flight(0) > 0 {
            run.wait(Duration::from_millis(100))?;
        }
        look()?;
    }
    cut.look(&mut run)?;
    run.end(&cut)
}

/// Sends at a fixed rate, independent of responses. Latencies count from the intended time.
pub(crate) fn open(
    generator: &mut Generator,
    subject: &Subject,
    traffic: &mut Traffic,
    rate: f64,
    timing: Timing,
) -> anyhow::Result<Sample> {
    let mut run = Run::start(generator, subject, traffic, OPEN_PIPES)?;
    let period = Duration::from_secs_f64(1.0 / rate);
    let nanos = u64::try_from(period.as_nanos()).context("a rate above 0")?;
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let each = Timespec { tv_sec: 0, tv_nsec: i64::try_from(nanos).context("a rate of 1/s and more")? };
    let source = timer.as_raw_fd();
    run.generator.registry().register(&mut SourceFd(&source), TIMER, Interest::READABLE)?;
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: each, it_value: each })?;
    let start = run.generator.now();
    let mut cut = Cuts::new(timing);
    let mut sent = 0_u64;
    while !cut.look(&mut run)? {
        if run.wait(Duration::from_millis(100))? > 0 {
            let mut expirations = [0; 8];
            // Read the timer to re-arm its event. The clock tells how many requests are due.
            let _ = rustix::io::read(&timer, &mut expirations);
        }
        while start + (sent + 1) * nanos <= run.generator.now() {
            sent += 1;
            let pipe = u32::try_from(sent % u64::from(OPEN_PIPES)).expect("below the divisor");
            run.send(pipe, start + sent * nanos)?;
        }
    }
    run.generator.registry().deregister(&mut SourceFd(&source))?;
    let mut sample = run.end(&cut)?;
    if sample.generator_share() > BUSIEST {
        let busy = sample.generator_share() * 100.0;
        sample.invalid.push(format!("the generator used {busy:.0} % of a core in a latency run"));
    }
    Ok(sample)
}

/// A running measurement.
struct Run<'a> {
    generator: &'a mut Generator,
    subject: &'a Subject,
    traffic: &'a mut Traffic,
    pipes: u32,
    /// Expected deliveries per request.
    each: u64,
    base: u64,
    expected: u64,
    requests: u64,
    progress: (u64, Instant),
}

impl<'a> Run<'a> {
    fn start(
        generator: &'a mut Generator,
        subject: &'a Subject,
        traffic: &'a mut Traffic,
        pipes: u32,
    ) -> anyhow::Result<Self> {
        generator.open_pipes(subject.publish, subject.wire, pipes)?;
        generator.restart_sequences();
        let base = generator.tally.deliveries;
        let each = traffic.deliveries();
        Ok(Self {
            generator,
            subject,
            traffic,
            pipes,
            each,
            base,
            expected: 0,
            requests: 0,
            progress: (0, Instant::now()),
        })
    }

    fn outstanding(&self) -> u64 {
        self.expected.saturating_sub(self.generator.tally.deliveries - self.base)
    }

    fn send(&mut self, pipe: u32, stamp: u64) -> anyhow::Result<()> {
        let (traffic, pipes) = (&mut *self.traffic, self.pipes);
        self.generator.send(pipe, |out| traffic.next(out, pipe, pipes, stamp))?;
        self.expected += self.each;
        self.requests += 1;
        Ok(())
    }

    /// Fails after a long time without progress.
    fn wait(&mut self, patience: Duration) -> anyhow::Result<u64> {
        let ticks = self.generator.turn(Some(patience))?;
        let deliveries = self.generator.tally.deliveries;
        if deliveries != self.progress.0 || self.outstanding() == 0 {
            self.progress = (deliveries, Instant::now());
        } else if self.progress.1.elapsed() > DELIVERY_TIMEOUT {
            bail!("{} deliveries did not come within {DELIVERY_TIMEOUT:?}", self.outstanding());
        }
        Ok(ticks)
    }

    /// Waits for all requests in flight and builds the sample.
    fn end(mut self, cut: &Cuts) -> anyhow::Result<Sample> {
        let is_answered = |run: &Self| (0..run.pipes).all(|pipe| run.generator.in_flight(pipe) == 0);
        while self.outstanding() > 0 || !is_answered(&self) {
            self.wait(Duration::from_millis(100))?;
        }
        let tally = &mut self.generator.tally;
        let mut invalid = Vec::new();
        if !tally.faults.is_none() || tally.deliveries - self.base != self.expected {
            let came = tally.deliveries - self.base;
            invalid.push(format!("{came} of {} deliveries came, with {:?}", self.expected, tally.faults));
        }
        tally.faults = super::generator::Faults::default();
        let (_, from) = cut.from.as_ref().context("the warm-up did not end")?;
        let (cost, to) = cut.to.context("the run did not end")?;
        Ok(Sample {
            work: Work {
                unit: Unit::Delivery,
                count: to.deliveries - from.deliveries,
                publishes: (to.requests - from.requests) * u64::from(self.traffic.messages()),
                requests: to.requests - from.requests,
                bytes: to.bytes - from.bytes,
            },
            cost,
            memory: self.subject.memory()?,
            per_connection: None,
            latency: cut.latency,
            invalid,
        })
    }

    fn counts(&self) -> Counts {
        let tally = &self.generator.tally;
        Counts { deliveries: tally.deliveries, bytes: tally.bytes, requests: self.requests }
    }
}

/// Ends of the warm-up and of the measured part.
struct Cuts {
    timing: Timing,
    begun: Instant,
    from: Option<(Meter, Counts)>,
    to: Option<(Cost, Counts)>,
    latency: Option<Latency>,
}

/// Progress of a run.
#[derive(Clone, Copy)]
struct Counts {
    deliveries: u64,
    bytes: u64,
    requests: u64,
}

impl Cuts {
    fn new(timing: Timing) -> Self {
        Self { timing, begun: Instant::now(), from: None, to: None, latency: None }
    }

    /// Returns `true` once the measured part is over.
    fn look(&mut self, run: &mut Run<'_>) -> anyhow::Result<bool> {
        match &self.from {
            None if self.begun.elapsed() >= self.timing.warm => {
                run.generator.tally.latency.reset();
                self.from = Some((Meter::start(run.subject)?, run.counts()));
            }
            Some((meter, _)) if meter.elapsed() >= self.timing.window => {
                self.latency = Latency::of(&run.generator.tally.latency);
                self.to = Some((meter.stop(run.subject)?, run.counts()));
            }
            _ => {}
        }
        Ok(self.to.is_some())
    }
}
