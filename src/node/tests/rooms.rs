//! Join requests of clients: decisions, the claims they use, and the end of memberships.

use std::sync::Arc;
use std::time::Duration;

use super::super::effects::NodeServices;
use super::super::fake::Fake;
use super::super::fake::several::Several;
use super::{admission, facts, fake, room, uid};
use crate::claim::{Admission, Refusal};
use crate::clock;
use crate::code::Code;
use crate::config::{Config, DevicePolicy, OpenRooms};
use crate::hub::Connection;
use crate::message::{Entries, Target};
use crate::plugin::{Access, Account, Effect, Services};

async fn ask(fake: &Fake, connection: &Connection, name: &str) -> Result<bool, (String, String)> {
    let joined = fake.node.request_join(connection, room(name), Entries::new(), None).await;
    joined.map(|joined| joined.changed).map_err(|Refusal { code, reason, .. }| (code.to_string(), reason))
}

fn refused(code: &str, reason: &str) -> Result<bool, (String, String)> {
    Err((code.to_owned(), reason.to_owned()))
}

fn entries(pairs: &[(&str, &str)]) -> Entries {
    pairs.iter().copied().collect()
}

fn now() -> u64 {
    clock::since_1970().as_secs()
}

#[tokio::test]
async fn a_room_is_closed_unless_it_is_open_or_a_plugin_allows_it() {
    let mut config = Config::default();
    let fake = Fake::new(&config);
    let client = fake.connect("1074", "phone", "android", &[]).await;
    let closed = refused("403", "room: lobby is not open to this client");
    assert_eq!(ask(&fake, &client, "lobby").await, closed);
    assert!(client.rooms().is_empty());

    config.clients.open_rooms = OpenRooms::new(vec!["lobby".to_owned(), "public:*".to_owned()]);
    fake.config.store(Arc::new(config.clone()));
    assert_eq!((ask(&fake, &client, "lobby").await, ask(&fake, &client, "public:1").await), (Ok(true), Ok(true)));
    assert_eq!(ask(&fake, &client, "public").await, refused("403", "room: public is not open to this client"));
    assert_eq!(ask(&fake, &client, "lobby").await, Ok(false));

    fake.set_access("secret", Access::Allow(None));
    fake.set_access("public:2", Access::Refuse(Refusal::new(Code::new(451), "not for you")));
    fake.set_access("public:3", Access::Unavailable);
    assert_eq!(ask(&fake, &client, "secret").await, Ok(true));
    assert_eq!(ask(&fake, &client, "public:2").await, refused("451", "not for you"), "plugins are asked first");
    let away = refused("503", "room: the access plugins cannot answer now: try again later");
    assert_eq!(ask(&fake, &client, "public:3").await, away);
    config.clients.open_rooms = OpenRooms::default();
    fake.config.store(Arc::new(config.clone()));
    assert_eq!(client.rooms().len(), 3, "members stay when a room is no longer open");
}

#[tokio::test]
async fn access_plugins_see_only_claims_of_the_last_admission() {
    let fake = fake();
    let connection = fake.attach(DevicePolicy::AllowAll).await;
    let typed = facts("web", &[("join", "*"), ("deviceName", "Firefox")]);
    let admitted = |claims: &[(&str, &str)]| Admission { claims: entries(claims), ..admission("1074") };
    let asked_with = async || {
        let data = entries(&[("join", "*"), ("code", "x")]);
        let joined = fake.node.request_join(&connection, room("news"), data.clone(), None).await;
        assert_eq!(joined.err().unwrap().code, "403");
        let asked = fake.joins().remove(0);
        assert_eq!((asked.who.uid.as_str(), asked.data), ("1074", data));
        asked.claims
    };
    fake.node.bind(&connection, admitted(&[("plan", "gold")]), typed.clone()).await.unwrap();
    assert_eq!(asked_with().await, entries(&[("plan", "gold")]), "what the client typed is no claim");
    fake.node.rebind(&connection, typed).await.unwrap();
    assert_eq!(asked_with().await, entries(&[("plan", "gold")]), "a bind without a token changes no claim");
    fake.node.bind(&connection, admitted(&[("team", "red")]), facts("web", &[])).await.unwrap();
    assert_eq!(asked_with().await, entries(&[("team", "red")]), "a later admission replaces all claims");
    let services = NodeServices::new(Arc::downgrade(&fake.node));
    let expires = Some(now() + 60);
    let login = Account { admission: Admission { expires, ..admitted(&[]) }, channel: None };
    services.commit(vec![Effect::Login(connection.id(), Box::new(login))], 1).await;
    assert_eq!(asked_with().await, Entries::new(), "so does a login");
    fake.node.rebind(&connection, facts("web", &[])).await.unwrap();
    let binding = connection.binding().unwrap();
    assert_eq!(binding.expires, expires, "and its end stays, too");
    assert_eq!(binding.facts, entries(&[("join", "*"), ("deviceName", "Firefox")]));
}

