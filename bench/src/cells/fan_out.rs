//! One message to everyone: alone, sixteen in one request, and sixteen pipelined requests.

use crate::cell::{Cell, Line, Stage};
use crate::load::drive::{Flow, ONE, closed};
use crate::load::traffic::{Shape, Traffic};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::Figure;
use crate::subject::{COALESCING, Contender, NAIVE, RAW, SKYLARK};

/// Fan-out to this many connections.
pub(in super::super) struct FanOut {
    pub(in super::super) name: &'static str,
    connections: u32,
}

pub(in super::super) const SMALL: FanOut = FanOut { name: "fan-out-1k", connections: 1_000 };
pub(in super::super) const LARGE: FanOut = FanOut { name: "fan-out-10k", connections: 10_000 };

pub(in super::super) const ONE_AT_A_TIME: &str = "one at a time";
pub(in super::super) const BURST: &str = "burst of 16";

impl Cell for FanOut {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        "a message to everyone, one at a time (W=1), 16 in one request, and 16 pipelined requests (W=16)"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, RAW, COALESCING, NAIVE]
    }

    fn is_for_peers(&self) -> bool {
        true
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let connections = stage.connections(self.connections, self.connections);
        let (subject, mut generator) = stage.set(contender, connections)?;
        let mut shapes = vec![(ONE_AT_A_TIME, 1, ONE), (BURST, 16, ONE)];
        // The references process requests one after another, so pipelining adds nothing.
        if contender == SKYLARK {
            shapes.push(("16 pipelined", 1, Flow { pipes: 1, depth: 16 }));
        }
        let mut lines = Vec::new();
        for (name, burst, flow) in shapes {
            let shape = Shape::FanOut { burst };
            if !subject.wire.takes(shape) {
                continue;
            }
            let mut traffic = Traffic::new(shape, subject.wire, connections, 0);
            lines.push((name, closed(&mut generator, &subject, &mut traffic, flow, stage.timing())?));
        }
        Ok(lines)
    }

    fn bars(&self) -> Vec<Bar> {
        if self.connections != LARGE.connections {
            return Vec::new();
        }
        let ratio = |name, line, contender, bar| Bar {
            name,
            figure: Figure::PerCpuSecond,
            of: (line, SKYLARK.name),
            by: By::Row(line, contender),
            must: Must::BeAtLeast(bar),
        };
        vec![
            ratio("fan-out 10k, burst of 16 / raw coalescing", BURST, COALESCING.name, 0.75),
            ratio("fan-out 10k, burst of 16 / naive", BURST, NAIVE.name, 8.0),
            ratio("fan-out 10k, one at a time / raw", ONE_AT_A_TIME, RAW.name, 0.8),
        ]
    }
}
