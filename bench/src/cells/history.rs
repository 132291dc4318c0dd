//! The cost of a history: messages that the node keeps, and messages that its rules leave out, compared with a node
//! without one.

pub(crate) mod resume;

use crate::cell::{Cell, Line, Stage};
use crate::cells::unicast;
use crate::load::drive::{ONE, closed};
use crate::load::traffic::{Shape, Traffic};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::Figure;
use crate::subject::{Contender, Kind, Node, SKYLARK};

pub(in super::super) struct History;

/// The node keeps every message.
const KEPT: Contender =
    Contender { name: "kept", kind: Kind::Node(Node { config: "history:\n  kind: memory\n", ..Node::PLAIN }) };
/// The node has a history, and its rules keep no message of the bench.
const UNKEPT: Contender = Contender {
    name: "not kept",
    kind: Kind::Node(Node {
        config: "history:\n  kind: memory\n  rules: [{action: bench, keep: no}]\n",
        ..Node::PLAIN
    }),
};

/// Receivers of a fan-out.
const CONNECTIONS: u32 = 10_000;
const FAN_OUT: &str = "fan-out 10k, one at a time";
const FAN_OUT_BURST: &str = "fan-out 10k, burst of 16";

impl Cell for History {
    fn name(&self) -> &'static str {
        "history"
    }

    fn about(&self) -> &'static str {
        "unicast and fan-out to 10 000: kept, not kept by a rule, and without a history"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, KEPT, UNKEPT]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let receivers = stage.connections(2_000, 9_000);
        let mut lines = unicast::single_and_batches(stage, contender, receivers)?;
        let connections = stage.connections(CONNECTIONS, CONNECTIONS);
        let (subject, mut generator) = stage.set(contender, connections)?;
        for (name, burst) in [(FAN_OUT, 1), (FAN_OUT_BURST, 16)] {
            let mut traffic = Traffic::new(Shape::FanOut { burst }, subject.wire, connections, 0);
            lines.push((name, closed(&mut generator, &subject, &mut traffic, ONE, stage.timing())?));
        }
        Ok(lines)
    }

    fn bars(&self) -> Vec<Bar> {
        let ratio = |name, line, contender: Contender, bar| Bar {
            name,
            figure: Figure::CpuMicros,
            of: (line, contender.name),
            by: By::Row(line, SKYLARK.name),
            must: Must::BeAtMost(bar),
        };
        vec![
            ratio("not kept / without a history, unicast, CPU", unicast::BATCHES, UNKEPT, 1.02),
            ratio("not kept / without a history, fan-out 10k, CPU", FAN_OUT_BURST, UNKEPT, 1.02),
            ratio("kept / without a history, unicast by single POST, CPU", unicast::SINGLE, KEPT, 1.25),
            ratio("kept / without a history, fan-out 10k, CPU", FAN_OUT_BURST, KEPT, 1.05),
        ]
    }
}
