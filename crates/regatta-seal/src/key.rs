//! One master key and all subkeys made from it, ready for use.
//!
//! Everything is derived once, when a key joins a ring; sealing and opening only look it up.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use base64::Engine as _;
use zeroize::Zeroize as _;

use crate::digest::random;
use crate::text;

/// What a text is sealed for. A seal for one purpose is broken for every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// `Mcp-Session-Id`.
    Session,
    /// The `id:` of an SSE event.
    Event,
    /// The JSON-RPC id of a server's request.
    ServerRequest,
    /// `requestState` with its maker.
    RequestState,
    /// A task id with its maker.
    Task,
    /// A list cursor with its maker.
    Cursor,
    /// A letter from one gateway to another.
    Letter,
    /// A kept result that gateways share.
    Result,
}

impl Purpose {
    const ALL: [Purpose; 8] = [
        Purpose::Session,
        Purpose::Event,
        Purpose::ServerRequest,
        Purpose::RequestState,
        Purpose::Task,
        Purpose::Cursor,
        Purpose::Letter,
        Purpose::Result,
    ];

    /// The word that goes into the derivation. Never change one: old seals would break.
    fn label(self) -> &'static [u8] {
        match self {
            Purpose::Session => b"session",
            Purpose::Event => b"event",
            Purpose::ServerRequest => b"server-request",
            Purpose::RequestState => b"request-state",
            Purpose::Task => b"task",
            Purpose::Cursor => b"cursor",
            Purpose::Letter => b"letter",
            Purpose::Result => b"result",
        }
    }
}

/// Names a key without telling it: four bytes derived from the key. Not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 4]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 bytes as 64 hexadecimal digits or as 43 characters of base64url")]
pub struct NotAKey;

/// The 32 secret bytes that all gateways of a fleet share. Wiped when dropped, hidden in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// A key from its bytes.
    pub fn new(bytes: [u8; 32]) -> MasterKey {
        MasterKey(bytes)
    }

    /// A fresh key.
    pub fn random() -> MasterKey {
        MasterKey(random())
    }

    /// A key as written in a config: 64 hexadecimal digits, or base64url of 32 bytes without padding.
    pub fn from_text(written: &str) -> Result<MasterKey, NotAKey> {
        let mut key = MasterKey([0; 32]);
        match written.len() {
            64 => {
                for (byte, pair) in key.0.iter_mut().zip(written.as_bytes().chunks_exact(2)) {
                    *byte = (hex(pair[0])? << 4) | hex(pair[1])?;
                }
            }
            43 => {
                let length = text::ENGINE.decode_slice(written, &mut key.0).map_err(|_| NotAKey)?;
                if length != 32 {
                    return Err(NotAKey);
                }
            }
            _ => return Err(NotAKey),
        }
        Ok(key)
    }

    /// The secret bytes, for the store that keeps them.
    pub fn secret_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The secret bytes of `key` as they can be kept where others read: without this key they say nothing. Whoever
    /// changes them cannot choose what they unwrap to, and `unwrap` notices by the name.
    pub fn wrap(&self, key: &MasterKey) -> [u8; 32] {
        let mut wrapped = self.pad(key.fingerprint());
        wrapped.iter_mut().zip(&key.0).for_each(|(pad, byte)| *pad ^= byte);
        wrapped
    }

    /// The key with this name out of what `wrap` made of it; `None` if another key wrapped it, or none did.
    pub fn unwrap(&self, name: Fingerprint, wrapped: &[u8; 32]) -> Option<MasterKey> {
        let mut key = MasterKey(self.pad(name));
        key.0.iter_mut().zip(wrapped).for_each(|(pad, byte)| *pad ^= byte);
        (key.fingerprint() == name).then_some(key)
    }

    /// Used for one key only: its name stands for it.
    fn pad(&self, name: Fingerprint) -> [u8; 32] {
        expand(&extract(self), &[b"wrap/", &name.0])
    }

    /// The name of this key. Derives; keep it rather than asking often.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&extract(self))
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(hidden)")
    }
}

