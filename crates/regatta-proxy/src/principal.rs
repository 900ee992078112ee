//! Who calls, once somebody checked: what limits, cache and servers may know of a caller.
//!
//! Made from a verified token or an API key by `access/`, shared by all requests of that token. It never holds the
//! token, and its name is (issuer, subject), so that a refreshed token is the same principal (RELIABILITY P11).

use std::fmt;
use std::num::NonZeroU32;

use regatta_policy::access::words;

/// A checked caller.
pub(crate) struct Principal {
    /// Digest of issuer and subject: names the principal in contexts, accounts and associated data.
    pub digest: [u8; 16],
    /// Who vouches for it.
    pub issuer: Box<str>,
    /// What the issuer calls it.
    pub subject: Box<str>,
    /// What it may do, sorted, each once.
    pub scopes: Vec<Box<str>>,
    /// Digest of the scopes: what one set of scopes saw, another must not be shown from a cache (RELIABILITY T22).
    pub scopes_digest: [u8; 16],
    /// The claims that `auth.claims` keeps, by name.
    pub claims: Vec<(Box<str>, Box<str>)>,
    /// Its share where there is not enough for all, as a multiple of the least.
    pub weight: NonZeroU32,
}

/// What vouches for API keys, where tokens have their issuer. No URL, so no issuer can be called so.
pub(crate) const API_KEYS: &str = "api-key";

/// The digest that names the principal which `issuer` calls `subject`; without an issuer, the API key of that name.
pub fn principal_digest(issuer: Option<&str>, subject: &str) -> [u8; 16] {
    let issuer = issuer.unwrap_or(API_KEYS);
    regatta_seal::digest16(&[b"principal", issuer.as_bytes(), subject.as_bytes()])
}

impl Principal {
    /// The principal that `issuer` calls `subject`.
    pub fn new(
        issuer: &str,
        subject: &str,
        scopes: impl IntoIterator<Item = Box<str>>,
        claims: Vec<(Box<str>, Box<str>)>,
    ) -> Principal {
        let mut scopes: Vec<Box<str>> = scopes.into_iter().collect();
        scopes.sort_unstable();
        scopes.dedup();
        let parts: Vec<&[u8]> = scopes.iter().map(|scope| scope.as_bytes()).collect();
        Principal {
            digest: principal_digest(Some(issuer), subject),
            issuer: issuer.into(),
            subject: subject.into(),
            scopes_digest: regatta_seal::digest16(&parts),
            scopes,
            claims,
            weight: NonZeroU32::MIN,
        }
    }

    /// The same with this share.
    pub fn weighing(self, weight: NonZeroU32) -> Principal {
        Principal { weight, ..self }
    }

    /// Whether it has all of these scopes.
    pub fn may<'a>(&self, needed: impl IntoIterator<Item = &'a str>) -> bool {
        needed.into_iter().all(|scope| self.scopes.binary_search_by(|held| (**held).cmp(scope)).is_ok())
    }
}

/// The scopes of a `scope` value, of a list of them, or both mixed.
pub(crate) fn scopes_of<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Box<str>> {
    values.into_iter().flat_map(words).map(Box::from).collect()
}

// Digests only: who calls is no matter for a log line (RELIABILITY T29).
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        f.debug_struct("Principal")
            .field("digest", &hex(&self.digest[..4]))
            .field("scopes", &hex(&self.scopes_digest[..4]))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_its_issuer_and_subject_and_nothing_else() {
        let made =
            |issuer, subject, scopes: &str| Principal::new(issuer, subject, scopes_of([scopes]), Vec::new());
        let alice = made("https://a", "alice", "read write");
        assert_eq!(alice.digest, made("https://a", "alice", "read").digest);
        assert_ne!(alice.digest, made("https://b", "alice", "read").digest);
        assert_ne!(alice.digest, made("https://aalice", "", "read").digest);
        assert_eq!(alice.scopes_digest, made("x", "y", "write  read write").scopes_digest);
        assert_ne!(alice.scopes_digest, made("https://a", "alice", "read").scopes_digest);
        assert!(alice.may(["write", "read"]) && alice.may([]) && !alice.may(["read", "wri"]));
        let shown = format!("{alice:?}");
        assert!(!shown.contains("alice") && !shown.contains("https://a"), "{shown}");
    }
}
