//! Cost of an idle connection: memory, and CPU for heartbeats.

use std::time::Duration;

use crate::cell::{Cell, ConnectSetup, Line, Stage};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::{Figure, PerConnection, Sample, Unit, Work};
use crate::subject::meter::Meter;
use crate::subject::{Contender, Kind, NAIVE, Node, SKYLARK};

pub(in super::super) struct Idle;

pub(in super::super) const NAME: &str = "idle";
pub(in super::super) const WAITING: &str = "authenticated, two rooms";
const COUNT: u32 = 10_000;
/// Receivers that are not counted; they trigger the one-time allocations of the server.
const WARM: u32 = 200;
/// The default `heartbeat.interval`: each connection gets one PING in a window of this length.
const INTERVAL: Duration = Duration::from_secs(25);
/// Two fifths of the time, so two and a half times the rate.
const QUICK_WINDOW: Duration = Duration::from_secs(10);
const QUICK_HEARTBEAT: &str = "heartbeat:\n  interval: 10s\n";

impl Cell for Idle {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "memory and CPU of 10 000 connections that wait, each a user in two rooms, one PING each in the window"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, NAIVE]
    }

    fn is_for_peers(&self) -> bool {
        true
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let (kind, window) = match contender.kind {
            Kind::Node(node) if stage.quick => (Kind::Node(Node { config: QUICK_HEARTBEAT, ..node }), QUICK_WINDOW),
            Kind::Node(_) | Kind::Pair(_) => (contender.kind, INTERVAL),
            Kind::Peer(_) => (contender.kind, stage.pick(QUICK_WINDOW, INTERVAL)),
            // References have no heartbeat.
            Kind::Reference(_) => (contender.kind, Duration::from_secs(1)),
        };
        let count = stage.connections(COUNT, COUNT);
        let ConnectSetup { subject, mut generator, dial } =
            stage.connect_setup(Contender { kind, ..contender }, WARM, count)?;
        let before = subject.memory()?;
        generator.connect(&dial)?;
        // Wait until the work of the connects is finished.
        generator.idle(Duration::from_secs(1))?;
        let pings = generator.tally.pings;
        let meter = Meter::start(&subject)?;
        generator.idle(window)?;
        let (cost, memory) = (meter.stop(&subject)?, subject.memory()?);
        let faults = generator.tally.faults;
        let mut invalid = Vec::new();
        if !faults.is_none() {
            invalid.push(format!("{faults:?}"));
        }
        let came = generator.tally.pings - pings;
        if matches!(kind, Kind::Node(_)) && came < u64::from(count) {
            invalid.push(format!("{came} heartbeats came in {window:?}, expected one for each of {count} connections"));
        }
        let sample = Sample {
            // An idle connection does no work, so the count is 0.
            work: Work { unit: Unit::Connection, ..Work::default() },
            cost,
            memory,
            per_connection: Some(PerConnection::added(before, memory, count)),
            latency: None,
            invalid,
        };
        Ok(vec![(WAITING, sample)])
    }

    fn bars(&self) -> Vec<Bar> {
        let of = (WAITING, SKYLARK.name);
        let at_most = |name, figure, bar| Bar { name, figure, of, by: By::Number(1.0), must: Must::BeAtMost(bar) };
        vec![
            at_most("idle connection, bytes of user-space memory", Figure::AnonymousPerConnection, 4096.0),
            at_most("10k idle connections, CPU-ms per second, heartbeats included", Figure::CpuMillisPerSecond, 20.0),
        ]
    }
}
