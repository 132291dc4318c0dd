//! Sources of calls: the parties on behalf of which plugins are called.
//!
//! A source is the user. Before the bind, it is the client's address with a hash of its credential. For back ends, it
//! is the API key, the intake or the plugin that pushes. The circuit counts sources, and a source with failing calls is
//! set apart.

use std::fmt;
use std::hash::Hash;
use std::sync::LazyLock;

use ahash::RandomState;

use crate::message::{Envelope, Origin};
use crate::plugin::guest::timers::DueTimer;
use crate::plugin::{Call, Claim, Event, Transport};

/// Longest part of a name that is shown, bytes.
const MAX_SHOWN: usize = 128;

/// Drawn anew for each process, so that a client cannot choose a name with the hash of another one.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Source of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::plugin) enum CallSource<'a> {
    /// A bound client.
    User(&'a str),
    /// A client before its bind: its address and its credential.
    Client { address: &'a str, credential: &'a str },
    /// An API key (empty if none are configured), and the sender that its message names.
    Key { name: &'a str, sender: &'a str },
    /// An intake, and the sender that the record's message names.
    Intake { name: &'a str, sender: &'a str },
    /// A plugin's push, and the sender that its message names.
    Plugin { name: &'a str, sender: &'a str },
    /// A timer of the plugin itself.
    Timer(&'a str),
}

/// The hashes that are kept of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) struct SourceId {
    /// Identity of a source that is set apart.
    pub(in crate::plugin) source_hash: u64,
    /// Identity that counts once for the circuit: all senders of a key are one.
    pub(in crate::plugin) circuit_hash: u64,
    /// Group of the source: many of the groups seen must fail, too. All credentials of an address are one group.
    pub(in crate::plugin) group_hash: u64,
    /// False if it cannot be set apart without hitting others.
    pub(in crate::plugin) can_be_set_apart: bool,
}

impl<'a> CallSource<'a> {
    /// Source of a publish.
    pub(in crate::plugin) fn publisher(envelope: &'a Envelope) -> Self {
        if let Some(from) = &envelope.from {
            return Self::User(from.uid.as_str());
        }
        let (name, sender) = (envelope.back_end.as_deref().unwrap_or_default(), envelope.message.sender.as_str());
        match envelope.origin {
            Origin::Client | Origin::Http => Self::Key { name, sender },
            Origin::Broker => Self::Intake { name, sender },
            Origin::Plugin => Self::Plugin { name, sender },
        }
    }

    /// Source of a request for admission.
    pub(in crate::plugin) fn claimant(transport: &'a Transport, claim: &'a Claim) -> Self {
        match &transport.bound {
            Some(uid) => Self::User(uid.as_str()),
            None => {
                let credential = claim.token.as_deref().or(claim.uid.as_deref()).unwrap_or_default();
                Self::Client { address: &transport.remote, credential }
            }
        }
    }

    /// Source of a SendBody.
    pub(in crate::plugin) fn caller(call: &'a Call) -> Self {
        match &call.caller {
            Some(identity) => Self::User(identity.uid.as_str()),
            None => Self::Client { address: &call.remote, credential: "" },
        }
    }

    /// Source of an event: its user.
    pub(in crate::plugin) fn subject(event: &'a Event) -> Self {
        Self::User(event.uid().as_str())
    }

    /// Source of a timer.
    pub(in crate::plugin) fn timer(due: &'a DueTimer) -> Self {
        Self::Timer(&due.name)
    }

    /// The hashes that are kept of it.
    pub(in crate::plugin) fn id(&self) -> SourceId {
        let source_hash = hash(self);
        let group_hash = match self {
            Self::User(_) => source_hash,
            Self::Client { address, .. } => hash(&Self::Client { address, credential: "" }),
            Self::Key { name, .. } => hash(&Self::Key { name, sender: "" }),
            Self::Intake { name, .. } => hash(&Self::Intake { name, sender: "" }),
            Self::Plugin { name, .. } => hash(&Self::Plugin { name, sender: "" }),
            Self::Timer(_) => hash(&Self::Timer("")),
        };
        let circuit_hash = if matches!(self, Self::Client { .. }) { source_hash } else { group_hash };
        // An intake or a plugin speaks for many senders, which cannot be told apart without a sender's name. A record
        // that fails in an intake is dead-lettered instead.
        let is_many = matches!(self, Self::Intake { sender: "", .. } | Self::Plugin { sender: "", .. });
        SourceId { source_hash, circuit_hash, group_hash, can_be_set_apart: !is_many }
    }
}

