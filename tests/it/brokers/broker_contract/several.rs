//! Cases for several nodes that share an engine.

use bytes::Bytes;
use skylark::broker::{Fate, Subscription};
use skylark::id::{ConnectionId, NodeId, Uid};
use skylark::message::{Envelope, Receipt, RecordIdentity, Target};

use crate::support::brokers::bus::{Bus, Came, Seat, envelope, is_accepted, nodes, until, user};
use crate::support::client::within;

async fn three(bus: &impl Bus) -> [Seat; 3] {
    [Seat::take(bus, "n1", 1).await, Seat::take(bus, "n2", 2).await, Seat::take(bus, "n3", 3).await]
}

async fn subscribe(seat: &Seat, stream: Subscription) {
    within("the subscription", seat.broker().subscribe(stream)).await.unwrap();
}

fn uid(name: &str) -> Uid {
    name.parse().unwrap()
}

/// An engine without routing reaches every node, and each node keeps the messages that have receivers there.
fn expected<B: Bus>(routed: u32) -> Option<u32> {
    B::IS_ROUTED.then_some(routed)
}

/// Sends a closing message to everyone and returns the texts that each node received.
async fn got(sender: &Seat, seats: &[Seat; 3]) -> [Vec<String>; 3] {
    assert!(is_accepted(&sender.publish(Target::Everyone, "end").await));
    let mut all = [const { Vec::new() }; 3];
    for (seat, all) in seats.iter().zip(&mut all) {
        seat.heard
            .until("the last message", |came| came.contains(&Came::Message(Target::Everyone, "end".to_owned())))
            .await;
        *all = seat.heard.texts();
    }
    all
}

pub async fn every_target_reaches_the_nodes_it_is_for<B: Bus>() {
    let bus = B::start();
    let seats = three(&bus).await;
    subscribe(&seats[0], Subscription::User(uid("a"))).await;
    subscribe(&seats[1], Subscription::User(uid("a"))).await;
    subscribe(&seats[2], Subscription::Room("r".parse().unwrap())).await;
    let on_third = ConnectionId::new((3 << 41) | 5).unwrap();
    let cases = [
        (user("a"), "user", vec![0, 1]),
        (Target::Device(uid("a"), "web".parse().unwrap()), "device", vec![0, 1]),
        (user("b"), "nobody", vec![]),
        (Target::Room("r".parse().unwrap()), "room", vec![2]),
        (Target::Connection(on_third), "connection", vec![2]),
        (Target::Everyone, "everyone", vec![0, 1, 2]),
        (Target::EveryoneBut(vec![uid("a")].into()), "others", vec![0, 1, 2]),
    ];
    for (target, text, receivers) in &cases {
        let outcome = seats[1].publish(target.clone(), text).await;
        let reached = u32::try_from(receivers.len()).unwrap();
        assert!(
            nodes(&outcome).is_none() || !B::IS_ROUTED || nodes(&outcome) == expected::<B>(reached),
            "{text}: {outcome:?}"
        );
    }
    let got = got(&seats[1], &seats).await;
    for (at, texts) in got.iter().enumerate() {
        for (target, text, receivers) in &cases {
            let is_here = texts.iter().any(|got| got == text);
            if receivers.contains(&at) {
                assert!(is_here, "{text} ({target:?}) did not reach node {}: {texts:?}", at + 1);
            } else if B::IS_ROUTED {
                assert!(!is_here, "{text} reached node {}, which has no receiver", at + 1);
            }
        }
    }
}

pub async fn many_users_are_reached_wherever_they_are<B: Bus>() {
    const USERS: usize = 3_000;
    let bus = B::start();
    let seats = three(&bus).await;
    let users: Vec<Uid> = (0..USERS).map(|n| uid(&format!("u{n}"))).collect();
    let holds =
        users.iter().enumerate().map(|(n, uid)| seats[n % 3].broker().subscribe(Subscription::User(uid.clone())));
    for held in within("the subscriptions", futures_util::future::join_all(holds)).await {
        held.unwrap();
    }
    let target = Target::Users(users.into());
    let outcomes = seats[0].publish_all(vec![envelope(target.clone(), "one"), envelope(target, "two")]).await;
    assert!(outcomes.iter().all(is_accepted), "{outcomes:?}");
    if B::IS_ROUTED {
        for seat in &seats {
            let texts = seat.heard.messages(2 * USERS / 3).await;
            assert_eq!(texts.len(), 2 * USERS / 3);
            assert!(texts.iter().take(USERS / 3).all(|text| text == "one"));
        }
    }
}

pub async fn released_user_is_unsubscribed<B: Bus>() {
    let bus = B::start();
    let seats = three(&bus).await;
    let stream = Subscription::User(uid("a"));
    subscribe(&seats[0], stream.clone()).await;
    subscribe(&seats[0], stream.clone()).await;
    seats[0].broker().unsubscribe(&stream);
    subscribe(&seats[0], stream.clone()).await;
    assert!(is_accepted(&seats[2].publish(user("a"), "back").await));
    seats[0].heard.messages(1).await;
    seats[0].broker().unsubscribe(&stream);
    if B::IS_ROUTED {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
        within("the publish to a user without subscription", async {
            while nodes(&seats[2].publish(user("a"), "gone").await) != Some(0) {
                looks.tick().await;
            }
        })
        .await;
    }
}

