//! Admits clients with the token of the settings, as the user that they claim to be.

use serde::Deserialize;
use skylark_plugin::{Admission, Auth, AuthAnswer, Claim, Plugin, Transport};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MyPlugin {
    token: String,
}

impl Plugin for MyPlugin {
    type Settings = Self;

    fn start(settings: Self) -> Result<Self, String> {
        if settings.token.is_empty() { Err("settings.token: expected a text".to_owned()) } else { Ok(settings) }
    }
}

impl Auth for MyPlugin {
    fn admit(&mut self, _: &Transport, claim: &Claim) -> AuthAnswer {
        match (&claim.token, &claim.uid) {
            (None, _) => AuthAnswer::Abstain,
            (Some(token), Some(uid)) if *token == self.token => AuthAnswer::Admit(Admission::of(uid.as_str())),
            _ => AuthAnswer::refuse("401", "wrong token"),
        }
    }
}

skylark_plugin::export!(MyPlugin: auth);
