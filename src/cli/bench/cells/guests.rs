//! What a filter costs a unicast by the language that it is written in: each of them allows everything.

use super::super::bar::Bar;
use super::super::cell::{Cell, Line, Stage};
use super::super::drive::{Flow, closed};
use super::super::subject::{Contender, FILTERED, Kind, Node, SKYLARK};
use super::super::traffic::{Shape, Traffic};

pub(in super::super) struct Guests;

/// Committed built.
pub(super) const RUST: Contender = Contender { name: "Rust", ..FILTERED };
/// These are not: `plugins/testing/languages` makes them.
pub(super) const C: Contender = written("C", &["noop-c"]);
pub(super) const JS: Contender = written("JavaScript", &["noop-js"]);
pub(super) const PYTHON: Contender = written("Python", &["noop-python"]);

const fn written(name: &'static str, components: &'static [&'static str]) -> Contender {
    Contender { name, kind: Kind::Node(Node::with(components)) }
}

impl Cell for Guests {
    fn name(&self) -> &'static str {
        "guests"
    }

    fn about(&self) -> &'static str {
        "unicast through a no-op filter in Rust, C, JavaScript and Python (--guests DIR), and through none"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, RUST, C, JS, PYTHON]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let receivers = stage.connections(1_000, 5_000);
        let (subject, mut generator) = stage.set(contender, receivers)?;
        let mut lines = Vec::new();
        for (name, batch, pipes) in [("single, W=16", 1, 16), ("batches of 100", 100, 2)] {
            let mut traffic = Traffic::new(Shape::Unicast { batch }, subject.wire, receivers, 0);
            let flow = Flow { pipes, depth: 1 };
            lines.push((name, closed(&mut generator, &subject, &mut traffic, flow, stage.timing())?));
        }
        Ok(lines)
    }

    /// Those of a call are the cell `calls`'.
    fn bars(&self) -> Vec<Bar> {
        Vec::new()
    }
}
