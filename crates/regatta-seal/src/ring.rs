//! The key ring: one key seals, every key opens.
//!
//! Immutable: `add`, `rotate` and `without` give a new ring, so its user shares it behind an atomic pointer and swaps.
//! A rotation is two steps (SESSIONS 2): `add` the new key everywhere, and only when every gateway has had the time
//! to learn it, `rotate` to it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use aws_lc_rs::digest;
use base64::Engine as _;

use crate::digest::pooled;
use crate::key::{Fingerprint, Key, MasterKey, Purpose};
use crate::text;

/// Keys a ring holds; adding one more drops the oldest that does not seal.
pub const KEYS_MAX: usize = 64;

const TAG_LEN: usize = 16;
const HEAD_LEN: usize = 5;
/// Associated data up to this length is put together without an allocation.
const AAD_ON_STACK: usize = 256;

/// How many bytes of content a text of `seal` with at most `text_max` characters has room for.
pub const fn plain_max(text_max: usize) -> usize {
    (text_max * 3 / 4).saturating_sub(HEAD_LEN + NONCE_LEN + TAG_LEN)
}

/// The key that `text` claims to be sealed with, if it has the shape of a seal. Nothing is proven by it.
pub fn claimed_key(text: &str) -> Option<Fingerprint> {
    // Eight characters are six bytes: the head and one more.
    let mut head = [0; 6];
    text::ENGINE.decode_slice(text.get(..8)?, &mut head).ok()?;
    let [format, a, b, c, d, _] = head;
    matches!(format, 1 | 2).then_some(Fingerprint([a, b, c, d]))
}

/// The format byte: which kind of seal follows. A new layout gets a new byte; none is ever used again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Random = 1,
    Same = 2,
}

/// What was sealed, and the key that opened it.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// The content.
    pub plain: Vec<u8>,
    /// The key: seal with the same one where two texts must stay equal.
    pub key: Fingerprint,
}

// The content of a seal is as secret as the key: it is not shown.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("bytes", &self.plain.len()).field("key", &self.key).finish()
    }
}

/// Why a text does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It may be sound, but its key is not in the ring: look for the key, then try again.
    #[error("sealed with the key {0}, which is not in the ring")]
    UnknownKey(Fingerprint),
    /// It is not one of ours, or not for this purpose, or was changed. One answer for all of these: which it was is
    /// nobody's business (RELIABILITY T31).
    #[error("not a seal of ours")]
    Broken,
}

/// One key that seals, and those that still open.
#[derive(Clone)]
pub struct KeyRing {
    /// In the order they were added.
    keys: Vec<Arc<Key>>,
    current: Arc<Key>,
}

impl KeyRing {
    /// A ring of one key, which seals.
    pub fn new(current: &MasterKey) -> KeyRing {
        let current = Arc::new(Key::derive(current));
        KeyRing { keys: vec![current.clone()], current }
    }

    /// A ring that also opens what `key` sealed; what seals stays. A key that is there already changes nothing.
    pub fn add(&self, key: &MasterKey) -> KeyRing {
        let mut ring = self.clone();
        let key = Key::derive(key);
        if ring.find(key.fingerprint).is_some() {
            return ring;
        }
        if ring.keys.len() >= KEYS_MAX
            && let Some(oldest) = ring.keys.iter().position(|key| !Arc::ptr_eq(key, &ring.current))
        {
            ring.keys.remove(oldest);
        }
        ring.keys.push(Arc::new(key));
        ring
    }

    /// A ring that seals with `key`, one of its own; `None` if it is not in the ring. Every key still opens.
    pub fn rotate(&self, key: Fingerprint) -> Option<KeyRing> {
        let current = self.find(key)?.clone();
        Some(KeyRing { keys: self.keys.clone(), current })
    }

    /// A ring that has forgotten `key`; the one that seals stays whatever is asked.
    pub fn without(&self, key: Fingerprint) -> KeyRing {
        let mut ring = self.clone();
        ring.keys.retain(|kept| kept.fingerprint != key || Arc::ptr_eq(kept, &self.current));
        ring
    }

    /// The key that seals.
    pub fn current(&self) -> Fingerprint {
        self.current.fingerprint
    }

