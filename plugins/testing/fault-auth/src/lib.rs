//! Auth plugin that commits a fault when the token, or `always` in its settings, names one (`faults::NAMES`).
//!
//! Otherwise it accepts the token without a check: `uid`, `uid@device` or `uid@device#room,room`. The token `refuse` is
//! refused with code 418. Without a token the plugin abstains. Never use it on a node that clients can reach.

use skylark_plugin::{Admission, Auth, AuthAnswer, Claim, Plugin, Transport};

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Faulty {
    always: String,
    /// Seconds since 1970 at which each admission ends.
    expires: Option<u64>,
}

impl Plugin for Faulty {
    type Settings = Self;

    fn start(settings: Self) -> Result<Self, String> {
        Ok(settings)
    }
}

impl Auth for Faulty {
    fn admit(&mut self, transport: &Transport, claim: &Claim) -> AuthAnswer {
        faults::commit(&self.always);
        let Some(token) = &claim.token else { return AuthAnswer::Abstain };
        faults::commit(token);
        if token == "refuse" {
            return AuthAnswer::refuse("418", "told to refuse");
        }
        let (who, rooms) = token.split_once('#').unwrap_or((token, ""));
        let (uid, device) = who.split_once('@').map_or((who, None), |(uid, device)| (uid, Some(device.to_owned())));
        let rooms = rooms.split(',').filter(|r| !r.is_empty()).map(str::to_owned).collect();
        let claims = vec![("listener".to_owned(), transport.listener.clone())];
        AuthAnswer::Admit(Admission { uid: uid.to_owned(), device, rooms, expires: self.expires, claims })
    }
}

skylark_plugin::export!(Faulty: auth);
