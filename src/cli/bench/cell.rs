//! What a cell of the bench is, and what it gets to work with. A new one is a file in `cells/` and a line in [`all`].

use std::time::Duration;

use super::bar::Bar;
use super::cells::{
    allocations, calls, cluster, connect, dialects, fan_out, filters, guests, idle, latency, linearity, live, rooms,
    skip, slow, tls, unicast,
};
use super::drive::Timing;
use super::generator::{Dial, Generator};
use super::sample::Sample;
use super::subject::{Contender, Lab, Subject};
use super::wire::{Wire, room};

/// One question that the bench asks of each contender.
pub(super) trait Cell {
    /// What `--cell` calls it.
    fn name(&self) -> &'static str;
    /// One line for `--list`.
    fn about(&self) -> &'static str;
    /// Who is asked, in each repetition, in this order.
    fn contenders(&self) -> Vec<Contender>;
    /// Whether peers are asked as well.
    fn is_for_peers(&self) -> bool {
        false
    }
    /// What a machine may not have that the cell cannot do without: such a cell runs only where `--cell` names it.
    fn needs(&self) -> Option<&'static str> {
        None
    }
    /// Measures one contender once: one sample for each of its lines.
    ///
    /// # Errors
    /// The measurement could not be made: the run is invalid.
    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>>;
    /// What must hold.
    fn bars(&self) -> Vec<Bar> {
        Vec::new()
    }
}

/// A sample and which question of its cell it answers.
pub(super) type Line = (&'static str, Sample);

/// Every cell, in the order of the table.
pub(super) fn all() -> Vec<Box<dyn Cell>> {
    vec![
        Box::new(fan_out::SMALL),
        Box::new(fan_out::LARGE),
        Box::new(linearity::Linearity),
        Box::new(unicast::Unicast),
        Box::new(rooms::Rooms),
        Box::new(idle::Idle),
        Box::new(connect::Connect),
        Box::new(filters::Filters),
        Box::new(calls::Calls),
        Box::new(guests::Guests),
        Box::new(live::Live),
        Box::new(latency::UnderLoad::default()),
        Box::new(slow::SlowReaders),
        Box::new(slow::StuckMemory),
        Box::new(tls::Tls),
        Box::new(dialects::Dialects),
        Box::new(allocations::Allocations),
        Box::new(cluster::Cluster),
        Box::new(skip::Skip),
    ]
}

/// What a cell works with.
pub(super) struct Stage<'a> {
    pub(super) lab: &'a Lab,
    /// Short windows, and fewer connections where the number is not the question.
    pub(super) quick: bool,
    /// No cell opens more connections.
    pub(super) most: Option<u32>,
}

impl Stage<'_> {
    pub(super) fn timing(&self) -> Timing {
        let (warm, window) = if self.quick { (200, 600) } else { (1000, 3000) };
        Timing { warm: Duration::from_millis(warm), window: Duration::from_millis(window) }
    }

    /// One or the other by how much time there is.
    pub(super) fn pick<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }

    /// The same for a number of connections, within what was allowed.
    pub(super) fn connections(&self, quick: u32, whole: u32) -> u32 {
        self.pick(quick, whole).min(self.most.unwrap_or(u32::MAX))
    }

    /// A started server with so many receivers, in no room, of the dialect that servers use by default.
    pub(super) fn set(&self, contender: Contender, receivers: u32) -> anyhow::Result<(Subject, Generator)> {
        self.set_in(contender, receivers, &[DIALECT], |_| Vec::new())
    }

    /// The same with dialects in turn and rooms.
    pub(super) fn set_in(
        &self,
        contender: Contender,
        receivers: u32,
        dialects: &[&str],
        rooms: impl Fn(u32) -> Vec<String>,
    ) -> anyhow::Result<(Subject, Generator)> {
        let subject = self.lab.start(contender)?;
        let mut generator = Generator::new()?;
        generator.connect(&self.lab.dial(&subject, receivers, dialects, rooms)?)?;
        if let Wire::Peer(_) = subject.wire {
            generator.idle(SETTLE)?;
        }
        Ok((subject, generator))
    }

    /// A started server that has seen `warm` receivers, and how `count` more come, each a user in two rooms.
    pub(super) fn lobby(&self, contender: Contender, warm: u32, count: u32) -> anyhow::Result<Lobby> {
        let subject = self.lab.start(contender)?;
        let rooms = |number: u32| vec![room(100, number / 100), room(1_000, number / 1_000)];
        let mut first = self.lab.dial(&subject, warm + count, &[DIALECT], rooms)?;
        let requests = first.requests.split_off(warm as usize);
        let dial = Dial { requests, ..first.clone() };
        let mut generator = Generator::new()?;
        generator.connect(&first)?;
        Ok(Lobby { subject, generator, dial })
    }
}

/// A server that has allocated what it needs once, before the receivers whose coming or waiting is measured.
pub(super) struct Lobby {
    pub(super) subject: Subject,
    pub(super) generator: Generator,
    /// How they come.
    pub(super) dial: Dial,
}

/// Centrifugo answers a connect a moment before what is published reaches the receiver.
const SETTLE: Duration = Duration::from_millis(500);
/// What receivers speak where the dialect is not the question.
pub(super) const DIALECT: &str = "yunque.pb";
