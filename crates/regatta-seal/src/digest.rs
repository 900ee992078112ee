//! Digests and random numbers, so that no other crate needs the cryptography library.
//!
//! Randomness comes from the library's generator, which the system seeds; it never fails on a running system.

use std::cell::RefCell;

use aws_lc_rs::{digest, rand};

/// Random bytes fetched at once for small needs: the generator's cost is by the call, about a microsecond.
const POOL_LEN: usize = 768;

struct Pool {
    bytes: [u8; POOL_LEN],
    used: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL_LEN], used: POOL_LEN }) };
}

/// SHA-256 over length-prefixed `parts`, cut to 16 bytes: names a principal or a token without telling it.
///
/// Each part is preceded by its length as eight bytes, so that `["ab", "c"]` and `["a", "bc"]` differ.
pub fn digest16(parts: &[&[u8]]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&digest32(parts)[..16]);
    short
}

/// The whole of the same digest: names what others may choose the parts of.
pub fn digest32(parts: &[&[u8]]) -> [u8; 32] {
    // In one go: each step into the library costs more than the copy of a short part.
    let length = parts.iter().map(|part| part.len() + 8).sum();
    let mut all = Vec::with_capacity(length);
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_be_bytes());
        all.extend_from_slice(part);
    }
    let mut whole = [0; 32];
    whole.copy_from_slice(digest::digest(&digest::SHA256, &all).as_ref());
    whole
}

/// Sixteen random bytes: session ids, etags.
pub fn random16() -> [u8; 16] {
    random()
}

/// A random number: what the pure rules of `regatta-policy` take as dice.
pub fn random_u64() -> u64 {
    u64::from_ne_bytes(pooled())
}

/// Random bytes out of the thread's pool, each given once: for nonces and dice. A machine that is copied while it runs
/// copies the pool; GCM-SIV and dice bear that, ids and keys need not and are drawn directly.
pub(crate) fn pooled<const N: usize>() -> [u8; N] {
    const { assert!(N <= POOL_LEN) };
    POOL.with_borrow_mut(|pool| {
        if POOL_LEN - pool.used < N {
            pool.bytes = random();
            pool.used = 0;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&pool.bytes[pool.used..pool.used + N]);
        pool.used += N;
        bytes
    })
}

/// Random bytes.
///
/// # Panics
/// If the system gives no randomness: nothing safe can be done without.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system gives randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn parts_are_told_apart_by_their_lengths() {
        assert_ne!(digest16(&[b"ab", b"c"]), digest16(&[b"a", b"bc"]));
        assert_ne!(digest16(&[b"a"]), digest16(&[b"a", b""]));
        assert_eq!(digest16(&[b"a", b"b"]), digest16(&[b"a", b"b"]));
    }

    #[test]
    fn a_hundred_thousand_ids_do_not_repeat() {
        let ids: HashSet<[u8; 16]> = (0..100_000).map(|_| random16()).collect();
        assert_eq!(ids.len(), 100_000);
        let nonces: HashSet<[u8; 12]> = (0..100_000).map(|_| pooled()).collect();
        assert_eq!(nonces.len(), 100_000);
        let dice: HashSet<u64> = (0..100_000).map(|_| random_u64()).collect();
        assert_eq!(dice.len(), 100_000);
    }
}
