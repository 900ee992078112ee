//! Joins what is kept, what is under way and what was purged: look, and if there is nothing, lead or wait.
//!
//! Everything here is quick and never waits; only a [`Waiter`] does. A result that was purged while it was fetched is
//! never given to anybody who asked after the purge: neither out of the table nor by joining the flight.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quick_cache::OptionsBuilder;
use quick_cache::sync::{Cache, DefaultLifecycle};
use regatta_mcp::Skim;
use regatta_policy::Micros;
use regatta_policy::cache::{Life, Worth};

use crate::fleet::{Claim, Found, Shelf};
use crate::flight::{Flight, Landing, Waiter};
use crate::form::{Form, Status, marked};
use crate::kept::{ByBytes, Kept, Made};
use crate::key::{AsItIs, Fields, Key, LocalKey, Secret};
use crate::purges::{Belongs, Purges};
use crate::tally::Tally;

/// What a result belongs to: what purges may strike, and where it is counted.
#[derive(Clone, Debug)]
pub struct About {
    /// The purges of its server.
    pub purges: Arc<Purges>,
    /// Where the fleet has it, if there is one.
    pub shared: Option<OnShelf>,
    /// The counts of its rule.
    pub tally: Arc<Tally>,
    /// Its tool, or its method where there is no tool.
    pub tool: Arc<str>,
    /// For whom it is kept; none if everybody shares it.
    pub principal: Option<[u8; 16]>,
    /// Its call, whoever made it.
    pub call: [u8; 16],
}

/// A place in what a fleet shares.
#[derive(Clone, Debug)]
pub struct OnShelf {
    /// What the fleet shares of a server.
    pub shelf: Arc<Shelf>,
    /// The result's name there.
    pub key: Key,
}

/// Kept results and fetches under way.
pub struct ResultCache {
    secret: Secret,
    kept: Cache<LocalKey, Arc<Kept>, ByBytes, AsItIs>,
    flights: Mutex<HashMap<LocalKey, Arc<Flight>, AsItIs>>,
}

/// What a look at the table gave.
#[derive(Debug)]
pub enum Looked {
    /// A result to give out.
    Found {
        /// The result.
        kept: Arc<Kept>,
        /// How it is told.
        status: Status,
        /// The right to fetch it anew, if that is due and nobody does.
        refresh: Option<Box<Lead>>,
    },
    /// Nothing to give out; perhaps something for the case that the server cannot answer.
    Nothing {
        /// An older result.
        spare: Option<Arc<Kept>>,
    },
}

/// The part in a flight.
#[derive(Debug)]
pub enum Joined {
    /// Nobody fetches it: you do.
    Lead(Box<Lead>),
    /// Somebody does.
    Wait(Waiter),
    /// It was fetched since the look.
    Found(Arc<Kept>),
}

/// The right, and the duty, to fetch one result. Dropped without a landing, it lets the waiters go.
pub struct Lead {
    cache: Arc<ResultCache>,
    key: LocalKey,
    about: About,
    flight: Arc<Flight>,
    began: Micros,
    spare: Option<Arc<Kept>>,
    /// When that was made which is fetched anew; none if nothing is.
    renews: Option<Micros>,
    /// The same duty towards the other gateways.
    claim: Option<Claim>,
    landed: bool,
}

/// Those who wait for a landing.
#[derive(Clone, Debug)]
pub struct Audience(Arc<Flight>);

impl Audience {
    /// Whether there are any.
    pub fn is_there(&self) -> bool {
        self.0.is_awaited()
    }
}

impl About {
    pub(crate) fn is_struck(&self, since: u64) -> bool {
        let belongs = Belongs { tool: &self.tool, principal: self.principal.as_ref(), call: &self.call };
        self.purges.strikes(belongs, since)
    }
}

