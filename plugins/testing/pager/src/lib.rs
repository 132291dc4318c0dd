//! Events plugin with receipts. Pushes each kept message that a user lacks to the user `pager`, as a plugin does that
//! notifies phones, and tells it each client that came back.

use skylark_plugin::history::{self, StreamName};
use skylark_plugin::{
    Event, Events, Identity, Message, NoSettings, Plugin, Receipts, ResumedStream, Target, UndeliveredCause, log,
    outbox,
};

struct Pager;

impl Plugin for Pager {
    type Settings = NoSettings;

    fn start(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Events for Pager {
    fn on_event(&mut self, _: &Event) {}
}

impl Receipts for Pager {
    fn resumed(&mut self, who: &Identity, streams: &[ResumedStream]) {
        let shown = |stream: &ResumedStream| format!("{} {} {:?}", stream.name, stream.recovered, stream.count);
        page("resumed", &who.uid, &streams.iter().map(shown).collect::<Vec<_>>().join(", "));
    }

    fn undelivered(&mut self, uid: &str, id: i64, _: UndeliveredCause) {
        let kept = match history::latest(&StreamName::user(uid), 100) {
            Ok(page) => page.messages.into_iter().find(|kept| kept.message.id == id),
            Err(error) => return log::error(error.to_string()),
        };
        let text = kept.and_then(|kept| kept.message.content.into_iter().find(|(key, _)| key == "text"));
        page("page", uid, text.as_ref().map_or("", |(_, text)| text));
    }
}

fn page(action: &str, uid: &str, text: &str) {
    let message = Message::text(action, text).between(uid, "pager");
    let options = outbox::Options { key: None, history: outbox::History::No, no_echo: None };
    if let Err(error) = outbox::push_with(Target::user("pager"), message, Some(options)) {
        log::error(error.to_string());
    }
}

skylark_plugin::export!(Pager: events, receipts);
