//! The signature of a registry entry: HMAC-SHA256 (RFC 2104) under a secret that the gateways and their nodes share.
//!
//! Plain enough to be made in any language with ten lines (docs/registry.md). It says who may register a replica, and
//! where; it protects no liveness, because status and heartbeat change without it.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A shorter secret could be guessed.
pub const SECRET_MIN: usize = 16;

/// A text too short to be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at least 16 bytes")]
pub struct NotASecret;

/// What gateways and nodes share. Hidden in `Debug`.
#[derive(Clone)]
pub struct RegistrationSecret {
    key: hmac::Key,
    /// Tells two secrets apart without telling either.
    tag: [u8; 16],
}

impl RegistrationSecret {
    /// A secret from its text, used byte for byte.
    pub fn new(text: &str) -> Result<RegistrationSecret, NotASecret> {
        if text.len() < SECRET_MIN {
            return Err(NotASecret);
        }
        let tag = crate::digest16(&[b"registration-secret", text.as_bytes()]);
        Ok(RegistrationSecret { key: hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()), tag })
    }

    /// The signature over `parts`: base64url without padding of the HMAC over each part's length, as four bytes, the
    /// greatest first, and the part itself.
    pub fn sign(&self, parts: &[&[u8]]) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, &joined(parts)))
    }

    /// Whether `signature` is one over `parts`, in constant time. Padding is allowed.
    pub fn verifies(&self, parts: &[&[u8]], signature: &str) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature.trim_end_matches('=')) else { return false };
        hmac::verify(&self.key, &joined(parts), &signature).is_ok()
    }
}

impl PartialEq for RegistrationSecret {
    fn eq(&self, other: &Self) -> bool {
        self.tag == other.tag
    }
}

impl fmt::Debug for RegistrationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistrationSecret(…)")
    }
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(parts.iter().map(|part| 4 + part.len()).sum());
    for part in parts {
        joined.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        joined.extend_from_slice(part);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [&[u8]; 6] =
        [b"node-1", b"b1", b"http://127.0.0.1:3001/mcp", b"shop", b"[\"a\"]", b"external"];

    fn secret() -> RegistrationSecret {
        RegistrationSecret::new("a secret of the fleet").expect("long enough")
    }

    /// Made with Python's `hmac`, as docs/registry.md shows it.
    #[test]
    fn agrees_with_other_languages() {
        assert_eq!(secret().sign(&PARTS), "zbuOp79-0O0Aq8Ct56gkwW3cmCA7RhJ9jPcBPO6h_z8");
    }

    #[test]
    fn takes_its_own_and_nothing_else() {
        let signature = secret().sign(&PARTS);
        assert!(secret().verifies(&PARTS, &signature));
        assert!(secret().verifies(&PARTS, &format!("{signature}=")));
        for at in 0..PARTS.len() {
            let mut other = PARTS;
            other[at] = b"other";
            assert!(!secret().verifies(&other, &signature), "part {at}");
        }
        let stranger = RegistrationSecret::new("another secret, as long").expect("long enough");
        assert!(!stranger.verifies(&PARTS, &signature));
        for broken in ["", "?", &signature[1..]] {
            assert!(!secret().verifies(&PARTS, broken), "{broken}");
        }
        assert!(RegistrationSecret::new("short").is_err());
        assert_eq!(format!("{:?}", secret()), "RegistrationSecret(…)");
    }
}
