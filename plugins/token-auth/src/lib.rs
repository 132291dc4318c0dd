//! Authenticates clients by a JSON Web Token signed with a configured key (HS256), and admits them to the rooms that
//! the token names.
//!
//! Verifies the signature with the host's constant-time `crypto` before any claim is read. The crate `jwt` interprets
//! the claims. README.md describes settings and answers.

mod settings;

use jwt::{Fault, Token};
use skylark_plugin::{
    Access, AccessAnswer, Admission, Auth, AuthAnswer, Claim, Join, Plugin, Transport, clock, crypto,
};

pub use settings::{Key, Settings};

/// The plugin, with its validated keys and rules.
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
        let Some(token) = jwt::offered(claim) else { return AuthAnswer::Abstain };
        match self.admission(token) {
            Err(fault) => AuthAnswer::refuse("401", fault.to_string()),
            Ok(admission) if transport.bound.as_ref().is_some_and(|bound| *bound != admission.uid) => {
                AuthAnswer::refuse("403", "token: belongs to another user than the connection")
            }
            Ok(admission) => AuthAnswer::Admit(admission),
        }
    }
}

impl Access for TokenAuth {
    fn join(&mut self, join: &Join) -> AccessAnswer {
        jwt::may_join(join)
    }
}

impl TokenAuth {
    fn admission(&self, token: &str) -> Result<Admission, Fault> {
        let token = Token::parse(token)?;
        check_signature(&token, &self.settings.keys)?;
        let rules = self.settings.rules();
        token.claims(&rules, clock::now() / 1_000)?.admission(&rules, &self.settings.keep_claims)
    }
}

fn check_signature(token: &Token<'_>, keys: &[Key]) -> Result<(), Fault> {
    if token.algorithm() != "HS256" {
        return Err(Fault::Algorithm { expected: "HS256".to_owned(), got: token.algorithm().to_owned() });
    }
    let made_with =
        |key: &Key| crypto::hmac_sha256_verify(key.secret.as_bytes(), token.signed.as_bytes(), &token.signature);
    let matches = match token.key() {
        Some(kid) => {
            let key = keys.iter().find(|key| key.id == kid).ok_or_else(|| Fault::UnknownKey(kid.to_owned()))?;
            made_with(key)
        }
        None => keys.iter().any(made_with),
    };
    if matches { Ok(()) } else { Err(Fault::Signature) }
}

skylark_plugin::export!(TokenAuth: auth, access);
