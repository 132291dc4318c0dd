//! Cost of the bus: unicasts through two nodes over Redis, compared with one node.

use super::unicast::{BATCHES, SINGLE, single_and_batches};
use crate::cell::{Cell, Line, Stage};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::Figure;
use crate::subject::{Contender, Kind, Node, SKYLARK};

pub(in super::super) struct Cluster;

/// CPU is the sum of both nodes. The CPU of Redis is reported separately.
const PAIR: Contender = Contender { name: "two nodes, Redis", kind: Kind::Pair(Node::PLAIN) };

impl Cell for Cluster {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn about(&self) -> &'static str {
        "unicasts pushed to one node and delivered by another over Redis, beside one node"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, PAIR]
    }

    fn needs(&self) -> Option<&'static str> {
        Some("redis-server")
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        single_and_batches(stage, contender, stage.connections(2_000, 9_000))
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
