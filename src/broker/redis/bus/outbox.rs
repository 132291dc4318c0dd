//! Converts a batch to commands: envelopes for the same receivers share a record, in order, and each record has its
//! channel.
//!
//! Independent of connections: returns batches of commands, with the content of each command. A body is encoded once
//! and copied once into the command that carries it.

use std::ops::Range;

use ahash::AHashMap;
use smallvec::SmallVec;

use super::super::names::{BusChannel, Names};
use super::super::wire::{put_argument, put_length};
use crate::broker::record::{MAX_ENVELOPES, Numbering, put_envelope, put_envelopes_head};
use crate::id::Uid;
use crate::message::{Envelope, Target};

/// Maximum bytes of envelopes that share a record.
const MAX_PACKED_BYTES: usize = 32 << 10;
/// Maximum bytes and commands of one batch of commands. More leave in several batches.
const MAX_BATCH_BYTES: usize = 256 << 10;
const MAX_BATCH_COMMANDS: usize = 1_000;
/// Approximate bytes of a command besides its bodies.
const COMMAND_OVERHEAD: usize = 128;

/// Indexes of the envelopes that a command carries. `user` is set for a copy to one of several users.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct CommandContent {
    pub(super) envelopes: SmallVec<[usize; 1]>,
    pub(super) user: Option<Uid>,
}

/// Contents of the commands of a batch.
pub(super) type CommandContents = SmallVec<[CommandContent; 1]>;

/// Commands that are sent together.
#[derive(Debug, Default)]
pub(super) struct CommandBatch {
    pub(super) commands: Vec<u8>,
    pub(super) contents: CommandContents,
}

/// Packs one batch.
pub(super) struct Outbox<'a> {
    names: &'a Names,
    numbering: &'a Numbering,
    /// Maximum bytes of a record.
    max_record_bytes: usize,
    /// Bodies of all drafts, one after the other.
    bodies: Vec<u8>,
    /// Records that may take more envelopes.
    drafts: SmallVec<[Draft<'a>; 1]>,
    /// Last draft of each channel.
    open: AHashMap<BusChannel<'a>, usize>,
    /// Encoded part of a record before its bodies.
    head: Vec<u8>,
    command_batch: CommandBatch,
    /// Envelopes that need a too large record, with its size.
    pub(super) too_large: Vec<(usize, usize)>,
}

struct Draft<'a> {
    channel: BusChannel<'a>,
    target: &'a Target,
    /// Ranges of the bodies, and their total length.
    bodies: SmallVec<[Range<usize>; 1]>,
    bytes: usize,
    content: CommandContent,
}

/// Appends the PUBLISH command of a record, which is given in pieces.
pub(super) fn put_publish(out: &mut Vec<u8>, names: &Names, channel: BusChannel<'_>, record: &[&[u8]]) {
    let (kind, name) = channel.parts();
    out.reserve(
        record.iter().map(|piece| piece.len()).sum::<usize>() + names.prefix().len() + name.len() + COMMAND_OVERHEAD,
    );
    put_length(out, b'*', 3);
    put_argument(out, &[b"PUBLISH"]);
    put_argument(out, &[names.prefix().as_bytes(), kind.as_bytes(), name.as_bytes()]);
    put_argument(out, record);
}

impl<'a> Outbox<'a> {
    /// Creates an outbox whose records have at most `max_record_bytes` bytes.
    pub(super) fn new(names: &'a Names, numbering: &'a Numbering, max_record_bytes: usize) -> Self {
        Self {
            names,
            numbering,
            max_record_bytes,
            bodies: Vec::new(),
            drafts: SmallVec::new(),
            open: AHashMap::new(),
            head: Vec::new(),
            command_batch: CommandBatch::default(),
            too_large: Vec::new(),
        }
    }

    /// Adds the envelope with index `at`, to be published on `channel`.
    pub(super) fn add(&mut self, at: usize, envelope: &'a Envelope, channel: BusChannel<'a>) {
        let body = self.write(envelope);
        if let Some(last) = self.last_of(channel).map(|last| &mut self.drafts[last])
            && last.fits(envelope, body.len())
        {
            last.bytes += body.len();
            last.bodies.push(body);
            last.content.envelopes.push(at);
            return;
        }
        if !self.open.is_empty() {
            self.open.insert(channel, self.drafts.len());
        }
        let content = CommandContent { envelopes: SmallVec::from_buf([at]), user: None };
        let bytes = body.len();
        self.drafts.push(Draft {
            channel,
            target: &envelope.target,
            bodies: SmallVec::from_buf([body]),
            bytes,
            content,
        });
    }

