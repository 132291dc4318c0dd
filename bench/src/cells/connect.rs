//! Cost of a connect: upgrade, verification of a token by the plugin, two rooms.

use crate::cell::{Cell, ConnectSetup, Line, Stage};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::{Figure, Sample, Unit, Work};
use crate::subject::meter::Meter;
use crate::subject::{Contender, NAIVE, RAW, SKYLARK};

pub(in super::super) struct Connect;

const CONNECTING: &str = "upgrade, token, two rooms";
const WARM: u32 = 500;

impl Cell for Connect {
    fn name(&self) -> &'static str {
        "connect"
    }

    fn about(&self) -> &'static str {
        "connects per second and their server CPU, 64 at once; the references judge no token and have no rooms"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, RAW, NAIVE]
    }

    fn is_for_peers(&self) -> bool {
        true
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let count = stage.connections(4_000, 9_000);
        let ConnectSetup { subject, mut generator, dial } = stage.connect_setup(contender, WARM, count)?;
        let meter = Meter::start(&subject)?;
        generator.connect(&dial)?;
        let cost = meter.stop(&subject)?;
        let work = Work { unit: Unit::Connection, count: u64::from(count), ..Work::default() };
        let sample = Sample { work, cost, memory: subject.memory()?, ..Sample::default() };
        Ok(vec![(CONNECTING, sample)])
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar {
            name: "connect + HS256 in WASM + two rooms, µs of server CPU",
            figure: Figure::CpuMicros,
            of: (CONNECTING, SKYLARK.name),
            by: By::Number(1.0),
            must: Must::BeAtMost(100.0),
        }]
    }
}
