//! Digests, signatures and random bytes from the host, where a library in the guest would be large or slow. Needs no
//! grant.
//!
//! ```
//! use skylark_plugin::crypto;
//! let tag = crypto::hmac_sha256(b"secret", b"1074");
//! assert!(crypto::hmac_sha256_verify(b"secret", b"1074", &tag));
//! assert_eq!(crypto::random(16).len(), 16);
//! ```

pub use crate::bindings::host::skylark::plugin::crypto::{EcKey, PublicKey, RsaKey};

/// SHA-256, 32 bytes.
#[cfg(target_family = "wasm")]
pub fn sha256(data: &[u8]) -> Vec<u8> {
    crate::bindings::host::skylark::plugin::crypto::sha256(data)
}

/// SHA-256, 32 bytes.
#[cfg(not(target_family = "wasm"))]
pub fn sha256(data: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(data).to_vec()
}

/// HMAC with SHA-256, 32 bytes.
#[cfg(target_family = "wasm")]
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
    crate::bindings::host::skylark::plugin::crypto::hmac_sha256(key, data)
}

/// HMAC with SHA-256, 32 bytes.
#[cfg(not(target_family = "wasm"))]
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
    use hmac::{KeyInit, Mac};
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key).expect("HMAC takes keys of any size");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// True if `tag` is the HMAC with SHA-256 of the data; compares in constant time.
#[cfg(target_family = "wasm")]
pub fn hmac_sha256_verify(key: &[u8], data: &[u8], tag: &[u8]) -> bool {
    crate::bindings::host::skylark::plugin::crypto::hmac_sha256_verify(key, data, tag)
}

/// True if `tag` is the HMAC with SHA-256 of the data.
#[cfg(not(target_family = "wasm"))]
pub fn hmac_sha256_verify(key: &[u8], data: &[u8], tag: &[u8]) -> bool {
    hmac_sha256(key, data) == tag
}

/// True if the key made the signature over the data.
///
/// # Errors
/// The key is not valid; the text gives the reason.
#[cfg(target_family = "wasm")]
pub fn verify(key: &PublicKey, data: &[u8], signature: &[u8]) -> Result<bool, String> {
    crate::bindings::host::skylark::plugin::crypto::verify(key, data, signature)
}

/// True if the test lists the signature as valid (`testing::Host::signatures`).
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn verify(key: &PublicKey, data: &[u8], signature: &[u8]) -> Result<bool, String> {
    crate::testing::with(|host| {
        let good = |(by, over, tag): &(PublicKey, Vec<u8>, Vec<u8>)| by == key && over == data && tag == signature;
        Ok(host.signatures.iter().any(good))
    })
}

/// Cryptographically secure random bytes, at most 1 024 a call; a larger request traps and ends the instance.
#[cfg(target_family = "wasm")]
pub fn random(length: u32) -> Vec<u8> {
    crate::bindings::host::skylark::plugin::crypto::random(length)
}

/// Bytes that differ with each call and are the same in each run of a test.
#[cfg(not(target_family = "wasm"))]
pub fn random(length: u32) -> Vec<u8> {
    assert!(length <= 1_024, "random: expected at most 1024 bytes, got {length}");
    let mut bytes = Vec::new();
    while bytes.len() < length as usize {
        let turn = crate::testing::with(|host| {
            host.randoms += 1;
            host.randoms
        });
        bytes.extend(sha256(&turn.to_le_bytes()));
    }
    bytes.truncate(length as usize);
    bytes
}
