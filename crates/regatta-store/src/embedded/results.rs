//! Shared results in memory: nobody else is there to share them with, so they only have to hold what the suite asks.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::expiring::Expiring;
use super::{Embedded, ready};
use crate::results::PURGED_THINGS_MAX;
use crate::{
    BoxFuture, Fetch, Fetcher, Heed, Purged, ResultKey, Results, SharedResult, ShelfName, StoreError,
};

/// Results and claims kept at most.
const RESULTS_MAX: usize = 1024;
/// Shelves alike.
const SHELVES_MAX: usize = 1024;

pub(super) struct Shared {
    results: Expiring<ResultKey, (Bytes, Instant)>,
    fetches: Expiring<ResultKey, Fetcher>,
    shelves: HashMap<ShelfName, Shelf>,
}

#[derive(Default)]
struct Shelf {
    newest: u64,
    things: HashMap<Bytes, (u64, Fetcher)>,
    /// Up to which number each heeds its purges, and until when.
    heeds: Vec<(Fetcher, u64, Instant)>,
}

/// This process has one run of numbers.
const EPOCH: u64 = 1;

impl Default for Shared {
    fn default() -> Self {
        let (results, fetches) = (Expiring::new(RESULTS_MAX), Expiring::new(RESULTS_MAX));
        Shared { results, fetches, shelves: HashMap::new() }
    }
}

impl Embedded {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        let shared: &Mutex<Shared> = &self.shared;
        shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn give_up(&mut self, key: &ResultKey, by: Fetcher, now: Instant) {
        if self.fetches.get(key, now) == Some(&by) {
            self.fetches.remove(key);
        }
    }
}

impl Results for Embedded {
    fn shared_result(&self, key: &ResultKey) -> BoxFuture<'_, Result<Option<SharedResult>, StoreError>> {
        let now = Instant::now();
        let found = self.shared().results.get(key, now).map(|(bytes, at)| SharedResult {
            bytes: bytes.clone(),
            age: now.saturating_duration_since(*at),
        });
        ready(Ok(found))
    }

    fn claim_fetch(
        &self,
        key: &ResultKey,
        by: Fetcher,
        lease: Duration,
    ) -> BoxFuture<'_, Result<Fetch, StoreError>> {
        let now = Instant::now();
        let mut shared = self.shared();
        ready(match shared.fetches.get(key, now) {
            Some(other) if *other != by => Ok(Fetch::Others),
            Some(_) | None => match shared.fetches.put(*key, by, lease, now) {
                Ok(()) => Ok(Fetch::Yours),
                Err(_) => Err(StoreError::Full("fetches")),
            },
        })
    }

    fn share_result(
        &self,
        key: &ResultKey,
        by: Fetcher,
        bytes: Bytes,
        life: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let now = Instant::now();
        let mut shared = self.shared();
        shared.give_up(key, by, now);
        let put = shared.results.put(*key, (bytes, now), life, now);
        ready(put.map_err(|_| StoreError::Full("results")))
    }

    fn give_up_fetch(&self, key: &ResultKey, by: Fetcher) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared().give_up(key, by, Instant::now());
        ready(Ok(()))
    }

    fn purge(
        &self,
        shelf: &ShelfName,
        thing: Bytes,
        by: Fetcher,
    ) -> BoxFuture<'_, Result<(u64, u64), StoreError>> {
        let mut shared = self.shared();
        if shared.shelves.len() >= SHELVES_MAX && !shared.shelves.contains_key(shelf) {
            return ready(Err(StoreError::Full("shelves")));
        }
        let shelf = shared.shelves.entry(*shelf).or_default();
        shelf.newest += 1;
        if shelf.things.len() >= PURGED_THINGS_MAX && !shelf.things.contains_key(&thing) {
            shelf.things.clear();
            shelf.things.insert(Bytes::new(), (shelf.newest, Fetcher([0; 16])));
        } else {
            shelf.things.insert(thing, (shelf.newest, by));
        }
        ready(Ok((EPOCH, shelf.newest)))
    }

    fn purged(
        &self,
        shelf: &ShelfName,
        epoch: u64,
        newest: u64,
        heed: Option<Heed>,
    ) -> BoxFuture<'_, Result<Option<Purged>, StoreError>> {
        let mut shared = self.shared();
        if shared.shelves.len() >= SHELVES_MAX && !shared.shelves.contains_key(shelf) {
            return ready(Err(StoreError::Full("shelves")));
        }
        let shelf = shared.shelves.entry(*shelf).or_default();
        if (epoch, newest) == (EPOCH, shelf.newest) {
            if let Some(Heed { by, life }) = heed {
                let now = Instant::now();
                shelf.heeds.retain(|(other, _, until)| *other != by && *until > now);
                shelf.heeds.push((by, newest, now + life));
            }
            return ready(Ok(None));
        }
        let things = shelf.things.iter().map(|(thing, (number, by))| (thing.clone(), *number, *by));
        ready(Ok(Some(Purged { epoch: EPOCH, newest: shelf.newest, things: things.collect() })))
    }

    fn unheeded(
        &self,
        shelf: &ShelfName,
        number: u64,
        by: Fetcher,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        let (shared, now) = (self.shared(), Instant::now());
        let heeds = shared.shelves.get(shelf).map_or(&[][..], |shelf| &shelf.heeds);
        let late =
            heeds.iter().filter(|(other, up_to, until)| *other != by && *up_to < number && *until > now);
        ready(Ok(late.count() as u64))
    }
}
