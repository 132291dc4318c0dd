//! Several nodes on one shared bus: requests, changes and events across nodes, and lost connections to the engine.

mod lists;
mod presence;
mod simulation;

use std::time::Duration;

use futures_util::future::join_all;

use super::lease::{RENEWAL, TTL};
use crate::broker::Subscription;
use crate::claim::Admission;
use crate::config::{ChooseBy, Config, DevicePolicy};
use crate::disconnect::Disconnect;
use crate::id::{ConnectionId, Device, Room, Uid};
use crate::message::{Entries, Target};
use crate::node::Fate;
use crate::node::effects::NodeServices;
use crate::node::fake::several::{Several, TestClient, id};
use crate::plugin::{Account, Effect, Identity, Services};
use crate::protocol::{Coding, Dialect, Form};

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn room(text: &str) -> Room {
    Room::parse(text).unwrap()
}

fn user(text: &str) -> Target {
    Target::User(uid(text))
}

fn services(several: &Several, number: u16) -> NodeServices {
    NodeServices::new(std::sync::Arc::downgrade(several.node(number)))
}

async fn bound(several: &mut Several, number: u16, who: &str, device: &str, channel: &str) -> TestClient {
    let client = several.attach(number, DevicePolicy::Cim).await.unwrap();
    client.bind(who, device, channel, &[]).await.unwrap();
    client
}

