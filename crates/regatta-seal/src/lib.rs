//! The seals: session tokens, event ids, wrapped handles. AEAD, a key ring, rotation; bytes in, text out.
//!
//! No IO, no clock, no knowledge of what is sealed. A seal is AES-256-GCM-SIV (RFC 8452) under a subkey that
//! HKDF-SHA256 (RFC 5869) derives from a 32-byte master key for one purpose and one kind of seal, so that a text
//! sealed for one purpose never opens for another. Keys appear in no `Debug` output and are wiped when dropped.

mod digest;
mod identity;
mod key;
mod registration;
mod ring;
mod text;

pub use digest::{digest16, digest32, random_u64, random16};
pub use identity::{IDENTITY_SECRET_MIN, IDENTITY_SKEW_MAX_S, Identity, IdentitySecret};
pub use key::{Fingerprint, MasterKey, NotAKey, Purpose};
pub use registration::{NotASecret, RegistrationSecret, SECRET_MIN};
pub use ring::{KEYS_MAX, KeyRing, OpenError, Opened, claimed_key, plain_max};
