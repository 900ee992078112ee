//! The seam over the shared store: names and errors translated, nothing decided.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_store::{Fetch, Fetcher, Heed, ResultKey, ShelfName, Store};

use super::{Away, BoxFuture, Claimed, Fleet, Holder, PurgeLog, Stored};
use crate::key::Key;

/// What the gateways on one store share.
pub struct OverStore(pub Arc<dyn Store>);

impl Fleet for OverStore {
    fn find(&self, key: &Key) -> BoxFuture<'_, Result<Option<Stored>, Away>> {
        let key = ResultKey(key.0);
        Box::pin(async move {
            let found = self.0.shared_result(&key).await.map_err(|_| Away)?;
            Ok(found.map(|found| Stored { bytes: found.bytes, age: found.age }))
        })
    }

    fn claim(&self, key: &Key, holder: Holder, lease: Duration) -> BoxFuture<'_, Result<Claimed, Away>> {
        let key = ResultKey(key.0);
        Box::pin(async move {
            match self.0.claim_fetch(&key, Fetcher(holder.0), lease).await.map_err(|_| Away)? {
                Fetch::Yours => Ok(Claimed::Yours),
                Fetch::Others => Ok(Claimed::Others),
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
        let key = ResultKey(key.0);
        Box::pin(
            async move { self.0.share_result(&key, Fetcher(holder.0), bytes, life).await.map_err(|_| Away) },
        )
    }

    fn give_up(&self, key: &Key, holder: Holder) -> BoxFuture<'_, Result<(), Away>> {
        let key = ResultKey(key.0);
        Box::pin(async move { self.0.give_up_fetch(&key, Fetcher(holder.0)).await.map_err(|_| Away) })
    }

    fn purge(&self, shelf: &[u8; 16], thing: Bytes, by: Holder) -> BoxFuture<'_, Result<(u64, u64), Away>> {
        let shelf = ShelfName(*shelf);
        Box::pin(async move { self.0.purge(&shelf, thing, Fetcher(by.0)).await.map_err(|_| Away) })
    }

    fn purges(
        &self,
        shelf: &[u8; 16],
        epoch: u64,
        newest: u64,
        heed: Option<(Holder, Duration)>,
    ) -> BoxFuture<'_, Result<Option<PurgeLog>, Away>> {
        let shelf = ShelfName(*shelf);
        let heed = heed.map(|(by, life)| Heed { by: Fetcher(by.0), life });
        Box::pin(async move {
            let purged = self.0.purged(&shelf, epoch, newest, heed).await.map_err(|_| Away)?;
            Ok(purged.map(|purged| {
                let things =
                    purged.things.into_iter().map(|(thing, number, by)| (thing, number, Holder(by.0)));
                PurgeLog { epoch: purged.epoch, newest: purged.newest, things: things.collect() }
            }))
        })
    }

    fn unheeded(&self, shelf: &[u8; 16], number: u64, by: Holder) -> BoxFuture<'_, Result<u64, Away>> {
        let shelf = ShelfName(*shelf);
        Box::pin(async move { self.0.unheeded(&shelf, number, Fetcher(by.0)).await.map_err(|_| Away) })
    }
}
