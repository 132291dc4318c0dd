//! Slow and stuck receivers: their effect on the others, and their cost.

use crate::cell::{Cell, Line, Stage};
use crate::load::drive::{ONE, closed, requests};
use crate::load::generator::Pace;
use crate::load::stuck::SlowReceivers;
use crate::load::traffic::{Shape, Traffic};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::{Figure, PerConnection, Sample};
use crate::subject::meter::Meter;
use crate::subject::proc::Memory;
use crate::subject::{Contender, SKYLARK, Subject};

/// Throughput and latency of the other 99 %.
pub(in super::super) struct SlowReaders;

/// Memory while a tenth is stuck.
pub(in super::super) struct StuckMemory;

const STUCK: Contender = Contender { name: "1 % stuck", kind: SKYLARK.kind };
const SLOW: Contender = Contender { name: "1 % slow", kind: SKYLARK.kind };
const ONE_AT_A_TIME: &str = "one at a time";

impl Cell for SlowReaders {
    fn name(&self) -> &'static str {
        "slow-readers"
    }

    fn about(&self) -> &'static str {
        "fan-out while 1 % read nothing, or 80 KB/s, their sockets full and their queues half full: the other 99 %"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, STUCK, SLOW]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        // Few enough to be clogged long before `queue.write_timeout` closes them.
        let receivers = stage.connections(1_000, 2_000);
        let (subject, mut generator) = stage.set(contender, receivers)?;
        let lags = contender != SKYLARK;
        let slow_receivers = SlowReceivers { receivers, count: if lags { receivers.div_ceil(100).max(2) } else { 0 } };
        if lags {
            let pace = if contender == SLOW { Pace::Slow } else { Pace::Stuck };
            generator.slow_down(slow_receivers.count, pace)?;
            slow_receivers.fill_queues(&mut generator, &subject)?;
        }
        let mut traffic = Traffic::new(Shape::FanOut { burst: 1 }, subject.wire, receivers, slow_receivers.count);
        let sample = closed(&mut generator, &subject, &mut traffic, ONE, stage.timing())?;
        if lags {
            slow_receivers.check(&mut generator, &subject)?;
        }
        Ok(vec![(ONE_AT_A_TIME, sample)])
    }

    fn bars(&self) -> Vec<Bar> {
        let ratio = |name, figure, contender: Contender, must| Bar {
            name,
            figure,
            of: (ONE_AT_A_TIME, contender.name),
            by: By::Row(ONE_AT_A_TIME, SKYLARK.name),
            must,
        };
        let (throughput, p99) = (Must::BeAtLeast(0.95), Must::BeAtMost(1.5));
        vec![
            ratio("1 % stuck, throughput of the others / all read", Figure::PerSecond, STUCK, throughput),
            ratio("1 % stuck, p99 of the others / all read", Figure::P99, STUCK, p99),
            ratio("1 % slow, throughput of the others / all read", Figure::PerSecond, SLOW, throughput),
            ratio("1 % slow, p99 of the others / all read", Figure::P99, SLOW, p99),
        ]
    }
}

const SHARED: &str = "20 000 to everyone";
const OWN: &str = "20 000 to each stuck one";
const RECEIVERS: u32 = 300;
const MESSAGES: u32 = 20_000;
const BURST: u32 = 16;
/// Requests before the measurement.
const WARM: u32 = 50;
/// Bytes of a text: large enough that a queue reaches its byte limit before its frame limit.
const TEXT: usize = 512;
/// Memory that a node may use for one stuck connection (`queue.bytes`).
const QUEUE: f64 = 1024.0 * 1024.0;
/// Additional memory if no connections share a message: an entry and a header for each of `queue.frames`. An allocator
/// with size classes adds an eighth of the bytes by rounding up.
const ENTRIES: f64 = 64.0 * 4096.0 + QUEUE / 8.0;

impl Cell for StuckMemory {
    fn name(&self) -> &'static str {
        "stuck-memory"
    }

    fn about(&self) -> &'static str {
        "memory at its peak while 30 of 300 are stuck: 20 000 messages to everyone, 20 000 to each of the 30"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let receivers = stage.connections(RECEIVERS, RECEIVERS);
        let slow_receivers = SlowReceivers { receivers, count: receivers / 10 };
        let mut lines = Vec::new();
        for name in [SHARED, OWN] {
            let (subject, mut generator) = stage.set(contender, receivers)?;
            // Exclude the allocations of a first push from the cost of the queues.
            let shape = Shape::FanOut { burst: BURST };
            let mut warm = Traffic::new(shape, subject.wire, receivers, 0).with_texts_of(TEXT);
            requests(&mut generator, &subject, &mut warm, WARM, || Ok(()))?;
            generator.slow_down(slow_receivers.count, Pace::Stuck)?;
            let before = subject.memory()?;
            let mut peak = before;
            let look = || rise(&mut peak, &subject);
            let mut sample = if name == SHARED {
                let mut traffic =
                    Traffic::new(shape, subject.wire, receivers, slow_receivers.count).with_texts_of(TEXT);
                requests(&mut generator, &subject, &mut traffic, MESSAGES / BURST, look)?
            } else {
                let meter = Meter::start(&subject)?;
                slow_receivers.push_to_all(&mut generator, &subject, MESSAGES, TEXT, look)?;
                Sample { cost: meter.stop(&subject)?, ..Sample::default() }
            };
            sample.memory = peak;
            sample.per_connection = Some(PerConnection::added(before, peak, slow_receivers.count));
            lines.push((name, sample));
        }
        Ok(lines)
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |name, line, bytes| Bar {
            name,
            figure: Figure::AnonymousPerConnection,
            of: (line, SKYLARK.name),
            by: By::Number(bytes),
            must: Must::BeAtMost(1.0),
        };
        vec![
            bar("10 % stuck, memory of each / its queue's bytes", SHARED, QUEUE),
            bar("10 % stuck, unshared messages / 9/8 of its queue's bytes and 64 a frame", OWN, QUEUE + ENTRIES),
        ]
    }
}

/// Keeps the maximum seen so far.
fn rise(peak: &mut Memory, subject: &Subject) -> anyhow::Result<()> {
    let now = subject.memory()?;
    if now.anonymous > peak.anonymous {
        *peak = now;
    }
    Ok(())
}
