//! Claims in memory: they end with the process, as whatever waits for them does.

use std::time::{Duration, Instant};

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use super::{Embedded, ready};
use crate::{BoxFuture, Claim, Claims, StoreError};

impl Embedded {
    fn stake(&self, digest: [u8; 16], ttl: Duration) -> Result<Claim, StoreError> {
        let now = Instant::now();
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if claims.get(&digest, now).is_some() {
            return Ok(Claim::Repeated);
        }
        claims.put(digest, (), ttl, now).map(|()| Claim::First).map_err(|_| {
            self.counters.refused_claims.fetch_add(1, Relaxed);
            StoreError::Full("claims")
        })
    }
}

impl Claims for Embedded {
    fn claim(&self, digest: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<Claim, StoreError>> {
        ready(self.stake(digest, ttl))
    }

    fn release(&self, digest: [u8; 16]) -> BoxFuture<'_, Result<(), StoreError>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        ready(Ok(()))
    }
}
