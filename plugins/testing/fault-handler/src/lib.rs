//! Handler that applies the effects in the data, then fails as the key says. Shows that effects are all or nothing.
//!
//! Keys: `fault_` and a fault (`faults::NAMES`), `fault_pushes` and `fault_keys` (push messages, or write keys, in an
//! endless loop that ignores errors), `fault_error` (answers an error), `fault_none` (answers 200 with its data).
//!
//! Data: `push` (a user gets a message of action `fault`), `join` (the caller joins the room), `leave`, `kick` (a
//! user), `set` (writes the kv key `value`), `get` (any text: the reply has the kv key `value`), `count` (any text:
//! adds one to the kv key `count` and replies with the sum). Concurrent calls lose no count and return no count twice.

use skylark_plugin::{Call, Handler, Message, NoSettings, Plugin, Reply, Target, kv, outbox};

struct Faulty;

impl Plugin for Faulty {
    type Settings = NoSettings;

    fn start(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Handler for Faulty {
    fn keys(&self) -> Vec<String> {
        faults::NAMES
            .iter()
            .copied()
            .chain(["pushes", "keys", "error", "none"])
            .map(|name| format!("fault_{name}"))
            .collect()
    }

    fn handle(&mut self, call: &Call) -> Result<Reply, String> {
        let mut reply = Reply::ok();
        reply.data.clone_from(&call.data);
        let reply = act(call, reply).map_err(|e| e.to_string())?;
        let name = call.key.trim_start_matches("fault_");
        faults::commit(name);
        match name {
            "pushes" => flood(|number| drop(outbox::push(Target::Everyone, Message::text("fault", number)))),
            "keys" => flood(|number| {
                let _ = kv::set(&number, &[0; 1 << 10], None);
            }),
            _ => {}
        }
        if name == "error" { Err("told to fail".to_owned()) } else { Ok(reply) }
    }
}

/// Repeats an effect forever and ignores its errors.
fn flood(once: impl Fn(String)) {
    for number in 0_u64.. {
        once(number.to_string());
    }
}

fn act(call: &Call, mut reply: Reply) -> Result<Reply, Box<dyn std::error::Error>> {
    let caller = call.caller.as_ref().map_or("", |who| who.uid.as_str());
    if let Some(uid) = call.get("push") {
        outbox::push(Target::user(uid), Message::text("fault", call.key.as_str()).between(caller, uid))?;
    }
    if let Some(room) = call.get("join") {
        outbox::join(caller, room)?;
    }
    if let Some(room) = call.get("leave") {
        outbox::leave(caller, room)?;
    }
    if let Some(uid) = call.get("kick") {
        outbox::kick(Target::user(uid), "told to kick")?;
    }
    if let Some(value) = call.get("set") {
        kv::set("value", value.as_bytes(), None)?;
    }
    if call.get("get").is_some() {
        let value = kv::get("value").unwrap_or_default();
        reply = reply.with("value", String::from_utf8(value)?);
    }
    if call.get("count").is_some() {
        let count = kv::get("count").map_or(Ok(0), |value| {
            String::from_utf8(value)?.parse::<u64>().map_err(Box::<dyn std::error::Error>::from)
        })?;
        kv::set("count", (count + 1).to_string().as_bytes(), None)?;
        reply = reply.with("count", (count + 1).to_string());
    }
    Ok(reply)
}

skylark_plugin::export!(Faulty: handler);
