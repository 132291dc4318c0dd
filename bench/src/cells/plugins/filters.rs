//! Cost of filters in the path of a unicast: none, one that allows, three of them, one that replaces.

use crate::cell::{Cell, Line, Stage};
use crate::cells::unicast::{BATCHES, SINGLE, single_and_batches};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::Figure;
use crate::subject::{Contender, FILTERED, Kind, Node, SKYLARK};

pub(crate) struct Filters;

const THREE: Contender =
    Contender { name: "three no-op filters", kind: Kind::Node(Node::with(&["noop", "noop", "noop"])) };
const REPLACE: Contender = Contender { name: "replacing filter", kind: Kind::Node(Node::with(&["stamp-v1"])) };

impl Cell for Filters {
    fn name(&self) -> &'static str {
        "filters"
    }

    fn about(&self) -> &'static str {
        "unicast with no filter, one that allows, three, and one that replaces each message"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, FILTERED, THREE, REPLACE]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        single_and_batches(stage, contender, stage.connections(1_000, 5_000))
    }

    fn bars(&self) -> Vec<Bar> {
        let ratio = |name, line, contender: Contender, bar| Bar {
            name,
            figure: Figure::PerCpuSecond,
            of: (line, contender.name),
            by: By::Row(line, SKYLARK.name),
            must: Must::BeAtLeast(bar),
        };
        vec![
            ratio("no-op filter / none, single POST", SINGLE, FILTERED, 0.88),
            ratio("three no-op filters / none, single POST", SINGLE, THREE, 0.70),
            ratio("no-op filter / none, batches of 100", BATCHES, FILTERED, 0.80),
            ratio("three no-op filters / none, batches of 100", BATCHES, THREE, 0.55),
        ]
    }
}