#[tokio::test]
async fn joins_by_the_operator_ask_no_plugin() {
    let fake = fake();
    let client = fake.connect("1074", "phone", "android", &["lobby"]).await;
    let services = NodeServices::new(Arc::downgrade(&fake.node));
    services.commit(vec![Effect::Join(uid("1074"), room("call"))], 1).await;
    fake.node.join_room(&Target::User(uid("1074")), &room("news")).await;
    assert_eq!(client.rooms(), [room("lobby"), room("call"), room("news")]);
    assert!(fake.joins().is_empty());
}

#[tokio::test]
async fn join_over_the_room_limit_is_refused_before_the_plugins() {
    let mut config = Config::default();
    config.clients.rooms = 1;
    let fake = Fake::new(&config);
    let client = fake.connect("1074", "phone", "android", &["lobby"]).await;
    fake.set_access("news", Access::Allow(None));
    assert_eq!(ask(&fake, &client, "news").await.unwrap_err().0, "429");
    assert!(fake.joins().is_empty());
    let unbound = fake.attach(DevicePolicy::AllowAll).await;
    assert_eq!(ask(&fake, &unbound, "news").await.unwrap_err().0, "401");
}

#[tokio::test]
async fn join_with_past_end_is_refused() {
    let fake = fake();
    let client = fake.connect("1074", "phone", "android", &[]).await;
    fake.set_access("news", Access::Allow(Some(now())));
    assert_eq!(ask(&fake, &client, "news").await, refused("403", "room: the membership in news has expired"));
    assert!(client.rooms().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_membership_ends_at_its_time_and_the_client_is_told() {
    let mut several = Several::new(1).await;
    let client = several.connect(1, "1074", &["lobby"]).await;
    let join = async |name: &str, until: Option<u64>| {
        several.set_access(1, name, Access::Allow(until));
        let joined = client.node.request_join(&client.connection, room(name), Entries::new(), None).await;
        joined.map(|joined| joined.changed)
    };
    for (name, seconds) in [("short", 5), ("renewed", 5), ("refused", 5)] {
        assert_eq!(join(name, Some(now() + seconds)).await, Ok(true));
    }
    assert_eq!(join("renewed", Some(now() + 3_600)).await, Ok(false), "a client asks again for a later end");
    several.set_access(1, "refused", Access::Refuse(Refusal::new(Code::FORBIDDEN, "no")));
    let again = client.node.request_join(&client.connection, room("refused"), Entries::new(), None).await;
    assert_eq!(again.map(|joined| joined.changed), Err(Refusal::new(Code::FORBIDDEN, "no")));
    assert_eq!(client.connection.rooms().len(), 4, "a refusal does not end a membership before its time");
    several.events();
    several.pass(Duration::from_secs(3)).await;
    assert_eq!((client.connection.rooms().len(), several.events().len()), (4, 0));
    several.pass(Duration::from_secs(5)).await;
    assert_eq!(client.connection.rooms(), [room("lobby"), room("renewed")]);
    assert_eq!(several.events(), ["n1: 1074 leaves short", "n1: 1074 leaves refused"]);
    assert_eq!(client.replies(), ["room_left", "room_left"]);
    let published = several.publish(1, Target::Room(room("short")), "late").await;
    several.run_ready().await;
    assert!(client.texts().is_empty(), "{published:?}");
}
