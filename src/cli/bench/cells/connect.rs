//! What it costs to come in: upgrade, a token judged by the plugin, two rooms.

use std::time::Instant;

use super::super::bar::{Bar, By, Must};
use super::super::cell::{Cell, DIALECT, Line, Stage};
use super::super::generator::Generator;
use super::super::proc;
use super::super::sample::{Figure, Sample, Unit};
use super::super::stats::float;
use super::super::subject::{Contender, NAIVE, RAW, SKYLARK};
use super::super::wire::room;

pub(in super::super) struct Connect;

const COMING: &str = "upgrade, token, two rooms";
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

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let count = stage.pick(4_000, 9_000);
        let subject = stage.lab.start(contender)?;
        let rooms = |number: u32| vec![room(100, number / 100), room(1_000, number / 1_000)];
        let mut warm = stage.lab.dial(&subject, WARM + count, &[DIALECT], rooms)?;
        let mut dial = warm.clone();
        dial.requests = warm.requests.split_off(WARM as usize);
        let mut generator = Generator::new()?;
        generator.connect(&warm)?;
        let (from, own, begun) = (proc::cpu(subject.pid())?, proc::own_cpu(), Instant::now());
        generator.connect(&dial)?;
        let wall = begun.elapsed().as_secs_f64();
        let (to, memory) = (proc::cpu(subject.pid())?, proc::memory(subject.pid())?);
        let sample = Sample {
            unit: Unit::Connection,
            count: u64::from(count),
            requests: u64::from(count),
            bytes: 0,
            wall,
            user: (to.user - from.user).as_secs_f64(),
            system: (to.system - from.system).as_secs_f64(),
            generator: (proc::own_cpu() - own).as_secs_f64(),
            resident: float(memory.resident),
            anonymous: float(memory.anonymous),
            per_connection: None,
            latency: None,
            invalid: Vec::new(),
        };
        Ok(vec![(COMING, sample)])
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar {
            name: "connect + HS256 in WASM + two rooms, µs of server CPU",
            figure: Figure::CpuMicros,
            of: (COMING, SKYLARK.name),
            by: By::Number(1.0),
            must: Must::BeAtMost(100.0),
        }]
    }
}
