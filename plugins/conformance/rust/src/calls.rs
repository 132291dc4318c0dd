//! The role handler of the guest.

use skylark_plugin::{Call, Handler, Message, Reply, Target, crypto, directory, kv, outbox};

use crate::{Conformance, named, or_dash, reach, spin};

impl Handler for Conformance {
    fn keys(&self) -> Vec<String> {
        let keys = ["echo", "kv", "cas", "add", "push", "room", "kick", "who", "crypto", "fail", "trap", "spin"];
        keys.into_iter().chain(reach::KEYS).map(str::to_owned).collect()
    }

    fn handle(&mut self, call: &Call) -> Result<Reply, String> {
        answer(call).map_err(|error| error.to_string())
    }
}

fn answer(call: &Call) -> Result<Reply, Box<dyn std::error::Error>> {
    let caller = or_dash(call.caller.as_ref().map(|who| who.uid.clone()));
    let data = |key: &str| call.get(key).unwrap_or_default();
    match call.key.as_str() {
        "echo" => {
            let mut reply = Reply::new("200", caller);
            reply.data.clone_from(&call.data);
            return Ok(reply.with("cid", call.cid.to_string()));
        }
        "kv" | "cas" | "add" => return kept(call),
        // example: outbox
        "push" => {
            let message = Message::text("hi", data("text")).between(caller, "");
            let options =
                outbox::Options { key: Some("once".to_owned()), history: outbox::History::No, no_echo: Some(call.cid) };
            if let Err(outbox::Error::Invalid(reason)) =
                outbox::push_with(Target::user(data("to")), message, Some(options))
            {
                return Ok(Reply::new("400", reason));
            }
        }
        "room" => {
            outbox::join(&caller, data("join"))?;
            outbox::leave(&caller, data("leave"))?;
        }
        "kick" => outbox::kick(Target::user(data("who")), "told to go")?,
        // end
        "who" => return Ok(who(data("who"), data("room"))),
        "http" => return Ok(reach::http(call)),
        "login" => return Ok(reach::login(call)),
        "timer" => return Ok(reach::timer(call)),
        "history" => return Ok(reach::history(call)),
        "hog" => reach::hog(),
        // example: crypto
        "crypto" => {
            let (text, key) = (data("text").as_bytes(), data("key").as_bytes());
            let reply = Reply::ok().with("sha256", hex(&crypto::sha256(text)));
            let reply = reply.with("hmac", hex(&crypto::hmac_sha256(key, text)));
            return Ok(reply.with("random", crypto::random(16).len().to_string()));
        }
        // end
        wrong => {
            outbox::push(Target::user(caller.as_str()), Message::new("hi").between(caller, ""))?;
            match wrong {
                "fail" => return Err("told to fail".into()),
                "trap" => panic!("trap"),
                _ => spin(),
            }
        }
    }
    Ok(Reply::ok())
}

// example: kv
fn kept(call: &Call) -> Result<Reply, Box<dyn std::error::Error>> {
    let data = |key: &str| call.get(key).unwrap_or_default();
    match call.key.as_str() {
        "kv" => {
            if let Some(value) = call.get("set")
                && let Err(error) = kv::set("k", value.as_bytes(), Some(10))
            {
                return Ok(Reply::new("409", named(&error)));
            }
            if call.get("delete").is_some() {
                kv::delete("k")?;
            }
            let value = kv::get("k").map(String::from_utf8).transpose()?;
            Ok(Reply::ok().with("value", or_dash(value)))
        }
        "cas" => {
            let expected = call.get("expected").map(str::as_bytes);
            let done = kv::compare_and_swap("k", expected, data("value").as_bytes(), None)?;
            Ok(Reply::ok().with("done", done.to_string()))
        }
        _ => Ok(match kv::add("n", data("amount").parse()?, None) {
            Ok(sum) => Reply::ok().with("sum", sum.to_string()),
            Err(kv::AddError::TooLarge) => Reply::new("409", "too-large"),
            Err(kv::AddError::ReadOnly) => Reply::new("409", "read-only"),
            Err(kv::AddError::NotANumber) => Reply::new("409", "not-a-number"),
        }),
    }
}
// end

// example: directory
fn who(uid: &str, room: &str) -> Reply {
    let known = directory::connections(uid);
    let device = or_dash(known.first().and_then(|presence| presence.device.clone()));
    let mut members = directory::members(room, 0, 10);
    members.sort();
    let reply = Reply::ok().with("online", directory::online(uid).to_string());
    reply.with("count", known.len().to_string()).with("device", device).with("members", members.join(","))
}
// end

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
