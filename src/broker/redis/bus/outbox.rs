//! Converts a batch to commands: envelopes for the same receivers share a record, in order, and each record has its
//! channel.
//!
//! Independent of connections: returns parcels of commands, with the load of each command. A body is encoded once and
//! copied once into the command that carries it.

use std::ops::Range;

use ahash::AHashMap;
use smallvec::SmallVec;

use super::super::names::{Channel, Names};
use super::super::wire::{put_length, put_word};
use crate::broker::record::{MAX_ENVELOPES, Numbering, put_envelope, put_envelopes_head};
use crate::id::Uid;
use crate::message::{Envelope, Target};

/// Maximum bytes of envelopes that share a record.
const PACK: usize = 32 << 10;
/// Maximum bytes and commands of one parcel. Larger batches leave in several parcels.
const PARCEL_BYTES: usize = 256 << 10;
const PARCEL_COMMANDS: usize = 1_000;
/// Approximate bytes of a command besides its bodies.
const AROUND: usize = 128;

/// Indexes of the envelopes that a command carries. `user` is set for a copy to one of several users.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) envelopes: SmallVec<[usize; 1]>,
    pub(super) user: Option<Uid>,
}

/// Loads of the commands of a parcel.
pub(super) type Loads = SmallVec<[Load; 1]>;

/// Commands that are sent together.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    pub(super) commands: Vec<u8>,
    pub(super) loads: Loads,
}

/// Packs one batch.
pub(super) struct Outbox<'a> {
    names: &'a Names,
    numbering: &'a Numbering,
    /// Maximum bytes of a record.
    most: usize,
    /// Bodies of all drafts, one after the other.
    bodies: Vec<u8>,
    /// Records that may take more envelopes.
    drafts: SmallVec<[Draft<'a>; 1]>,
    /// Last draft of each channel.
    open: AHashMap<Channel<'a>, usize>,
    /// Encoded part of a record before its bodies.
    head: Vec<u8>,
    parcel: Parcel,
    /// Envelopes that need a too large record, with its size.
    pub(super) too_large: Vec<(usize, usize)>,
}

struct Draft<'a> {
    channel: Channel<'a>,
    target: &'a Target,
    /// Ranges of the bodies, and their total length.
    bodies: SmallVec<[Range<usize>; 1]>,
    bytes: usize,
    load: Load,
}

/// Appends the PUBLISH command of a record, which is given in pieces.
pub(super) fn put_publish(out: &mut Vec<u8>, names: &Names, channel: Channel<'_>, record: &[&[u8]]) {
    let (kind, name) = channel.words();
    out.reserve(record.iter().map(|piece| piece.len()).sum::<usize>() + names.prefix().len() + name.len() + AROUND);
    put_length(out, b'*', 3);
    put_word(out, &[b"PUBLISH"]);
    put_word(out, &[names.prefix().as_bytes(), kind.as_bytes(), name.as_bytes()]);
    put_word(out, record);
}

impl<'a> Outbox<'a> {
    /// Creates an outbox whose records have at most `most` bytes.
    pub(super) fn new(names: &'a Names, numbering: &'a Numbering, most: usize) -> Self {
        Self {
            names,
            numbering,
            most,
            bodies: Vec::new(),
            drafts: SmallVec::new(),
            open: AHashMap::new(),
            head: Vec::new(),
            parcel: Parcel::default(),
            too_large: Vec::new(),
        }
    }

    /// Adds the envelope with index `at`, to be published on `channel`.
    pub(super) fn add(&mut self, at: usize, envelope: &'a Envelope, channel: Channel<'a>) {
        let body = self.write(envelope);
        if let Some(last) = self.last_of(channel).map(|last| &mut self.drafts[last])
            && last.takes(envelope, body.len())
        {
            last.bytes += body.len();
            last.bodies.push(body);
            last.load.envelopes.push(at);
            return;
        }
        if !self.open.is_empty() {
            self.open.insert(channel, self.drafts.len());
        }
        let load = Load { envelopes: SmallVec::from_buf([at]), user: None };
        let bytes = body.len();
        self.drafts.push(Draft { channel, target: &envelope.target, bodies: SmallVec::from_buf([body]), bytes, load });
    }

