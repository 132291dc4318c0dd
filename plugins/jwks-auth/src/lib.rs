//! Authenticates clients by a JSON Web Token of an issuer that publishes its keys at a JWKS endpoint (RS256 and ES256).
//!
//! Decides when keys are fetched and which key must match a token. The crate `jwt` interprets claims, the module `keys`
//! key sets. README.md describes settings and answers.

mod keys;
mod settings;
mod source;

use jwt::{Fault, Token};
use skylark_plugin::{Access, AccessAnswer, Admission, Auth, AuthAnswer, Claim, Join, Plugin, Transport, clock};

pub use keys::Algorithm;
pub use settings::Settings;

use source::{Check, Source};

/// The plugin: its rules and the known keys.
#[derive(Debug)]
pub struct JwksAuth {
    settings: Settings,
    source: Source,
}

impl Plugin for JwksAuth {
    type Settings = Settings;

    fn start(settings: Settings) -> Result<Self, String> {
        settings.check()?;
        Ok(Self { settings, source: Source::default() })
    }
}

impl Auth for JwksAuth {
    fn admit(&mut self, transport: &Transport, claim: &Claim) -> AuthAnswer {
        let Some(token) = jwt::offered(claim) else { return AuthAnswer::Abstain };
        match self.admission(token) {
            Err(No::Token(fault)) => AuthAnswer::refuse("401", fault.to_string()),
            Err(No::Keys) => AuthAnswer::refuse("503", "token: the keys of its issuer cannot be had now"),
            Ok(admission) if transport.bound.as_ref().is_some_and(|bound| *bound != admission.uid) => {
                AuthAnswer::refuse("403", "token: belongs to another user than the connection")
            }
            Ok(admission) => AuthAnswer::Admit(admission),
        }
    }
}

impl Access for JwksAuth {
    fn join(&mut self, join: &Join) -> AccessAnswer {
        jwt::may_join(join)
    }
}

/// Reason for which a client is not admitted.
enum No {
    /// The token is invalid.
    Token(Fault),
    /// No trusted keys are available to check the token.
    Keys,
}

impl From<Fault> for No {
    fn from(fault: Fault) -> Self {
        Self::Token(fault)
    }
}

impl JwksAuth {
    fn admission(&mut self, token: &str) -> Result<Admission, No> {
        let token = Token::parse(token)?;
        let algorithm = self.settings.algorithm(&token)?;
        let now = clock::now();
        if !self.source.is_fresh(&self.settings, now) {
            self.source.renew(&self.settings, now);
        }
        let mut check = self.source.check(&token, algorithm);
        // The issuer may have published a new key.
        while check == Check::Unknown && self.source.renew(&self.settings, now) {
            check = self.source.check(&token, algorithm);
        }
        if !self.source.is_trusted(&self.settings, now) {
            return Err(No::Keys);
        }
        match (check, token.key()) {
            (Check::Good, _) => {}
            (Check::Bad(fault), _) => return Err(fault.into()),
            (Check::Unknown, Some(name)) => return Err(Fault::UnknownKey(name.to_owned()).into()),
            (Check::Unknown, None) => return Err(Fault::Signature.into()),
        }
        let rules = self.settings.rules();
        Ok(token.claims(&rules, now / 1_000)?.admission(&rules, &self.settings.keep_claims)?)
    }
}

skylark_plugin::export!(JwksAuth: auth, access);
