//! Record format of the bus: envelopes for one target, a cluster message, or receipts, with origin and sequence number.
//!
//! ```text
//! version (1 byte) · kind (1 byte) · origin: number, life · sequence · what its kind holds
//! envelopes: target · count · envelopes (flags, fields that are set, length, canonical body)
//! ```
//! Numbers are varints; texts are prefixed with their length. A record of an unknown version is refused as a whole:
//! only its first byte is read. Independent of engines and connections.

mod envelope;
pub(in crate::broker) mod reader;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::id::{NodeId, Uid};
use crate::message::{Envelope, Receipt, Target};

use envelope::{put_target, read_envelope, read_target};
use reader::{Reader, put_number, put_text};

pub use envelope::put_envelope;
pub(in crate::broker) use envelope::{put_message, put_names, read_cid, read_message, read_names};

/// Version that is written, and the only version that is read.
pub const VERSION: u8 = 1;
/// Maximum number of envelopes in one record.
pub const MAX_ENVELOPES: usize = 1_024;

/// Sender of a record: one process run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordOrigin {
    /// Number of the node.
    pub number: u16,
    /// Random number of the process run, at most 48 bits.
    pub run_id: u64,
}

/// Numbers the records of one origin.
#[derive(Debug)]
pub struct Numbering {
    /// Origin of the records.
    pub origin: RecordOrigin,
    next: AtomicU64,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusRecord {
    /// Sender of the record.
    pub origin: RecordOrigin,
    /// Sequence number within the origin. Increases with each record; a resent record keeps its number.
    pub sequence: u64,
    /// Content of the record.
    pub body: Body,
}

/// Content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Envelopes of one target, in order.
    Envelopes(Vec<Envelope>),
    /// A cluster message.
    ClusterMessage {
        /// Node that sent the message.
        from: NodeId,
        /// Content of the message, opaque to the broker.
        message: Bytes,
    },
    /// Receipts for publishers that wait for them.
    Receipts(Vec<EnvelopeReceipt>),
}

/// Receipt of one node for one envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeReceipt {
    /// Id of the envelope.
    pub id: u64,
    /// Delivery counts of the node.
    pub receipt: Receipt,
}

/// Reason why bytes are not a valid record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The record was written by another version of Skylark.
    #[error(
        "expected a bus record of version {VERSION}, got version {0}: this node is too old or too new for its cluster"
    )]
    UnknownVersion(u8),
    /// The record is damaged or was not written by Skylark.
    #[error("expected a bus record, got {0}")]
    Malformed(String),
}

impl RecordOrigin {
    /// Creates the origin of a new process run of the node with this number.
    #[must_use]
    pub fn new(number: u16) -> Self {
        use std::hash::BuildHasher as _;
        // The system seeds each process, and the result differs for each call.
        let random = std::hash::RandomState::new().hash_one(std::process::id());
        Self { number, run_id: random & ((1 << 48) - 1) }
    }
}

impl Numbering {
    /// Starts a new origin for the node with this number. The first record has number 1.
    #[must_use]
    pub fn new(number: u16) -> Self {
        Self { origin: RecordOrigin::new(number), next: AtomicU64::new(1) }
    }

