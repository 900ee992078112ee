//! A server that answers and does not do it: a permission that is missing, too few replicas, a disk that is full.
//!
//! The line is up then, and only this says that writes are not taken; the next write that is taken clears it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::dice::wall_s;

#[derive(Default)]
pub(super) struct Refusal {
    last: Mutex<Option<(u64, String)>>,
}

impl Refusal {
    fn last(&self) -> MutexGuard<'_, Option<(u64, String)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write was not taken. The first reason stays: the later ones follow from it.
    pub(super) fn note(&self, why: &str) {
        let mut last = self.last();
        if last.is_none() {
            tracing::warn!(why, "redis does not take a session's record; it is kept here");
            *last = Some((wall_s(), why.to_owned()));
        }
    }

    /// A write was taken.
    pub(super) fn clear(&self) {
        self.last().take();
    }

    /// Since when, seconds since 1970, and why.
    pub(super) fn get(&self) -> Option<(u64, String)> {
        self.last().clone()
    }
}
