//! Forty nodes in one process, driven by a seed: copies and order of messages, and the reaction to fallen nodes. Every
//! figure is compared with a plain model.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::message::Publication;
use crate::node::fake::several::publication;

const NODES: u16 = 40;
const USERS: u64 = 200;
const ROOMS: u64 = 12;
const STEPS: usize = 1_500;

/// Pseudo-random generator. The same seed gives the same run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn node(&mut self) -> u16 {
        u16::try_from(self.below(u64::from(NODES))).unwrap() + 1
    }
}

/// A client with its state in the model.
struct Tracked {
    client: TestClient,
    number: u16,
    user: u64,
    room: u64,
    /// Expected messages, by publisher, in order.
    expected: Vec<String>,
}

/// Predicate for the receivers of a message.
type Meant = Box<dyn Fn(&Tracked) -> bool>;

struct World {
    several: Several,
    dice: Dice,
    clients: Vec<Tracked>,
    published: u64,
}

impl World {
    async fn connect(&mut self, user: u64) {
        let (number, room) = (self.dice.node(), self.dice.below(ROOMS));
        let client = self.several.connect(number, &format!("u{user}"), &[&format!("r{room}")]).await;
        self.clients.push(Tracked { client, number, user, room, expected: Vec::new() });
    }

    /// Moves the user's client to another node. The new client binds before or after the old one leaves.
    async fn move_one(&mut self) {
        let at = usize::try_from(self.dice.below(self.clients.len() as u64)).unwrap();
        let old = self.clients.swap_remove(at);
        let before = self.dice.below(2) == 0;
        if before {
            self.connect(old.user).await;
        }
        self.several.run_ready().await;
        old.client.leave().await;
        check(&old);
        if !before {
            self.connect(old.user).await;
        }
    }

    /// Publishes a batch to a random target and compares the copies with the nodes that have receivers.
    async fn publish(&mut self) {
        let number = self.dice.node();
        let (kind, user, room) = (self.dice.below(20), self.dice.below(USERS), self.dice.below(ROOMS));
        let (target, is_meant): (Target, Meant) = match kind {
            0 => (Target::Everyone, Box::new(|_| true)),
            1..5 => (Target::Room(super::room(&format!("r{room}"))), Box::new(move |t| t.room == room)),
            _ => (super::user(&format!("u{user}")), Box::new(move |t| t.user == user)),
        };
        let count = 1 + self.dice.below(3);
        let texts: Vec<String> = (0..count).map(|i| format!("n{number} {}", self.published + i)).collect();
        self.published += count;
        self.several.shared.copies();
        let batch: Vec<Publication> = texts.iter().map(|text| publication(target.clone(), text)).collect();
        let published = self.several.node(number).publish(batch).await;
        let meant: BTreeSet<u16> = match kind {
            0 => (1..=NODES).collect(),
            _ => self.clients.iter().filter(|tracked| is_meant(tracked)).map(|tracked| tracked.number).collect(),
        };
        let expected: BTreeMap<_, _> =
            meant.iter().map(|number| (id(*number), usize::try_from(count).unwrap())).collect();
        assert_eq!(self.several.shared.copies(), expected, "{target:?}");
        let reached = u32::try_from(meant.len()).unwrap();
        assert!(published.iter().all(|p| matches!(p.fate, Fate::Accepted { nodes: Some(n), .. } if n == reached)));
        for tracked in self.clients.iter_mut().filter(|tracked| is_meant(tracked)) {
            tracked.expected.extend(texts.iter().cloned());
        }
    }
}

/// Checks that the client received every message of its connected time once, in order.
fn check(tracked: &Tracked) {
    assert_eq!(tracked.client.texts(), tracked.expected, "u{} on n{}", tracked.user, tracked.number);
}

#[tokio::test(start_paused = true)]
async fn forty_nodes_cost_one_copy_per_node_that_holds_a_receiver_and_keep_order() {
    for seed in [1, 20_261_123] {
        let several = Several::new(NODES).await;
        several.events();
        let mut world = World { several, dice: Dice(seed), clients: Vec::new(), published: 0 };
        for user in 0..USERS {
            world.connect(user).await;
            world.connect(user).await;
        }
        for _ in 0..STEPS {
            if world.dice.below(4) == 0 { world.move_one().await } else { world.publish().await }
        }
        world.several.run_ready().await;
        world.clients.iter().for_each(check);
    }
}

#[tokio::test(start_paused = true)]
async fn survivors_take_over_users_of_failed_nodes() {
    let several = Several::new(NODES).await;
    let mut world = World { several, dice: Dice(7), clients: Vec::new(), published: 0 };
    for user in 0..USERS {
        world.connect(user).await;
        world.connect(user).await;
    }
    world.several.events();
    let fallen: BTreeSet<u16> = (0..3).map(|_| world.dice.node()).collect();
    fallen.iter().for_each(|number| world.several.kill(*number));
    world.several.pass(TTL + RENEWAL).await;

    let gone: BTreeSet<u64> = (0..USERS)
        .filter(|user| {
            let mut homes = world.clients.iter().filter(|tracked| tracked.user == *user);
            homes.all(|tracked| fallen.contains(&tracked.number))
        })
        .collect();
    let mut told: Vec<String> = Vec::new();
    for event in world.several.events() {
        let (node, what) = event.split_once(": ").unwrap();
        assert!(!fallen.iter().any(|number| id(*number).as_str() == node), "{event}");
        told.push(what.to_owned());
    }
    told.sort_unstable();
    let mut expected: Vec<String> = gone.iter().map(|user| format!("offline u{user}")).collect();
    expected.sort_unstable();
    assert_eq!(told, expected, "each once, and nobody who is elsewhere");

    let survivor = (1..=NODES).find(|number| !fallen.contains(number)).unwrap();
    assert_eq!(world.several.node(survivor).members().await.len(), usize::from(NODES) - fallen.len());
    world.clients.retain(|tracked| !fallen.contains(&tracked.number));
    let listed = world
        .several
        .node(survivor)
        .list_connections(&Default::default(), super::super::list::PageStart::Skip(0), 1000)
        .await;
    assert_eq!((listed.rows.len(), listed.missing.len()), (world.clients.len(), 0));
}
