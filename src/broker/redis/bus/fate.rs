//! Results of the envelopes of a batch: sums the answers to the commands of each envelope.
//!
//! Independent of connections.

use super::outbox::CommandContent;
use super::publisher::Answer;
use crate::fate::Fate;
use crate::id::{NodeId, Uid};
use crate::message::{Envelope, Receipt, Target};

/// Results of one batch.
pub(super) struct Fates(Vec<Tally>);

/// Result of one envelope.
struct Tally {
    /// Number of commands for the envelope. `None` if unknown.
    commands: Option<usize>,
    /// Number of published commands.
    published: usize,
    /// Number of copies that nodes received.
    copies: u32,
    /// Living nodes that the envelope names, and named nodes that are unknown.
    nodes: Vec<NodeId>,
    unknown_nodes: Vec<NodeId>,
    too_large: Option<(usize, usize)>,
    /// Users that the envelope names, each with the number of nodes that received its copy. Filled only if receipts are
    /// wanted.
    users: Vec<(Uid, u32)>,
    wants_receipt: bool,
    receipt: Option<Receipt>,
}

impl Fates {
    /// Starts with nothing sent.
    pub(super) fn of(batch: &[Envelope]) -> Self {
        let fate = |envelope: &Envelope| Tally {
            commands: match &envelope.target {
                _ if !envelope.nodes.is_empty() => None,
                Target::Users(uids) => Some(uids.len()),
                _ => Some(1),
            },
            published: 0,
            copies: 0,
            nodes: Vec::new(),
            unknown_nodes: Vec::new(),
            too_large: None,
            users: Vec::new(),
            wants_receipt: envelope.receipts,
            receipt: None,
        };
        let mut fates = Self(batch.iter().map(fate).collect());
        for (fate, envelope) in fates.0.iter_mut().zip(batch).filter(|(_, envelope)| envelope.receipts) {
            if let Target::User(uid) | Target::Device(uid, _) | Target::ConnectionOf(uid, _) = &envelope.target {
                fate.users.push((uid.clone(), 0));
            }
        }
        fates
    }

    /// Splits the nodes that envelope `at` names into known and unknown ones.
    pub(super) fn set_nodes(&mut self, at: usize, envelope: &Envelope, is_known: impl Fn(&NodeId) -> bool) {
        let (known, unknown) = envelope.nodes.iter().cloned().partition(is_known);
        let fate = &mut self.0[at];
        (fate.nodes, fate.unknown_nodes) = (known, unknown);
        fate.commands = Some(fate.nodes.len());
    }

    /// Known nodes of envelope `at`.
    pub(super) fn nodes(&self, at: usize) -> &[NodeId] {
        &self.0[at].nodes
    }

    /// Notes that envelope `at` needs a record of `bytes`, while `most` are allowed.
    pub(super) fn set_too_large(&mut self, at: usize, bytes: usize, most: usize) {
        self.0[at].too_large = Some((bytes, most));
    }

    /// Adds the answers to the commands with these contents. `answers` is shorter than `contents` if answers are
    /// missing.
    pub(super) fn add_answers(&mut self, contents: &[CommandContent], answers: &[Answer]) {
        for (content, answer) in contents.iter().zip(answers) {
            let Answer::Reached(nodes) = *answer else { continue };
            for at in &content.envelopes {
                let fate = &mut self.0[*at];
                fate.published += 1;
                fate.copies = fate.copies.saturating_add(nodes);
                if !fate.wants_receipt {
                    continue;
                }
                match &content.user {
                    Some(uid) => fate.users.push((uid.clone(), nodes)),
                    None => fate.users.iter_mut().for_each(|(_, reached)| *reached += nodes),
                }
            }
        }
    }

    /// Number of copies of envelope `at` that nodes received.
    pub(super) fn copies(&self, at: usize) -> u32 {
        self.0[at].copies
    }

    /// Users of envelope `at`, each with the number of nodes that received its copy.
    pub(super) fn users(&self, at: usize) -> Vec<(Uid, u32)> {
        self.0[at].users.clone()
    }

