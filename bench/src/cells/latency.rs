//! Latency of unicasts in an open loop, measured from the intended time of each.

use std::cell::Cell as Slot;

use crate::cell::{Cell, Line, Stage};
use crate::load::drive::{Flow, closed, open};
use crate::load::traffic::{Shape, Traffic};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::Figure;
use crate::subject::{Contender, RAW, SKYLARK};

#[derive(Default)]
pub(in super::super) struct UnderLoad {
    /// 30 % of the node's capacity in this repetition, per second; 0 = not measured.
    share: Slot<f64>,
}

pub(in super::super) const NAME: &str = "latency";
pub(in super::super) const FIXED: &str = "5 000/s";
const SHARE: &str = "30 % of own capacity";
const RATE: f64 = 5_000.0;

impl Cell for UnderLoad {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "unicast by single POST at a fixed rate, open loop, from the intended time of sending"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, RAW]
    }

    fn is_for_peers(&self) -> bool {
        true
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let receivers = stage.connections(1_000, 5_000);
        let (subject, mut generator) = stage.set(contender, receivers)?;
        let traffic = || Traffic::new(Shape::Unicast { batch: 1 }, subject.wire, receivers, 0);
        // The raw loop runs at the node's rate. At 30 % of its own capacity, the generator would be too busy to measure
        // latency.
        let mut share = if contender.name == RAW.name { self.share.get() } else { 0.0 };
        if share == 0.0 {
            let flow = Flow { pipes: 16, depth: 1 };
            let capacity = closed(&mut generator, &subject, &mut traffic(), flow, stage.timing())?;
            share = capacity.figure(Figure::PerSecond) * 0.3;
        }
        if contender.name == SKYLARK.name {
            self.share.set(share);
        }
        let mut lines = Vec::new();
        for (name, rate) in [(FIXED, RATE), (SHARE, share)] {
            lines.push((name, open(&mut generator, &subject, &mut traffic(), rate, stage.timing())?));
        }
        Ok(lines)
    }

    fn bars(&self) -> Vec<Bar> {
        let p99 = |name, line| Bar {
            name,
            figure: Figure::P99,
            of: (line, SKYLARK.name),
            by: By::Row(line, RAW.name),
            must: Must::BeAtMost(1.5),
        };
        vec![p99("p99 unicast at 5 000/s / raw", FIXED), p99("p99 unicast at 30 % of own capacity / raw", SHARE)]
    }
}