    /// Adds copies of the envelope with index `at` for as many of `users` as fit the batch. Returns the remaining
    /// users.
    pub(super) fn add_copies<'u>(&mut self, at: usize, envelope: &Envelope, users: &'u [Uid]) -> &'u [Uid] {
        // Earlier drafts for these users must stay in front.
        self.encode_drafts();
        let body = self.write(envelope);
        // Accepts all copies or none. The longest name gives the largest record.
        let longest = users.iter().max_by_key(|uid| uid.as_str().len());
        let largest = longest.map_or(0, |uid| self.write_head(u64::MAX, &Target::User(uid.clone()), 1) + body.len());
        if largest > self.max_record_bytes {
            self.too_large.push((at, largest));
            self.bodies.clear();
            return &[];
        }
        let mut left = users;
        while let [uid, rest @ ..] = left
            && !self.command_batch.is_full()
        {
            let content = CommandContent { envelopes: SmallVec::from_buf([at]), user: Some(uid.clone()) };
            self.put_record(BusChannel::User(uid), &Target::User(uid.clone()), std::slice::from_ref(&body), content);
            left = rest;
        }
        self.bodies.clear();
        left
    }

    /// Returns a batch of commands once enough is added to fill it.
    pub(super) fn take_full(&mut self) -> Option<CommandBatch> {
        let is_full = self.command_batch.is_full()
            || self.command_batch.commands.len() + self.bodies.len() >= MAX_BATCH_BYTES
            || self.command_batch.contents.len() + self.drafts.len() >= MAX_BATCH_COMMANDS;
        if is_full { self.take_rest() } else { None }
    }

    /// Returns everything that is added and not sent.
    pub(super) fn take_rest(&mut self) -> Option<CommandBatch> {
        self.encode_drafts();
        Some(std::mem::take(&mut self.command_batch)).filter(|command_batch| !command_batch.contents.is_empty())
    }

    /// Encodes the body and returns its range.
    fn write(&mut self, envelope: &Envelope) -> Range<usize> {
        let start = self.bodies.len();
        self.bodies.reserve(envelope.message.approximate_bytes() + COMMAND_OVERHEAD);
        put_envelope(&mut self.bodies, envelope);
        start..self.bodies.len()
    }

    /// Encodes the part of a record before its bodies and returns its length.
    fn write_head(&mut self, sequence: u64, target: &Target, count: usize) -> usize {
        self.head.clear();
        put_envelopes_head(&mut self.head, self.numbering.origin, sequence, target, count);
        self.head.len()
    }

    /// Returns the last draft for `channel`. Most batches have one envelope, so the table is built only for the second
    /// one.
    fn last_of(&mut self, channel: BusChannel<'a>) -> Option<usize> {
        if self.open.is_empty() {
            self.open.extend(self.drafts.iter().enumerate().map(|(at, draft)| (draft.channel, at)));
        }
        self.open.get(&channel).copied()
    }

    /// Converts the drafts to commands.
    fn encode_drafts(&mut self) {
        self.open.clear();
        self.command_batch.commands.reserve(self.bodies.len() + COMMAND_OVERHEAD * self.drafts.len());
        for Draft { channel, target, bodies, content, .. } in std::mem::take(&mut self.drafts) {
            self.put_record(channel, target, &bodies, content);
        }
        self.bodies.clear();
    }

    fn put_record(
        &mut self,
        channel: BusChannel<'_>,
        target: &Target,
        bodies: &[Range<usize>],
        content: CommandContent,
    ) {
        self.write_head(self.numbering.next(), target, content.envelopes.len());
        let record: SmallVec<[&[u8]; 2]> =
            std::iter::once(&self.head[..]).chain(bodies.iter().map(|body| &self.bodies[body.clone()])).collect();
        let bytes = record.iter().map(|piece| piece.len()).sum();
        if bytes > self.max_record_bytes {
            self.too_large.extend(content.envelopes.iter().map(|at| (*at, bytes)));
            return;
        }
        put_publish(&mut self.command_batch.commands, self.names, channel, &record);
        self.command_batch.contents.push(content);
    }
}

impl Draft<'_> {
    /// True if the record takes an envelope of this size. A record for a list of users takes only one.
    fn fits(&self, envelope: &Envelope, bytes: usize) -> bool {
        self.bytes + bytes <= MAX_PACKED_BYTES
            && self.content.envelopes.len() < MAX_ENVELOPES
            && !matches!(self.target, Target::EveryoneBut(_) | Target::Users(_))
            && *self.target == envelope.target
    }
}

