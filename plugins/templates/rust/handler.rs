//! Answers the key `greet`, and counts the greetings of each user.

use skylark_plugin::{Call, Handler, NoSettings, Plugin, Reply, kv};

pub struct MyPlugin;

impl Plugin for MyPlugin {
    type Settings = NoSettings;

    fn start(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Handler for MyPlugin {
    fn keys(&self) -> Vec<String> {
        vec!["greet".to_owned()]
    }

    fn handle(&mut self, call: &Call) -> Result<Reply, String> {
        let Some(caller) = &call.caller else { return Ok(Reply::new("401", "who are you?")) };
        let key = format!("greeted:{}", caller.uid);
        let before = kv::get(&key).and_then(|value| String::from_utf8(value).ok()?.parse().ok()).unwrap_or(0_u64);
        let times = (before + 1).to_string();
        kv::set(&key, times.as_bytes(), None).map_err(|e| e.to_string())?;
        Ok(Reply::ok().with("greeting", format!("hello, {}", caller.uid)).with("times", times))
    }
}

skylark_plugin::export!(MyPlugin: handler);
