//! The counters of this process, in shards of a lock each.
//!
//! A request locks the shards of all its keys, in order, judges, and lets go: so all its rules decide together, and
//! two requests never wait for each other in a ring. Never holds a lock across an await: nothing here waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use regatta_policy::Micros;
use regatta_policy::ids::mix;
use regatta_policy::quota::{Asked, Book, Counter, Decision, Standing, decide};

use super::shard::Shard;
use super::{Charge, Key};

/// A power of two.
const SHARDS: usize = 16;

/// All counters.
#[derive(Debug)]
pub(super) struct Table {
    shards: [Mutex<Shard>; SHARDS],
    keys_max: AtomicUsize,
    /// The shard that is swept next.
    next: AtomicUsize,
}

/// The counters of one request, locked.
struct Open<'a> {
    shards: Vec<MutexGuard<'a, Shard>>,
    /// For each charge: which of `shards`, and where in it.
    places: Vec<(usize, usize)>,
}

impl Table {
    pub fn new(keys_max: usize) -> Table {
        Table {
            shards: std::array::from_fn(|_| Mutex::default()),
            keys_max: AtomicUsize::new(keys_max),
            next: AtomicUsize::new(0),
        }
    }

    pub fn take(&self, charges: &[Charge<'_>], now: Micros) -> (Decision, Vec<Standing>) {
        let mut standings = Vec::with_capacity(charges.len());
        let mut open = self.open(charges, now);
        let asked: Vec<Asked<'_>> = charges.iter().map(|charge| charge.asked).collect();
        let decision = decide(&asked, &mut open, now, &mut standings);
        for (&(shard, place), asked) in open.places.iter().zip(&asked) {
            open.shards[shard].note(place, asked.quota);
        }
        (decision, standings)
    }

    fn open(&self, charges: &[Charge<'_>], now: Micros) -> Open<'_> {
        let needed = charges.iter().fold(0u32, |bits, charge| bits | 1 << shard_of(&charge.key));
        let in_order = self.shards.iter().enumerate().filter(|(at, _)| needed & (1 << at) != 0);
        let mut shards: Vec<MutexGuard<'_, Shard>> = in_order.map(|(_, shard)| lock(shard)).collect();
        let max = self.keys_max.load(Ordering::Relaxed).div_ceil(SHARDS);
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(charges.len());
        for charge in charges {
            let below = (1u32 << shard_of(&charge.key)) - 1;
            let at = (needed & below).count_ones() as usize;
            let is_kept = |place| places.contains(&(at, place));
            let place = shards[at].place((charge.key, charge.asked.quota), max, now, is_kept);
            places.push((at, place));
        }
        Open { shards, places }
    }

    pub fn rebound(&self, keys_max: usize) {
        self.keys_max.store(keys_max, Ordering::Relaxed);
    }

    pub fn sweep(&self, now: Micros) {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % SHARDS;
        lock(&self.shards[at]).sweep(now);
    }

    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    pub fn displaced(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).displaced).sum()
    }
}

impl Book for Open<'_> {
    fn counter(&mut self, at: usize) -> &mut Counter {
        let (shard, place) = self.places[at];
        self.shards[shard].counter(place)
    }
}

fn shard_of((rule, who): &Key) -> usize {
    let (high, low) = who.split_at(8);
    let half = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap_or_default());
    (mix(rule ^ half(high) ^ half(low).rotate_left(17)) as usize) % SHARDS
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Nothing under it panics, and a counter is whole after each step.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
