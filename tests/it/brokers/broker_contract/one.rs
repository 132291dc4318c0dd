//! Cases for every engine, including the memory of a single node.

use std::sync::Arc;

use skylark::broker::{Address, Fate, Subscription};
use skylark::message::Target;

use crate::support::brokers::bus::{Bus, Came, Seat, envelope, is_accepted, user};
use crate::support::client::within;

/// Several concurrent publishers, each awaiting its batches: every stream of each publisher arrives in order and once.
pub async fn each_stream_keeps_its_order<B: Bus>() {
    const PUBLISHERS: usize = 4;
    const BATCHES: usize = 50;
    let bus = B::start();
    let seat = Arc::new(Seat::take(&bus, "n1", 1).await);
    let room = Target::Room("r".parse().unwrap());
    for stream in [Subscription::User("a".parse().unwrap()), Subscription::Room("r".parse().unwrap())] {
        within("the subscription", seat.broker().subscribe(stream)).await.unwrap();
    }
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let (seat, room) = (Arc::clone(&seat), room.clone());
        tokio::spawn(async move {
            for batch in 0..BATCHES {
                let text = |part: &str| format!("{publisher} {part} {batch:03}");
                let batch = vec![
                    envelope(user("a"), &text("user")),
                    envelope(room.clone(), &text("room")),
                    envelope(Target::Everyone, &text("all")),
                    envelope(user("a"), &text("user+")),
                ];
                assert!(seat.publish_all(batch).await.iter().all(is_accepted));
            }
        })
    });
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let texts = seat.heard.messages(PUBLISHERS * BATCHES * 4).await;
    assert_eq!(texts.len(), PUBLISHERS * BATCHES * 4, "a message arrived twice");
    for publisher in 0..PUBLISHERS {
        for stream in ["room", "all"] {
            let of = texts.iter().filter(|text| text.starts_with(&format!("{publisher} {stream} ")));
            let expected: Vec<String> = (0..BATCHES).map(|batch| format!("{publisher} {stream} {batch:03}")).collect();
            assert!(of.eq(&expected), "target {stream} of publisher {publisher} is out of order");
        }
        let of = texts.iter().filter(|text| text.starts_with(&format!("{publisher} user")));
        let expected: Vec<String> = (0..BATCHES)
            .flat_map(|batch| ["user", "user+"].map(|part| format!("{publisher} {part} {batch:03}")))
            .collect();
        assert!(of.eq(&expected), "messages to the user from publisher {publisher} are out of order");
    }
}

pub async fn words_and_messages_keep_their_order<B: Bus>() {
    let bus = B::start();
    let seat = Seat::take(&bus, "n1", 1).await;
    within("the subscription", seat.broker().subscribe(Subscription::User("a".parse().unwrap()))).await.unwrap();
    for (address, target) in [(Address::User("a".parse().unwrap()), user("a")), (Address::Everyone, Target::Everyone)] {
        assert!(is_accepted(&seat.publish(target.clone(), "before").await));
        let told =
            within("the cluster message", seat.broker().send_cluster_message(address, "word".into())).await.unwrap();
        assert!(told.is_none_or(|nodes| nodes == 1), "{told:?}");
        assert!(is_accepted(&seat.publish(target, "after").await));
    }
    within("the cluster message", seat.broker().send_cluster_message(Address::Node(seat.id.clone()), "mine".into()))
        .await
        .unwrap();
    seat.heard.until("all messages", |came| came.len() == 7).await;
    let word = |text: &'static str| Came::Word(seat.id.clone(), text.into());
    let message = |target: Target, text: &str| Came::Message(target, text.to_owned());
    let expected = [
        message(user("a"), "before"),
        word("word"),
        message(user("a"), "after"),
        message(Target::Everyone, "before"),
        word("word"),
        message(Target::Everyone, "after"),
    ];
    // The node's own stream is separate from the user's and everyone's.
    let all: Vec<Came> = seat.heard.all().into_iter().filter(|came| *came != word("mine")).collect();
    assert_eq!(all, expected);
    let nobody = within(
        "the cluster message",
        seat.broker().send_cluster_message(Address::Node("n9".parse().unwrap()), "?".into()),
    )
    .await;
    assert!(nobody.unwrap().is_none_or(|nodes| nodes == 0));
}

pub async fn unknown_nodes_are_reported_in_the_outcome<B: Bus>() {
    let bus = B::start();
    let seat = Seat::take(&bus, "n1", 1).await;
    within("the lease", seat.engine.roster.join(&seat.member())).await.unwrap();
    let mut named = envelope(Target::Everyone, "here");
    named.nodes = ["n1", "n9"].map(|node| node.parse().unwrap()).to_vec().into();
    let mut elsewhere = envelope(Target::Everyone, "elsewhere");
    elsewhere.nodes = vec!["n9".parse().unwrap()].into();
    let last = envelope(Target::Everyone, "last");
    let outcomes = seat.publish_all(vec![named, elsewhere, last]).await;
    for outcome in &outcomes[..2] {
        let Fate::Accepted { unknown_nodes, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(*unknown_nodes, ["n9".parse().unwrap()]);
    }
    let mut texts = seat.heard.messages(2).await;
    texts.sort();
    assert_eq!(texts, ["here", "last"]);
}

pub async fn publish_after_close_is_unavailable<B: Bus>() {
    let bus = B::start();
    let seat = Seat::take(&bus, "n1", 1).await;
    let batch: Vec<_> = (0..100).map(|n| envelope(Target::Everyone, &n.to_string())).collect();
    let (outcomes, ()) = tokio::join!(seat.publish_all(batch), async {
        tokio::task::yield_now().await;
        within("the close of the broker", seat.broker().close()).await;
    });
    // Messages accepted before the close are sent.
    let accepted = outcomes.iter().filter(|outcome| is_accepted(outcome)).count();
    assert!(seat.heard.texts().len() <= 100);
    if B::IS_SHARED {
        let outcome = seat.publish(Target::Everyone, "late").await;
        assert_eq!(outcome, Fate::Unavailable, "{accepted} messages were accepted before the close");
        assert!(
            within("the cluster message", seat.broker().send_cluster_message(Address::Everyone, "late".into()))
                .await
                .is_err()
        );
    }
}

/// A receiver that accepts nothing for a while delays the messages behind it; none is dropped.
pub async fn a_slow_receiver_loses_nothing<B: Bus>() {
    const MESSAGES: usize = 3_000;
    let bus = B::start();
    let seat = Arc::new(Seat::take(&bus, "n1", 1).await);
    seat.heard.close_gate();
    let publishing = tokio::spawn({
        let seat = Arc::clone(&seat);
        async move {
            let batch: Vec<_> = (0..MESSAGES).map(|n| envelope(Target::Everyone, &format!("{n:04}"))).collect();
            for part in batch.chunks(100) {
                assert!(seat.publish_all(part.to_vec()).await.iter().all(is_accepted));
            }
        }
    });
    if B::IS_SHARED {
        // The engine holds the queue: publishers continue while a receiver is stopped.
        publishing.await.unwrap();
        seat.heard.open_gate();
    } else {
        seat.heard.open_gate();
        publishing.await.unwrap();
    }
    let texts = seat.heard.messages(MESSAGES).await;
    assert!(texts.iter().eq(&(0..MESSAGES).map(|n| format!("{n:04}")).collect::<Vec<_>>()));
    assert_eq!(seat.heard.gaps(), 0);
}
