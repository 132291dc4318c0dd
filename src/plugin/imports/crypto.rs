//! The interface `crypto`: digests, signatures and randomness for languages that lack them or are slow at them.
//!
//! Pure except for `random`. Inputs count toward the bytes that a call may hand over, so no input is large.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use aws_lc_rs::{digest, hmac, rand};

use crate::plugin::guest::bindings::skylark::plugin::crypto::{EcKey, Host, PublicKey, RsaKey};
use crate::plugin::guest::state::Guest;

/// Most random bytes of one host call.
const MAX_RANDOM: u32 = 1_024;
/// Bytes of an Ed25519 key and of each coordinate of a P-256 point.
const POINT_BYTES: usize = 32;
/// Bytes of an RSA modulus of 2 048 and of 8 192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;
/// Most bytes of an RSA exponent; 3 is the usual one.
const MAX_EXPONENT_BYTES: usize = 8;

impl Host for Guest {
    fn sha256(&mut self, data: Vec<u8>) -> wasmtime::Result<Vec<u8>> {
        self.call.hand_over(data.len())?;
        Ok(digest::digest(&digest::SHA256, &data).as_ref().to_vec())
    }

    fn hmac_sha256(&mut self, key: Vec<u8>, data: Vec<u8>) -> wasmtime::Result<Vec<u8>> {
        self.call.hand_over(key.len() + data.len())?;
        Ok(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &data).as_ref().to_vec())
    }

    fn hmac_sha256_verify(&mut self, key: Vec<u8>, data: Vec<u8>, tag: Vec<u8>) -> wasmtime::Result<bool> {
        self.call.hand_over(key.len() + data.len() + tag.len())?;
        Ok(hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), &data, &tag).is_ok())
    }

    fn verify(&mut self, key: PublicKey, data: Vec<u8>, signature: Vec<u8>) -> wasmtime::Result<Result<bool, String>> {
        self.call.hand_over(key_bytes(&key) + data.len() + signature.len())?;
        Ok(verify(&key, &data, &signature))
    }

    fn random(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        wasmtime::ensure!(length <= MAX_RANDOM, "random: expected at most {MAX_RANDOM} bytes, got {length}");
        let mut bytes = vec![0; length as usize];
        match self.context.seed {
            Some(seed) => self.drawn = repeatable(seed, self.drawn, &mut bytes),
            None => rand::fill(&mut bytes)
                .map_err(|_| wasmtime::Error::msg("random: the system's random number generator failed"))?,
        }
        Ok(bytes)
    }
}

/// Fills `bytes` with the same content for the same seed and turn; returns the next turn.
fn repeatable(seed: u64, mut turn: u64, bytes: &mut [u8]) -> u64 {
    for part in bytes.chunks_mut(digest::SHA256_OUTPUT_LEN) {
        turn += 1;
        let input = [seed.to_le_bytes(), turn.to_le_bytes()].concat();
        part.copy_from_slice(&digest::digest(&digest::SHA256, &input).as_ref()[..part.len()]);
    }
    turn
}

fn key_bytes(key: &PublicKey) -> usize {
    match key {
        PublicKey::Ed25519(key) => key.len(),
        PublicKey::Rs256(RsaKey { n, e }) => n.len() + e.len(),
        PublicKey::Es256(EcKey { x, y }) => x.len() + y.len(),
    }
}

fn verify(key: &PublicKey, data: &[u8], signature: &[u8]) -> Result<bool, String> {
    match key {
        PublicKey::Ed25519(key) => point("key", key).and_then(|key| by_point(&ED25519, key, data, signature)),
        PublicKey::Es256(EcKey { x, y }) => {
            let point = [&[0x04], point("x", x)?, point("y", y)?].concat();
            by_point(&ECDSA_P256_SHA256_FIXED, &point, data, signature)
        }
        PublicKey::Rs256(RsaKey { n, e }) => {
            let (n, e) = (significant(n), significant(e));
            if !MODULUS_BYTES.contains(&n.len()) {
                return Err(format!("n: expected 2048 to 8192 bits, got {}", n.len() * 8));
            }
            if e.is_empty() || e.len() > MAX_EXPONENT_BYTES {
                return Err(format!("e: expected 1 to {MAX_EXPONENT_BYTES} bytes, got {}", e.len()));
            }
            let key = PublicKeyComponents { n, e };
            Ok(key.verify(&RSA_PKCS1_2048_8192_SHA256, data, signature).is_ok())
        }
    }
}

