//! Cost of the dialects: the same fan-out in each one, and in all of them at once.

use crate::cell::{Cell, Line, Stage};
use crate::load::drive::{ONE, closed};
use crate::load::traffic::{Shape, Traffic};
use crate::subject::{Contender, SKYLARK};

pub(in super::super) struct Dialects;

const ALL: [&str; 4] = ["yunque.pb", "yunque.json", "cim.pb", "cim.json"];

impl Cell for Dialects {
    fn name(&self) -> &'static str {
        "dialects"
    }

    fn about(&self) -> &'static str {
        "fan-out in bursts of 16 to receivers of each dialect, and of all four in turn"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let receivers = stage.connections(1_000, 1_000);
        let mut lines = Vec::new();
        for (name, dialects) in [
            ("yunque.pb", &ALL[..1]),
            ("yunque.json", &ALL[1..2]),
            ("cim.pb", &ALL[2..3]),
            ("cim.json", &ALL[3..]),
            ("all four", &ALL[..]),
        ] {
            let (subject, mut generator) = stage.set_in(contender, receivers, dialects, |_| Vec::new())?;
            let mut traffic = Traffic::new(Shape::FanOut { burst: 16 }, subject.wire, receivers, 0);
            lines.push((name, closed(&mut generator, &subject, &mut traffic, ONE, stage.timing())?));
        }
        Ok(lines)
    }
}
