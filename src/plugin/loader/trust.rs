//! Files that an operator trusts: those with the hash that the manifest pins, and those signed with a configured key.
//!
//! Checks bytes before they are compiled; knows no component. Signatures are Ed25519 over the whole file, as base64, in
//! `NAME.wasm.sig` beside it.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::Plugins;
use crate::plugin::guest::files::PluginFiles;
use crate::plugin::guest::manifest::Manifest;

/// Requirements of the configuration for each file.
#[derive(Debug, Clone, Default)]
pub(in crate::plugin) struct Trust {
    require_hash: bool,
    /// Public keys; an invalid one verifies nothing.
    keys: Vec<Vec<u8>>,
}

impl Trust {
    pub(in crate::plugin) fn new(config: &Plugins) -> Self {
        let key = |text: &String| STANDARD.decode(text).unwrap_or_default();
        Self { require_hash: config.require_hash, keys: config.signing_keys.iter().map(key).collect() }
    }

    /// Checks the pin and the signature of a file.
    ///
    /// # Errors
    /// Why the file is not trusted, and what to do about it.
    pub(in crate::plugin) fn check(&self, files: &PluginFiles, manifest: &Manifest) -> Result<(), Vec<String>> {
        let faults = [self.pin(files, manifest), self.signature(files)];
        let faults: Vec<String> = faults.into_iter().flatten().collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn pin(&self, files: &PluginFiles, manifest: &Manifest) -> Option<String> {
        let (plugin, hash) = (&files.plugin, &files.id.hash);
        match &manifest.sha256 {
            Some(pinned) if **pinned == **hash => None,
            Some(pinned) => Some(format!("{plugin}.toml pins sha256 {pinned}, and the file has {hash}")),
            None if self.require_hash => Some(format!(
                "plugins.require_hash asks for a pin: if this is the file that you mean, put this line into {plugin}.toml: sha256 = \"{hash}\""
            )),
            None => None,
        }
    }

    fn signature(&self, files: &PluginFiles) -> Option<String> {
        if self.keys.is_empty() {
            return None;
        }
        let file = format!("{}.wasm.sig", files.plugin);
        let Some(text) = &files.id.signature else {
            return Some(format!(
                "plugins.signing_keys asks for a signature: there is no {file} (skylark plugin sign makes one)"
            ));
        };
        let Ok(signature) = STANDARD.decode(text.trim()) else {
            return Some(format!("{file}: expected a signature as base64"));
        };
        let verifies = |key: &Vec<u8>| UnparsedPublicKey::new(&ED25519, key).verify(&files.bytes, &signature).is_ok();
        let known = self.keys.iter().any(verifies);
        (!known).then(|| format!("{file} does not verify: no key of plugins.signing_keys signed this file"))
    }
}

/// Why there is no key or signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The text is not a private key.
    #[error("expected a private key as `skylark plugin keygen` writes it")]
    Key,
    /// The system gives no randomness.
    #[error("the system's random number generator failed")]
    Randomness,
}

/// A private key that signs files.
#[derive(Debug)]
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new private key as text (PKCS #8, base64), which must be kept secret.
    ///
    /// # Errors
    /// [`SignError::Randomness`].
    pub fn generate() -> Result<String, SignError> {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| SignError::Randomness)?;
        Ok(STANDARD.encode(key.as_ref()))
    }

    /// Parses the text that [`SigningKey::generate`] returns.
    ///
    /// # Errors
    /// [`SignError::Key`].
    pub fn parse(text: &str) -> Result<Self, SignError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| SignError::Key)?;
        Ed25519KeyPair::from_pkcs8(&bytes).map(Self).map_err(|_| SignError::Key)
    }

    /// The public key, in the form of `plugins.signing_keys`.
    #[must_use]
    pub fn public(&self) -> String {
        STANDARD.encode(self.0.public_key().as_ref())
    }

    /// The signature of `bytes`, in the form of `NAME.wasm.sig`.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> String {
        STANDARD.encode(self.0.sign(bytes).as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(sha256: Option<&str>) -> Manifest {
        Manifest { sha256: sha256.map(str::to_owned), ..Manifest::default() }
    }

    #[test]
    fn wrong_pin_is_always_refused_and_a_missing_one_only_if_required() {
        let files = PluginFiles::new("p".into(), b"bytes".to_vec(), None, None);
        let right = manifest(Some(&files.id.hash));
        let (loose, strict) = (Trust::default(), Trust { require_hash: true, ..Trust::default() });
        assert_eq!((loose.check(&files, &manifest(None)), loose.check(&files, &right)), (Ok(()), Ok(())));
        assert_eq!(strict.check(&files, &right), Ok(()));
        let missing = strict.check(&files, &manifest(None)).unwrap_err().remove(0);
        assert!(missing.ends_with(&format!("put this line into p.toml: sha256 = \"{}\"", files.id.hash)), "{missing}");
        for trust in [loose, strict] {
            let other = trust.check(&files, &manifest(Some(&"0".repeat(64)))).unwrap_err().remove(0);
            assert!(other.contains("pins sha256 0000"), "{other}");
        }
    }

    #[test]
    fn only_a_named_key_over_these_bytes_verifies() {
        let (own, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let (own, other) = (SigningKey::parse(&own).unwrap(), SigningKey::parse(&other).unwrap());
        let trust = Trust { keys: vec![STANDARD.decode(own.public()).unwrap()], ..Trust::default() };
        let judge = |signature: Option<String>| {
            trust
                .check(&PluginFiles::new("p".into(), b"bytes".to_vec(), None, signature), &manifest(None))
                .map_err(|f| f.join("; "))
        };
        assert_eq!(judge(Some(own.sign(b"bytes") + "\n")), Ok(()));
        assert!(judge(None).unwrap_err().contains("there is no p.wasm.sig"));
        assert!(judge(Some("?".into())).unwrap_err().contains("expected a signature as base64"));
        for wrong in [own.sign(b"other bytes"), other.sign(b"bytes"), String::new()] {
            assert!(judge(Some(wrong)).unwrap_err().contains("does not verify"));
        }
        assert_eq!(SigningKey::parse("nonsense").unwrap_err(), SignError::Key);
    }
}
