//! Node with scripted broker and plugins: fates, batches, binds, presence, effects.

mod rooms;

use std::sync::Arc;

use tokio::time::Instant;

use super::effects::NodeServices;
use super::fake::{Fake, Judgement};
use super::{Connection, Fate};
use crate::claim::{Admission, Facts, Refusal, ResumeRequest, ResumeStream};
use crate::clock;
use crate::code::Code;
use crate::config::{Config, DevicePolicy};
use crate::disconnect::Disconnect;
use crate::id::{Room, Uid};
use crate::message::{Entries, Epoch, MAX_HOPS, Message, Origin, Position, Publication, StreamName, Target};
use crate::plugin::{Account, Effect, Event, ResumedStream, Services};
use crate::protocol::TooLarge;

fn fake() -> Fake {
    Fake::new(&Config::default())
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn room(text: &str) -> Room {
    Room::parse(text).unwrap()
}

fn publication(action: &str, text: &str) -> Publication {
    let content = [("text", text)].into_iter().collect();
    let message = Message { action: action.to_owned(), content, ..Message::default() };
    Publication::new(message, Target::User(uid("1074")), Origin::Http)
}

fn admission(user: &str) -> Admission {
    Admission { uid: uid(user), device: None, rooms: Vec::new(), expires: None, claims: Entries::new() }
}

fn facts(channel: &str, rest: &[(&str, &str)]) -> Facts {
    Facts { channel: Some(channel.to_owned()), rest: rest.iter().copied().collect(), ..Facts::default() }
}

#[tokio::test]
async fn publications_get_a_fate_each_and_accepted_ones_form_one_batch() {
    let fake = fake();
    let refusal = Refusal::new(Code::new(451), "not here");
    fake.judge("no", Judgement::Reject { plugin: "guard".into(), refusal: refusal.clone() });
    fake.judge("gone", Judgement::Drop { plugin: "guard".into() });
    fake.judge("other", Judgement::Pass { replaced_by: vec!["mask".into()] });
    let mut far = publication("chat", "far");
    far.hops = MAX_HOPS + 1;
    let big = "x".repeat(70_000);
    let batch = ["chat", "no", "gone", "other"].map(|action| publication(action, "hi")).into_iter();
    let published = fake.node.publish(batch.chain([publication("chat", &big), far]).collect()).await;

    assert!(matches!(&published[0].fate, Fate::Accepted { receipt: Some(r), .. } if r.delivered == 1));
    assert_eq!(published[1].fate, Fate::Rejected { plugin: "guard".into(), refusal });
    assert_eq!(published[2].fate, Fate::Dropped { plugin: "guard".into() });
    assert_eq!(published[3].replaced_by, [Arc::<str>::from("mask")]);
    assert!(matches!(published[4].fate, Fate::TooLarge(TooLarge { bytes, .. }) if bytes > 70_000));
    assert_eq!(published[5].fate, Fate::TooManyHops);

    let batches = fake.batches();
    assert_eq!(batches.len(), 1, "one batch for the broker");
    let actions: Vec<&str> = batches[0].iter().map(|e| e.message.action.as_str()).collect();
    assert_eq!(actions, ["chat", "other"]);
    assert!(published.windows(2).all(|two| two[0].id < two[1].id), "ids are given in order");
    assert!(batches[0].iter().all(|e| e.message.timestamp == e.sent_at && e.sent_at > 0));
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_before_a_plugin_sees_it() {
    let fake = fake();
    fake.judge("no", Judgement::Reject { plugin: "guard".into(), refusal: Refusal::new(Code::new(451), "not here") });
    let big = "x".repeat(70_000);
    let published = fake.node.publish(vec![publication("no", &big), publication("no", "hi")]).await;
    assert!(matches!(published[0].fate, Fate::TooLarge(_)), "{:?}", published[0].fate);
    assert!(matches!(published[1].fate, Fate::Rejected { .. }));
}

#[tokio::test]
async fn publication_with_id_and_timestamp_keeps_them() {
    let fake = fake();
    let mut own = publication("chat", "hi");
    let message = Arc::make_mut(&mut own.message);
    (message.id, message.timestamp) = (748, 1_700_000_000_000);
    assert_eq!(fake.node.publish(vec![own]).await[0].id, 748);
    assert_eq!(fake.batches()[0][0].message.timestamp, 1_700_000_000_000);
}

#[tokio::test]
async fn broker_outage_makes_only_passed_publications_unavailable() {
    let fake = fake();
    fake.break_broker();
    fake.judge("gone", Judgement::Drop { plugin: "guard".into() });
    let published = fake.node.publish(vec![publication("gone", "a"), publication("chat", "b")]).await;
    assert_eq!(published[0].fate, Fate::Dropped { plugin: "guard".into() });
    assert_eq!(published[1].fate, Fate::Unavailable);
    assert!(fake.node.publish(Vec::new()).await.is_empty());
}

#[tokio::test]
async fn earlier_bound_device_is_replaced_and_cannot_replace_the_later_one() {
    let fake = fake();
    let (first, second) = (fake.attach(DevicePolicy::Cim).await, fake.attach(DevicePolicy::Cim).await);
    for connection in [&first, &second] {
        fake.node.bind(connection, admission("1074"), facts("android", &[])).await.unwrap();
    }
    assert_eq!((first.closed().map(|d| d.code), second.closed()), (Some(4502), None));
    // A second bind of the loser does not affect the winner.
    fake.node.bind(&first, admission("1074"), facts("ios", &[])).await.unwrap();
    assert_eq!(second.closed(), None);
}

#[tokio::test]
async fn a_second_bind_adds_and_never_changes_the_user() {
    let fake = fake();
    let connection = fake.attach(DevicePolicy::AllowAll).await;
    let bind = async |user: &str, rest: &[(&str, &str)]| {
        fake.node.bind(&connection, admission(user), facts("web", rest)).await
    };
    bind("1074", &[("deviceName", "Firefox")]).await.unwrap();
    bind("1074", &[("language", "zh")]).await.unwrap();
    let refused = bind("1078", &[]).await.err().unwrap();
    assert_eq!((refused.code.as_str(), refused.reason.as_str()), ("403", "the connection is bound to 1074, not 1078"));
    let binding = connection.binding().unwrap();
    let told: Vec<_> = binding.facts.iter().collect();
    assert_eq!((binding.uid.as_str(), told), ("1074", vec![("deviceName", "Firefox"), ("language", "zh")]));
}

#[tokio::test]
async fn device_of_the_token_is_kept_against_later_claims() {
    let fake = fake();
    let connection = fake.attach(DevicePolicy::AllowAll).await;
    let device = |text: &str| Some(crate::id::Device::parse(text).unwrap());
    let typed = || Facts { device: Some("typed".to_owned()), ..Facts::default() };
    assert_eq!(fake.node.rebind(&connection, typed()).await.err().unwrap().code, "401");
    fake.node.bind(&connection, admission("1"), typed()).await.unwrap();
    assert_eq!(connection.binding().unwrap().device, device("typed"));
    let fixed = Admission { device: device("fixed"), ..admission("1") };
    fake.node.bind(&connection, fixed, Facts::default()).await.unwrap();
    fake.node.rebind(&connection, typed()).await.unwrap();
    fake.node.bind(&connection, admission("1"), typed()).await.unwrap();
    assert_eq!(connection.binding().unwrap().device, device("fixed"));
}

#[tokio::test]
async fn login_binds_a_connection_and_can_change_its_user() {
    let fake = fake();
    let services = NodeServices::new(Arc::downgrade(&fake.node));
    let account = |user: &str, rooms: &[&str]| {
        let rooms = rooms.iter().map(|name| room(name)).collect();
        Box::new(Account { admission: Admission { rooms, ..admission(user) }, channel: Some("web".to_owned()) })
    };
    let waiting = fake.attach(DevicePolicy::Cim).await;
    assert!(services.is_connected(waiting.id()).await);
    services.commit(vec![Effect::Login(waiting.id(), account("guest", &["hall"]))], 1).await;
    assert_eq!(waiting.binding().unwrap().uid, uid("guest"));
    services.commit(vec![Effect::Login(waiting.id(), account("1074", &["lobby"]))], 1).await;
    assert_eq!((waiting.binding().unwrap().uid.clone(), waiting.rooms()), (uid("1074"), vec![room("lobby")]));
    assert!(fake.node.user("guest").is_empty() && fake.node.room("hall").is_empty());
    let told: Vec<_> = fake
        .events()
        .iter()
        .map(|event| match event {
            Event::Online(who) => format!("online {}", who.uid),
            Event::Offline(who) => format!("offline {}", who.uid),
            Event::RoomJoined(who, room) => format!("{} joins {room}", who.uid),
            Event::RoomLeft(who, room) => format!("{} leaves {room}", who.uid),
            Event::Resumed(who, streams) => format!("{} resumes {}", who.uid, streams.len()),
            Event::Undelivered(uid, id, cause) => format!("{uid} lacks {id}, {cause:?}"),
        })
        .collect();
    let expected =
        ["online guest", "guest joins hall", "guest leaves hall", "offline guest", "online 1074", "1074 joins lobby"];
    assert_eq!(told, expected);
    let refused = fake.node.bind(&waiting, admission("guest"), facts("web", &[])).await.err().unwrap();
    assert_eq!(refused.code, "403", "a client's own bind never changes the user");

    let other = fake.attach(DevicePolicy::Cim).await;
    services.commit(vec![Effect::Login(other.id(), account("1074", &[]))], 1).await;
    fake.node.detach(&other).await;
    services.commit(vec![Effect::Login(other.id(), account("1078", &[]))], 1).await;
    assert!(fake.node.user("1078").is_empty() && !services.is_connected(other.id()).await, "it is gone");
    let mac = fake.attach(DevicePolicy::Cim).await;
    fake.node.bind(&mac, admission("1074"), facts("mac", &[])).await.unwrap();
    assert_eq!(waiting.closed().map(|why| why.code), Some(4502), "web and mac exclude each other");
}

#[tokio::test]
async fn login_without_device_keeps_the_known_device_against_later_claims() {
    let fake = fake();
    let services = NodeServices::new(Arc::downgrade(&fake.node));
    let login = |user: &str| Box::new(Account { admission: admission(user), channel: None });
    let device = |text: &str| Some(crate::id::Device::parse(text).unwrap());
    let claim = |text: &str| Facts { device: Some(text.to_owned()), ..Facts::default() };
    let connection = fake.connect("1", "desk", "web", &[]).await;

    services.commit(vec![Effect::Login(connection.id(), login("1"))], 1).await;
    fake.node.rebind(&connection, claim("phone")).await.unwrap();
    fake.node.bind(&connection, admission("1"), claim("phone")).await.unwrap();
    assert_eq!(connection.binding().unwrap().device, device("desk"));

    services.commit(vec![Effect::Login(connection.id(), login("2"))], 1).await;
    assert_eq!(connection.binding().unwrap().device, None, "the device of the former user is not the new user's");
    fake.node.rebind(&connection, claim("phone")).await.unwrap();
    assert_eq!(connection.binding().unwrap().device, device("phone"), "no login approved a device yet");
}

#[tokio::test(start_paused = true)]
async fn login_ends_the_time_to_bind_and_sets_the_expiry() {
    let mut fake = fake();
    fake.run_shards();
    let services = NodeServices::new(Arc::downgrade(&fake.node));
    let unbound = Config::default().limits.unbound;
    let expiry = clock::since_1970().as_secs() + 3 * unbound.as_secs();
    let login = |expires| Box::new(Account { admission: Admission { expires, ..admission("1") }, channel: None });
    let (waiting, endless) = (fake.attach(DevicePolicy::AllowAll).await, fake.attach(DevicePolicy::AllowAll).await);
    let ending = fake.attach(DevicePolicy::AllowAll).await;
    let effects = vec![Effect::Login(endless.id(), login(None)), Effect::Login(ending.id(), login(Some(expiry)))];
    services.commit(effects, 1).await;

    let closed = || [&waiting, &endless, &ending].map(Connection::closed);
    let (unbound_ended, token_ended) = (Some(Disconnect::UNBOUND), Some(Disconnect::TOKEN_EXPIRED));
    let start = Instant::now();
    for (periods, expected) in [(2, [unbound_ended, None, None]), (4, [unbound_ended, None, token_ended])] {
        tokio::time::sleep_until(start + periods * unbound).await;
        assert_eq!(closed(), expected, "after {periods} times the time to bind");
    }
}

#[tokio::test]
async fn streams_are_held_before_first_and_released_after_last_connection() {
    let fake = fake();
    let phone = fake.connect("1074", "phone", "android", &["lobby"]).await;
    let desk = fake.connect("1074", "desk", "windows", &["lobby"]).await;
    assert_eq!(
        fake.subscriptions(),
        ["subscribe 1074", "subscribe lobby", "subscribe 1074", "subscribe lobby"],
        "a second subscribe changes nothing"
    );
    fake.node.leave(&desk, &room("lobby")).await;
    fake.node.detach(&phone).await;
    assert_eq!(fake.subscriptions(), ["unsubscribe lobby"]);
    fake.node.detach(&desk).await;
    assert_eq!(fake.subscriptions(), ["unsubscribe 1074"]);
}

#[tokio::test]
async fn bus_outage_turns_readiness_red_and_refuses_binds() {
    let fake = fake();
    fake.set_bus_faults(&["redis is unavailable"]);
    assert!(fake.node.readiness().unwrap_err().contains(&"redis is unavailable".to_owned()));
    fake.break_broker();
    let connection = fake.attach(DevicePolicy::AllowAll).await;
    let refused = fake.node.bind(&connection, admission("1074"), facts("web", &[])).await.err().unwrap();
    assert_eq!((refused.code.as_str(), refused.code.is_server_fault()), ("503", true));
    assert!(fake.events().is_empty(), "nobody hears of a bind that came to nothing");
}

#[tokio::test]
async fn presence_events_are_sent_once_per_user_and_room() {
    let fake = fake();
    let phone = fake.connect("1074", "phone", "android", &["lobby"]).await;
    let desk = fake.connect("1074", "desk", "windows", &[]).await;
    let kinds = |events: Vec<Event>| -> Vec<String> {
        events.iter().map(|e| format!("{e:?}").split('(').next().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds(fake.events()), ["Online", "RoomJoined"]);
    fake.node.detach(&phone).await;
    assert_eq!(kinds(fake.events()), ["RoomLeft"]);
    fake.node.detach(&desk).await;
    fake.node.detach(&desk).await;
    assert_eq!(kinds(fake.events()), ["Offline"], "a second detach says nothing");
}

#[tokio::test]
async fn effects_are_done_in_order_and_neighbouring_pushes_are_one_batch() {
    let fake = fake();
    let connection = fake.connect("1074", "phone", "android", &[]).await;
    let services = NodeServices::new(Arc::downgrade(&fake.node));
    let push = |action: &str| Effect::Push(Box::new(publication(action, "hi")));
    let join = Effect::Join(uid("1074"), room("call"));
    services.commit(vec![push("a"), push("b"), join, push("c"), Effect::Leave(uid("1074"), room("call"))], 1).await;
    let lengths: Vec<usize> = fake.batches().iter().map(|batch| batch.len()).collect();
    assert_eq!(lengths, [2, 1]);
    let told: Vec<Event> = fake.events();
    assert!(matches!(told[..], [Event::Online(_), Event::RoomJoined(..), Event::RoomLeft(..)]), "{told:?}");
    services.commit(vec![Effect::Kick(Target::User(uid("1074")), "bye".to_owned())], 1).await;
    assert_eq!(connection.closed().map(|d| d.code), Some(4503));
    assert!(!services.is_online("1078").await);
}

#[tokio::test]
async fn client_that_resumes_is_reported_with_the_streams_that_it_had_a_position_of() {
    let fake = fake();
    let position = Position { epoch: Epoch::new(1), offset: 4, id: 7 };
    let streams = vec![
        (ResumeStream::Own, Some(position)),
        (ResumeStream::Everyone, None),
        (ResumeStream::Room(room("hall")), Some(position)),
    ];
    let resume = Some(ResumeRequest { streams, former: None });
    let mut receipts = Vec::new();
    for wants in [false, true] {
        if wants {
            fake.want_receipts();
        }
        let connection = fake.attach(DevicePolicy::Cim).await;
        let facts = Facts { resume: resume.clone(), ..Facts::default() };
        fake.node.bind(&connection, admission("1074"), facts).await.unwrap();
        receipts.push(fake.events().into_iter().find(Event::is_receipt));
    }
    let [None, Some(Event::Resumed(who, streams))] = &receipts[..] else { panic!("{receipts:?}") };
    assert_eq!(who.uid, uid("1074"));
    // This node has no history, so nothing is recovered.
    let lost = |name: StreamName| ResumedStream { name, recovered: false, count: Some(0) };
    assert_eq!(*streams, [lost(StreamName::User(uid("1074"))), lost(StreamName::Room(room("hall")))]);
}
