//! Each message to one random user: by single POST, pipelined, and in batches of a hundred.

use crate::cell::{Cell, Line, Stage};
use crate::load::drive::{Flow, ONE, closed};
use crate::load::traffic::{Shape, Traffic};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::Figure;
use crate::subject::{COALESCING, Contender, FILTERED, NAIVE, RAW, SKYLARK};

pub(in super::super) struct Unicast;

pub(in super::super) const NAME: &str = "unicast";
pub(in super::super) const SINGLE: &str = "single, W=16";
pub(in super::super) const BATCHES: &str = "batches of 100";

/// Sixteen concurrent single POSTs, then two lists of a hundred; shared by cells that compare nodes by unicasts.
pub(in super::super) fn single_and_batches(
    stage: &Stage<'_>,
    contender: Contender,
    receivers: u32,
) -> anyhow::Result<Vec<Line>> {
    let (subject, mut generator) = stage.set(contender, receivers)?;
    let mut lines = Vec::new();
    for (name, batch, pipes) in [(SINGLE, 1, 16), (BATCHES, 100, 2)] {
        let mut traffic = Traffic::new(Shape::Unicast { batch }, subject.wire, receivers, 0);
        let flow = Flow { pipes, depth: 1 };
        lines.push((name, closed(&mut generator, &subject, &mut traffic, flow, stage.timing())?));
    }
    Ok(lines)
}

impl Cell for Unicast {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "a message to a random user: single POSTs (W=1, W=16), 16 pipelined, lists of 100"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, FILTERED, RAW, COALESCING, NAIVE]
    }

    fn is_for_peers(&self) -> bool {
        true
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let receivers = stage.connections(2_000, 9_000);
        let (subject, mut generator) = stage.set(contender, receivers)?;
        let mut lines = Vec::new();
        for (name, batch, flow) in [
            ("single, W=1", 1, ONE),
            (SINGLE, 1, Flow { pipes: 16, depth: 1 }),
            ("pipelined, W=16", 1, Flow { pipes: 1, depth: 16 }),
            (BATCHES, 100, Flow { pipes: 2, depth: 1 }),
        ] {
            let shape = Shape::Unicast { batch };
            if !subject.wire.takes(shape) || (flow.depth > 1 && !subject.wire.pipelines()) {
                continue;
            }
            let mut traffic = Traffic::new(shape, subject.wire, receivers, 0);
            lines.push((name, closed(&mut generator, &subject, &mut traffic, flow, stage.timing())?));
        }
        Ok(lines)
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar {
            name: "unicast, HTTP batches, no-op filter, broker, socket / raw",
            figure: Figure::PerCpuSecond,
            of: (BATCHES, FILTERED.name),
            by: By::Row(BATCHES, RAW.name),
            must: Must::BeAtLeast(0.6),
        }]
    }
}
