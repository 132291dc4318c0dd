//! A batch becomes commands: what is for the same receivers goes as one record, in order, each record by its channel.
//!
//! Knows no connection: parcels of commands come out, each with whom of the batch its commands carry.

use ahash::{AHashMap, RandomState};
use smallvec::SmallVec;

use super::names::Names;
use super::wire::put_command;
use crate::broker::record::{self, MAX_ENVELOPES, Numbering, put_envelope};
use crate::id::Uid;
use crate::message::{Envelope, Target};

/// Envelopes share a record up to so many bytes.
const PACK: usize = 32 << 10;
/// Most bytes and commands of one parcel: larger batches leave in several.
const PARCEL_BYTES: usize = 256 << 10;
const PARCEL_COMMANDS: usize = 1_000;

/// Which envelopes of the batch one command carries, and for which one user, if it is a copy for one of several.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) envelopes: SmallVec<[usize; 1]>,
    pub(super) user: Option<Uid>,
}

/// Commands that leave together.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    pub(super) commands: Vec<u8>,
    pub(super) loads: Vec<Load>,
}

/// Packs one batch.
pub(super) struct Outbox<'a> {
    names: &'a Names,
    numbering: &'a Numbering,
    /// Most bytes of a record.
    most: usize,
    /// Records that may take more, and the last one of each channel.
    drafts: Vec<Draft>,
    open: AHashMap<u64, usize>,
    hasher: RandomState,
    drafted: usize,
    parcel: Parcel,
    /// Envelopes whose record would be too large, with its size.
    pub(super) too_large: Vec<(usize, usize)>,
}

struct Draft {
    channel: String,
    target: Target,
    bytes: Vec<u8>,
    load: Load,
}

impl<'a> Outbox<'a> {
    /// Records have at most `most` bytes.
    pub(super) fn new(names: &'a Names, numbering: &'a Numbering, most: usize) -> Self {
        Self {
            names,
            numbering,
            most,
            drafts: Vec::new(),
            open: AHashMap::new(),
            hasher: RandomState::new(),
            drafted: 0,
            parcel: Parcel::default(),
            too_large: Vec::new(),
        }
    }

    /// Adds envelope number `at` of the batch, to be published on `channel`.
    pub(super) fn add(&mut self, at: usize, envelope: &Envelope, channel: String) {
        let mut bytes = Vec::with_capacity(envelope.message.approximate_bytes() + 64);
        put_envelope(&mut bytes, envelope);
        self.drafted += bytes.len();
        // By its hash: two channels with one hash part where they would share a record, no more.
        let key = self.hasher.hash_one(&channel);
        let last = self.open.get(&key).map(|&last| &mut self.drafts[last]);
        if let Some(last) = last.filter(|last| last.channel == channel && last.takes(envelope, bytes.len())) {
            last.bytes.extend_from_slice(&bytes);
            last.load.envelopes.push(at);
            return;
        }
        self.open.insert(key, self.drafts.len());
        let load = Load { envelopes: SmallVec::from_buf([at]), user: None };
        self.drafts.push(Draft { channel, target: envelope.target.clone(), bytes, load });
    }

    /// Adds copies of envelope number `at` for as many of `users` as a parcel takes; the rest of them.
    pub(super) fn add_copies<'u>(&mut self, at: usize, envelope: &Envelope, users: &'u [Uid]) -> &'u [Uid] {
        // What was drafted before, for whichever of them, stays before.
        self.seal();
        let mut bytes = Vec::with_capacity(envelope.message.approximate_bytes() + 64);
        put_envelope(&mut bytes, envelope);
        for (index, uid) in users.iter().enumerate() {
            if self.parcel.is_full() {
                return &users[index..];
            }
            let load = Load { envelopes: SmallVec::from_buf([at]), user: Some(uid.clone()) };
            self.put(&self.names.user(uid), &Target::User(uid.clone()), &bytes, load);
        }
        &[]
    }

    /// What was added, once it is enough for a parcel.
    pub(super) fn full(&mut self) -> Option<Parcel> {
        let is_full = self.parcel.is_full()
            || self.parcel.commands.len() + self.drafted >= PARCEL_BYTES
            || self.parcel.loads.len() + self.drafts.len() >= PARCEL_COMMANDS;
        if is_full { self.rest() } else { None }
    }

    /// What was added and has not left.
    pub(super) fn rest(&mut self) -> Option<Parcel> {
        self.seal();
        Some(std::mem::take(&mut self.parcel)).filter(|parcel| !parcel.loads.is_empty())
    }

    /// Drafts become commands.
    fn seal(&mut self) {
        self.open.clear();
        self.drafted = 0;
        for Draft { channel, target, bytes, load } in std::mem::take(&mut self.drafts) {
            self.put(&channel, &target, &bytes, load);
        }
    }

    fn put(&mut self, channel: &str, target: &Target, bytes: &[u8], load: Load) {
        let sequence = self.numbering.next();
        let record = record::envelopes(self.numbering.origin, sequence, target, load.envelopes.len(), bytes);
        if record.len() > self.most {
            self.too_large.extend(load.envelopes.iter().map(|at| (*at, record.len())));
            return;
        }
        put_command(&mut self.parcel.commands, &[b"PUBLISH", channel.as_bytes(), &record]);
        self.parcel.loads.push(load);
    }
}

impl Draft {
    /// Whether an envelope with so many bytes goes into the same record. A list of users makes a record large enough.
    fn takes(&self, envelope: &Envelope, bytes: usize) -> bool {
        self.bytes.len() + bytes <= PACK
            && self.load.envelopes.len() < MAX_ENVELOPES
            && !matches!(self.target, Target::EveryoneBut(_) | Target::Users(_))
            && self.target == envelope.target
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
        let mut outbox = Outbox::new(&names, &numbering, 1 << 20);
        let device = Target::Device(uid("a"), "web".parse::<Device>().unwrap());
        let targets =
            [Target::User(uid("a")), Target::User(uid("b")), Target::User(uid("a")), device, Target::User(uid("a"))];
        for (at, target) in targets.into_iter().enumerate() {
            let channel = if at == 1 { "sky:u:b" } else { "sky:u:a" };
            outbox.add(at, &envelope(target, "hi"), channel.to_owned());
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
        let mut outbox = Outbox::new(&names, &numbering, 1 << 20);
        outbox.add(0, &envelope(Target::User(uid("u7")), "first"), "sky:u:u7".to_owned());
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
        let mut outbox = Outbox::new(&names, &numbering, 1_000);
        outbox.add(0, &envelope(Target::Everyone, &"x".repeat(1_000)), names.everyone());
        outbox.add(1, &envelope(Target::EveryoneBut(vec![uid("a")].into()), "hi"), names.everyone());
        assert_eq!(loads(&outbox.rest().unwrap()), [vec![1]]);
        assert!(matches!(outbox.too_large[..], [(0, bytes)] if bytes > 1_000));
    }
}
