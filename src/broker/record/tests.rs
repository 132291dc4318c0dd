//! Record encoding: round trips, malformed input and size overhead.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::id::{ConnectionId, Device, MAX_SAFE_INTEGER, Room};
use crate::message::{Message, Publication, Publisher, RecordIdentity, Retention};
use crate::protocol::put_canonical;

const ORIGIN: RecordOrigin = RecordOrigin { number: 4_095, run_id: (1 << 48) - 1 };

fn name<T: std::str::FromStr + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-z]{1,12}".prop_map(|text| text.parse().ok().expect("a valid name"))
}

fn cid() -> impl Strategy<Value = ConnectionId> {
    (1..=MAX_SAFE_INTEGER).prop_map(|number| ConnectionId::new(number).unwrap())
}

fn target() -> impl Strategy<Value = Target> {
    let names = || proptest::collection::vec(name::<Uid>(), 0..5);
    prop_oneof![
        cid().prop_map(Target::Connection),
        (name::<Uid>(), cid()).prop_map(|(uid, cid)| Target::ConnectionOf(uid, cid)),
        (name::<Uid>(), name::<Device>()).prop_map(|(uid, device)| Target::Device(uid, device)),
        name::<Uid>().prop_map(Target::User),
        names().prop_map(|uids| Target::Users(uids.into())),
        name::<Room>().prop_map(Target::Room),
        Just(Target::Everyone),
        names().prop_map(|uids| Target::EveryoneBut(uids.into())),
    ]
}

prop_compose! {
    fn envelope()(
        (id, message_id, sent_at, timestamp) in (any::<u64>(), any::<i64>(), any::<i64>(), any::<i64>()),
        (action, format, text) in (".{0,8}", "[a-z]{0,4}", ".{0,40}"),
        no_echo in proptest::option::of(cid()),
        from in proptest::option::of((name::<Uid>(), cid())),
        origin in prop_oneof![Just(crate::message::Origin::Client), Just(crate::message::Origin::Http),
            Just(crate::message::Origin::Broker), Just(crate::message::Origin::Plugin)],
        hops in 0..5_u8,
        nodes in proptest::collection::vec(name::<NodeId>(), 0..3),
        key in proptest::option::of("[a-z]{0,9}"),
        identity in proptest::option::of(("[a-z]{1,9}", any::<u64>(), any::<u32>())),
        history in prop_oneof![Just(Retention::Configured), Just(Retention::No), any::<u32>().prop_map(Retention::Ttl)],
        (receipts, same) in any::<(bool, bool)>(),
    ) -> Envelope {
        let message = Message {
            id: if same { id.cast_signed() } else { message_id },
            timestamp: if same { sent_at } else { timestamp },
            action, format, content: [("text", text)].into_iter().collect(), ..Message::default()
        };
        Envelope {
            id, sent_at, message: Arc::new(message), target: Target::Everyone, no_echo,
            from: from.map(|(uid, cid)| Publisher { uid, cid }), back_end: None, origin, hops, nodes: nodes.into(),
            key: key.map(Into::into), history, receipts,
            identity: identity.map(|(name, offset, index)| RecordIdentity { partition: name.into(), offset, index }),
        }
    }
}

fn record_of(sequence: u64, target: &Target, list: &[Envelope]) -> Bytes {
    let mut out = Vec::new();
    list.iter().for_each(|envelope| put_envelope(&mut out, envelope));
    envelopes(ORIGIN, sequence, target, list.len(), &out).into()
}

