//! What this process keeps under keys, in shards of a lock each.
//!
//! A request locks the shards of all its keys, in order, judges, and lets go: so all its rules decide together, and
//! two requests never wait for each other in a ring. Never holds a lock across an await: nothing here waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use regatta_policy::Micros;
use regatta_policy::ids::mix;
use regatta_policy::quota::{Asked, Book, Counter, Decision, Quota, Standing, decide};

use super::shard::{Kept, Shard};
use super::{Charge, Key};

/// A power of two.
const SHARDS: usize = 16;

/// All of it.
#[derive(Debug)]
pub(super) struct Table<C> {
    shards: [Mutex<Shard<C>>; SHARDS],
    keys_max: AtomicUsize,
    /// The shard that is swept next.
    next: AtomicUsize,
}

/// What one request needs of it, locked.
pub(super) struct Open<'a, C> {
    shards: Vec<MutexGuard<'a, Shard<C>>>,
    /// For each charge: which of `shards`, and where in it.
    places: Vec<(usize, usize)>,
}

impl<C: Kept> Table<C> {
    pub fn new(keys_max: usize) -> Table<C> {
        Table {
            shards: std::array::from_fn(|_| Mutex::default()),
            keys_max: AtomicUsize::new(keys_max),
            next: AtomicUsize::new(0),
        }
    }

    /// What is kept under the keys of `charges`, made if need be.
    pub fn open(&self, charges: &[Charge<'_>], now: Micros) -> Open<'_, C> {
        let needed = charges.iter().fold(0u32, |bits, charge| bits | 1 << shard_of(&charge.key));
        let in_order = self.shards.iter().enumerate().filter(|(at, _)| needed & (1 << at) != 0);
        let mut shards: Vec<MutexGuard<'_, Shard<C>>> = in_order.map(|(_, shard)| lock(shard)).collect();
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

    /// What is kept under `key`, if anything is.
    pub fn with<T>(&self, key: &Key, quota: &Quota, act: impl FnOnce(&mut C) -> T) -> Option<T> {
        let mut shard = lock(&self.shards[shard_of(key)]);
        let place = shard.find(key)?;
        let done = act(shard.kept(place));
        shard.note(place, quota);
        Some(done)
    }

    /// Looks at everything, a shard at a time.
    pub fn each(&self, mut act: impl FnMut(Key, &mut C)) {
        self.shards.iter().for_each(|shard| lock(shard).all().for_each(|(key, kept)| act(key, kept)));
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

impl Table<Counter> {
    pub fn take(&self, charges: &[Charge<'_>], now: Micros) -> (Decision, Vec<Standing>) {
        let mut standings = Vec::with_capacity(charges.len());
        let mut open = self.open(charges, now);
        let asked: Vec<Asked<'_>> = charges.iter().map(|charge| charge.asked).collect();
        let decision = decide(&asked, &mut open, now, &mut standings);
        open.note(charges);
        (decision, standings)
    }
}

impl<C: Kept> Open<'_, C> {
    /// What is kept for charge number `at`.
    pub fn kept(&mut self, at: usize) -> &mut C {
        let (shard, place) = self.places[at];
        self.shards[shard].kept(place)
    }

    /// Notes until when each says something; to be called when something changed.
    pub fn note(&mut self, charges: &[Charge<'_>]) {
        for (&(shard, place), charge) in self.places.iter().zip(charges) {
            self.shards[shard].note(place, charge.asked.quota);
        }
    }
}

impl Book for Open<'_, Counter> {
    fn counter(&mut self, at: usize) -> &mut Counter {
        self.kept(at)
    }
}

fn shard_of((rule, who): &Key) -> usize {
    let (high, low) = who.split_at(8);
    let half = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap_or_default());
    (mix(rule ^ half(high) ^ half(low).rotate_left(17)) as usize) % SHARDS
}

fn lock<C>(shard: &Mutex<Shard<C>>) -> MutexGuard<'_, Shard<C>> {
    // Nothing under it panics, and what is kept is whole after each step.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
