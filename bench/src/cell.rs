//! The cells of the bench and their tools. To add one, add a file below `cells/` and a line in [`all`].

use std::time::Duration;

use crate::cells::plugins::{calls, filters, guests, live};
use crate::cells::{
    allocations, cluster, connect, dialects, fan_out, history, idle, latency, linearity, rooms, skip, slow, tls,
    unicast,
};
use crate::load::drive::Timing;
use crate::load::generator::{Dial, Generator};
use crate::load::wire::{Wire, room};
use crate::results::bar::Bar;
use crate::results::sample::Sample;
use crate::subject::{Contender, Subject, Workspace};

/// One question, measured for each contender.
pub(super) trait Cell {
    /// Name for `--cell`.
    fn name(&self) -> &'static str;
    /// One line for `--list`.
    fn about(&self) -> &'static str;
    /// Contenders of each repetition, in this order.
    fn contenders(&self) -> Vec<Contender>;
    /// True if peers are measured, too.
    fn is_for_peers(&self) -> bool {
        false
    }
    /// A requirement that a machine may lack. Such a cell runs only if `--cell` names it.
    fn needs(&self) -> Option<&'static str> {
        None
    }
    /// Measures one contender once and returns one sample per line.
    ///
    /// # Errors
    /// The measurement failed, so the run is invalid.
    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>>;
    /// Bars of the cell.
    fn bars(&self) -> Vec<Bar> {
        Vec::new()
    }
}

/// A sample with the name of its line in the cell.
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
        Box::new(history::History),
        Box::new(history::resume::Resume),
    ]
}

/// Tools of a cell.
pub(super) struct Stage<'a> {
    pub(super) workspace: &'a Workspace,
    /// Short windows, and fewer connections in cells that are not about the number.
    pub(super) quick: bool,
    /// Maximum connections of any cell.
    pub(super) most: Option<u32>,
}

impl Stage<'_> {
    pub(super) fn timing(&self) -> Timing {
        let (warm, window) = if self.quick { (200, 600) } else { (1000, 3000) };
        Timing { warm: Duration::from_millis(warm), window: Duration::from_millis(window) }
    }

    /// Selects a value by the available time.
    pub(super) fn pick<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }

    /// Like [`pick`](Self::pick), for a number of connections, limited by `most`.
    pub(super) fn connections(&self, quick: u32, whole: u32) -> u32 {
        self.pick(quick, whole).min(self.most.unwrap_or(u32::MAX))
    }

    /// Starts a server with this many receivers, in no room, with the default dialect.
    pub(super) fn set(&self, contender: Contender, receivers: u32) -> anyhow::Result<(Subject, Generator)> {
        self.set_in(contender, receivers, &[DIALECT], |_| Vec::new())
    }

    /// Like [`set`](Self::set), with alternating dialects and with rooms.
    pub(super) fn set_in(
        &self,
        contender: Contender,
        receivers: u32,
        dialects: &[&str],
        rooms: impl Fn(u32) -> Vec<String>,
    ) -> anyhow::Result<(Subject, Generator)> {
        let subject = self.workspace.start(contender)?;
        let mut generator = Generator::new()?;
        generator.connect(&self.workspace.dial(&subject, receivers, dialects, rooms)?)?;
        if let Wire::Peer(_) = subject.wire {
            generator.idle(SETTLE)?;
        }
        Ok((subject, generator))
    }

    /// Starts a server that has served `warm` receivers, and prepares `count` more, each a user in two rooms.
    pub(super) fn connect_setup(&self, contender: Contender, warm: u32, count: u32) -> anyhow::Result<ConnectSetup> {
        let subject = self.workspace.start(contender)?;
        let rooms = |number: u32| vec![room(100, number / 100), room(1_000, number / 1_000)];
        let mut first = self.workspace.dial(&subject, warm + count, &[DIALECT], rooms)?;
        let requests = first.requests.split_off(warm as usize);
        let dial = Dial { requests, ..first.clone() };
        let mut generator = Generator::new()?;
        generator.connect(&first)?;
        Ok(ConnectSetup { subject, generator, dial })
    }
}

/// A server that has made its one-time allocations. The receivers to measure come afterwards.
pub(super) struct ConnectSetup {
    pub(super) subject: Subject,
    pub(super) generator: Generator,
    /// Connection plan of the measured receivers.
    pub(super) dial: Dial,
}

/// Centrifugo answers a connect shortly before publishes reach the receiver.
const SETTLE: Duration = Duration::from_millis(500);
/// Dialect of receivers in cells that are not about dialects.
pub(super) const DIALECT: &str = "yunque.pb";