fn hash(source: &impl Hash) -> u64 {
    HASHER.hash_one(source)
}

/// Text for an operator: never a credential.
impl fmt::Display for CallSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let back_end = |f: &mut fmt::Formatter<'_>, kind: &str, name: &str, sender: &str| match (name, sender) {
            ("", "") => write!(f, "{kind}"),
            ("", sender) => write!(f, "{kind}, sender {}", shown(sender)),
            (name, "") => write!(f, "{kind} {}", shown(name)),
            (name, sender) => write!(f, "{kind} {}, sender {}", shown(name), shown(sender)),
        };
        match *self {
            Self::User(uid) => write!(f, "user {}", shown(uid)),
            Self::Client { address, credential: "" } => write!(f, "address {}", shown(address)),
            Self::Client { address, credential } => {
                // Tells two clients of one address apart without revealing their credentials.
                write!(f, "address {}, credential #{:04x}", shown(address), hash(&credential) & 0xffff)
            }
            Self::Key { name: "", sender } => back_end(f, "the push API", "", sender),
            Self::Key { name, sender } => back_end(f, "key", name, sender),
            Self::Intake { name, sender } => back_end(f, "intake", name, sender),
            Self::Plugin { name, sender } => back_end(f, "plugin", name, sender),
            Self::Timer(name) => write!(f, "timer {}", shown(name)),
        }
    }
}

/// A name without control characters, cut if it is long.
fn shown(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(MAX_SHOWN)];
    cut.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_of_a_key_are_set_apart_singly_but_share_a_circuit_source() {
        let of = |name, sender| CallSource::Key { name, sender }.id();
        let (a, b, other) = (of("shop", "a"), of("shop", "b"), of("game", "a"));
        assert!(a.source_hash != b.source_hash && a.circuit_hash == b.circuit_hash && a.group_hash == b.group_hash);
        assert!(a.circuit_hash != other.circuit_hash && a.source_hash != other.source_hash);
    }

    #[test]
    fn credentials_of_an_address_are_sources_of_one_group() {
        let of = |address, credential| CallSource::Client { address, credential }.id();
        let (a, b, other) = (of("192.0.2.1", "a"), of("192.0.2.1", "b"), of("192.0.2.2", "a"));
        assert!(a.source_hash != b.source_hash && a.circuit_hash != b.circuit_hash && a.group_hash == b.group_hash);
        assert!(a.source_hash != other.source_hash && a.group_hash != other.group_hash);
    }

    #[test]
    fn source_without_a_sender_cannot_be_set_apart() {
        assert!(!CallSource::Intake { name: "kafka chat", sender: "" }.id().can_be_set_apart);
        assert!(CallSource::Intake { name: "kafka chat", sender: "7" }.id().can_be_set_apart);
        assert!(CallSource::Key { name: "shop", sender: "" }.id().can_be_set_apart);
    }

    #[test]
    fn text_of_a_source_hides_its_credential() {
        let client = CallSource::Client { address: "192.0.2.1", credential: "eyJhbGciOi" };
        let text = client.to_string();
        assert!(text.starts_with("address 192.0.2.1, credential #") && !text.contains("eyJ"), "{text}");
        assert_eq!(CallSource::Key { name: "shop", sender: "a\nb" }.to_string(), "key shop, sender a\u{fffd}b");
        assert_eq!(CallSource::Key { name: "", sender: "" }.to_string(), "the push API");
        assert_eq!(CallSource::User(&"x".repeat(500)).to_string().len(), "user ".len() + MAX_SHOWN);
    }
}