    /// Sets the receipt of envelope `at`.
    pub(super) fn set_receipt(&mut self, at: usize, receipt: Receipt) {
        self.0[at].receipt = Some(receipt);
    }

    /// Returns one outcome per envelope.
    pub(super) fn into_fates(self) -> Vec<Fate> {
        self.0.into_iter().map(Tally::into_fate).collect()
    }
}

impl Tally {
    fn into_fate(self) -> Fate {
        if let Some((bytes, most)) = self.too_large {
            return Fate::TooLargeForBroker { bytes, most };
        }
        if self.commands != Some(self.published) {
            return Fate::Unavailable;
        }
        // Copies for several users may reach the same node, so their sum is not a number of nodes.
        let is_known = self.published <= 1 || !self.nodes.is_empty() || self.copies == 0;
        let nodes = is_known.then_some(self.copies);
        Fate::Accepted {
            positions: Vec::new(),
            is_unkept: false,
            receipt: self.receipt,
            nodes,
            unknown_nodes: self.unknown_nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, Origin, Publication};

    fn envelope(target: Target) -> Envelope {
        Publication { receipts: true, ..Publication::new(Message::default(), target, Origin::Http) }.into_envelope(1, 0)
    }

    fn content(at: usize, user: Option<&str>) -> CommandContent {
        CommandContent { envelopes: [at].into_iter().collect(), user: user.map(|uid| uid.parse().unwrap()) }
    }

    #[test]
    fn an_envelope_is_accepted_when_all_of_its_commands_are() {
        let users: Vec<Uid> = ["a", "b"].map(|uid| uid.parse().unwrap()).to_vec();
        let batch = [Target::Users(users.into()), Target::Everyone, Target::User("c".parse().unwrap())].map(envelope);
        let mut fates = Fates::of(&batch);
        fates.add_answers(
            &[content(0, Some("a")), content(0, Some("b")), content(1, None)],
            &[Answer::Reached(1), Answer::Reached(0)],
        );
        fates.add_answers(&[content(2, None)], &[Answer::Reached(2)]);
        assert_eq!(fates.users(0), [("a".parse().unwrap(), 1), ("b".parse().unwrap(), 0)]);
        assert_eq!(fates.users(2), [("c".parse().unwrap(), 2)]);
        let results = fates.into_fates();
        assert!(matches!(results[0], Fate::Accepted { nodes: None, .. }));
        assert_eq!(results[1], Fate::Unavailable, "nobody answered");
        assert!(matches!(results[2], Fate::Accepted { nodes: Some(2), .. }));
    }

    #[test]
    fn one_copy_refused_is_not_accepted_and_too_large_is_told() {
        let users: Vec<Uid> = ["a", "b"].map(|uid| uid.parse().unwrap()).to_vec();
        let batch = [Target::Users(users.into()), Target::Everyone].map(envelope);
        let mut fates = Fates::of(&batch);
        fates.add_answers(&[content(0, Some("a")), content(0, Some("b"))], &[Answer::Reached(1), Answer::Refused]);
        fates.set_too_large(1, 9, 8);
        assert_eq!(fates.into_fates(), [Fate::Unavailable, Fate::TooLargeForBroker { bytes: 9, most: 8 }]);
    }

    #[test]
    fn unknown_nodes_are_reported_in_the_outcome() {
        let mut envelope = envelope(Target::Everyone);
        envelope.nodes = ["n1", "n2"].map(|node| node.parse().unwrap()).to_vec().into();
        let mut fates = Fates::of(std::slice::from_ref(&envelope));
        fates.set_nodes(0, &envelope, |node| node.as_str() == "n1");
        assert_eq!(fates.nodes(0).len(), 1);
        fates.add_answers(&[content(0, None)], &[Answer::Reached(1)]);
        let Fate::Accepted { nodes: Some(1), unknown_nodes, .. } = fates.into_fates().remove(0) else { panic!() };
        assert_eq!(unknown_nodes, ["n2".parse().unwrap()]);
    }
}
