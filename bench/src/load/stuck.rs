//! Receivers that do not read or read too slowly: fills their queues and checks them at the end.

use anyhow::{bail, ensure};

use super::drive::DELIVERY_TIMEOUT;
use super::generator::Generator;
use super::payload::{Mark, SIZE};
use super::wire::{Item, To};
use crate::subject::Subject;

/// Messages per request.
const LIST: u32 = 200;
/// More messages than sockets and queue can hold together.
const MAX_MESSAGES: u32 = 200_000;
/// Half of `queue.frames`.
const HALF_A_QUEUE: u32 = 2048;

/// The last `count` of `receivers`, which were told to slow down or to stop reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlowReceivers {
    pub(crate) receivers: u32,
    pub(crate) count: u32,
}

impl SlowReceivers {
    /// Fills each one up to about half of its queue. The last one is filled until it is closed, to measure the limit;
    /// it does not count afterwards.
    pub(crate) fn fill_queues(self, generator: &mut Generator, subject: &Subject) -> anyhow::Result<()> {
        generator.open_pipes(subject.publish, subject.wire, 1)?;
        let last = self.receivers - 1;
        let whole = self.fill(generator, subject, last, MAX_MESSAGES)?;
        if generator.losses(0).full == 0 {
            bail!("a receiver that reads nothing took {whole} messages and was not closed");
        }
        generator.open_pipes(subject.publish, subject.wire, 1)?;
        for user in self.receivers - self.count..last {
            self.fill(generator, subject, user, whole.saturating_sub(HALF_A_QUEUE))?;
        }
        Ok(())
    }

    /// Pushes to one user until the server has no room, or up to `most` messages; returns their number.
    fn fill(self, generator: &mut Generator, subject: &Subject, user: u32, most: u32) -> anyhow::Result<u32> {
        let mut sent = 0;
        while sent < most && generator.losses(0).full == 0 {
            self.push(generator, subject, (0..LIST).map(|_| user), SIZE)?;
            sent += LIST;
        }
        Ok(sent)
    }

    /// Pushes `each` messages to every slow receiver, one each per request, and calls `look` after each request.
    pub(crate) fn push_to_all(
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
        ensure!(generator.losses(0).full > 0, "{each} messages of {size} bytes filled no queue");
        Ok(())
    }

    /// Fails if any except the last has been closed meanwhile, because a closed one costs nothing.
    pub(crate) fn check(self, generator: &mut Generator, subject: &Subject) -> anyhow::Result<()> {
        generator.open_pipes(subject.publish, subject.wire, 1)?;
        self.push(generator, subject, self.receivers - self.count..self.receivers - 1, SIZE)?;
        ensure!(generator.losses(0).offline == 0, "the server closed the receivers that read too slowly");
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
            generator.turn(Some(DELIVERY_TIMEOUT))?;
        }
        Ok(())
    }
}