fn by_point(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    data: &[u8],
    signature: &[u8],
) -> Result<bool, String> {
    let key = UnparsedPublicKey::new(algorithm, key)
        .parse()
        .map_err(|fault| format!("expected a public key of this algorithm: {fault}"))?;
    Ok(key.verify_sig(data, signature).is_ok())
}

fn point<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a [u8], String> {
    if bytes.len() == POINT_BYTES {
        return Ok(bytes);
    }
    Err(format!("{name}: expected {POINT_BYTES} bytes, got {}", bytes.len()))
}

/// Without leading zeros, which a number does not need.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    };

    use super::*;

    /// RFC 8032, test 2: one byte.
    #[test]
    fn ed25519_by_the_rfcs_own_vector() {
        let key = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = hex(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        );
        let key = PublicKey::Ed25519(key);
        assert_eq!(verify(&key, &[0x72], &signature), Ok(true));
        assert_eq!(verify(&key, &[0x73], &signature), Ok(false));
        assert_eq!(verify(&key, &[0x72], &signature[1..]), Ok(false));
        assert_eq!(verify(&PublicKey::Ed25519(vec![1; 31]), b"", b""), Err("key: expected 32 bytes, got 31".into()));
    }

    #[test]
    fn each_algorithm_takes_its_own_signature_and_no_other() {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let point = pair.public_key().as_ref();
        let es256 = PublicKey::Es256(EcKey { x: point[1..33].to_vec(), y: point[33..].to_vec() });
        let by_curve = pair.sign(&rng, b"data").unwrap().as_ref().to_vec();

        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        // A sequence of two numbers: 257 bytes of modulus behind eight of header, three of exponent at the end.
        let der = pair.public_key().as_ref();
        let rs256 = PublicKey::Rs256(RsaKey { n: der[8..265].to_vec(), e: der[der.len() - 3..].to_vec() });
        let mut by_rsa = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &rng, b"data", &mut by_rsa).unwrap();

        assert_eq!(verify(&es256, b"data", &by_curve), Ok(true));
        assert_eq!(verify(&rs256, b"data", &by_rsa), Ok(true), "a modulus may have a leading zero");
        assert_eq!(verify(&es256, b"data", &by_rsa), Ok(false));
        assert_eq!(verify(&rs256, b"data", &by_curve), Ok(false));
        assert_eq!(verify(&rs256, b"other", &by_rsa), Ok(false));
    }

    #[test]
    fn an_invalid_key_is_an_error() {
        let off = PublicKey::Es256(EcKey { x: vec![1; 32], y: vec![1; 32] });
        assert!(verify(&off, b"", b"").unwrap_err().starts_with("expected a public key of this algorithm"));
        let small = PublicKey::Rs256(RsaKey { n: vec![0xff; 128], e: vec![1, 0, 1] });
        assert_eq!(verify(&small, b"", b""), Err("n: expected 2048 to 8192 bits, got 1024".into()));
        let nothing = PublicKey::Rs256(RsaKey { n: vec![0xff; 256], e: vec![0] });
        assert_eq!(verify(&nothing, b"", b""), Err("e: expected 1 to 8 bytes, got 0".into()));
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = PublicKey::Ed25519(pair.public_key().as_ref().to_vec());
        assert_eq!(verify(&key, b"data", pair.sign(b"data").as_ref()), Ok(true));
    }

    #[test]
    fn seeded_bytes_are_repeatable_and_differ_each_turn() {
        let draw = |turn| {
            let mut bytes = [0; 40];
            (repeatable(7, turn, &mut bytes), bytes)
        };
        let (next, bytes) = draw(0);
        assert_eq!(draw(0), (2, bytes));
        assert_ne!(draw(next).1, bytes);
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }
}
