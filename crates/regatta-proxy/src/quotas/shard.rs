//! A part of what is kept: by key, in a bounded list from which the entry with least to say makes room.
//!
//! It knows no lock and no clock.

use std::collections::HashMap;

use regatta_policy::Micros;
use regatta_policy::quota::{Counter, Quota};

use super::Key;

/// Entries that are looked at to find one that makes room.
const SAMPLE: usize = 8;

/// What is kept under a key.
pub(super) trait Kept {
    /// Nothing used.
    fn new(quota: &Quota) -> Self;

    /// From when on it says nothing that a new one does not.
    fn empty_at(&self, quota: &Quota) -> Micros;
}

impl Kept for Counter {
    fn new(quota: &Quota) -> Counter {
        Counter::new(quota)
    }

    fn empty_at(&self, quota: &Quota) -> Micros {
        self.empty_at(quota)
    }
}

/// Some of what is kept.
#[derive(Debug)]
pub(super) struct Shard<C> {
    places: HashMap<Key, usize>,
    entries: Vec<Entry<C>>,
    /// Where the next look for room begins.
    turn: usize,
    /// Entries that had to make room before their time.
    pub displaced: u64,
}

#[derive(Debug)]
struct Entry<C> {
    key: Key,
    kept: C,
    /// From when on it says nothing.
    empty_at: Micros,
}

impl<C> Default for Shard<C> {
    fn default() -> Self {
        Shard { places: HashMap::new(), entries: Vec::new(), turn: 0, displaced: 0 }
    }
}

impl<C: Kept> Shard<C> {
    /// The place of `key`'s entry, made if need be. If `max` are there already, one makes room, but none that
    /// `is_kept`: the same request needs those.
    pub fn place(
        &mut self,
        (key, quota): (Key, &Quota),
        max: usize,
        now: Micros,
        is_kept: impl Fn(usize) -> bool,
    ) -> usize {
        if let Some(&place) = self.places.get(&key) {
            return place;
        }
        let entry = Entry { key, kept: C::new(quota), empty_at: now };
        let place = match self.entries.len() < max {
            true => None,
            false => self.least(is_kept),
        };
        let place = match place {
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
            Some(place) => {
                let old = std::mem::replace(&mut self.entries[place], entry);
                self.places.remove(&old.key);
                self.displaced += u64::from(now < old.empty_at);
                place
            }
        };
        self.places.insert(key, place);
        place
    }

    /// Of a few entries, the one that will be empty first: a blocked key stays longest.
    fn least(&mut self, is_kept: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.entries.len();
        let from = self.turn;
        self.turn = self.turn.wrapping_add(SAMPLE);
        let sample = (0..SAMPLE.min(count)).map(|step| from.wrapping_add(step) % count);
        sample.filter(|&place| !is_kept(place)).min_by_key(|&place| self.entries[place].empty_at)
    }

    /// What is kept at `place`.
    pub fn kept(&mut self, place: usize) -> &mut C {
        &mut self.entries[place].kept
    }

    /// Notes until when what is kept at `place` says something.
    pub fn note(&mut self, place: usize, quota: &Quota) {
        let entry = &mut self.entries[place];
        entry.empty_at = entry.kept.empty_at(quota);
    }

    /// The place of `key`'s entry, if there is one.
    pub fn find(&self, key: &Key) -> Option<usize> {
        self.places.get(key).copied()
    }

    /// All entries.
    pub fn all(&mut self) -> impl Iterator<Item = (Key, &mut C)> {
        self.entries.iter_mut().map(|entry| (entry.key, &mut entry.kept))
    }

    /// Drops what says nothing any more.
    pub fn sweep(&mut self, now: Micros) {
        let mut place = 0;
        while place < self.entries.len() {
            if now < self.entries[place].empty_at {
                place += 1;
                continue;
            }
            let gone = self.entries.swap_remove(place);
            self.places.remove(&gone.key);
            if let Some(moved) = self.entries.get(place) {
                self.places.insert(moved.key, place);
            }
        }
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
            self.places.shrink_to(self.entries.len() * 2);
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