    /// Returns the number of the next record.
    pub fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Encodes a record of `count` envelopes (written by [`put_envelope`], at most [`MAX_ENVELOPES`]). `target` replaces
/// the targets of the envelopes.
#[must_use]
pub fn envelopes(origin: RecordOrigin, sequence: u64, target: &Target, count: usize, envelopes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(envelopes.len() + 64);
    put_envelopes_head(&mut out, origin, sequence, target, count);
    out.extend_from_slice(envelopes);
    out
}

/// Appends the part of such a record before its envelopes.
pub fn put_envelopes_head(out: &mut Vec<u8>, origin: RecordOrigin, sequence: u64, target: &Target, count: usize) {
    put_head(out, ENVELOPES, origin, sequence);
    put_target(out, target);
    put_number(out, u64::try_from(count).expect("64 bits hold a count"));
}

/// Encodes a cluster message from `from`.
#[must_use]
pub fn cluster_message(origin: RecordOrigin, sequence: u64, from: &NodeId, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    put_head(&mut out, CLUSTER_MESSAGE, origin, sequence);
    put_text(&mut out, from.as_str());
    out.extend_from_slice(message);
    out
}

/// Encodes a record of receipts.
#[must_use]
pub fn receipts(origin: RecordOrigin, sequence: u64, delivered: &[EnvelopeReceipt]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    put_head(&mut out, RECEIPTS, origin, sequence);
    put_number(&mut out, u64::try_from(delivered.len()).expect("64 bits hold a count"));
    for EnvelopeReceipt { id, receipt } in delivered {
        put_number(&mut out, *id);
        put_number(&mut out, u64::from(receipt.delivered));
        put_number(&mut out, u64::from(receipt.full));
        put_number(&mut out, u64::try_from(receipt.offline.len()).expect("64 bits hold a count"));
        receipt.offline.iter().for_each(|uid| put_text(&mut out, uid.as_str()));
    }
    out
}

/// Decodes a record.
///
/// # Errors
/// [`RecordError`].
pub fn read(record: &Bytes) -> Result<BusRecord, RecordError> {
    let mut reader = Reader::of(record);
    match reader.byte()? {
        VERSION => {}
        other => return Err(RecordError::UnknownVersion(other)),
    }
    let kind = reader.byte()?;
    let number = u16::try_from(reader.number()?).map_err(|_| malformed("a node number over 65535"))?;
    let origin = RecordOrigin { number, run_id: reader.number()? };
    let sequence = reader.number()?;
    let body = match kind {
        ENVELOPES => {
            let target = read_target(&mut reader)?;
            let count = reader.count(MAX_ENVELOPES)?;
            let envelopes = (0..count).map(|_| read_envelope(&mut reader, &target)).collect::<Result<_, _>>()?;
            Body::Envelopes(envelopes)
        }
        CLUSTER_MESSAGE => {
            let from = reader.name()?;
            Body::ClusterMessage { from, message: record.slice_ref(reader.rest()) }
        }
        RECEIPTS => {
            let count = reader.count(MAX_RECEIPTS)?;
            Body::Receipts((0..count).map(|_| read_envelope_receipt(&mut reader)).collect::<Result<_, _>>()?)
        }
        other => return Err(malformed(&format!("the unknown kind {other}"))),
    };
    reader.end()?;
    Ok(BusRecord { origin, sequence, body })
}

fn read_envelope_receipt(reader: &mut Reader<'_>) -> Result<EnvelopeReceipt, RecordError> {
    let id = reader.number()?;
    let mut count = || u32::try_from(reader.number()?).map_err(|_| malformed("a count over 32 bits"));
    let (delivered, full) = (count()?, count()?);
    let count = reader.count(MAX_OFFLINE)?;
    let offline = (0..count).map(|_| reader.name()).collect::<Result<Vec<Uid>, _>>()?;
    Ok(EnvelopeReceipt { id, receipt: Receipt { delivered, full, offline } })
}

fn put_head(out: &mut Vec<u8>, kind: u8, origin: RecordOrigin, sequence: u64) {
    out.extend_from_slice(&[VERSION, kind]);
    put_number(out, u64::from(origin.number));
    put_number(out, origin.run_id);
    put_number(out, sequence);
}

fn malformed(what: &str) -> RecordError {
    RecordError::Malformed(what.to_owned())
}

const ENVELOPES: u8 = 1;
const CLUSTER_MESSAGE: u8 = 2;
const RECEIPTS: u8 = 3;

/// Maximum number of receipts in one record.
const MAX_RECEIPTS: usize = 100_000;
/// Maximum number of users in one target, and of offline users in one receipt.
const MAX_OFFLINE: usize = 1_000_000;
