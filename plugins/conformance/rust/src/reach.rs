//! Calls of `http`, `login`, `timers` and `history`, and an endless allocation.

use skylark_plugin::history::{Missed, StreamName, StreamPosition};
use skylark_plugin::{Call, Reply, clock, history, http, login, timers};

pub(crate) const KEYS: [&str; 5] = ["http", "login", "timer", "history", "hog"];

// example: http
pub(crate) fn http(call: &Call) -> Reply {
    let request = http::Request::get(call.get("url").unwrap_or_default()).header("x-asked", "云雀".len().to_string());
    let name = match request.timeout_ms(2_000).send() {
        Ok(answer) => {
            let shown = answer.header("x-shown").unwrap_or("-").to_owned();
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            return Reply::ok().with("status", answer.status.to_string()).with("shown", shown).with("body", body);
        }
        Err(http::Error::Denied(_)) => "denied",
        Err(http::Error::Invalid(_)) => "invalid",
        Err(http::Error::Unreachable(_)) => "unreachable",
        Err(http::Error::Timeout) => "timeout",
        Err(http::Error::TooLarge) => "too-large",
        Err(http::Error::Broken(_)) => "broken",
        Err(http::Error::Busy) => "busy",
    };
    Reply::new("502", name)
}
// end

// example: login
pub(crate) fn login(call: &Call) -> Reply {
    let account = login::Account {
        device: Some("desk".to_owned()),
        channel: Some("web".to_owned()),
        rooms: vec!["a".to_owned()],
        expires: Some(clock::now() / 1_000 + 60),
        ..login::Account::of(call.get("uid").unwrap_or_default())
    };
    match login::bind(call.get("cid").and_then(|cid| cid.parse().ok()).unwrap_or_default(), account) {
        Ok(()) => Reply::ok(),
        Err(login::Error::TooMany) => Reply::new("409", "too-many"),
        Err(login::Error::Gone) => Reply::new("409", "gone"),
        Err(login::Error::Invalid(_)) => Reply::new("409", "invalid"),
    }
}
// end

// example: timers
pub(crate) fn timer(call: &Call) -> Reply {
    let after = call.get("after").and_then(|after| after.parse().ok()).unwrap_or_default();
    let data = call.get("data").unwrap_or_default();
    let set = match call.get("cancel") {
        Some(name) => timers::cancel(name),
        None => timers::start(call.get("name").unwrap_or_default(), after, data),
    };
    match set {
        Ok(()) => Reply::ok(),
        Err(timers::Error::TooMany) => Reply::new("409", "too-many"),
        Err(timers::Error::Invalid(_)) => Reply::new("409", "invalid"),
    }
}
// end

// example: history
pub(crate) fn history(call: &Call) -> Reply {
    match read(call) {
        Ok(reply) => reply,
        Err(error) => Reply::new("409", error.name()),
    }
}

fn read(call: &Call) -> Result<Reply, history::Error> {
    let number = |key: &str| call.get(key).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let name = call.get("room").map_or(StreamName::Everyone, StreamName::room);
    let limit = u32::try_from(number("limit")).unwrap_or(u32::MAX);
    let page = match call.get("epoch") {
        Some(epoch) => {
            let (offset, id) = (number("offset"), number("id").cast_signed());
            history::after(&name, &StreamPosition { epoch: epoch.to_owned(), offset, id }, limit)?
        }
        None => history::latest(&name, limit)?,
    };
    let top = history::position(&name)?;
    let missed = match page.missed {
        Some(Missed::Trimmed) => "trimmed",
        Some(Missed::Epoch) => "epoch",
        Some(Missed::Fork) => "fork",
        None => "-",
    };
    let shown: Vec<String> =
        page.messages.iter().map(|kept| format!("{}={}", kept.offset, kept.message.action)).collect();
    let reply = Reply::ok().with("top", format!("{}:{}:{}", top.epoch, top.offset, top.id));
    Ok(reply.with("messages", shown.join(",")).with("missed", missed))
}
// end

/// Allocates memory forever.
pub(crate) fn hog() -> ! {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(vec![1; 1 << 20]);
    }
}