#[tokio::test(start_paused = true)]
async fn kick_closes_the_user_on_every_node() {
    let mut several = Several::new(3).await;
    let mut clients = Vec::new();
    for number in 1..=3 {
        clients.push(several.connect(number, "1074", &[]).await);
    }
    let other = several.connect(2, "1075", &[]).await;
    let kicked = several.node(1).kick(&user("1074"), "out").await;
    assert_eq!((kicked.closed, kicked.missing), (3, vec![]));
    several.run_ready().await;
    for client in &clients {
        assert_eq!((client.closed(), client.texts()), (Some(Disconnect::KICKED), vec!["out".to_owned()]));
    }
    assert_eq!(other.closed(), None);

    let kicked = several.node(3).kick(&Target::Connection(other.connection.id()), "out").await;
    assert_eq!((kicked.closed, other.closed()), (1, Some(Disconnect::KICKED)), "by its id, only its node is asked");
    let device = Target::Device(uid("1074"), Device::parse("desk").unwrap());
    assert_eq!(several.node(3).kick(&device, "out").await.closed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_is_named_and_waited_for_half_a_second() {
    let mut several = Several::new(3).await;
    several.connect(2, "1074", &[]).await;
    several.connect(3, "1074", &[]).await;
    several.shared.deafen(&id(3));
    let begun = tokio::time::Instant::now();
    let kicked = several.node(1).kick(&user("1074"), "out").await;
    assert_eq!((kicked.closed, kicked.missing), (1, vec![id(3)]));
    assert_eq!(begun.elapsed(), Duration::from_millis(500));
    let listed = several.node(1).list_rooms(super::list::PageStart::Skip(0), 10).await;
    assert_eq!(listed.missing, [id(3)]);
}

#[tokio::test(start_paused = true)]
async fn room_has_its_members_of_all_nodes() {
    let mut several = Several::new(3).await;
    let here = several.connect(1, "a", &["lobby"]).await;
    let there = several.connect(2, "b", &[]).await;
    let elsewhere = several.connect(3, "c", &[]).await;
    let changed =
        several.node(3).join_room(&Target::Users([uid("a"), uid("b"), uid("x")].into()), &room("lobby")).await;
    assert_eq!((changed.changed, changed.unchanged, changed.refused.len()), (1, 1, 0));
    assert_eq!(changed.here.into_iter().collect::<Vec<_>>(), [uid("a"), uid("b")]);

    several.shared.copies();
    let published = several.publish(3, Target::Room(room("lobby")), "hi").await;
    assert!(matches!(published.fate, Fate::Accepted { nodes: Some(2), receipt: Some(r), .. } if r.delivered == 2));
    let copies: Vec<_> = several.shared.copies().into_iter().collect();
    assert_eq!(copies, [(id(1), 1), (id(2), 1)], "only nodes with members get a copy");
    several.run_ready().await;
    assert_eq!((here.texts(), there.texts(), elsewhere.texts().len()), (vec!["hi".into()], vec!["hi".into()], 0));

    let changed = several.node(1).leave_room(&user("b"), &room("lobby")).await;
    assert_eq!(changed.changed, 1);
    assert!(!several.shared.is_subscribed(&id(2), &Subscription::Room(room("lobby"))), "its last member has left");
    here.leave().await;
    assert!(!several.shared.is_subscribed(&id(1), &Subscription::Room(room("lobby"))));
}

#[tokio::test(start_paused = true)]
async fn user_messages_reach_a_node_only_while_it_holds_the_user() {
    let mut several = Several::new(2).await;
    let (phone, desk) = (several.connect(1, "1074", &[]).await, several.connect(1, "1074", &[]).await);
    let held = Subscription::User(uid("1074"));
    assert!(several.shared.is_subscribed(&id(1), &held) && !several.shared.is_subscribed(&id(2), &held));
    phone.leave().await;
    assert!(several.shared.is_subscribed(&id(1), &held), "another connection is there");
    let published = several.publish(2, user("1074"), "hi").await;
    assert!(matches!(published.fate, Fate::Accepted { nodes: Some(1), .. }));
    desk.leave().await;
    assert!(!several.shared.is_subscribed(&id(1), &held));
    let published = several.publish(2, user("1074"), "hi").await;
    assert!(matches!(published.fate, Fate::Accepted { nodes: Some(0), .. }));
}

#[tokio::test(start_paused = true)]
async fn later_bind_on_another_node_replaces_the_earlier_device() {
    let mut several = Several::new(3).await;
    let first = bound(&mut several, 1, "1074", "phone-1", "android").await;
    let desk = bound(&mut several, 3, "1074", "desk", "mac").await;
    let second = bound(&mut several, 2, "1074", "phone-2", "ios").await;
    several.run_ready().await;
    assert_eq!((first.closed(), second.closed(), desk.closed()), (Some(Disconnect::REPLACED), None, None));
    assert_eq!(first.texts(), ["ios"], "the loser hears who took its place");
    let again = bound(&mut several, 1, "1074", "phone-2", "ios").await;
    several.run_ready().await;
    assert_eq!((second.closed(), second.texts().len(), again.closed()), (Some(Disconnect::REPLACED), 0, None));
}

#[tokio::test(start_paused = true)]
async fn of_simultaneous_logins_exactly_one_stays() {
    for count in [2u16, 3, 8] {
        let mut several = Several::new(count).await;
        let mut clients = Vec::new();
        for number in 1..=count {
            clients.push(several.attach(number, DevicePolicy::Cim).await.unwrap());
        }
        let binds = clients.iter().enumerate().map(async |(i, client)| {
            for _ in 0..i % 3 {
                tokio::task::yield_now().await;
            }
            client.bind("1074", &format!("phone-{i}"), "android", &[]).await.unwrap();
        });
        join_all(binds).await;
        several.run_ready().await;
        let left: Vec<_> = clients.iter().filter(|client| client.closed().is_none()).collect();
        assert_eq!(left.len(), 1, "of {count}");
        let greatest = clients.iter().filter_map(|c| c.connection.binding()).map(|b| b.number).max();
        assert_eq!(left[0].connection.binding().map(|b| b.number), greatest);
    }
}

#[tokio::test(start_paused = true)]
async fn plugin_queries_and_effects_reach_other_nodes() {
    let mut several = Several::new(3).await;
    let guest = several.attach(3, DevicePolicy::Cim).await.unwrap();
    let friend = several.connect(2, "1075", &[]).await;
    let plugin = services(&several, 1);
    assert!(plugin.is_connected(guest.connection.id()).await && !plugin.is_online("1074").await);

    let admission = Admission {
        uid: uid("1074"),
        device: None,
        rooms: vec![room("hall")],
        expires: None,
        claims: [("plan", "gold")].into_iter().collect::<Entries>(),
    };
    let account = Box::new(Account { admission, channel: Some("web".to_owned()) });
    let effects = vec![
        Effect::Login(guest.connection.id(), account),
        Effect::Join(uid("1074"), room("call")),
        Effect::Join(uid("1075"), room("call")),
    ];
    plugin.commit(effects, 1).await;
    several.run_ready().await;
    assert_eq!(guest.replies(), ["client_bind"]);
    assert!(plugin.is_online("1074").await && plugin.is_online("1075").await && !plugin.is_online("1076").await);
    assert_eq!(plugin.members("call", 0, 10).await, [uid("1074"), uid("1075")]);
    assert_eq!(plugin.members("call", 1, 1).await, [uid("1075")]);
    let seen = plugin.connections("1074").await;
    assert_eq!((seen.len(), seen[0].cid, seen[0].rooms.len()), (1, guest.connection.id(), 2));

    let effects = vec![Effect::Leave(uid("1075"), room("call")), Effect::Kick(user("1074"), "bye".to_owned())];
    plugin.commit(effects, 1).await;
    several.run_ready().await;
    assert_eq!((guest.closed(), friend.connection.rooms().len()), (Some(Disconnect::KICKED), 0));
    assert!(!plugin.is_connected(guest.connection.id()).await);
}

#[tokio::test(start_paused = true)]
async fn presence_query_over_unrouted_bus_finds_the_user() {
    let mut several = Several::new(3).await;
    several.shared.count_nothing();
    several.connect(3, "1074", &["lobby"]).await;
    let plugin = services(&several, 1);
    let begun = tokio::time::Instant::now();
    assert!(plugin.is_online("1074").await && !plugin.is_online("1075").await);
    assert_eq!(plugin.connections("1074").await.len(), 1);
    assert!(begun.elapsed() < Duration::from_millis(100), "nobody was waited for: {:?}", begun.elapsed());
    let published = several.publish(1, user("1074"), "hi").await;
    assert!(matches!(published.fate, Fate::Accepted { nodes: None, .. }));
}

#[tokio::test(start_paused = true)]
async fn refusal_during_an_engine_outage_hides_the_engine() {
    let mut several = Several::new(1).await;
    let (free, matrix) = (DevicePolicy::AllowAll, DevicePolicy::Cim);
    let clients = [several.attach(1, free).await.unwrap(), several.attach(1, matrix).await.unwrap()];
    several.shared.cut(&id(1), true);
    for client in clients {
        let refusal = client.bind("1074", "phone", "android", &[]).await.unwrap_err();
        assert_eq!((refusal.code.as_str(), &*refusal.reason), ("503", "unavailable: try again later"));
    }
}

#[tokio::test(start_paused = true)]
async fn node_without_renewal_refuses_connections_then_closes_all() {
    let mut several = Several::new(2).await;
    let client = several.connect(1, "1074", &[]).await;
    several.shared.cut(&id(1), true);
    several.pass(TTL / 2).await;
    assert_eq!(several.attach(1, DevicePolicy::AllowAll).await.err(), Some(Disconnect::CUT_OFF));
    let reasons = several.node(1).readiness().unwrap_err().join("; ");
    assert!(
        reasons.contains("the lease of the node was not renewed: shared is unavailable: n1 is cut off"),
        "{reasons}"
    );
    assert_eq!(client.closed(), None, "the lease may still hold");
    several.pass(TTL / 2).await;
    assert_eq!(client.closed(), Some(Disconnect::CUT_OFF));
    let text = client.close_text();
    assert_eq!(text.as_deref(), Some("cut off from the cluster; next 10.0.0.2:8080"), "it is sent to the other one");
    assert!(several.node(1).readiness().unwrap_err().join("; ").contains("the node is not in the cluster"));

    several.pass(RENEWAL).await;
    assert_eq!(several.events(), ["n1: online 1074", "n2: offline 1074"], "a survivor tells it, once");
    several.shared.cut(&id(1), false);
    several.pass(Duration::from_secs(6)).await;
    assert!(several.connect(1, "1074", &[]).await.closed().is_none(), "it is back");
    assert_eq!(several.events(), ["n1: online 1074"]);
    assert_eq!(several.node(1).own_member().incarnation, 3, "as a new life");
}

#[tokio::test(start_paused = true)]
async fn node_with_100_000_pending_offline_notices_keeps_its_lease() {
    const USERS: usize = 100_000;
    let quiet = |config: &mut Config| config.heartbeat.interval = Duration::from_secs(3600);
    let mut several = Several::with(2, quiet).await;
    let client = several.connect(1, "1074", &[]).await;
    several.shared.delay_offline_reports(Duration::from_millis(1));
    let gone =
        |n: usize| Identity { uid: uid(&format!("u{n}")), cid: ConnectionId::UNKNOWN, device: None, channel: None };
    *several.node(1).presence.pending_offline.lock() = (0..USERS).map(gone).collect();
    let incarnation = several.node(1).own_member().incarnation;
    several.events();
    // The calls take one or two hundred seconds, many times the lease time.
    for _ in 0..220 {
        several.pass(Duration::from_secs(1)).await;
        assert!(several.node(1).cluster.membership.is_held() && client.closed().is_none());
    }
    let (told, others): (Vec<_>, Vec<_>) = several.events().into_iter().partition(|e| e.starts_with("n1: offline u"));
    assert_eq!((told.len(), others), (USERS, Vec::new()), "each was told once, and nobody else");
    assert_eq!(several.node(1).own_member().incarnation, incarnation);
}

#[tokio::test(start_paused = true)]
async fn short_engine_outage_closes_no_connection() {
    let mut several = Several::new(2).await;
    let client = several.connect(1, "1074", &[]).await;
    several.shared.cut(&id(1), true);
    several.pass(Duration::from_secs(7)).await;
    let refused = several.attach(1, DevicePolicy::AllowAll).await.err();
    several.shared.cut(&id(1), false);
    several.pass(Duration::from_secs(2)).await;
    assert_eq!((refused, client.closed()), (Some(Disconnect::CUT_OFF), None));
    assert!(several.attach(1, DevicePolicy::AllowAll).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn engine_data_loss_is_repaired_without_closing_clients() {
    let mut several = Several::new(2).await;
    let (here, there) = (several.connect(1, "1074", &[]).await, several.connect(2, "1075", &[]).await);
    several.events();
    several.shared.lose_everything();
    several.pass(RENEWAL).await;
    assert_eq!((here.closed(), there.closed()), (None, None));
    assert_eq!(
        (several.shared.nodes_of(&uid("1074")), several.shared.nodes_of(&uid("1075"))),
        (vec![id(1)], vec![id(2)])
    );
    assert_eq!(several.node(1).members().await.len(), 2);
    here.leave().await;
    assert_eq!(several.events(), ["n1: offline 1074"]);
}

#[tokio::test(start_paused = true)]
async fn node_whose_name_was_taken_closes_its_clients() {
    let mut several = Several::new(1).await;
    let client = several.connect(1, "1074", &[]).await;
    several.shared.lose_everything();
    let twin = several.shared.engine(&id(9), 9, std::sync::Arc::new(Nobody)).1;
    let mut member = several.node(1).own_member();
    member.number = 9;
    twin.join(&member).await.unwrap();
    several.pass(RENEWAL).await;
    assert_eq!(client.closed(), Some(Disconnect::CUT_OFF));
    several.pass(Duration::from_secs(1)).await;
    let reasons = several.node(1).readiness().unwrap_err().join("; ");
    assert!(reasons.contains("node n1 is here already"), "{reasons}");
    several.pass(TTL + Duration::from_secs(6)).await;
    assert!(several.attach(1, DevicePolicy::AllowAll).await.is_ok(), "the other one is gone: it has joined");
}

#[tokio::test(start_paused = true)]
async fn bind_while_engine_is_away_is_refused_as_retryable() {
    let mut several = Several::new(2).await;
    let client = several.attach(1, DevicePolicy::Cim).await.unwrap();
    several.shared.cut(&id(1), true);
    let refused = client.bind("1074", "phone", "android", &[]).await.unwrap_err();
    assert!(refused.code.is_server_fault(), "{refused:?}");
    several.shared.cut(&id(1), false);
    client.leave().await;
    assert_eq!(several.events(), Vec::<String>::new(), "nobody was told that it came");
    bound(&mut several, 1, "1074", "phone", "android").await;
    assert_eq!(several.events(), ["n1: online 1074"]);
}

#[tokio::test(start_paused = true)]
async fn gap_is_sent_once_to_every_live_client() {
    let mut several = Several::new(2).await;
    let (here, there) = (several.connect(1, "a", &[]).await, several.connect(2, "b", &[]).await);
    let unbound = several.attach(1, DevicePolicy::Cim).await.unwrap();
    several.node(1).cluster.on_gap();
    several.node(1).cluster.on_gap();
    several.run_ready().await;
    assert_eq!((here.replies(), there.replies().len(), unbound.replies().len()), (vec!["gap".to_owned()], 0, 0));
}

#[tokio::test(start_paused = true)]
async fn every_node_names_the_same_node_with_free_capacity() {
    let several = Several::with(3, |config| config.limits.connections = 100).await;
    let chosen = several.node(1).choose(Some(&uid("1074")), None).await.unwrap();
    for number in 1..=3 {
        assert_eq!(several.node(number).choose(Some(&uid("1074")), None).await.unwrap().id, chosen.id, "n{number}");
        let next = several.node(number).next_address(Some(&uid("1074")), None);
        assert_eq!(next, (id(number) != chosen.id).then(|| chosen.address.clone()));
    }
    several.node(chosen.number).begin_drain();
    several.run_ready().await;
    several.refresh_members().await;
    let other = several.node(chosen.number).choose(Some(&uid("1074")), None).await.unwrap();
    assert_ne!(other.id, chosen.id, "a node that drains is told at once");
    let ip = "192.0.2.1".parse().ok();
    let by_ip = several.node(other.number).choose(None, ip).await.unwrap();
    for form in [Form::websocket(Dialect::Cim, Coding::Protobuf), Form::tcp(Dialect::Cim)] {
        let refusal = several.node(chosen.number).refusal(form, Disconnect::RESTART, ip).unwrap();
        let words = String::from_utf8_lossy(&refusal).into_owned();
        assert!(words.contains("restart") && words.contains(&by_ip.address), "{form}: {words}");
    }

    let by_ip = Several::with(3, |config| config.cluster.choose_by = ChooseBy::Ip).await;
    let of = async |who: &str| by_ip.node(1).choose(Some(&uid(who)), ip).await.unwrap().id;
    let first = of("u0").await;
    for user in 1..20 {
        assert_eq!(of(&format!("u{user}")).await, first, "only the address counts");
    }
}

#[tokio::test(start_paused = true)]
async fn node_with_a_taken_name_or_number_cannot_join() {
    let several = Several::new(1).await;
    let joined = several.shared.engine(&id(2), 1, std::sync::Arc::new(Nobody)).1;
    let mut twin = several.node(1).own_member();
    twin.id = id(2);
    let taken = joined.join(&twin).await.unwrap_err();
    assert_eq!(taken.to_string(), "node n1 is here already as number 1");
}

/// Receiver that ignores everything.
struct Nobody;

impl crate::broker::Deliver for Nobody {
    fn deliver(
        &self,
        _: crate::broker::Batch,
        _: Vec<Option<crate::message::Position>>,
    ) -> futures_util::future::BoxFuture<'_, Vec<crate::message::Receipt>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn on_cluster_message(&self, _: &crate::id::NodeId, _: bytes::Bytes) {}

    fn gap(&self) {}
}