impl CommandBatch {
    fn is_full(&self) -> bool {
        self.commands.len() >= MAX_BATCH_BYTES || self.contents.len() >= MAX_BATCH_COMMANDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Device;
    use crate::message::{Message, Origin, Publication};

    fn envelope(target: Target, text: &str) -> Envelope {
        let message = Message { content: [("text", text)].into_iter().collect(), ..Message::default() };
        Publication::new(message, target, Origin::Http).into_envelope(1, 0)
    }

    fn uid(name: &str) -> Uid {
        name.parse().unwrap()
    }

    fn contents(command_batch: &CommandBatch) -> Vec<Vec<usize>> {
        command_batch.contents.iter().map(|content| content.envelopes.to_vec()).collect()
    }

    #[test]
    fn neighbours_on_a_channel_share_a_record_and_keep_their_order() {
        let (names, numbering) = (Names::new("sky"), Numbering::new(1));
        let device = Target::Device(uid("a"), "web".parse::<Device>().unwrap());
        let targets =
            [Target::User(uid("a")), Target::User(uid("b")), Target::User(uid("a")), device, Target::User(uid("a"))];
        let (a, b) = (uid("a"), uid("b"));
        let batch = targets.map(|target| envelope(target, "hi"));
        let mut outbox = Outbox::new(&names, &numbering, 1 << 20);
        for (at, envelope) in batch.iter().enumerate() {
            outbox.add(at, envelope, BusChannel::User(if at == 1 { &b } else { &a }));
            assert!(outbox.take_full().is_none());
        }
        let command_batch = outbox.take_rest().unwrap();
        assert_eq!(contents(&command_batch), [vec![0, 2], vec![1], vec![3], vec![4]]);
        assert!(outbox.take_rest().is_none());
        assert!(command_batch.commands.starts_with(b"*3\r\n$7\r\nPUBLISH\r\n$7\r\nsky:u:a\r\n"));
    }

    #[test]
    fn many_users_get_copies_of_one_body_in_batches_of_bounded_size() {
        let (names, numbering) = (Names::new("sky"), Numbering::new(1));
        let (first, u7) = (envelope(Target::User(uid("u7")), "first"), uid("u7"));
        let mut outbox = Outbox::new(&names, &numbering, 1 << 20);
        outbox.add(0, &first, BusChannel::User(&u7));
        let users: Vec<Uid> = (0..2_500).map(|n| uid(&format!("u{n}"))).collect();
        let many = envelope(Target::Users(users.clone().into()), "hi");
        let (mut left, mut batches) = (users.as_slice(), Vec::new());
        while !left.is_empty() {
            left = outbox.add_copies(1, &many, left);
            batches.extend(outbox.take_full());
        }
        batches.extend(outbox.take_rest());
        let sizes: Vec<usize> = batches.iter().map(|command_batch| command_batch.contents.len()).collect();
        assert_eq!(sizes, [1_000, 1_000, 501]);
        assert_eq!(batches[0].contents[0], CommandContent { envelopes: SmallVec::from_buf([0]), user: None });
        assert_eq!(batches[2].contents[500].user, Some(uid("u2499")));
    }

    #[test]
    fn a_record_is_bounded() {
        let (names, numbering) = (Names::new("sky"), Numbering::new(1));
        let batch = [
            envelope(Target::Everyone, &"x".repeat(1_000)),
            envelope(Target::EveryoneBut(vec![uid("a")].into()), "hi"),
        ];
        let mut outbox = Outbox::new(&names, &numbering, 1_000);
        batch.iter().enumerate().for_each(|(at, envelope)| outbox.add(at, envelope, BusChannel::Everyone));
        assert_eq!(contents(&outbox.take_rest().unwrap()), [vec![1]]);
        assert!(matches!(outbox.too_large[..], [(0, bytes)] if bytes > 1_000));
    }

    #[test]
    fn copies_are_all_small_enough_or_none_is_sent() {
        let (names, numbering) = (Names::new("sky"), Numbering::new(1));
        let users = [uid("a"), uid(&"b".repeat(100))];
        let many = envelope(Target::Users(users.to_vec().into()), &"x".repeat(800));
        let mut outbox = Outbox::new(&names, &numbering, 900);
        assert!(outbox.add_copies(0, &many, &users[..1]).is_empty() && outbox.too_large.is_empty());
        assert!(outbox.add_copies(1, &many, &users).is_empty());
        assert!(matches!(outbox.too_large[..], [(1, bytes)] if bytes > 900));
        assert_eq!(contents(&outbox.take_rest().unwrap()), [vec![0]]);
    }
}
