//! Data of tools in memory: it ends with the process, as the sessions of a node without a store do.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::expiring::Expiring;
use super::{Embedded, ready};
use crate::data::{SPACE_BYTES_MAX, SPACE_VALUES_MAX};
use crate::{BoxFuture, Data, Datum, Etag, SpaceName, StoreError, Written};

/// Spaces; one more is refused.
const SPACES_MAX: usize = 10_000;

pub(super) type Spaces = Expiring<SpaceName, Space>;

pub(super) fn spaces() -> Spaces {
    Expiring::new(SPACES_MAX)
}

#[derive(Default)]
pub(super) struct Space {
    is_ended: bool,
    values: HashMap<String, Datum>,
}

impl Space {
    fn write(
        &mut self,
        name: &str,
        expected: Option<Etag>,
        next: Option<Datum>,
    ) -> Result<Written, StoreError> {
        if self.is_ended {
            return Ok(Written::Ended);
        }
        let held = self.values.get(name);
        let version = held.map(|held| held.version);
        if next.as_ref().is_some_and(|next| Some(next.version) == version) {
            return Ok(Written::Done);
        }
        if version != expected {
            return Ok(Written::Lost(held.cloned()));
        }
        let Some(next) = next else {
            self.values.remove(name);
            return Ok(Written::Done);
        };
        let others = self.values.iter().filter(|(other, _)| *other != name);
        let others: usize = others.map(|(name, datum)| weight(name, datum)).sum();
        if others + weight(name, &next) > SPACE_BYTES_MAX {
            return Err(StoreError::Full("bytes of a space"));
        }
        if held.is_none() && self.values.len() >= SPACE_VALUES_MAX {
            return Err(StoreError::Full("values of a space"));
        }
        self.values.insert(name.to_owned(), next);
        Ok(Written::Done)
    }
}

/// As Redis counts: a letter before the name, the version before the value.
fn weight(name: &str, datum: &Datum) -> usize {
    1 + name.len() + 16 + datum.bytes.len()
}

impl Embedded {
    fn spaces(&self) -> MutexGuard<'_, Spaces> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_in(
        &self,
        space: &SpaceName,
        name: &str,
        (expected, next): (Option<Etag>, Option<Datum>),
        life: Duration,
    ) -> Result<Written, StoreError> {
        let now = Instant::now();
        let mut spaces = self.spaces();
        if spaces.get(space, now).is_none() {
            spaces
                .put(*space, Space::default(), life, now)
                .map_err(|_| StoreError::Full("spaces of data"))?;
        }
        let held = spaces.renew(space, life, now).ok_or(StoreError::Full("spaces of data"))?;
        held.write(name, expected, next)
    }
}

impl Data for Embedded {
    fn datum(
        &self,
        space: &SpaceName,
        name: &str,
        life: Duration,
    ) -> BoxFuture<'_, Result<Option<Datum>, StoreError>> {
        let mut spaces = self.spaces();
        let space = spaces.renew(space, life, Instant::now());
        ready(Ok(space.and_then(|space| space.values.get(name).cloned())))
    }

    fn write_datum(
        &self,
        space: &SpaceName,
        name: &str,
        expected: Option<Etag>,
        next: Option<Datum>,
        life: Duration,
    ) -> BoxFuture<'_, Result<Written, StoreError>> {
        ready(self.write_in(space, name, (expected, next), life))
    }

    fn end_space(&self, space: &SpaceName, life: Duration) -> BoxFuture<'_, Result<(), StoreError>> {
        let ended = Space { is_ended: true, values: HashMap::new() };
        let put = self.spaces().put(*space, ended, life, Instant::now());
        ready(put.map_err(|_| StoreError::Full("spaces of data")))
    }
}