pub async fn nodes_narrow_an_envelope<B: Bus>() {
    let bus = B::start();
    let seats = three(&bus).await;
    for seat in &seats {
        within("the lease", seat.engine.roster.join(&seat.member())).await.unwrap();
        subscribe(seat, Subscription::User(uid("a"))).await;
    }
    let narrowed = |target, text| {
        let nodes = ["n2", "n3", "n8"].map(|node| node.parse().unwrap()).to_vec().into();
        Envelope { nodes, ..envelope(target, text) }
    };
    // A node learns of the leases of others a moment later.
    let n8 = [NodeId::parse("n8").unwrap()];
    let is_known = |fate: &Fate| matches!(fate, Fate::Accepted { unknown_nodes, .. } if *unknown_nodes == n8);
    within("the leases", async {
        while !is_known(&seats[0].publish_all(vec![narrowed(user("nobody"), "probe")]).await[0]) {}
    })
    .await;
    for (target, text) in [(user("a"), "user"), (Target::Everyone, "everyone")] {
        let outcome = seats[0].publish_all(vec![narrowed(target, text)]).await.remove(0);
        let Fate::Accepted { unknown_nodes, .. } = &outcome else { panic!("{outcome:?}") };
        assert_eq!(*unknown_nodes, n8);
        assert!(!B::IS_ROUTED || nodes(&outcome) == Some(2));
    }
    let got = got(&seats[0], &seats).await;
    let narrowed = |texts: &[String]| {
        texts.iter().filter(|text| !["end", "probe"].contains(&text.as_str())).cloned().collect::<Vec<_>>()
    };
    assert!(narrowed(&got[0]).is_empty(), "{got:?}");
    for texts in &got[1..] {
        let mut texts = narrowed(texts);
        texts.sort();
        assert_eq!(texts, ["everyone", "user"]);
    }
}

pub async fn receipts_add_up<B: Bus>() {
    let bus = B::start();
    let seats = three(&bus).await;
    subscribe(&seats[0], Subscription::User(uid("a"))).await;
    subscribe(&seats[1], Subscription::User(uid("a"))).await;
    subscribe(&seats[1], Subscription::User(uid("b"))).await;
    seats[0].heard.answer(Receipt { delivered: 2, full: 1, offline: Vec::new() });
    let mut asked = envelope(Target::Everyone, "everyone");
    asked.receipts = true;
    let outcome = seats[2].publish_all(vec![asked]).await.remove(0);
    let Fate::Accepted { receipt: Some(receipt), .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(receipt, Receipt { delivered: 4, full: 1, offline: Vec::new() });

    if B::IS_ROUTED {
        let mut asked = envelope(Target::Users([uid("a"), uid("b"), uid("c")].to_vec().into()), "users");
        asked.receipts = true;
        seats[1].heard.answer(Receipt { delivered: 0, full: 0, offline: vec![uid("b")] });
        let outcome = seats[2].publish_all(vec![asked]).await.remove(0);
        let Fate::Accepted { receipt: Some(mut receipt), .. } = outcome else { panic!("{outcome:?}") };
        receipt.offline.sort();
        assert_eq!((receipt.delivered, receipt.offline), (2, vec![uid("b"), uid("c")]));
    }
}

pub async fn an_oversized_envelope_is_refused_with_its_size<B: Bus>() {
    let bus = B::start();
    let seat = Seat::take(&bus, "n1", 1).await;
    let large = envelope(Target::Everyone, &"x".repeat(2 << 20));
    let outcomes =
        seat.publish_all(vec![envelope(Target::Everyone, "before"), large, envelope(Target::Everyone, "after")]).await;
    assert!(is_accepted(&outcomes[0]) && is_accepted(&outcomes[2]), "{outcomes:?}");
    let Fate::TooLargeForBroker { bytes, most } = outcomes[1] else { panic!("{:?}", outcomes[1]) };
    assert!(bytes > 2 << 20 && most < bytes, "the refusal says {bytes} bytes, at most {most}");
    assert_eq!(seat.heard.messages(2).await, ["before", "after"]);
}

/// After a crash, an intake's records are read and published again by any node, and arrive once.
pub async fn an_identity_arrives_once<B: Bus>() {
    let bus = B::start();
    let seats = three(&bus).await;
    for seat in &seats {
        subscribe(seat, Subscription::User(uid("a"))).await;
    }
    for sender in [&seats[0], &seats[1]] {
        let batch = (0..5_u64).map(|offset| {
            let mut envelope = envelope(user("a"), &offset.to_string());
            envelope.identity = Some(RecordIdentity { partition: "chat-0".into(), offset, index: 0 });
            envelope
        });
        assert!(sender.publish_all(batch.collect()).await.iter().all(is_accepted));
    }
    for texts in got(&seats[2], &seats).await {
        let mut texts: Vec<String> = texts.into_iter().filter(|text| text != "end").collect();
        texts.sort();
        assert_eq!(texts, ["0", "1", "2", "3", "4"]);
    }
}

pub async fn unreadable_record_is_a_gap_and_later_records_arrive<B: Bus>() {
    let bus = B::start();
    let seat = Seat::take(&bus, "n1", 1).await;
    assert!(is_accepted(&seat.publish(Target::Everyone, "before").await));
    seat.heard.messages(1).await;
    for (at, record) in [&b"\x02\x01 of a later version"[..], b"\x01\x01 damaged", b""].into_iter().enumerate() {
        bus.inject(&Bytes::copy_from_slice(record)).await;
        until("the gap", || seat.heard.gaps() == at + 1).await;
    }
    assert!(is_accepted(&seat.publish(Target::Everyone, "after").await));
    assert_eq!(seat.heard.messages(2).await, ["before", "after"]);
    assert_eq!(seat.heard.gaps(), 3);
}
