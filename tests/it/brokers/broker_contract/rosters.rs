//! The contract of the roster: the members, their online users, and the takeover of a failed member's users.

use std::collections::BTreeSet;
use std::time::Duration;

use skylark::broker::roster::{LeaseError, Roster};
use skylark::id::Uid;

use crate::support::brokers::bus::{Bus, Seat};
use crate::support::client::within;

/// A lease lasts ten seconds; the rest is for a busy machine.
const LAPSE: Duration = Duration::from_secs(10 + 10);

fn roster(seat: &Seat) -> &dyn Roster {
    &*seat.engine.roster
}

fn uid(name: &str) -> Uid {
    name.parse().unwrap()
}

async fn join(seat: &Seat) -> u64 {
    within("the lease", roster(seat).join(&seat.member())).await.unwrap()
}

pub async fn numbers_grow<B: Bus>() {
    let bus = B::start();
    let seat = Seat::take(&bus, "n1", 1).await;
    let mut last = 0;
    for _ in 0..20 {
        let number = within("the next number", roster(&seat).next_number(&uid("a"))).await.unwrap();
        assert!(number > last, "number {number} follows {last}");
        last = number;
    }
}

pub async fn a_member_is_listed_until_it_leaves<B: Bus>() {
    let bus = B::start();
    let seat = Seat::take(&bus, "n1", 1).await;
    let incarnation = join(&seat).await;
    assert!(incarnation > 0);
    let mut member = seat.member();
    member.incarnation = incarnation;
    assert_eq!(within("the member list", roster(&seat).members()).await.unwrap(), [member.clone()]);
    (member.connections, member.draining) = (7, true);
    within("the renewal", roster(&seat).renew(&member)).await.unwrap();
    assert_eq!(within("the member list", roster(&seat).members()).await.unwrap(), [member]);
    assert!(within("the presence update", roster(&seat).online(&uid("a"))).await.unwrap());
    assert!(within("the presence update", roster(&seat).offline(&uid("a"))).await.unwrap());
    within("the leave", roster(&seat).leave()).await;
    assert!(within("the member list", roster(&seat).members()).await.unwrap().is_empty());
    assert!(
        within("the list of expired members", roster(&seat).expired()).await.unwrap().is_empty(),
        "a member that left is listed as expired"
    );
    assert!(join(&seat).await >= incarnation);
}

