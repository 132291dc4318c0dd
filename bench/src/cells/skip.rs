//! Cost of a bus record for other nodes, with an engine that sends every record to every node: Kafka. Runs the reader's
//! own code in this process, without a node or a broker.

use skylark::broker::kafka::skipping::skip;

use crate::cell::{Cell, Line, Stage};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::{Figure, Sample, Unit, Work};
use crate::subject::meter::Cost;
use crate::subject::{Contender, SKYLARK};

pub(in super::super) struct Skip;

const LINE: &str = "a record of another node's";
/// Users subscribed by the node.
const HELD: usize = 10_000;

impl Cell for Skip {
    fn name(&self) -> &'static str {
        "skip"
    }

    fn about(&self) -> &'static str {
        "a record of a Kafka bus that is for users of another node: skipped by its header"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK]
    }

    fn measure(&self, stage: &Stage<'_>, _: Contender) -> anyhow::Result<Vec<Line>> {
        let skipped = skip(stage.pick(16_000, 64_000), HELD)?;
        let cpu = skipped.cpu.as_secs_f64();
        let work = Work { unit: Unit::Call, count: skipped.records, publishes: skipped.records, ..Work::default() };
        Ok(vec![(LINE, Sample { work, cost: Cost { wall: cpu, user: cpu, ..Cost::default() }, ..Sample::default() })])
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar {
            name: "a record of a Kafka bus that is skipped, µs of CPU",
            figure: Figure::CpuMicros,
            of: (LINE, SKYLARK.name),
            by: By::Number(1.0),
            must: Must::BeAtMost(0.3),
        }]
    }
}
