//! What it costs that messages cross a bus: unicasts through two nodes over a Redis, beside the same through one.

use super::super::bar::{Bar, By, Must};
use super::super::cell::{Cell, Line, Stage};
use super::super::drive::{Flow, closed};
use super::super::sample::Figure;
use super::super::subject::{Contender, Kind, Node, SKYLARK};
use super::super::traffic::{Shape, Traffic};
use super::unicast::{BATCHES, SINGLE};

pub(in super::super) struct Cluster;

/// Its CPU is that of both nodes; Redis' own is told apart.
const PAIR: Contender = Contender { name: "two nodes, Redis", kind: Kind::Pair(Node::PLAIN) };

impl Cell for Cluster {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn about(&self) -> &'static str {
        "unicasts pushed to one node and delivered by another over Redis, beside one node; needs redis-server"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, PAIR]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let receivers = stage.connections(2_000, 9_000);
        let (subject, mut generator) = stage.set(contender, receivers)?;
        let mut lines = Vec::new();
        for (name, batch, pipes) in [(SINGLE, 1, 16), (BATCHES, 100, 2)] {
            let mut traffic = Traffic::new(Shape::Unicast { batch }, subject.wire, receivers, 0);
            let flow = Flow { pipes, depth: 1 };
            lines.push((name, closed(&mut generator, &subject, &mut traffic, flow, stage.timing())?));
        }
        Ok(lines)
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |name, line| Bar {
            name,
            figure: Figure::PerCpuSecond,
            of: (line, PAIR.name),
            by: By::Row(line, SKYLARK.name),
            must: Must::BeAtLeast(0.7),
        };
        vec![
            bar("unicast, single POST, two nodes over Redis / one node", SINGLE),
            bar("unicast, batches of 100, two nodes over Redis / one node", BATCHES),
        ]
    }
}
