//! Cost of TLS: a coalescing fan-out, and an idle connection.

use std::time::Duration;

use crate::cell::{Cell, ConnectSetup, Line, Stage};
use crate::load::drive::{ONE, closed};
use crate::load::traffic::{Shape, Traffic};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::{Figure, PerConnection, Sample, Unit, Work};
use crate::subject::meter::Meter;
use crate::subject::{Contender, Kind, Node, SKYLARK};

pub(in super::super) struct Tls;

const SECURED: Contender = Contender { name: "skylark, TLS", kind: Kind::Node(Node { tls: true, ..Node::PLAIN }) };
const CONNECTING: &str = "upgrade, token, two rooms";
const BURST: &str = "burst of 16";
const ONE_AT_A_TIME: &str = "one at a time";
/// Receivers that are not counted; they trigger the one-time allocations of the server.
const WARM: u32 = 200;

impl Cell for Tls {
    fn name(&self) -> &'static str {
        "tls"
    }

    fn about(&self) -> &'static str {
        "over TLS and not: coming in, waiting, and fan-out one at a time and 16 in one request"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, SECURED]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let count = stage.connections(3_000, 10_000);
        let ConnectSetup { subject, mut generator, dial } = stage.connect_setup(contender, WARM, count)?;
        let before = subject.memory()?;
        let meter = Meter::start(&subject)?;
        generator.connect(&dial)?;
        let cost = meter.stop(&subject)?;
        // Wait until memory of the handshakes is released.
        generator.idle(Duration::from_secs(1))?;
        let memory = subject.memory()?;
        let coming = Sample {
            work: Work { unit: Unit::Connection, count: u64::from(count), ..Work::default() },
            cost,
            memory,
            per_connection: Some(PerConnection::added(before, memory, count)),
            ..Sample::default()
        };
        let mut lines = vec![(CONNECTING, coming)];
        for (name, burst) in [(ONE_AT_A_TIME, 1), (BURST, 16)] {
            let mut traffic = Traffic::new(Shape::FanOut { burst }, subject.wire, WARM + count, 0);
            lines.push((name, closed(&mut generator, &subject, &mut traffic, ONE, stage.timing())?));
        }
        Ok(lines)
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |name, figure, line, by: fn(_, _) -> By, must| Bar {
            name,
            figure,
            of: (line, SECURED.name),
            by: by(line, SKYLARK.name),
            must,
        };
        let memory = Figure::AnonymousPerConnection;
        vec![
            bar("fan-out, burst of 16, over TLS / plain", Figure::PerCpuSecond, BURST, By::Row, Must::BeAtLeast(0.5)),
            bar(
                "idle connection over TLS, bytes more than plain",
                memory,
                CONNECTING,
                By::Above,
                Must::BeAtMost(12_288.0),
            ),
        ]
    }
}
