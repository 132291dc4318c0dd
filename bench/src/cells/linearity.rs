//! Work per CPU-second with many more connections. Not part of a quick run.

use crate::cell::{Cell, Line, Stage};
use crate::load::drive::{ONE, closed};
use crate::load::traffic::{Shape, Traffic};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::Figure;
use crate::subject::{COALESCING, Contender, RAW, SKYLARK};

pub(in super::super) struct Linearity;

const FEW: Contender = Contender { name: "skylark, 1k", kind: SKYLARK.kind };
const MANY: Contender = Contender { name: "skylark, 16k", kind: SKYLARK.kind };
/// The loss of the kernel itself.
const RAW_FEW: Contender = Contender { name: "raw, 1k", kind: RAW.kind };
const RAW_MANY: Contender = Contender { name: "raw, 16k", kind: RAW.kind };
const COALESCING_FEW: Contender = Contender { name: "raw coalescing, 1k", kind: COALESCING.kind };
const COALESCING_MANY: Contender = Contender { name: "raw coalescing, 16k", kind: COALESCING.kind };
const ONE_AT_A_TIME: &str = "one at a time";
const BURST: &str = "burst of 16";

impl Cell for Linearity {
    fn name(&self) -> &'static str {
        "linearity"
    }

    fn about(&self) -> &'static str {
        "fan-out to 1 000 and to 16 000 connections, one at a time and 16 in one request; skipped by --quick"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![FEW, MANY, RAW_FEW, RAW_MANY, COALESCING_FEW, COALESCING_MANY]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        if stage.quick {
            return Ok(Vec::new());
        }
        let many = if [FEW, RAW_FEW, COALESCING_FEW].contains(&contender) { 1_000 } else { 16_000 };
        let receivers = stage.connections(many, many);
        let (subject, mut generator) = stage.set(contender, receivers)?;
        let both = [(ONE_AT_A_TIME, 1), (BURST, 16)];
        // Each loop is the limit for one of the two lines.
        let asked = match contender {
            RAW_FEW | RAW_MANY => &both[..1],
            COALESCING_FEW | COALESCING_MANY => &both[1..],
            _ => &both[..],
        };
        let mut lines = Vec::new();
        for &(name, burst) in asked {
            let mut traffic = Traffic::new(Shape::FanOut { burst }, subject.wire, receivers, 0);
            lines.push((name, closed(&mut generator, &subject, &mut traffic, ONE, stage.timing())?));
        }
        Ok(lines)
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |name, line| Bar {
            name,
            figure: Figure::PerCpuSecond,
            of: (line, MANY.name),
            by: By::Row(line, FEW.name),
            must: Must::BeAtLeast(0.9),
        };
        vec![
            bar("work per CPU-second at 16k connections / at 1k, one at a time", ONE_AT_A_TIME),
            bar("work per CPU-second at 16k connections / at 1k, burst of 16", BURST),
        ]
    }
}
