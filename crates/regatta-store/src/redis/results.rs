//! Shared results in Redis: a key a result, a key a claim in the same slot, a hash of purges a shelf. Every key has an end.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::dice::random;
use super::sessions::unreadable;
use super::{Redis, scripts};
use crate::results::PURGED_THINGS_MAX;
use crate::{
    BoxFuture, Fetch, Fetcher, Heed, Purged, ResultKey, Results, SharedResult, ShelfName, StoreError,
};

/// Purges are remembered longer than any result lives.
const PURGES_KEPT: Duration = Duration::from_secs(62 * 24 * 3600);
/// Larger values are not shared: they would hold up everybody.
const VALUE_MAX: usize = 16 << 20;

impl Results for Redis {
    fn shared_result(&self, key: &ResultKey) -> BoxFuture<'_, Result<Option<SharedResult>, StoreError>> {
        let key = self.inner.names.result(&key.0);
        Box::pin(async move {
            match self.inner.routes.run(&scripts::RESULT, &key, &[]).await? {
                Value::Nil => Ok(None),
                Value::Array(parts) => read_result(&parts).map(Some).ok_or_else(unreadable),
                _ => Err(unreadable()),
            }
        })
    }

    fn claim_fetch(
        &self,
        key: &ResultKey,
        by: Fetcher,
        lease: Duration,
    ) -> BoxFuture<'_, Result<Fetch, StoreError>> {
        let key = self.inner.names.fetch(&key.0);
        Box::pin(async move {
            let lease = lease.as_millis().max(1).to_string();
            match self.inner.routes.run(&scripts::CLAIM_FETCH, &key, &[&by.0, lease.as_bytes()]).await? {
                Value::Int(1) => Ok(Fetch::Yours),
                _ => Ok(Fetch::Others),
            }
        })
    }

    fn share_result(
        &self,
        key: &ResultKey,
        by: Fetcher,
        bytes: Bytes,
        life: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let (name, fetch) = (self.inner.names.result(&key.0), self.inner.names.fetch(&key.0));
        Box::pin(async move {
            if bytes.len() > VALUE_MAX {
                return Err(StoreError::TooLarge("result"));
            }
            let life = life.as_millis().max(1).to_string();
            self.inner.routes.run(&scripts::SHARE_RESULT, &name, &[&bytes, life.as_bytes()]).await?;
            self.inner.routes.run(&scripts::GIVE_UP_FETCH, &fetch, &[&by.0]).await.map(|_| ())
        })
    }

    fn give_up_fetch(&self, key: &ResultKey, by: Fetcher) -> BoxFuture<'_, Result<(), StoreError>> {
        let key = self.inner.names.fetch(&key.0);
        Box::pin(
            async move { self.inner.routes.run(&scripts::GIVE_UP_FETCH, &key, &[&by.0]).await.map(|_| ()) },
        )
    }

    fn purge(
        &self,
        shelf: &ShelfName,
        thing: Bytes,
        by: Fetcher,
    ) -> BoxFuture<'_, Result<(u64, u64), StoreError>> {
        let key = self.inner.names.purges(&shelf.0);
        Box::pin(async move {
            let epoch = new_epoch();
            let (kept, most) = (PURGES_KEPT.as_millis().to_string(), PURGED_THINGS_MAX.to_string());
            let args = [&thing[..], &by.0, epoch.as_bytes(), most.as_bytes(), kept.as_bytes()];
            match self.inner.routes.run(&scripts::PURGE, &key, &args).await? {
                Value::Array(parts) => read_pair(&parts).ok_or_else(unreadable),
                _ => Err(unreadable()),
            }
        })
    }

    fn purged(
        &self,
        shelf: &ShelfName,
        epoch: u64,
        newest: u64,
        heed: Option<Heed>,
    ) -> BoxFuture<'_, Result<Option<Purged>, StoreError>> {
        let key = self.inner.names.purges(&shelf.0);
        Box::pin(async move {
            let kept = PURGES_KEPT.as_millis().to_string();
            let args = [epoch.to_string(), newest.to_string(), new_epoch(), kept];
            let (by, life) = match heed {
                Some(Heed { by, life }) => (by.0, life.as_millis().to_string()),
                None => ([0; 16], "0".to_owned()),
            };
            let [epoch, newest, fresh, kept] = args.each_ref().map(String::as_bytes);
            let args = [epoch, newest, fresh, kept, &by, life.as_bytes()];
            match self.inner.routes.run(&scripts::PURGED, &key, &args).await? {
                Value::Nil => Ok(None),
                Value::Array(parts) => read_purged(&parts).map(Some).ok_or_else(unreadable),
                _ => Err(unreadable()),
            }
        })
    }

    fn unheeded(
        &self,
        shelf: &ShelfName,
        number: u64,
        by: Fetcher,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        let key = self.inner.names.purges(&shelf.0);
        Box::pin(async move {
            let number = number.to_string();
            let late = self.inner.routes.run(&scripts::UNHEEDED, &key, &[number.as_bytes(), &by.0]).await?;
            self::number(&late).ok_or_else(unreadable)
        })
    }
}

/// 53 bits: Redis's numbers are doubles.
fn new_epoch() -> String {
    (u64::from_be_bytes(random()) >> 11).max(1).to_string()
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

fn read_result(parts: &[Value]) -> Option<SharedResult> {
    let [value, age] = parts else { return None };
    Some(SharedResult {
        bytes: Bytes::copy_from_slice(bytes(value)?),
        age: Duration::from_millis(number(age)?),
    })
}

fn read_pair(parts: &[Value]) -> Option<(u64, u64)> {
    let [epoch, newest] = parts else { return None };
    Some((number(epoch)?, number(newest)?))
}

/// Epoch, newest, then names and values of the things: 16 bytes of whose purge it was, and the number's digits.
fn read_purged(parts: &[Value]) -> Option<Purged> {
    let (head, things) = parts.split_at_checked(2)?;
    let (epoch, newest) = read_pair(head)?;
    let things = things.chunks_exact(2).map(|pair| {
        let (by, digits) = bytes(&pair[1])?.split_first_chunk::<16>()?;
        let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some((Bytes::copy_from_slice(bytes(&pair[0])?), number, Fetcher(*by)))
    });
    Some(Purged { epoch, newest, things: things.collect::<Option<_>>()? })
}