impl ResultCache {
    /// Keeps at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Arc<ResultCache> {
        /// Of a result with its overhead, for a first guess at the table's size.
        const USUAL: u64 = 2048;
        /// A part of the table with a lock of its own must hold even the largest results.
        const PART: u64 = 8 << 20;
        let items = usize::try_from(bytes_max / USUAL).unwrap_or(usize::MAX).clamp(64, 1 << 20);
        let parts = usize::try_from(bytes_max / PART).unwrap_or(usize::MAX).clamp(1, 16);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(bytes_max)
            .shards(parts)
            .build();
        let kept = match options {
            Ok(options) => {
                Cache::with_options(options, ByBytes, AsItIs::default(), DefaultLifecycle::default())
            }
            Err(_) => Cache::with(items, bytes_max, ByBytes, AsItIs::default(), DefaultLifecycle::default()),
        };
        Arc::new(ResultCache { secret: Secret::new(), kept, flights: Mutex::default() })
    }

    /// Keeps at most `bytes_max` from now on.
    pub fn rebound(&self, bytes_max: u64) {
        if self.kept.capacity() != bytes_max {
            self.kept.set_capacity(bytes_max);
        }
    }

    /// Bytes that are kept now.
    pub fn bytes(&self) -> u64 {
        self.kept.weight()
    }

    /// Results that are kept now.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The name here of what has these fields.
    pub fn name(&self, fields: &Fields<'_>) -> LocalKey {
        self.secret.name(fields)
    }

    /// What is kept under `key`. `dice` are 64 random bits; what it is `about` is asked for if it is to be fetched anew.
    pub fn look(
        self: &Arc<Self>,
        key: &LocalKey,
        now: Micros,
        dice: u64,
        about: impl FnOnce() -> About,
    ) -> Looked {
        let Some(kept) = self.kept.get(key) else { return Looked::Nothing { spare: None } };
        match kept.worth(now, dice) {
            Worth::Fresh => Looked::Found { kept, status: Status::Hit, refresh: None },
            Worth::Ripe => {
                let refresh = self.refresh(*key, (&kept, about), now);
                Looked::Found { kept, status: Status::Hit, refresh }
            }
            Worth::Stale => {
                let refresh = self.refresh(*key, (&kept, about), now);
                Looked::Found { kept, status: Status::Stale, refresh }
            }
            Worth::Spare => Looked::Nothing { spare: Some(kept) },
            Worth::Spent => {
                // Unless somebody has put a newer one there meanwhile.
                self.kept.remove_if(key, |there| Arc::ptr_eq(there, &kept));
                Looked::Nothing { spare: None }
            }
        }
    }

    /// Leads the fetch of `key`, or waits for who does.
    pub fn join(
        self: &Arc<Self>,
        key: LocalKey,
        about: About,
        spare: Option<Arc<Kept>>,
        now: Micros,
    ) -> Joined {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&key)
            && !about.is_struck(flight.since)
        {
            return Joined::Wait(flight.wait());
        }
        // A leader keeps its result before its flight ends, so that under this lock one of the two is there.
        if let Some(kept) = self.kept.get(&key)
            && matches!(kept.worth(now, u64::MAX), Worth::Fresh)
        {
            return Joined::Found(kept);
        }
        let flight = Arc::new(Flight::new(about.purges.newest()));
        // One that was under way when the purge came lands for those who asked before it.
        flights.insert(key, flight.clone());
        drop(flights);
        Joined::Lead(Box::new(self.lead(key, about, (flight, now), spare)))
    }

    /// The right to fetch a kept result anew, unless somebody does.
    fn refresh(
        self: &Arc<Self>,
        key: LocalKey,
        (kept, about): (&Arc<Kept>, impl FnOnce() -> About),
        now: Micros,
    ) -> Option<Box<Lead>> {
        let mut flights = self.flights();
        let Entry::Vacant(place) = flights.entry(key) else { return None };
        let flight = Arc::new(Flight::new(kept.about.purges.newest()));
        place.insert(flight.clone());
        drop(flights);
        // The same as of the kept one, but for the key in the fleet: what is public was fetched under one caller's.
        let about = about();
        about.tally.refresh();
        let spare = Some(kept.clone());
        let mut lead = self.lead(key, about, (flight, now), spare);
        lead.renews = Some(kept.made);
        Some(Box::new(lead))
    }

    fn lead(
        self: &Arc<Self>,
        key: LocalKey,
        about: About,
        (flight, began): (Arc<Flight>, Micros),
        spare: Option<Arc<Kept>>,
    ) -> Lead {
        let (cache, renews, claim) = (self.clone(), None, None);
        Lead { cache, key, about, flight, began, spare, renews, claim, landed: false }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<LocalKey, Arc<Flight>, AsItIs>> {
        // Every change under this lock is a single step.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead {
    /// The server answered with a result that may be kept.
    pub fn keep(mut self, form: Form, life: Life, now: Micros) -> Arc<Kept> {
        let made =
            Made { form, made: self.began, cost: now.since(self.began), life, since: self.flight.since };
        let kept = Arc::new(Kept::new(self.about.clone(), made));
        self.cache.kept.insert(self.key, kept.clone());
        if let Some(claim) = self.claim.take() {
            claim.keep(&kept);
        }
        self.land(Landing::Kept(kept.clone()));
        kept
    }

    /// The fleet has it: kept here too, and for all who wait. `since` is the newest purge before the fleet was asked.
    pub(crate) fn adopt(mut self, found: Found, since: u64, now: Micros) -> Arc<Kept> {
        let Found { form, life, cost, age } = found;
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        let made = Made { form, made: Micros(now.0.saturating_sub(age)), cost, life, since };
        let kept = Arc::new(Kept::new(self.about.clone(), made));
        self.cache.kept.insert(self.key, kept.clone());
        self.land(Landing::Kept(kept.clone()));
        kept
    }

    /// Whether a result of this age is what is wanted: any, or one clearly newer than what is fetched anew.
    pub(crate) fn is_served_by(&self, age: Duration, now: Micros) -> bool {
        self.renews.is_none_or(|made| age * 2 < now.since(made))
    }

    /// Whether it is the fetch of what is kept under `key`.
    pub fn is_of(&self, key: LocalKey) -> bool {
        self.key == key
    }

    /// This fetch is the fleet's.
    pub(crate) fn claimed(&mut self, claim: Claim) {
        self.claim = Some(claim);
    }

    /// The same, found under one more key from now on.
    pub fn keep_for_all(self, public: LocalKey, form: Form, life: Life, now: Micros) {
        let cache = self.cache.clone();
        cache.kept.insert(public, self.keep(form, life, now));
    }

    /// The server answered with something for this caller alone.
    pub fn pass(mut self) {
        self.about.tally.passed();
        self.land(Landing::Passed);
    }

    /// The server could not answer: what is left of an older result, for this caller and all who wait.
    ///
    /// # Errors
    /// The lead itself, if nothing is left.
    pub fn spare(mut self, now: Micros) -> Result<Arc<Kept>, Box<Lead>> {
        // It may have come of age, or have been purged, while the server was asked.
        match self.spare.take().filter(|spare| spare.worth(now, u64::MAX) != Worth::Spent) {
            None => Err(Box::new(self)),
            Some(spare) => {
                self.land(Landing::Spare(spare.clone()));
                Ok(spare)
            }
        }
    }

    /// The server is alive.
    pub fn heard(&self) {
        self.flight.heard();
    }

    /// What tells whether somebody waits for the landing, apart from the lead itself.
    pub fn audience(&self) -> Audience {
        Audience(self.flight.clone())
    }

    /// What the result will belong to.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The response of the server as the leader's own client gets it: told as a miss.
    pub fn marked(text: &Bytes, seen: &Skim) -> Bytes {
        marked(text, seen)
    }

    fn land(&mut self, landing: Landing) {
        self.landed = true;
        let mut flights = self.cache.flights();
        if flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            flights.remove(&self.key);
        }
        drop(flights);
        self.flight.land(landing);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if !self.landed {
            self.land(Landing::Lost);
        }
    }
}

impl std::fmt::Debug for Lead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lead").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
