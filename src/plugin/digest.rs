//! SHA-256 as hexadecimal digits: the identity of a file, and the digest of its compiled form.
//!
//! Uses the library with an assembly implementation. A Python guest and its code are some 80 MB, for which unoptimised
//! Rust would take a quarter of a second.

use std::io::{self, Read};

use aws_lc_rs::digest::{Context, Digest, SHA256, digest};

/// Bytes of one read.
const CHUNK: usize = 256 << 10;

/// Digest of bytes in memory.
pub(super) fn of(bytes: &[u8]) -> String {
    shown(&digest(&SHA256, bytes))
}

/// Digest of the rest of a reader.
pub(super) fn of_rest(bytes: &mut impl Read) -> io::Result<String> {
    let (mut context, mut chunk) = (Context::new(&SHA256), vec![0; CHUNK]);
    loop {
        match bytes.read(&mut chunk)? {
            0 => return Ok(shown(&context.finish())),
            read => context.update(&chunk[..read]),
        }
    }
}

fn shown(digest: &Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_bytes_and_of_a_reader_are_equal() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!((of(b"").as_str(), of_rest(&mut &b""[..]).unwrap().as_str()), (empty, empty));
        let long = vec![7; 2 * CHUNK + 1];
        assert_eq!(of(&long), of_rest(&mut &*long).unwrap());
    }
}
