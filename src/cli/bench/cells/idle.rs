//! What a connection costs that only waits: memory, and CPU for its heartbeats.

use std::time::{Duration, Instant};

use super::super::bar::{Bar, By, Must};
use super::super::cell::{Cell, DIALECT, Line, Stage};
use super::super::generator::Generator;
use super::super::proc;
use super::super::sample::{Figure, PerConnection, Sample, Unit};
use super::super::stats::float;
use super::super::subject::{Contender, NAIVE, SKYLARK};
use super::super::wire::room;

pub(in super::super) struct Idle;

const WAITING: &str = "authenticated, two rooms";
/// Those whose cost is not counted: they make the server allocate what it needs once.
const WARM: u32 = 200;

impl Cell for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn about(&self) -> &'static str {
        "memory and CPU of connections that wait, each a user in two rooms"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, NAIVE]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let count = stage.pick(9_000, 9_500);
        let subject = stage.lab.start(contender)?;
        let rooms = |number: u32| vec![room(100, number / 100), room(1_000, number / 1_000)];
        let mut warm = stage.lab.dial(&subject, WARM + count, &[DIALECT], rooms)?;
        let mut dial = warm.clone();
        dial.requests = warm.requests.split_off(WARM as usize);
        let mut generator = Generator::new()?;
        generator.connect(&warm)?;
        let before = proc::memory(subject.pid())?;
        generator.connect(&dial)?;
        // The node's first full minute is what its heartbeats are about: one interval holds a PING for each.
        generator.idle(Duration::from_secs(1))?;
        let (from, own, begun) = (proc::cpu(subject.pid())?, proc::own_cpu(), Instant::now());
        generator.idle(stage.pick(Duration::from_secs(3), Duration::from_secs(25)))?;
        let (to, after) = (proc::cpu(subject.pid())?, proc::memory(subject.pid())?);
        let each = |after: u64, before: u64| (float(after) - float(before)) / f64::from(count);
        let faults = generator.tally.faults;
        let sample = Sample {
            unit: Unit::Connection,
            // Nothing is done, so nothing is counted.
            count: 0,
            requests: 0,
            bytes: generator.tally.bytes,
            wall: begun.elapsed().as_secs_f64(),
            user: (to.user - from.user).as_secs_f64(),
            system: (to.system - from.system).as_secs_f64(),
            generator: (proc::own_cpu() - own).as_secs_f64(),
            resident: float(after.resident),
            anonymous: float(after.anonymous),
            per_connection: Some(PerConnection {
                resident: each(after.resident, before.resident),
                anonymous: each(after.anonymous, before.anonymous),
            }),
            latency: None,
            invalid: if faults.is_none() { Vec::new() } else { vec![format!("{faults:?}")] },
        };
        Ok(vec![(WAITING, sample)])
    }

    fn bars(&self) -> Vec<Bar> {
        let of = (WAITING, SKYLARK.name);
        let at_most = |name, figure, bar| Bar { name, figure, of, by: By::Number(1.0), must: Must::BeAtMost(bar) };
        vec![
            at_most("idle connection, bytes of user-space memory", Figure::AnonymousPerConnection, 4096.0),
            at_most("10k idle connections, CPU-ms per second", Figure::CpuMillisPerSecond, 20.0),
        ]
    }
}
