//! Messages to rooms of 10, 100 and 1 000 members.

use crate::cell::{Cell, DIALECT, Line, Stage};
use crate::load::drive::{Flow, ONE, closed};
use crate::load::traffic::{Shape, Traffic};
use crate::load::wire::room;
use crate::subject::{Contender, RAW, SKYLARK};

pub(in super::super) struct Rooms;

const SIZES: [u32; 3] = [10, 100, 1_000];

impl Cell for Rooms {
    fn name(&self) -> &'static str {
        "rooms"
    }

    fn about(&self) -> &'static str {
        "a message to a room of 10, 100, 1 000 (two requests under way), and 16 in one request to a room of 100"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![SKYLARK, RAW]
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let receivers = stage.connections(2_000, 9_000);
        let rooms = |number: u32| SIZES.map(|size| room(size, number / size * size)).to_vec();
        let (subject, mut generator) = stage.set_in(contender, receivers, &[DIALECT], rooms)?;
        let two = Flow { pipes: 1, depth: 2 };
        let mut lines = Vec::new();
        for (name, size, burst, flow) in [
            ("of 10", 10, 1, two),
            ("of 100", 100, 1, two),
            ("of 1 000", 1_000, 1, two),
            ("of 100, burst of 16", 100, 16, ONE),
        ] {
            // Too few receivers to fill such a room.
            if size > receivers {
                continue;
            }
            let mut traffic = Traffic::new(Shape::Room { size, burst }, subject.wire, receivers, 0);
            lines.push((name, closed(&mut generator, &subject, &mut traffic, flow, stage.timing())?));
        }
        Ok(lines)
    }
}
