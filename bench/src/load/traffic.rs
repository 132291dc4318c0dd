//! Selects the receiver of each message and numbers every stream, so that receivers detect missing messages.

use super::payload::{Mark, SIZE};
use super::wire::{Item, To, Wire};

/// Content of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// This many messages, each to everyone.
    FanOut { burst: u32 },
    /// This many messages, each to a random user.
    Unicast { batch: u32 },
    /// This many messages to one room of this size, with rooms in turn.
    Room { size: u32, burst: u32 },
}

/// Generates requests. Receivers must start with sequence 0.
#[derive(Debug)]
pub(crate) struct Traffic {
    shape: Shape,
    wire: Wire,
    receivers: u32,
    /// The last `stuck` receivers do not read, so no deliveries to them are expected.
    stuck: u32,
    /// Bytes of each text.
    size: usize,
    /// The next sequence: one for everyone, one per room, or one per user.
    sequences: Vec<u32>,
    turn: u32,
    random: u64,
    items: Vec<Item>,
}

impl Traffic {
    pub(crate) fn new(shape: Shape, wire: Wire, receivers: u32, stuck: u32) -> Self {
        assert!(stuck == 0 || matches!(shape, Shape::FanOut { .. }), "stuck receivers are for fan-outs");
        let streams = match shape {
            Shape::FanOut { .. } => 1,
            Shape::Unicast { .. } => receivers,
            Shape::Room { size, .. } => receivers / size,
        };
        let (sequences, random) = (vec![0; streams as usize], 0x9e37_79b9_7f4a_7c15);
        Self { shape, wire, receivers, stuck, size: SIZE, sequences, turn: 0, random, items: Vec::new() }
    }

    /// The same with texts of `size` bytes.
    pub(crate) fn with_texts_of(self, size: usize) -> Self {
        Self { size, ..self }
    }

    /// Messages per request.
    pub(crate) fn messages(&self) -> u32 {
        match self.shape {
            Shape::FanOut { burst } | Shape::Room { burst, .. } => burst,
            Shape::Unicast { batch } => batch,
        }
    }

    /// Expected deliveries per request.
    pub(crate) fn deliveries(&self) -> u64 {
        let each = match self.shape {
            Shape::FanOut { .. } => self.receivers - self.stuck,
            Shape::Unicast { .. } => 1,
            Shape::Room { size, .. } => size,
        };
        u64::from(each) * u64::from(self.messages())
    }

    /// Appends the next request of publishing connection `pipe` of `pipes`. All messages to one user take the same
    /// connection, because order is only guaranteed within a connection.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>, pipe: u32, pipes: u32, stamp: u64) {
        let mut items = std::mem::take(&mut self.items);
        items.clear();
        let turn = self.turn;
        self.turn += 1;
        for _ in 0..self.messages() {
            let (stream, to) = match self.shape {
                Shape::FanOut { .. } => (0, To::Everyone),
                Shape::Unicast { .. } => {
                    let user = self.user(pipe, pipes);
                    (user, To::User(user))
                }
                Shape::Room { size, .. } => {
                    let number = turn % (self.receivers / size);
                    (number, To::Room { size, first: number * size })
                }
            };
            let next = &mut self.sequences[stream as usize];
            items.push(Item { to, mark: Mark { sequence: *next, stamp }, size: self.size });
            *next += 1;
        }
        self.wire.request(out, &items, self.receivers);
        self.items = items;
    }

    /// A random user number with remainder `pipe` modulo `pipes`.
    fn user(&mut self, pipe: u32, pipes: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let own = u64::from((self.receivers - pipe).div_ceil(pipes));
        let pick = u32::try_from((self.random >> 16) % own).expect("below a u32");
        pick * pipes + pipe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_messages_times_receivers_that_read() {
        let of = |shape, stuck| Traffic::new(shape, Wire::Push, 1000, stuck).deliveries();
        assert_eq!(of(Shape::FanOut { burst: 16 }, 10), 16 * 990);
        assert_eq!(of(Shape::Unicast { batch: 100 }, 0), 100);
        assert_eq!(of(Shape::Room { size: 10, burst: 16 }, 0), 160);
    }

    #[test]
    fn a_user_has_one_pipe() {
        let mut traffic = Traffic::new(Shape::Unicast { batch: 1 }, Wire::Push, 37, 0);
        for round in 0..1000 {
            let user = traffic.user(round % 16, 16);
            assert!(user < 37 && user % 16 == round % 16, "{user}");
        }
    }

    #[test]
    fn rooms_take_turns_and_each_counts_for_itself() {
        let mut traffic = Traffic::new(Shape::Room { size: 10, burst: 2 }, Wire::Push, 20, 0);
        for _ in 0..3 {
            traffic.next(&mut Vec::new(), 0, 1, 0);
        }
        assert_eq!(traffic.sequences, [4, 2]);
    }
}