pub async fn a_name_or_number_belongs_to_one<B: Bus>() {
    let bus = B::start();
    let (first, twin) = (Seat::take(&bus, "n1", 1).await, Seat::take_early(&bus, "n1", 3));
    let (cousin, other) = (Seat::take_early(&bus, "n2", 1), Seat::take_early(&bus, "n2", 2));
    let incarnation = join(&first).await;
    for (seat, word) in [(&twin, "n1"), (&cousin, "number 1")] {
        let refused = within("the lease", roster(seat).join(&seat.member())).await.unwrap_err();
        assert!(matches!(&refused, LeaseError::Taken(why) if why.contains(word)), "{refused}");
    }
    assert!(join(&other).await > incarnation);
    let members = within("the member list", roster(&other).members()).await.unwrap();
    assert_eq!(members.iter().map(|member| member.id.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
    within("the leave", roster(&first).leave()).await;
    assert!(join(&twin).await > incarnation, "the name was not free after the leave");
    let lost = within("the renewal", roster(&first).renew(&first.member())).await;
    assert!(matches!(lost, Err(LeaseError::Lost(_))), "{lost:?}");
}

pub async fn presence_counts_over_all_members<B: Bus>() {
    let bus = B::start();
    let seats = [Seat::take(&bus, "n1", 1).await, Seat::take(&bus, "n2", 2).await];
    for seat in &seats {
        join(seat).await;
    }
    let (first, second) = (roster(&seats[0]), roster(&seats[1]));
    let a = uid("a");
    assert!(within("the presence update", first.online(&a)).await.unwrap());
    assert!(!within("the presence update", second.online(&a)).await.unwrap());
    assert!(!within("the presence update", first.offline(&a)).await.unwrap());
    assert!(within("the presence update", second.offline(&a)).await.unwrap());
    // Two concurrent registrations: exactly one is the first.
    for n in 0..50 {
        let uid = uid(&format!("u{n}"));
        let (one, two) = tokio::join!(first.online(&uid), second.online(&uid));
        assert!(one.unwrap() != two.unwrap(), "not exactly one of two registrations was the first");
        let (one, two) = tokio::join!(first.offline(&uid), second.offline(&uid));
        assert!(one.unwrap() != two.unwrap(), "not exactly one of two removals was the last");
    }
}

/// Each user of a member that stopped renewing goes to one survivor, except users that another member holds.
pub async fn a_fallen_members_users_go_to_one_survivor<B: Bus>() {
    const USERS: usize = 2_500;
    let bus = B::start();
    let seats = [Seat::take(&bus, "n1", 1).await, Seat::take(&bus, "n2", 2).await, Seat::take(&bus, "n3", 3).await];
    let fallen = join(&seats[0]).await;
    for seat in &seats[1..] {
        join(seat).await;
    }
    let users: Vec<Uid> = (0..USERS).map(|n| uid(&format!("u{n}"))).collect();
    for chunk in users.chunks(500) {
        let told = futures_util::future::join_all(chunk.iter().map(|uid| roster(&seats[0]).online(uid)));
        assert!(within("the presence update", told).await.into_iter().all(|alone| alone.unwrap()));
    }
    within("the presence update", roster(&seats[2]).online(&users[0])).await.unwrap();

    let mut got = Vec::new();
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    let told = async {
        while got.len() < USERS - 1 {
            beat.tick().await;
            for seat in &seats[1..] {
                roster(seat).renew(&seat.member()).await.unwrap();
            }
            let (two, three) = tokio::join!(roster(&seats[1]).expired(), roster(&seats[2]).expired());
            for life in two.unwrap().into_iter().chain(three.unwrap()) {
                assert_eq!((life.id.as_str(), life.incarnation), ("n1", fallen));
                got.extend(life.users);
            }
        }
    };
    tokio::time::timeout(LAPSE, told).await.expect("the lease of ten seconds expires");
    let distinct: BTreeSet<&Uid> = got.iter().collect();
    assert_eq!((got.len(), distinct.len()), (USERS - 1, USERS - 1), "a user was not given to exactly one node");
    assert!(!distinct.contains(&users[0]), "a user of the third node was reported as offline");
    let members = within("the member list", roster(&seats[1]).members()).await.unwrap();
    assert_eq!(members.iter().map(|member| member.id.as_str()).collect::<Vec<_>>(), ["n2", "n3"]);
    let late = within("the renewal", roster(&seats[0]).renew(&seats[0].member())).await;
    assert!(matches!(late, Err(LeaseError::Lost(_))), "{late:?}");
    assert!(join(&seats[0]).await > fallen, "the member did not get a higher incarnation");
    // By then the member has registered users again under its new incarnation; a long list follows with its renewals.
    within("the renewal", roster(&seats[0]).renew(&seats[0].member())).await.unwrap();
    for uid in [&users[1], &users[USERS / 2], &users[USERS - 1]] {
        assert!(
            !within("the presence update", roster(&seats[1]).online(uid)).await.unwrap(),
            "{uid} is not on the node that rejoined"
        );
    }
}

/// After a restart without data, a member joins again and registers its users; changes made meanwhile are applied.
pub async fn engine_after_data_loss_gets_members_and_users_again<B: Bus>() {
    let mut bus = B::start();
    let seats = [Seat::take(&bus, "n1", 1).await, Seat::take(&bus, "n2", 2).await];
    let before = join(&seats[0]).await;
    let number = within("the next number", roster(&seats[0]).next_number(&uid("a"))).await.unwrap();
    within("the presence update", roster(&seats[0]).online(&uid("a"))).await.unwrap();
    bus.kill();
    assert!(
        within("the presence update", roster(&seats[0]).online(&uid("b"))).await.is_err(),
        "the stopped engine answered"
    );
    assert!(
        within("the presence update", roster(&seats[0]).offline(&uid("a"))).await.is_err(),
        "the stopped engine answered"
    );
    bus.restart();
    seats[0].ready().await;
    let lost = within("the renewal", roster(&seats[0]).renew(&seats[0].member())).await;
    assert!(matches!(lost, Err(LeaseError::Lost(_))), "{lost:?}");
    assert!(join(&seats[0]).await > before, "the incarnation did not grow");
    join(&seats[1]).await;
    assert!(
        within("the presence update", roster(&seats[1]).online(&uid("a"))).await.unwrap(),
        "the user is still online, but left during the outage"
    );
    assert!(
        !within("the presence update", roster(&seats[1]).online(&uid("b"))).await.unwrap(),
        "the user is not online, but came during the outage"
    );
    assert!(
        within("the next number", roster(&seats[1]).next_number(&uid("a"))).await.unwrap() > number,
        "the number did not grow"
    );
}
