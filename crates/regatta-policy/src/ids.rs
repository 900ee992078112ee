//! Names of things as small values: a replica, a moment.
//!
//! They are compared and hashed on every request, so they are plain bytes; nothing here reads a clock.

use std::fmt;

/// A moment on the caller's monotonic clock, in microseconds since a start that the caller chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

impl Micros {
    /// This moment plus `duration`.
    pub fn after(self, duration: std::time::Duration) -> Micros {
        Micros(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it is later.
    pub fn since(self, earlier: Micros) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// One replica, the same in every gateway and after every restart: a hash of server name and endpoint,
/// never an index into a config (SESSIONS 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub [u8; 8]);

impl ReplicaId {
    /// The id of the replica of `server` at `endpoint`.
    pub fn of(server: &str, endpoint: &str) -> ReplicaId {
        ReplicaId(stable_hash(&[server.as_bytes(), endpoint.as_bytes()]).to_be_bytes())
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// FNV-1a over length-prefixed parts with a final avalanche: stable over versions and machines, and not for secrets.
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for part in parts {
        (part.len() as u64).to_be_bytes().into_iter().for_each(&mut eat);
        part.iter().copied().for_each(&mut eat);
    }
    mix(hash)
}

/// The finaliser of SplitMix64: spreads every input bit over the whole word.
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
