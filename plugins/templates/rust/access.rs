//! Lets users join the rooms of their team: the room `team:red` requires the claim `team` = `red`.

use serde::Deserialize;
use skylark_plugin::{Access, AccessAnswer, Join, Plugin};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MyPlugin {
    prefix: String,
}

impl Plugin for MyPlugin {
    type Settings = Self;

    fn start(settings: Self) -> Result<Self, String> {
        if settings.prefix.is_empty() { Err("settings.prefix: expected a text".to_owned()) } else { Ok(settings) }
    }
}

impl Access for MyPlugin {
    fn join(&mut self, join: &Join) -> AccessAnswer {
        match join.room.strip_prefix(&self.prefix) {
            None => AccessAnswer::Abstain,
            Some(team) if join.claim("team") == Some(team) => AccessAnswer::allow(),
            Some(_) => AccessAnswer::refuse("403", "the room of another team"),
        }
    }
}

skylark_plugin::export!(MyPlugin: access);