/// The two subkeys of one purpose. Never shared between random and deterministic seals: a random nonce must not
/// meet a computed one under the same key.
struct Pair {
    random: LessSafeKey,
    same: LessSafeKey,
}

/// A key in the ring.
pub(crate) struct Key {
    pub(crate) fingerprint: Fingerprint,
    pairs: [Pair; Purpose::ALL.len()],
}

impl Key {
    pub(crate) fn derive(master: &MasterKey) -> Key {
        let prk = extract(master);
        let pairs = Purpose::ALL.map(|purpose| Pair {
            random: subkey(&prk, purpose, b"random"),
            same: subkey(&prk, purpose, b"same"),
        });
        Key { fingerprint: fingerprint(&prk), pairs }
    }

    pub(crate) fn random(&self, purpose: Purpose) -> &LessSafeKey {
        &self.pairs[purpose as usize].random
    }

    pub(crate) fn same(&self, purpose: Purpose) -> &LessSafeKey {
        &self.pairs[purpose as usize].same
    }
}

fn extract(master: &MasterKey) -> Prk {
    Salt::new(HKDF_SHA256, b"regatta seal v1").extract(&master.0)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &Prk, info: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    prk.expand(info, Length(N)).and_then(|okm| okm.fill(&mut bytes)).expect("HKDF gives up to 8160 bytes");
    bytes
}

fn fingerprint(prk: &Prk) -> Fingerprint {
    Fingerprint(expand(prk, &[b"fingerprint"]))
}

fn subkey(prk: &Prk, purpose: Purpose, kind: &'static [u8]) -> LessSafeKey {
    let mut bytes: [u8; 32] = expand(prk, &[b"seal/", purpose.label(), b"/", kind]);
    let key = UnboundKey::new(&AES_256_GCM_SIV, &bytes).expect("a key of 32 bytes is an AES-256 key");
    bytes.zeroize();
    LessSafeKey::new(key)
}

fn hex(digit: u8) -> Result<u8, NotAKey> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(NotAKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = MasterKey::new([0xa7; 32]);
        assert_eq!(MasterKey::from_text(&"a7".repeat(32)), Ok(key.clone()));
        assert_eq!(MasterKey::from_text(&"A7".repeat(32)), Ok(key.clone()));
        assert_eq!(MasterKey::from_text(&text::ENGINE.encode([0xa7; 32])), Ok(key));
        for wrong in ["", "a7", &"g7".repeat(32), &"=".repeat(43), &"é".repeat(32)] {
            assert_eq!(MasterKey::from_text(wrong), Err(NotAKey), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_hidden_in_debug_output() {
        assert_eq!(format!("{:?}", MasterKey::new([0xa7; 32])), "MasterKey(hidden)");
    }

    #[test]
    fn a_wrapped_key_comes_out_with_the_same_key_only() {
        let (outer, inner) = (MasterKey::new([3; 32]), MasterKey::new([1; 32]));
        let wrapped = outer.wrap(&inner);
        assert_ne!(&wrapped, inner.secret_bytes());
        assert_eq!(outer.unwrap(inner.fingerprint(), &wrapped), Some(inner.clone()));
        assert_eq!(MasterKey::new([4; 32]).unwrap(inner.fingerprint(), &wrapped), None);
        assert_eq!(outer.unwrap(inner.fingerprint(), inner.secret_bytes()), None, "it was kept in clear");
    }

    #[test]
    fn a_fingerprint_belongs_to_its_key() {
        assert_eq!(MasterKey::new([1; 32]).fingerprint(), MasterKey::new([1; 32]).fingerprint());
        assert_ne!(MasterKey::new([1; 32]).fingerprint(), MasterKey::new([2; 32]).fingerprint());
        // Pinned: a changed derivation would end every session at an upgrade.
        assert_eq!(MasterKey::new([1; 32]).fingerprint().to_string(), "516d79e2");
    }
}
