//! A store in memory that fails as told, for tests of the seam.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{Away, BoxFuture, Claimed, Fleet, Holder, PurgeLog, Stored};
use crate::key::Key;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    Away,
    Slow,
}

pub(super) struct Fake {
    state: Mutex<State>,
}

struct State {
    trouble: Trouble,
    values: HashMap<[u8; 32], (Bytes, Instant, Duration)>,
    claims: HashMap<[u8; 32], (Holder, Instant)>,
    epoch: u64,
    newest: u64,
    things: HashMap<Bytes, (u64, Holder)>,
    heeds: HashMap<[u8; 16], (u64, Instant)>,
}

impl Default for Fake {
    fn default() -> Self {
        Fake {
            state: Mutex::new(State {
                trouble: Trouble::None,
                values: HashMap::new(),
                claims: HashMap::new(),
                epoch: 1,
                newest: 0,
                things: HashMap::new(),
                heeds: HashMap::new(),
            }),
        }
    }
}

impl Fake {
    pub fn trouble(&self, trouble: Trouble) {
        self.with(|state| state.trouble = trouble);
    }

    /// Everything is lost.
    pub fn wipe(&self) {
        self.with(|state| {
            state.values.clear();
            state.claims.clear();
            state.things.clear();
            state.heeds.clear();
            (state.epoch, state.newest) = (state.epoch + 1, 0);
        });
    }

    /// Every value has one bit wrong.
    pub fn corrupt(&self) {
        self.with(|state| {
            for (bytes, ..) in state.values.values_mut() {
                let mut touched = bytes.to_vec();
                touched[20] ^= 1;
                *bytes = touched.into();
            }
        });
    }

    /// What somebody else put under `key`.
    pub fn set(&self, key: &Key, bytes: Bytes) {
        self.with(|state| state.values.insert(key.0, (bytes, Instant::now(), Duration::from_secs(3600))));
    }

    pub fn values(&self) -> usize {
        self.with(|state| state.values.len())
    }

    pub fn claims(&self) -> usize {
        self.with(|state| state.claims.values().filter(|(_, until)| *until > Instant::now()).count())
    }

    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut State) -> T + Send,
    ) -> BoxFuture<'_, Result<T, Away>> {
        let trouble = self.with(|state| state.trouble);
        let done = match trouble {
            Trouble::None | Trouble::Slow => Ok(self.with(what)),
            Trouble::Away => Err(Away),
        };
        Box::pin(async move {
            if trouble == Trouble::Slow {
                sleep(Duration::from_secs(60)).await;
            }
            done
        })
    }
}

impl Fleet for Fake {
    fn find(&self, key: &Key) -> BoxFuture<'_, Result<Option<Stored>, Away>> {
        let key = key.0;
        self.answer(move |state| {
            let (bytes, at, life) = state.values.get(&key)?;
            let age = at.elapsed();
            (age < *life).then(|| Stored { bytes: bytes.clone(), age })
        })
    }

    fn claim(&self, key: &Key, holder: Holder, lease: Duration) -> BoxFuture<'_, Result<Claimed, Away>> {
        let key = key.0;
        self.answer(move |state| {
            let now = Instant::now();
            match state.claims.get(&key) {
                Some((other, until)) if *other != holder && *until > now => Claimed::Others,
                Some(_) | None => {
                    state.claims.insert(key, (holder, now + lease));
                    Claimed::Yours
                }
            }
        })
    }

    fn put(
        &self,
        key: &Key,
        holder: Holder,
        bytes: Bytes,
        life: Duration,
    ) -> BoxFuture<'_, Result<(), Away>> {
        let key = key.0;
        self.answer(move |state| {
            state.values.insert(key, (bytes, Instant::now(), life));
            if state.claims.get(&key).is_some_and(|(other, _)| *other == holder) {
                state.claims.remove(&key);
            }
        })
    }

    fn give_up(&self, key: &Key, holder: Holder) -> BoxFuture<'_, Result<(), Away>> {
        let key = key.0;
        self.answer(move |state| {
            if state.claims.get(&key).is_some_and(|(other, _)| *other == holder) {
                state.claims.remove(&key);
            }
        })
    }

    fn purge(&self, _: &[u8; 16], thing: Bytes, by: Holder) -> BoxFuture<'_, Result<(u64, u64), Away>> {
        self.answer(move |state| {
            state.newest += 1;
            state.things.insert(thing, (state.newest, by));
            (state.epoch, state.newest)
        })
    }

    fn purges(
        &self,
        _: &[u8; 16],
        epoch: u64,
        newest: u64,
        heed: Option<(Holder, Duration)>,
    ) -> BoxFuture<'_, Result<Option<PurgeLog>, Away>> {
        self.answer(move |state| {
            if let Some((by, life)) = heed
                && (state.epoch, state.newest) == (epoch, newest)
            {
                state.heeds.insert(by.0, (newest, Instant::now() + life));
            }
            let things = state.things.iter().map(|(thing, (number, by))| (thing.clone(), *number, *by));
            let log = PurgeLog { epoch: state.epoch, newest: state.newest, things: things.collect() };
            ((log.epoch, log.newest) != (epoch, newest)).then_some(log)
        })
    }

    fn unheeded(&self, _: &[u8; 16], number: u64, by: Holder) -> BoxFuture<'_, Result<u64, Away>> {
        self.answer(move |state| {
            let now = Instant::now();
            let late = |(other, (heeded, until)): &(&[u8; 16], &(u64, Instant))| {
                **other != by.0 && *heeded < number && *until > now
            };
            state.heeds.iter().filter(late).count() as u64
        })
    }
}