    /// Adds copies of the envelope with index `at` for as many of `users` as fit the parcel. Returns the remaining
    /// users.
    pub(super) fn add_copies<'u>(&mut self, at: usize, envelope: &Envelope, users: &'u [Uid]) -> &'u [Uid] {
        // Earlier drafts for these users must stay in front.
        self.seal();
        let body = self.write(envelope);
        // Accepts all copies or none. The longest name gives the largest record.
        let longest = users.iter().max_by_key(|uid| uid.as_str().len());
        let most = longest.map_or(0, |uid| self.write_head(u64::MAX, &Target::User(uid.clone()), 1) + body.len());
        if most > self.most {
            self.too_large.push((at, most));
            self.bodies.clear();
            return &[];
        }
        let mut left = users;
        while let [uid, rest @ ..] = left
            && !self.parcel.is_full()
        {
            let load = Load { envelopes: SmallVec::from_buf([at]), user: Some(uid.clone()) };
            self.put(Channel::User(uid), &Target::User(uid.clone()), std::slice::from_ref(&body), load);
            left = rest;
        }
        self.bodies.clear();
        left
    }

    /// Returns a parcel once enough is added to fill it.
    pub(super) fn full(&mut self) -> Option<Parcel> {
        let is_full = self.parcel.is_full()
            || self.parcel.commands.len() + self.bodies.len() >= PARCEL_BYTES
            || self.parcel.loads.len() + self.drafts.len() >= PARCEL_COMMANDS;
        if is_full { self.rest() } else { None }
    }

    /// Returns everything that is added and not sent.
    pub(super) fn rest(&mut self) -> Option<Parcel> {
        self.seal();
        Some(std::mem::take(&mut self.parcel)).filter(|parcel| !parcel.loads.is_empty())
    }

    /// Encodes the body and returns its range.
    fn write(&mut self, envelope: &Envelope) -> Range<usize> {
        let start = self.bodies.len();
        self.bodies.reserve(envelope.message.approximate_bytes() + AROUND);
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
    fn last_of(&mut self, channel: Channel<'a>) -> Option<usize> {
        if self.open.is_empty() {
            self.open.extend(self.drafts.iter().enumerate().map(|(at, draft)| (draft.channel, at)));
        }
        self.open.get(&channel).copied()
    }

    /// Converts the drafts to commands.
    fn seal(&mut self) {
        self.open.clear();
        self.parcel.commands.reserve(self.bodies.len() + AROUND * self.drafts.len());
        for Draft { channel, target, bodies, load, .. } in std::mem::take(&mut self.drafts) {
            self.put(channel, target, &bodies, load);
        }
        self.bodies.clear();
    }

    fn put(&mut self, channel: Channel<'_>, target: &Target, bodies: &[Range<usize>], load: Load) {
        self.write_head(self.numbering.next(), target, load.envelopes.len());
        let record: SmallVec<[&[u8]; 2]> =
            std::iter::once(&self.head[..]).chain(bodies.iter().map(|body| &self.bodies[body.clone()])).collect();
        let bytes = record.iter().map(|piece| piece.len()).sum();
        if bytes > self.most {
            self.too_large.extend(load.envelopes.iter().map(|at| (*at, bytes)));
            return;
        }
        put_publish(&mut self.parcel.commands, self.names, channel, &record);
        self.parcel.loads.push(load);
    }
}

impl Draft<'_> {
    /// True if the record takes an envelope of this size. A record for a list of users takes only one.
    fn takes(&self, envelope: &Envelope, bytes: usize) -> bool {
        self.bytes + bytes <= PACK
            && self.load.envelopes.len() < MAX_ENVELOPES
            && !matches!(self.target, Target::EveryoneBut(_) | Target::Users(_))
            && *self.target == envelope.target
    }
}

impl Parcel {
    fn is_full(&self) -> bool {
        self.commands.len() >= PARCEL_BYTES || self.loads.len() >= PARCEL_COMMANDS
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

    fn loads(parcel: &Parcel) -> Vec<Vec<usize>> {
        parcel.loads.iter().map(|load| load.envelopes.to_vec()).collect()
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
            outbox.add(at, envelope, Channel::User(if at == 1 { &b } else { &a }));
            assert!(outbox.full().is_none());
        }
        let parcel = outbox.rest().unwrap();
        assert_eq!(loads(&parcel), [vec![0, 2], vec![1], vec![3], vec![4]]);
        assert!(outbox.rest().is_none());
        assert!(parcel.commands.starts_with(b"*3\r\n$7\r\nPUBLISH\r\n$7\r\nsky:u:a\r\n"));
    }

    #[test]
    fn many_users_get_copies_of_one_body_in_parcels_of_bounded_size() {
        let (names, numbering) = (Names::new("sky"), Numbering::new(1));
        let (first, u7) = (envelope(Target::User(uid("u7")), "first"), uid("u7"));
        let mut outbox = Outbox::new(&names, &numbering, 1 << 20);
        outbox.add(0, &first, Channel::User(&u7));
        let users: Vec<Uid> = (0..2_500).map(|n| uid(&format!("u{n}"))).collect();
        let many = envelope(Target::Users(users.clone().into()), "hi");
        let (mut left, mut parcels) = (users.as_slice(), Vec::new());
        while !left.is_empty() {
            left = outbox.add_copies(1, &many, left);
            parcels.extend(outbox.full());
        }
        parcels.extend(outbox.rest());
        let sizes: Vec<usize> = parcels.iter().map(|parcel| parcel.loads.len()).collect();
        assert_eq!(sizes, [1_000, 1_000, 501]);
        assert_eq!(parcels[0].loads[0], Load { envelopes: SmallVec::from_buf([0]), user: None });
        assert_eq!(parcels[2].loads[500].user, Some(uid("u2499")));
    }

    #[test]
    fn a_record_is_bounded() {
        let (names, numbering) = (Names::new("sky"), Numbering::new(1));
        let batch = [
            envelope(Target::Everyone, &"x".repeat(1_000)),
            envelope(Target::EveryoneBut(vec![uid("a")].into()), "hi"),
        ];
        let mut outbox = Outbox::new(&names, &numbering, 1_000);
        batch.iter().enumerate().for_each(|(at, envelope)| outbox.add(at, envelope, Channel::Everyone));
        assert_eq!(loads(&outbox.rest().unwrap()), [vec![1]]);
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
        assert_eq!(loads(&outbox.rest().unwrap()), [vec![0]]);
    }
}
