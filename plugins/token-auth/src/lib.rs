//! Lets in who carries a JSON Web Token signed with one of its keys (HS256).
//!
//! Decides what a token means for a connection; what a token *is* stands in `jwt`. README.md tells settings and answers.

mod jwt;
mod settings;

use skylark_plugin::{Admission, Auth, AuthAnswer, Claim, Entry, Plugin, Transport, clock};

pub use jwt::{Claims, Fault, MAX_TOKEN_BYTES};
pub use settings::{Key, Settings};

/// The plugin: its keys and rules, checked.
#[derive(Debug)]
pub struct TokenAuth {
    settings: Settings,
}

impl Plugin for TokenAuth {
    type Settings = Settings;

    fn start(settings: Settings) -> Result<Self, String> {
        settings.check()?;
        Ok(Self { settings })
    }
}

impl Auth for TokenAuth {
    fn admit(&mut self, transport: &Transport, claim: &Claim) -> AuthAnswer {
        let Some(token) = offered(claim) else { return AuthAnswer::Abstain };
        let now = clock::now() / 1_000;
        match jwt::verify(token, &self.settings, now).and_then(|claims| self.admission(&claims)) {
            Err(fault) => AuthAnswer::refuse("401", fault.to_string()),
            Ok(admission) if transport.bound.as_ref().is_some_and(|bound| *bound != admission.uid) => {
                AuthAnswer::refuse("403", "token: belongs to another user than the connection")
            }
            Ok(admission) => AuthAnswer::Admit(admission),
        }
    }
}

impl TokenAuth {
    fn admission(&self, claims: &Claims) -> Result<Admission, Fault> {
        let kept = self.settings.keep_claims.iter().filter_map(|name| Some((name.clone(), claims.text(name)?)));
        Ok(Admission {
            uid: claims.uid()?,
            device: claims.device()?,
            rooms: claims.rooms()?,
            // The leeway that let an expired token in does not close its connection at once.
            expires: claims.expires()?.map(|at| at.saturating_add(self.settings.leeway)),
            claims: kept.collect::<Vec<Entry>>(),
        })
    }
}

/// The token, or the claimed uid where it has a token's form: CIM's web SDK can set nothing else.
fn offered(claim: &Claim) -> Option<&str> {
    let token = claim.token.as_deref().filter(|token| !token.is_empty());
    token.or_else(|| claim.uid.as_deref().filter(|uid| jwt::looks_like_one(uid)))
}

skylark_plugin::export!(TokenAuth: auth);
