//! Receivers that do not read, or too slowly: filled up to where it hurts, and looked after in the end.

use anyhow::{bail, ensure};

use super::drive::PATIENCE;
use super::generator::Generator;
use super::payload::{Mark, SIZE};
use super::subject::Subject;
use super::wire::{Item, To};

/// Messages of one request.
const LIST: u32 = 200;
/// More than sockets and queue together can hold.
const MOST: u32 = 200_000;
/// Of `queue.frames`.
const HALF_A_QUEUE: u32 = 2048;

/// The last receivers of a server: `count` of `receivers`, which were told to slow down or to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Laggards {
    pub(super) receivers: u32,
    pub(super) count: u32,
}

impl Laggards {
    /// Fills each up to about half of what the node keeps for it. The last one is closed to find out how much that is,
    /// and counts for nothing from then on.
    pub(super) fn clog(self, generator: &mut Generator, subject: &Subject) -> anyhow::Result<()> {
        generator.open_pipes(subject.publish, subject.wire, 1)?;
        let last = self.receivers - 1;
        let whole = self.fill(generator, subject, last, MOST)?;
        if generator.losses(0).full == 0 {
            bail!("a receiver that reads nothing took {whole} messages and was not closed");
        }
        generator.open_pipes(subject.publish, subject.wire, 1)?;
        for user in self.receivers - self.count..last {
            self.fill(generator, subject, user, whole.saturating_sub(HALF_A_QUEUE))?;
        }
        Ok(())
    }

    /// Pushes to one until the server has no room for it, or `most` messages; says how many those were.
    fn fill(self, generator: &mut Generator, subject: &Subject, user: u32, most: u32) -> anyhow::Result<u32> {
        let mut sent = 0;
        while sent < most && generator.losses(0).full == 0 {
            self.push(generator, subject, (0..LIST).map(|_| user), SIZE)?;
            sent += LIST;
        }
        Ok(sent)
    }

    /// Pushes `each` messages to every one, one each in a request, and looks at the server after each request.
    pub(super) fn flood(
        self,
        generator: &mut Generator,
        subject: &Subject,
        each: u32,
        size: usize,
        mut look: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        generator.open_pipes(subject.publish, subject.wire, 1)?;
        for _ in 0..each {
            self.push(generator, subject, self.receivers - self.count..self.receivers, size)?;
            look()?;
        }
        ensure!(generator.losses(0).full > 0, "{each} messages of {size} bytes have filled nobody's queue");
        Ok(())
    }

    /// Fails if one but the last has been closed meanwhile: from then on it would have cost nothing.
    pub(super) fn check(self, generator: &mut Generator, subject: &Subject) -> anyhow::Result<()> {
        generator.open_pipes(subject.publish, subject.wire, 1)?;
        self.push(generator, subject, self.receivers - self.count..self.receivers - 1, SIZE)?;
        ensure!(generator.losses(0).offline == 0, "the server has closed those that read too little");
        Ok(())
    }

    fn push(
        self,
        generator: &mut Generator,
        subject: &Subject,
        users: impl Iterator<Item = u32>,
        size: usize,
    ) -> anyhow::Result<()> {
        let mark = Mark { sequence: 0, stamp: 0 };
        let items: Vec<Item> = users.map(|user| Item { to: To::User(user), mark, size }).collect();
        generator.send(0, |out| subject.wire.request(out, &items, self.receivers))?;
        while generator.in_flight(0) > 0 {
            generator.turn(Some(PATIENCE))?;
        }
        Ok(())
    }
}
