//! Allocations of a node per delivery and per publish.

use crate::cell::{Cell, Line, Stage};
use crate::load::drive::{Flow, ONE, closed};
use crate::load::traffic::{Shape, Traffic};
use crate::subject::{Contender, Kind, Node};

pub(in super::super) struct Allocations;

const COUNTED: Contender =
    Contender { name: "skylark, counting", kind: Kind::Node(Node { counts_allocations: true, ..Node::PLAIN }) };
/// The same with a filter.
const FILTERED: Contender = Contender {
    name: "no-op filter, counting",
    kind: Kind::Node(Node { counts_allocations: true, ..Node::with(&["noop"]) }),
};

impl Cell for Allocations {
    fn name(&self) -> &'static str {
        "allocations"
    }

    fn about(&self) -> &'static str {
        "how often a node allocates for each delivery and each publish, without a filter and with one: fan-out to 1 000, unicast"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![COUNTED, FILTERED]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let receivers = stage.connections(1_000, 1_000);
        let (subject, mut generator) = stage.set(contender, receivers)?;
        let mut lines = Vec::new();
        for (name, shape, flow) in [
            ("fan-out, one at a time", Shape::FanOut { burst: 1 }, ONE),
            ("fan-out, burst of 16", Shape::FanOut { burst: 16 }, ONE),
            ("unicast, single POST", Shape::Unicast { batch: 1 }, Flow { pipes: 16, depth: 1 }),
            ("unicast, batches of 100", Shape::Unicast { batch: 100 }, Flow { pipes: 2, depth: 1 }),
        ] {
            let mut traffic = Traffic::new(shape, subject.wire, receivers, 0);
            lines.push((name, closed(&mut generator, &subject, &mut traffic, flow, stage.timing())?));
        }
        Ok(lines)
    }
}