proptest! {
    #[test]
    fn envelopes_come_as_they_were_sent(
        sequence in any::<u64>(), target in target(), mut list in proptest::collection::vec(envelope(), 1..5),
    ) {
        list.iter_mut().for_each(|envelope| envelope.target = target.clone());
        let record = read(&record_of(sequence, &target, &list)).unwrap();
        prop_assert_eq!(record, BusRecord { origin: ORIGIN, sequence, body: Body::Envelopes(list) });
    }

    #[test]
    fn words_and_receipts_round_trip_unchanged(
        from in name::<NodeId>(), text in proptest::collection::vec(any::<u8>(), 0..99),
        list in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<u32>(), name::<Uid>()), 0..4),
    ) {
        let body = read(&cluster_message(ORIGIN, 1, &from, &text).into()).unwrap().body;
        prop_assert_eq!(body, Body::ClusterMessage { from, message: text.into() });
        let receipt = |(id, delivered, full, uid)| {
            EnvelopeReceipt { id, receipt: Receipt { delivered, full, offline: vec![uid] } }
        };
        let list: Vec<EnvelopeReceipt> = list.into_iter().map(receipt).collect();
        prop_assert_eq!(read(&receipts(ORIGIN, 1, &list).into()).unwrap().body, Body::Receipts(list));
    }

    #[test]
    fn garbage_is_refused_and_never_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..5_u8) {
        let _ = read(&bytes.clone().into());
        bytes.splice(0..0, [VERSION, kind]);
        let _ = read(&bytes.into());
    }

    #[test]
    fn a_record_that_was_cut_or_changed_is_never_a_panic(
        envelope in envelope(), target in target(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let whole = record_of(7, &target, &[envelope]);
        let at = at.index(whole.len());
        prop_assert!(read(&whole.slice(..at)).is_err(), "cut at {}", at);
        let mut changed = whole.to_vec();
        changed[at] = byte;
        let _ = read(&changed.into());
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let mut record = record_of(1, &Target::Everyone, &[]).to_vec();
    record[0] = 2;
    let refused = read(&record.into()).unwrap_err();
    assert_eq!(refused, RecordError::UnknownVersion(2));
    assert!(refused.to_string().starts_with("expected a bus record of version 1, got version 2"), "{refused}");
}

#[test]
fn record_with_false_count_is_malformed_without_allocation() {
    let mut record = vec![VERSION, ENVELOPES, 1, 1, 1, 6];
    put_number(&mut record, 1_000);
    let refused = read(&record.into()).unwrap_err().to_string();
    assert_eq!(refused, "expected a bus record, got 1000 entries, which is out of range");
}

/// Size limit of the bus: 1.3 times the canonical body plus 64 bytes, for any push of a back end to a user.
#[test]
fn a_push_adds_few_bytes_to_its_body() {
    let uid = Uid::parse("3f2b8c1e-77aa-4d0f-9a51-0b6f1f1f2c3d").unwrap();
    for text in ["", "hi", &"x".repeat(300), &"x".repeat(60_000)] {
        for id in [1, MAX_SAFE_INTEGER] {
            let message = Message {
                id: id.cast_signed(),
                action: "chat".to_owned(),
                content: [("text", text)].into_iter().collect(),
                timestamp: 1_763_000_000_000,
                ..Message::default()
            };
            let mut body = Vec::new();
            put_canonical(&message, &mut body);
            let body = body.len();
            let push = Publication::new(message, Target::User(uid.clone()), crate::message::Origin::Http);
            let envelope = push.into_envelope(id, 1_763_000_000_000);
            let record = record_of(1 << 40, &Target::User(uid.clone()), &[envelope]).len();
            assert!(record * 10 <= body * 13 + 640, "{record} bytes for a body of {body}");
            println!("body {body}, record {record}");
        }
    }
}

/// A record of `tests/fixtures/bus-1` with its content.
fn fixture(kind: &str) -> (Vec<u8>, BusRecord) {
    let message = Message {
        id: 748,
        action: "chat".to_owned(),
        title: "标题".to_owned(),
        sender: "1078".to_owned(),
        receiver: "1074".to_owned(),
        content: [("text", "好吗")].into_iter().collect(),
        timestamp: 1_763_000_000_000,
        ..Message::default()
    };
    let uid = || Uid::parse("1074").unwrap();
    let (target, history) = match kind {
        "user" => (Target::User(uid()), Retention::Configured),
        "device" => (Target::Device(uid(), Device::parse("phone-1").unwrap()), Retention::Ttl(60)),
        "users" => (Target::Users([uid(), Uid::parse("1075").unwrap()].into()), Retention::No),
        "room" => (Target::Room(Room::parse("lobby").unwrap()), Retention::Configured),
        "everyone-but" => (Target::EveryoneBut([uid()].into()), Retention::Configured),
        other => panic!("no such record: {other}"),
    };
    let publication = Publication::new(message, target.clone(), crate::message::Origin::Http);
    let first = Envelope { history, ..publication.into_envelope(748, 1_763_000_000_000) };
    let second = Envelope {
        id: 749,
        no_echo: ConnectionId::new(4_503_599_627_370_497),
        from: Some(Publisher { uid: uid(), cid: ConnectionId::new(4_503_599_627_370_497).unwrap() }),
        hops: 1,
        key: Some("order-1".into()),
        receipts: true,
        ..first.clone()
    };
    let list = vec![first, second];
    (record_of(7, &target, &list).to_vec(), BusRecord { origin: ORIGIN, sequence: 7, body: Body::Envelopes(list) })
}

/// A node without a history is restarted as this version while the others still run. The committed records are those of
/// that version: its encoder differs from the present one in names only (commit ccf30f6). `BLESS=1` adds a missing file.
#[test]
fn records_of_the_version_without_history_are_read_and_written() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bus-1");
    for kind in ["user", "device", "users", "room", "everyone-but"] {
        let (written, content) = fixture(kind);
        let file = folder.join(kind);
        if std::env::var_os("BLESS").is_some() && !file.exists() {
            std::fs::write(&file, &written).unwrap();
        }
        let committed = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(read(&committed.clone().into()), Ok(content), "{kind}");
        assert_eq!(written, committed, "a node of that version cannot read {kind}");
    }
}
