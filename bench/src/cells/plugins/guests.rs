//! Cost of a filter for a unicast, by the filter's language. Each filter allows everything.

use crate::cell::{Cell, Line, Stage};
use crate::cells::unicast::single_and_batches;
use crate::results::bar::Bar;
use crate::subject::{Contender, FILTERED, Kind, Node, SKYLARK};

pub(crate) struct Guests;

/// Requirement of the language cells.
pub(crate) const BUILT: &str = "the guests of --guests DIR";
/// Committed as a binary.
pub(crate) const RUST: Contender = Contender { name: "Rust", ..FILTERED };
/// Not committed; `plugins/testing/languages` builds them.
pub(crate) const C: Contender = written("C", &["noop-c"]);
pub(crate) const JS: Contender = written("JavaScript", &["noop-js"]);
pub(crate) const PYTHON: Contender = written("Python", &["noop-python"]);

const fn written(name: &'static str, components: &'static [&'static str]) -> Contender {
    Contender { name, kind: Kind::Node(Node::with(components)) }
}

impl Cell for Guests {
    fn name(&self) -> &'static str {
        "guests"
    }

    fn about(&self) -> &'static str {
        "unicast through a no-op filter in Rust, C, JavaScript and Python, and through none"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, RUST, C, JS, PYTHON]
    }

    fn needs(&self) -> Option<&'static str> {
        Some(BUILT)
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        single_and_batches(stage, contender, stage.connections(1_000, 5_000))
    }

    /// The cell `calls` has the bars for single calls.
    fn bars(&self) -> Vec<Bar> {
        Vec::new()
    }
}
