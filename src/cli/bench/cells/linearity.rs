//! Whether work per CPU-second holds when there are many more connections. Not part of a quick run.

use super::super::bar::{Bar, By, Must};
use super::super::cell::{Cell, Line, Stage};
use super::super::drive::{ONE, closed};
use super::super::sample::Figure;
use super::super::subject::{Contender, RAW, SKYLARK};
use super::super::traffic::{Shape, Traffic};

pub(in super::super) struct Linearity;

const FEW: Contender = Contender { name: "skylark, 1k", kind: SKYLARK.kind };
const MANY: Contender = Contender { name: "skylark, 16k", kind: SKYLARK.kind };
/// What the kernel itself loses.
const RAW_FEW: Contender = Contender { name: "raw, 1k", kind: RAW.kind };
const RAW_MANY: Contender = Contender { name: "raw, 16k", kind: RAW.kind };
const ALONE: &str = "one at a time";

impl Cell for Linearity {
    fn name(&self) -> &'static str {
        "linearity"
    }

    fn about(&self) -> &'static str {
        "fan-out to 1 000 and to 16 000 connections, one message at a time; skipped by --quick"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![FEW, MANY, RAW_FEW, RAW_MANY]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        if stage.quick {
            return Ok(Vec::new());
        }
        let many = if contender == FEW || contender == RAW_FEW { 1_000 } else { 16_000 };
        let receivers = stage.connections(many, many);
        let (subject, mut generator) = stage.set(contender, receivers)?;
        let mut traffic = Traffic::new(Shape::FanOut { burst: 1 }, subject.wire, receivers, 0);
        Ok(vec![(ALONE, closed(&mut generator, &subject, &mut traffic, ONE, stage.timing())?)])
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar {
            name: "work per CPU-second at 16k connections / at 1k",
            figure: Figure::PerCpuSecond,
            of: (ALONE, MANY.name),
            by: By::Row(ALONE, FEW.name),
            must: Must::BeAtLeast(0.9),
        }]
    }
}
