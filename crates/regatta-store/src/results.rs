//! Results that gateways share: values that pass away, claims of fetches, and numbered purges.
//!
//! A cache: everything here may be lost at any time, and whoever asks then fetches for himself. Values are bytes that the
//! asker checks; what a purge means is his business too.

use std::time::Duration;

use bytes::Bytes;

use crate::{BoxFuture, StoreError};

/// Names one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResultKey(pub [u8; 32]);

/// Names the results whose purges are counted together: those of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShelfName(pub [u8; 16]);

/// Names whoever fetches or purges: random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fetcher(pub [u8; 16]);

/// A value, and how long ago it was put by the store's own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedResult {
    /// As it was put.
    pub bytes: Bytes,
    /// Since then.
    pub age: Duration,
}

/// Whose fetch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// The asker's, until its lease ends.
    Yours,
    /// Another's.
    Others,
}

/// The purges of one shelf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Changes when the store lost its numbers.
    pub epoch: u64,
    /// The newest number; numbers rise by one with each purge.
    pub newest: u64,
    /// What was purged, its newest number, and by whom. Beyond a bound one empty thing takes the place of all, by nobody:
    /// everything that is older than its number has to count as purged.
    pub things: Vec<(Bytes, u64, Fetcher)>,
}

/// A promise to give out nothing that was purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heed {
    /// Who gives it.
    pub by: Fetcher,
    /// For how long after the answer it is bound by it: it stops by itself before.
    pub life: Duration,
}

/// Different things of one shelf whose purges are told apart.
pub const PURGED_THINGS_MAX: usize = 4096;

/// Shared results.
pub trait Results {
    /// The value under `key`.
    fn shared_result(&self, key: &ResultKey) -> BoxFuture<'_, Result<Option<SharedResult>, StoreError>>;

    /// Claims the fetch of `key` for `lease`, or renews `by`'s claim.
    fn claim_fetch(
        &self,
        key: &ResultKey,
        by: Fetcher,
        lease: Duration,
    ) -> BoxFuture<'_, Result<Fetch, StoreError>>;

    /// Puts a value for `life`, then gives up `by`'s claim.
    fn share_result(
        &self,
        key: &ResultKey,
        by: Fetcher,
        bytes: Bytes,
        life: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Gives up `by`'s claim.
    fn give_up_fetch(&self, key: &ResultKey, by: Fetcher) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Numbers a purge of `thing`; its epoch and number.
    fn purge(
        &self,
        shelf: &ShelfName,
        thing: Bytes,
        by: Fetcher,
    ) -> BoxFuture<'_, Result<(u64, u64), StoreError>>;

    /// The purges of a shelf, unless they are still those of `epoch` and `newest`: then, in the same step, `heed` is
    /// noted if there is one.
    fn purged(
        &self,
        shelf: &ShelfName,
        epoch: u64,
        newest: u64,
        heed: Option<Heed>,
    ) -> BoxFuture<'_, Result<Option<Purged>, StoreError>>;

    /// How many others than `by` heed the purges of a shelf, but not yet that of `number`.
    fn unheeded(&self, shelf: &ShelfName, number: u64, by: Fetcher)
    -> BoxFuture<'_, Result<u64, StoreError>>;
}
