//! Handler that calls host functions as the SendBody says, and returns the result as `value` of its reply.
//!
//! Keys and data: `probe_add` (`key`, `amount`), `probe_count` (`name`, `window`, `amount`), `probe_crypto` (`text`;
//! replies `digest`, `hmac`, `random`), `probe_directory` (`uid`; replies `devices`, `rooms`), `probe_login` (`cid`,
//! `uid`, `device`, `channel`, `room`), `probe_me` (replies the connection as `value`, and `uid`), `probe_http` (`url`,
//! `timeout` in ms, `header`, `body`; replies the body as `value`, `status`, `location`), `probe_timer` (`name`,
//! `after` in ms, `to`: user to push to when due; `cancel`, `fail`: any text). An invalid number counts as 0.

use skylark_plugin::login::Account;
use skylark_plugin::{
    Alarms, Call, Handler, Message, NoSettings, Plugin, Reply, Target, counters, crypto, directory, http, kv, log,
    login, outbox, timers,
};

struct Probe;

impl Plugin for Probe {
    type Settings = NoSettings;

    fn start(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Handler for Probe {
    fn keys(&self) -> Vec<String> {
        ["add", "count", "crypto", "directory", "login", "me", "http", "timer"]
            .map(|name| format!("probe_{name}"))
            .to_vec()
    }

    fn handle(&mut self, call: &Call) -> Result<Reply, String> {
        match call.key.as_str() {
            "probe_add" => add(call),
            "probe_count" => count(call),
            "probe_crypto" => crypto_of(call),
            "probe_login" => login_of(call),
            "probe_me" => Ok(me(call)),
            "probe_timer" => timer_of(call),
            "probe_http" => Ok(http_of(call)),
            _ => Ok(directory_of(call)),
        }
    }
}

fn text<'a>(call: &'a Call, name: &str) -> &'a str {
    call.get(name).unwrap_or_default()
}

fn number<T: std::str::FromStr + Default>(call: &Call, name: &str) -> T {
    text(call, name).parse().unwrap_or_default()
}

fn add(call: &Call) -> Result<Reply, String> {
    let sum = kv::add(text(call, "key"), number(call, "amount"), None).map_err(|error| error.to_string())?;
    Ok(Reply::ok().with("value", sum.to_string()))
}

fn count(call: &Call) -> Result<Reply, String> {
    let counted = counters::add_and_read(text(call, "name"), number(call, "window"), number(call, "amount"));
    Ok(Reply::ok().with("value", counted.to_string()))
}

fn crypto_of(call: &Call) -> Result<Reply, String> {
    let data = text(call, "text").as_bytes();
    let tag = crypto::hmac_sha256(b"key", data);
    if !crypto::hmac_sha256_verify(b"key", data, &tag) || crypto::hmac_sha256_verify(b"other", data, &tag) {
        return Err("an HMAC is not its own".to_owned());
    }
    // RFC 8032, test 1: the signature of the empty message.
    let key = unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    let signature = unhex(concat!(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155",
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    ));
    let key = crypto::PublicKey::Ed25519(key);
    let good = crypto::verify(&key, b"", &signature)?;
    let reply = Reply::ok().with("value", format!("{good} {}", crypto::verify(&key, b"x", &signature)?));
    let reply = reply.with("digest", hex(&crypto::sha256(data))).with("hmac", hex(&tag));
    Ok(reply.with("random", hex(&crypto::random(16))))
}

fn directory_of(call: &Call) -> Reply {
    let uid = text(call, "uid");
    Reply::ok().with("devices", directory::devices(uid).join(",")).with("rooms", directory::rooms(uid).join(","))
}

fn login_of(call: &Call) -> Result<Reply, String> {
    let given = |name: &str| call.get(name).map(str::to_owned);
    let rooms = given("room").into_iter().collect();
    let account =
        Account { device: given("device"), channel: given("channel"), rooms, ..Account::of(text(call, "uid")) };
    match login::bind(number(call, "cid"), account) {
        Ok(()) => Ok(Reply::ok()),
        Err(error) => Ok(Reply::new("404", error.to_string())),
    }
}

fn me(call: &Call) -> Reply {
    let uid = call.caller.as_ref().map_or("", |who| who.uid.as_str());
    Reply::ok().with("value", call.cid.to_string()).with("uid", uid)
}

fn http_of(call: &Call) -> Reply {
    let mut request = http::Request::get(text(call, "url"));
    request.timeout_ms = call.get("timeout").and_then(|ms| ms.parse().ok());
    if let Some(header) = call.get("header") {
        request = request.header(header, "asked");
    }
    if let Some(body) = call.get("body") {
        request = request.post(body);
    }
    match request.send() {
        Ok(answer) => {
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            let location = answer.header("location").unwrap_or_default().to_owned();
            Reply::ok().with("value", body).with("status", answer.status.to_string()).with("location", location)
        }
        Err(error) => Reply::new("502", error.to_string()),
    }
}

fn timer_of(call: &Call) -> Result<Reply, String> {
    let (name, after) = (text(call, "name"), number(call, "after"));
    let done = match call.get("cancel") {
        Some(_) => timers::cancel(name),
        None => timers::start(name, after, text(call, "to")),
    };
    if call.get("fail").is_some() {
        return Err("told to fail".to_owned());
    }
    Ok(done.map_or_else(|error| Reply::new("429", error.to_string()), |()| Reply::ok()))
}

/// Pushes a due timer to the user in its data.
impl Alarms for Probe {
    fn on_timer(&mut self, name: &str, data: &[u8]) {
        let to = String::from_utf8_lossy(data);
        if let Err(error) = outbox::push(Target::user(to), Message::text("probe_timer", name)) {
            log::error(error.to_string());
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).filter_map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

skylark_plugin::export!(Probe: handler, alarms);
