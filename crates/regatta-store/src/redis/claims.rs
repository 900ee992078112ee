//! Claims in Redis: a key a claim, with an end. Who holds it is written in it, so that the same call sent again after a
//! lost answer is the first again.

use std::time::Duration;

use redis::Value;

use super::dice::random;
use super::{Redis, scripts};
use crate::{BoxFuture, Claim, Claims, StoreError};

impl Claims for Redis {
    fn claim(&self, digest: [u8; 16], ttl: Duration) -> BoxFuture<'_, Result<Claim, StoreError>> {
        Box::pin(async move {
            let holder = [self.inner.instance, random::<8>()].concat();
            let ttl = ttl.as_millis().max(1).to_string();
            let key = self.inner.names.claim(&digest);
            match self.inner.routes.run(&scripts::CLAIM, &key, &[&holder, ttl.as_bytes()]).await? {
                Value::Int(1) => Ok(Claim::First),
                _ => Ok(Claim::Repeated),
            }
        })
    }

    fn release(&self, digest: [u8; 16]) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let key = self.inner.names.claim(&digest);
            self.inner.routes.run(&scripts::RELEASE, &key, &[&self.inner.instance]).await.map(|_| ())
        })
    }
}
