//! Receivers that stop reading: what the others notice, and what they cost.

use super::super::bar::{Bar, By, Must};
use super::super::cell::{Cell, Line, Stage};
use super::super::drive::{ONE, clog, closed, requests};
use super::super::proc;
use super::super::sample::{Figure, PerConnection};
use super::super::subject::{Contender, SKYLARK};
use super::super::traffic::{Shape, Traffic};

/// Throughput and latency of the other 99 %.
pub(in super::super) struct SlowReaders;

/// Memory while a tenth is stuck.
pub(in super::super) struct StuckMemory;

const STUCK: Contender = Contender { name: "1 % stuck", kind: SKYLARK.kind };
const PUSHED: &str = "20 000 in bursts of 16";
const ALONE: &str = "one at a time";
/// What a node keeps for one connection that does not read (`queue.bytes`).
const QUEUE: f64 = 1024.0 * 1024.0;

impl Cell for SlowReaders {
    fn name(&self) -> &'static str {
        "slow-readers"
    }

    fn about(&self) -> &'static str {
        "fan-out while 1 % read nothing, their sockets full and their queues half full; figures of the other 99 %"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, STUCK]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        // So few that they are clogged long before `queue.write_timeout` closes them.
        let receivers = stage.pick(1_000, 2_000);
        let stuck = if contender.name == STUCK.name { receivers / 100 } else { 0 };
        let (subject, mut generator) = stage.set(contender, receivers)?;
        if stuck > 0 {
            generator.stick(stuck)?;
            clog(&mut generator, &subject, receivers, stuck)?;
        }
        let mut traffic = Traffic::new(Shape::FanOut { burst: 1 }, subject.wire, receivers, stuck);
        Ok(vec![(ALONE, closed(&mut generator, &subject, &mut traffic, ONE, stage.timing())?)])
    }

    fn bars(&self) -> Vec<Bar> {
        let ratio =
            |name, figure, must| Bar { name, figure, of: (ALONE, STUCK.name), by: By::Row(ALONE, SKYLARK.name), must };
        vec![
            ratio("1 % stuck, throughput of the others / all read", Figure::PerSecond, Must::BeAtLeast(0.95)),
            ratio("1 % stuck, p99 of the others / all read", Figure::P99, Must::BeAtMost(1.5)),
        ]
    }
}

impl Cell for StuckMemory {
    fn name(&self) -> &'static str {
        "stuck-memory"
    }

    fn about(&self) -> &'static str {
        "memory that the node takes while 10 % of 300 receivers are stuck and 20 000 messages are pushed"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let (receivers, stuck, messages) = (300, 30, 20_000);
        let (subject, mut generator) = stage.set(contender, receivers)?;
        let before = proc::memory(subject.pid())?;
        generator.stick(stuck)?;
        let mut traffic = Traffic::new(Shape::FanOut { burst: 16 }, subject.wire, receivers, stuck);
        let mut most = before;
        let look = || {
            let now = proc::memory(subject.pid())?;
            most = if now.anonymous > most.anonymous { now } else { most };
            Ok(())
        };
        let mut sample = requests(&mut generator, &subject, &mut traffic, messages / 16, look)?;
        sample.per_connection = Some(PerConnection::added(before, most, stuck));
        Ok(vec![(PUSHED, sample)])
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar {
            name: "a stuck connection's memory / its queue's declared bytes",
            figure: Figure::AnonymousPerConnection,
            of: (PUSHED, SKYLARK.name),
            by: By::Number(QUEUE),
            must: Must::BeAtMost(1.0),
        }]
    }
}
