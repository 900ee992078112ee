//! Session tokens that were opened here, so that a busy session is not opened with each of its calls.
//!
//! Bounded in bytes; what falls out is opened again. Keyed by the whole token and its caller: no digest of it is computed
//! for a call, and nobody is taken for somebody else.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::{Equivalent, Weighter};
use regatta_policy::token::Capabilities;
use rmcp::model::InitializeRequestParams;

use crate::caller::Caller;

/// Bytes of all that is kept, and what an entry is thought to take beside its token and params.
pub(crate) const BYTES_MAX: u64 = 16 << 20;
const ENTRY_BYTES: usize = 512;
/// So many small ones have room.
const USUAL: usize = 8192;

/// What a token says.
pub(crate) struct Says {
    pub(crate) uuid: [u8; 16],
    pub(crate) issued_s: u32,
    pub(crate) can: Capabilities,
    pub(crate) client: Arc<InitializeRequestParams>,
    /// What a tombstone of the session is found by.
    pub(crate) digest: [u8; 16],
    /// Bytes of the params, as they were read.
    pub(crate) params_bytes: usize,
}

#[derive(PartialEq, Eq)]
struct Key {
    caller: Caller,
    token: Box<str>,
}

/// The same, borrowed.
struct Asked<'a>(Caller, &'a str);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Asked(self.caller, &self.token).hash(state);
    }
}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0.0);
        state.write(self.1.as_bytes());
    }
}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.0 == key.caller && *self.1 == *key.token
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Arc<Says>> for Weight {
    fn weight(&self, key: &Key, says: &Arc<Says>) -> u64 {
        // Params as a value take about as much again as their text.
        (ENTRY_BYTES + key.token.len() + 2 * says.params_bytes) as u64
    }
}

/// The tokens.
pub(crate) struct Opened(quick_cache::sync::Cache<Key, Arc<Says>, Weight>);

impl Opened {
    pub(crate) fn new() -> Opened {
        Opened(quick_cache::sync::Cache::with_weighter(USUAL, BYTES_MAX, Weight))
    }

    /// What this caller's token says, if it was opened here not long ago.
    pub(crate) fn get(&self, caller: Caller, token: &str) -> Option<Arc<Says>> {
        self.0.get(&Asked(caller, token))
    }

    pub(crate) fn keep(&self, caller: Caller, token: &str, says: Arc<Says>) {
        self.0.insert(Key { caller, token: token.into() }, says);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(uuid: u8) -> Arc<Says> {
        let client = serde_json::json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"},
        });
        Arc::new(Says {
            uuid: [uuid; 16],
            issued_s: 0,
            can: Capabilities::of_server(b"{}"),
            client: Arc::new(serde_json::from_value(client).unwrap()),
            digest: [0; 16],
            params_bytes: 100,
        })
    }

    #[test]
    fn a_token_is_its_callers_alone_and_many_tokens_stay_within_the_bytes() {
        let (opened, ann, bob) = (Opened::new(), Caller([1; 16]), Caller([2; 16]));
        opened.keep(ann, "token", says(7));
        assert_eq!(opened.get(ann, "token").unwrap().uuid, [7; 16]);
        assert!(opened.get(bob, "token").is_none());
        assert!(opened.get(ann, "toke").is_none());
        for number in 0..20_000 {
            opened.keep(bob, &format!("{number:04000}"), says(1));
        }
        assert!(opened.0.weight() <= BYTES_MAX, "{}", opened.0.weight());
        assert!(opened.0.len() > 1000);
    }
}
