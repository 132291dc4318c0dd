//! The `[settings]` table of `video-call.toml`, and the values made with its secret: addresses and call names.

use std::fmt::{self, Write as _};

use serde::Deserialize;
use skylark_plugin::crypto;

/// Minimum secret length: the size of the digest.
const MIN_SECRET_BYTES: usize = 32;
/// Maximum lifetime of kv entries: one day.
const MAX_SECONDS: u32 = 24 * 60 * 60;

/// Settings of the operator.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of an accepted call. `{call}` is the call's id, `{hmac}` its signature, `{kind}` voice or video.
    pub address: String,
    /// Secret that signs the ids in addresses. At least 32 bytes, shared with the media server.
    pub secret: String,
    /// Seconds in which an invitation can be answered.
    #[serde(default = "default_ring")]
    pub ring: u32,
    /// Seconds after which an unfinished call no longer keeps its two users busy.
    #[serde(default = "default_talk")]
    pub talk: u32,
}

impl Settings {
    /// # Errors
    /// The first invalid setting, by its name in the file.
    pub fn check(&self) -> Result<(), String> {
        if !self.address.contains("{call}") || !self.address.contains("{hmac}") {
            return Err(format!(
                "settings.address: expected a text with {{call}} and {{hmac}}, got {:?}",
                self.address
            ));
        }
        let bytes = self.secret.len();
        if bytes < MIN_SECRET_BYTES {
            return Err(format!("settings.secret: expected at least {MIN_SECRET_BYTES} bytes, got {bytes}"));
        }
        for (name, seconds) in [("ring", self.ring), ("talk", self.talk)] {
            if !(1..=MAX_SECONDS).contains(&seconds) {
                return Err(format!("settings.{name}: expected 1 to {MAX_SECONDS} seconds, got {seconds}"));
            }
        }
        Ok(())
    }

    /// The address of the call, the same for both sides.
    pub fn address_of(&self, call: &str, kind: &str) -> String {
        let filled = self.address.replace("{call}", call).replace("{kind}", kind);
        filled.replace("{hmac}", &self.digest(&["address", call], 32))
    }

    /// A call name that cannot be guessed.
    pub(crate) fn name_call(&self, caller: &str, callee: &str, nonce: &str) -> String {
        self.digest(&["call", caller, callee, nonce], NAME_BYTES)
    }

    /// The first bytes of the HMAC over the words, in hexadecimal.
    fn digest(&self, words: &[&str], bytes: usize) -> String {
        // No user name contains a comma, so different lists of words have different digests.
        let digest = crypto::hmac_sha256(self.secret.as_bytes(), words.join(",").as_bytes());
        digest.iter().take(bytes).fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes all");
            hex
        })
    }
}

/// Never prints the secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("address", &self.address).field("ring", &self.ring).finish_non_exhaustive()
    }
}

/// Bytes of a call name.
const NAME_BYTES: usize = 16;

/// True if the text has the form of a call name.
pub(crate) fn is_call_name(text: &str) -> bool {
    text.len() == 2 * NAME_BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn default_ring() -> u32 {
    60
}

fn default_talk() -> u32 {
    4 * 60 * 60
}