    /// Every key that opens, in the order they were added.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.keys.iter().map(|key| key.fingerprint)
    }

    /// Whether `key` opens here.
    pub fn knows(&self, key: Fingerprint) -> bool {
        self.find(key).is_some()
    }

    /// Seals `plain`: base64url of format byte ∥ fingerprint ∥ 96-bit random nonce ∥ ciphertext ∥ tag, 33 bytes more
    /// than `plain`. Opens only with the same purpose and the same `associated` parts.
    pub fn seal(&self, purpose: Purpose, associated: &[&[u8]], plain: &[u8]) -> String {
        text::ENGINE.encode(self.seal_bytes(purpose, associated, plain))
    }

    /// The same as the bytes that `seal` spells in base64url, for places that take any bytes.
    pub fn seal_bytes(&self, purpose: Purpose, associated: &[&[u8]], plain: &[u8]) -> Vec<u8> {
        // 2^32 seals a key with random 96-bit nonces is the usual bound of GCM; with SIV a repeated nonce would tell
        // only whether two contents are equal (RFC 8452 section 9), so no count of seals is kept.
        let nonce: [u8; NONCE_LEN] = pooled();
        let head = head(Format::Random, self.current.fingerprint);
        write(self.current.random(purpose), &head, nonce, &nonce, associated, plain)
    }

    /// Seals `plain` so that the same input under the same key always gives the same text: base64url of format
    /// byte ∥ fingerprint ∥ ciphertext ∥ tag, 21 bytes more than `plain`. It tells an onlooker that two contents are
    /// equal, and that is what it is for.
    ///
    /// `key` is the key to use, for texts that must stay equal over a rotation; the ring's own if `None` or unknown.
    pub fn seal_same(
        &self,
        purpose: Purpose,
        associated: &[&[u8]],
        plain: &[u8],
        key: Option<Fingerprint>,
    ) -> String {
        let key = key.and_then(|key| self.find(key)).unwrap_or(&self.current);
        let head = head(Format::Same, key.fingerprint);
        let nonce = nonce_of(&head, associated);
        text::ENGINE.encode(write(key.same(purpose), &head, nonce, &[], associated, plain))
    }

    /// Opens what `seal` or `seal_same` made with this purpose and these associated parts.
    pub fn open(&self, purpose: Purpose, associated: &[&[u8]], text: &str) -> Result<Opened, OpenError> {
        let bytes = text::ENGINE.decode(text).map_err(|_| OpenError::Broken)?;
        self.open_bytes(purpose, associated, bytes)
    }

    /// Opens what `seal_bytes` made, in place.
    pub fn open_bytes(
        &self,
        purpose: Purpose,
        associated: &[&[u8]],
        mut bytes: Vec<u8>,
    ) -> Result<Opened, OpenError> {
        let head: [u8; HEAD_LEN] = *bytes.first_chunk().ok_or(OpenError::Broken)?;
        let format = match head[0] {
            1 => Format::Random,
            2 => Format::Same,
            _ => return Err(OpenError::Broken),
        };
        let body = match format {
            Format::Random => HEAD_LEN + NONCE_LEN,
            Format::Same => HEAD_LEN,
        };
        // What is too short for any seal is broken whatever its fingerprint says, and costs nobody a look-up.
        if bytes.len() < body + TAG_LEN {
            return Err(OpenError::Broken);
        }
        let fingerprint = Fingerprint([head[1], head[2], head[3], head[4]]);
        let key = self.find(fingerprint).ok_or(OpenError::UnknownKey(fingerprint))?;
        let (subkey, nonce) = match format {
            Format::Random => {
                let nonce = *bytes[HEAD_LEN..].first_chunk().ok_or(OpenError::Broken)?;
                (key.random(purpose), nonce)
            }
            Format::Same => (key.same(purpose), nonce_of(&head, associated)),
        };
        let length = with_aad(&head, associated, |aad| {
            let nonce = Nonce::assume_unique_for_key(nonce);
            subkey.open_in_place(nonce, Aad::from(aad), &mut bytes[body..]).map(|plain| plain.len())
        })
        .map_err(|_| OpenError::Broken)?;
        bytes.copy_within(body..body + length, 0);
        bytes.truncate(length);
        Ok(Opened { plain: bytes, key: fingerprint })
    }

    fn find(&self, fingerprint: Fingerprint) -> Option<&Arc<Key>> {
        if self.current.fingerprint == fingerprint {
            return Some(&self.current);
        }
        self.keys.iter().find(|key| key.fingerprint == fingerprint)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<Fingerprint> = self.fingerprints().collect();
        f.debug_struct("KeyRing").field("current", &self.current()).field("opens", &all).finish()
    }
}

fn head(format: Format, Fingerprint([a, b, c, d]): Fingerprint) -> [u8; HEAD_LEN] {
    [format as u8, a, b, c, d]
}

/// The nonce of a deterministic seal: a digest of the associated parts, which whoever opens it has anyway, so that it
/// need not travel. GCM-SIV is safe under a nonce that comes again (RFC 8452 section 9); taking it from the parts gives
/// each session or principal derived keys of its own, so that the bounds count per session and not per fleet.
fn nonce_of(head: &[u8; HEAD_LEN], associated: &[&[u8]]) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    with_aad(head, associated, |aad| {
        nonce.copy_from_slice(&digest::digest(&digest::SHA256, aad).as_ref()[..NONCE_LEN]);
    });
    nonce
}

fn write(
    key: &LessSafeKey,
    head: &[u8; HEAD_LEN],
    nonce: [u8; NONCE_LEN],
    shown_nonce: &[u8],
    associated: &[&[u8]],
    plain: &[u8],
) -> Vec<u8> {
    let body = HEAD_LEN + shown_nonce.len();
    let mut bytes = Vec::with_capacity(body + plain.len() + TAG_LEN);
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(shown_nonce);
    bytes.extend_from_slice(plain);
    let tag = with_aad(head, associated, |aad| {
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut bytes[body..])
    })
    .expect("a content far below the 64 GiB of RFC 8452");
    bytes.extend_from_slice(tag.as_ref());
    bytes
}

/// Calls `then` with the associated data: head ∥ (length as four bytes ∥ part)*, unambiguous for any parts.
fn with_aad<T>(head: &[u8; HEAD_LEN], parts: &[&[u8]], then: impl FnOnce(&[u8]) -> T) -> T {
    let length = parts.iter().fold(HEAD_LEN, |sum, part| sum + 4 + part.len());
    let mut stack = [0; AAD_ON_STACK];
    let mut heap = Vec::new();
    let buffer = match stack.get_mut(..length) {
        Some(buffer) => buffer,
        None => {
            heap.resize(length, 0);
            heap.as_mut_slice()
        }
    };
    let mut rest = &mut *buffer;
    let mut put = |bytes: &[u8]| {
        let (here, after) = std::mem::take(&mut rest).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        rest = after;
    };
    put(head);
    for part in parts {
        put(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        put(part);
    }
    then(buffer)
}

#[cfg(test)]
mod tests;
