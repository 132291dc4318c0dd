//! Result of a publish: [`Fate`], told with the same code and the same words to clients, back ends and intakes.
//!
//! Filters, brokers and the node each set some of the fates. Independent of all three.

use std::fmt;
use std::sync::Arc;

use crate::claim::Refusal;
use crate::code::Code;
use crate::id::NodeId;
use crate::message::{MAX_HOPS, Position, Receipt};
use crate::protocol::TooLarge;

/// Result of one publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Id of the message.
    pub id: i64,
    /// Plugins that replaced the message, in order.
    pub replaced_by: Vec<Arc<str>>,
    /// Result of the publish.
    pub fate: Fate,
}

/// Final state of a published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The broker accepted the message.
    Accepted {
        /// Positions in the target's streams: one for each user of a list, none if the message is not kept.
        positions: Vec<Position>,
        /// True if the message was to be kept but the history failed, and it was delivered all the same
        /// (`history.on_failure: deliver`).
        is_unkept: bool,
        /// Delivery counts, if the broker knows them at once or was asked to wait for them
        /// ([`crate::message::Envelope::receipts`]).
        receipt: Option<Receipt>,
        /// Number of nodes reached, if the broker knows.
        nodes: Option<u32>,
        /// Nodes that the message names and the cluster does not know.
        unknown_nodes: Vec<NodeId>,
    },
    /// A plugin rejected the message.
    Rejected {
        /// Name of the plugin.
        plugin: Arc<str>,
        /// Refusal of the plugin.
        refusal: Refusal,
    },
    /// A plugin dropped the message.
    Dropped {
        /// Name of the plugin.
        plugin: Arc<str>,
    },
    /// A filter failed to judge the message, so it was neither passed nor rejected.
    Unjudged(Unjudged),
    /// A client protocol cannot carry the message.
    TooLarge(TooLarge),
    /// The message exceeds the record limit of the broker. No part of it was sent.
    TooLargeForBroker {
        /// Size that its record would have, in bytes.
        bytes: usize,
        /// Largest size of a record.
        most: usize,
    },
    /// A chain of plugin pushes was longer than [`MAX_HOPS`].
    TooManyHops,
    /// The broker did not confirm the message in time. It was not accepted and is not stored. Copies already in flight
    /// are not recalled: none, some or all of them may still arrive, each at most once.
    Unavailable,
}

/// Why a filter could not judge an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unjudged {
    /// The plugin that failed.
    pub plugin: Arc<str>,
    /// Description of the failure for the log and for dead letters. Clients receive a fixed text.
    pub reason: String,
    /// True while the plugin cannot judge any message: its circuit is open, its file is gone, or the node cannot do its
    /// part. A publisher that can wait should retry later.
    pub is_general: bool,
}

impl Fate {
    /// An accepted message of which nothing else is known.
    #[must_use]
    pub const fn accepted() -> Self {
        Self::Accepted {
            positions: Vec::new(),
            is_unkept: false,
            receipt: None,
            nodes: None,
            unknown_nodes: Vec::new(),
        }
    }

    /// Code for the publisher. A dropped message counts as success.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Accepted { .. } | Self::Dropped { .. } => Code::OK,
            Self::Rejected { refusal, .. } => refusal.code,
            Self::TooLarge(_) | Self::TooLargeForBroker { .. } => Code::TOO_LARGE,
            Self::TooManyHops => Code::LOOP,
            Self::Unjudged(_) | Self::Unavailable => Code::UNAVAILABLE,
        }
    }

    /// Adds a position of an accepted message.
    pub fn add_position(&mut self, position: Position) {
        if let Self::Accepted { positions, .. } = self {
            positions.push(position);
        }
    }

    /// Notes that a copy of an accepted message was delivered without being kept. No position is told then.
    pub fn set_unkept(&mut self) {
        if let Self::Accepted { positions, is_unkept, .. } = self {
            positions.clear();
            *is_unkept = true;
        }
    }

    /// Adds the receipt of one copy of an accepted message.
    pub fn add_receipt(&mut self, more: Receipt) {
        if let Self::Accepted { receipt, .. } = self {
            receipt.get_or_insert_default().add(more);
        }
    }

    /// True if the node could not accept or judge the message. The decision of a plugin is no failure.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        match self {
            Self::Accepted { .. } | Self::Rejected { .. } | Self::Dropped { .. } => false,
            Self::Unjudged(_)
            | Self::TooLarge(_)
            | Self::TooLargeForBroker { .. }
            | Self::TooManyHops
            | Self::Unavailable => true,
        }
    }
}

/// The text for the publisher. Each ingress puts the name of its field before it.
impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { .. } => f.write_str("accepted"),
            Self::Rejected { refusal, .. } => f.write_str(&refusal.reason),
            Self::Dropped { .. } => f.write_str("dropped"),
            Self::Unjudged(Unjudged { plugin, .. }) => {
                write!(f, "plugin {plugin} could not judge the message, so it was not sent: try again later")
            }
            Self::TooLarge(too_large) => too_large.fmt(f),
            Self::TooLargeForBroker { bytes, most } => {
                write!(f, "expected at most {most} bytes in a record of the broker, got {bytes}")
            }
            Self::TooManyHops => write!(f, "expected at most {MAX_HOPS} hops between plugins, got more"),
            Self::Unavailable => f.write_str("the broker did not confirm the message in time: it may still arrive"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Dialect;

    #[test]
    fn each_fate_has_its_code_and_text() {
        let accepted = Fate::accepted();
        let refusal = Refusal::new(Code::new(451), "not here");
        let unjudged = Unjudged { plugin: "guard".into(), reason: "used up its CPU time".into(), is_general: false };
        let too_large = TooLarge { dialect: Dialect::Cim, bytes: 70_000, limit: 65_535 };
        let rows = [
            (accepted, "200", "accepted", false),
            (Fate::Dropped { plugin: "guard".into() }, "200", "dropped", false),
            (Fate::Rejected { plugin: "guard".into(), refusal }, "451", "not here", false),
            (Fate::TooLarge(too_large), "413", "expected at most 65535 bytes in the cim dialect, got 70000", true),
            (
                Fate::TooLargeForBroker { bytes: 9, most: 8 },
                "413",
                "expected at most 8 bytes in a record of the broker, got 9",
                true,
            ),
            (Fate::TooManyHops, "508", "expected at most 4 hops between plugins, got more", true),
            (
                Fate::Unjudged(unjudged),
                "503",
                "plugin guard could not judge the message, so it was not sent: try again later",
                true,
            ),
            (Fate::Unavailable, "503", "the broker did not confirm the message in time: it may still arrive", true),
        ];
        for (fate, code, words, is_failure) in rows {
            assert_eq!(
                (fate.code().as_str(), fate.to_string(), fate.is_failure()),
                (code, words.to_owned(), is_failure)
            );
        }
    }
}
