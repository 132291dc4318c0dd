//! The conformance guest in Rust. ../../README.md describes its behaviour.

mod calls;
mod reach;

use serde::Deserialize;
use skylark_plugin::{
    Access, AccessAnswer, Admission, Alarms, Auth, AuthAnswer, Claim, Entry, Event, Events, Filter, Identity, Join,
    Message, Origin, Plugin, Publish, Receipts, ResumedStream, Target, TargetKind, Transport, UndeliveredCause,
    Verdict, clock, counters, directory, kv, log, outbox,
};

#[derive(Deserialize)]
struct Conformance {
    start: Option<String>,
    word: Option<String>,
}

impl Plugin for Conformance {
    type Settings = Self;

    fn start(settings: Self) -> Result<Self, String> {
        match settings.start.as_deref() {
            Some("error") => Err("told to fail".to_owned()),
            Some("trap") => panic!("trap"),
            _ => Ok(settings),
        }
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn named(error: &kv::Error) -> &'static str {
    match error {
        kv::Error::TooLarge => "too-large",
        kv::Error::ReadOnly => "read-only",
    }
}

impl Auth for Conformance {
    fn admit(&mut self, transport: &Transport, claim: &Claim) -> AuthAnswer {
        match claim.token.as_deref() {
            None => return AuthAnswer::Abstain,
            Some("no") => return AuthAnswer::refuse("403", "refused"),
            Some("trap") => panic!("trap"),
            Some("write") => {
                if let Err(error) = kv::set("k", b"v", None) {
                    return AuthAnswer::refuse("409", named(&error));
                }
            }
            Some(_) => {}
        }
        let from = transport.clone();
        let known = [
            ("listener", Some(from.listener)),
            ("remote", Some(from.remote)),
            ("path", Some(from.path)),
            ("origin", from.origin),
            ("agent", from.user_agent),
            ("bound", from.bound),
            ("channel", claim.channel.clone()),
        ];
        let mut claims: Vec<Entry> = known.into_iter().map(|(key, value)| (key.to_owned(), or_dash(value))).collect();
        claims.extend(claim.data.iter().cloned());
        AuthAnswer::Admit(Admission {
            uid: or_dash(claim.uid.clone()),
            device: claim.device.clone(),
            rooms: vec!["a".to_owned(), "b".to_owned()],
            expires: Some(clock::now() / 1_000 + 60),
            claims,
        })
    }
}

impl Access for Conformance {
    fn join(&mut self, join: &Join) -> AccessAnswer {
        match join.room.as_str() {
            "no" => AccessAnswer::refuse("403", "refused"),
            "trap" => panic!("trap"),
            "write" => match kv::set("k", b"v", None) {
                Err(error) => AccessAnswer::refuse("409", named(&error)),
                Ok(()) => AccessAnswer::allow(),
            },
            "until" => AccessAnswer::allow_until(clock::now() / 1_000 + 60),
            "seen" => {
                let who = join.who.clone();
                let (cid, device, channel) = (who.cid.to_string(), or_dash(who.device), or_dash(who.channel));
                let parts = [who.uid, cid, device, channel, listed(&join.claims), listed(&join.data)];
                AccessAnswer::refuse("418", parts.join("|"))
            }
            room if join.claim("join") == Some(room) => AccessAnswer::allow(),
            _ => AccessAnswer::Abstain,
        }
    }
}

fn listed(entries: &[Entry]) -> String {
    entries.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

impl Filter for Conformance {
    fn judge(&mut self, publish: &Publish) -> Verdict {
        match publish.action().as_str() {
            "reject" => Verdict::reject("403", publish.title()),
            "drop" => Verdict::Drop,
            "trap" => panic!("trap"),
            "spin" => spin(),
            "write" => match kv::set("k", b"v", None) {
                Err(error) => Verdict::reject("409", named(&error)),
                Ok(()) => Verdict::Allow,
            },
            "fields" => fields(publish),
            "seen" => seen(publish),
            "online" if !directory::online(&publish.receiver()) => Verdict::Drop,
            // example: counters
            "count" if counters::add_and_read(&publish.sender(), 60, 1) > 2 => Verdict::reject("429", "too many"),
            // end
            "log" => {
                log::debug("one");
                log::info("two");
                log::warn("three");
                log::error("four");
                Verdict::Allow
            }
            "setting" => Verdict::reject("403", or_dash(self.word.clone())),
            _ => Verdict::Allow,
        }
    }
}

fn fields(publish: &Publish) -> Verdict {
    let (id, time) = (publish.id().to_string(), publish.timestamp().to_string());
    let texts = [publish.action(), publish.sender(), publish.receiver(), publish.image(), publish.format(), id, time];
    Verdict::Replace(publish.message().with_title(texts.join("|")))
}

fn seen(publish: &Publish) -> Verdict {
    let origin = match publish.origin() {
        Origin::Client => "client",
        Origin::Http => "http",
        Origin::Broker => "broker",
        Origin::Plugin => "plugin",
    };
    let kind = match publish.target_kind() {
        TargetKind::Connection => "connection",
        TargetKind::Device => "device",
        TargetKind::User => "user",
        TargetKind::Users => "users",
        TargetKind::Room => "room",
        TargetKind::Everyone => "everyone",
        TargetKind::EveryoneBut => "everyone-but",
    };
    let (publisher, room) = (or_dash(publish.publisher()), or_dash(publish.target_room()));
    let (count, uids) = (publish.target_count(), publish.target_uids(0, 1_000).join(","));
    let message = publish.message().with_title(format!("{publisher}|{origin}|{kind}|{count}|{uids}|{room}"));
    Verdict::Replace(message.with_extra("parts", publish.content().len().to_string()))
}

impl Events for Conformance {
    fn on_event(&mut self, event: &Event) {
        let (what, uid, room) = match event {
            Event::Online(who) => ("online", &who.uid, "-"),
            Event::Offline(who) => ("offline", &who.uid, "-"),
            Event::RoomJoined(change) => ("room-joined", &change.who.uid, change.room.as_str()),
            Event::RoomLeft(change) => ("room-left", &change.who.uid, change.room.as_str()),
        };
        let message = Message::new("event").with("event", what).with("uid", uid.as_str()).with("room", room);
        tell(message);
    }
}

// example: receipts
impl Receipts for Conformance {
    fn resumed(&mut self, who: &Identity, streams: &[ResumedStream]) {
        let shown = |stream: &ResumedStream| {
            let count = stream.count.map_or_else(|| "-".to_owned(), |count| count.to_string());
            format!("{}={}:{count}", stream.name, stream.recovered)
        };
        let streams: Vec<String> = streams.iter().map(shown).collect();
        let message = Message::new("receipt").with("receipt", "resumed").with("uid", who.uid.as_str());
        tell(message.with("streams", streams.join(",")));
    }

    fn undelivered(&mut self, uid: &str, id: i64, cause: UndeliveredCause) {
        let cause = match cause {
            UndeliveredCause::Offline => "offline",
            UndeliveredCause::Unacknowledged => "unacknowledged",
        };
        let message = Message::new("receipt").with("receipt", "undelivered").with("uid", uid);
        tell(message.with("id", id.to_string()).with("cause", cause));
    }
}
// end

// example: timers
impl Alarms for Conformance {
    fn on_timer(&mut self, name: &str, data: &[u8]) {
        if name == "trap" {
            panic!("trap");
        }
        tell(Message::new("timer").with("name", name).with("data", String::from_utf8_lossy(data)));
    }
}
// end

fn tell(message: Message) {
    match outbox::push(Target::room("events"), message) {
        Ok(()) => {}
        Err(outbox::Error::TooManyHops) => log::error("too-many-hops"),
        Err(error) => log::error(error.to_string()),
    }
}

skylark_plugin::export!(Conformance: auth, filter, handler, events, access, alarms, receipts);
