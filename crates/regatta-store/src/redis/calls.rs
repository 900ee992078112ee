//! The journal in Redis: a hash a call. Leases are counted by the server's clock.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::sessions::unreadable;
use super::{Redis, scripts};
use crate::calls::CALL_RESULT_MAX;
use crate::{Begun, BoxFuture, CallName, Calls, Holds, Run, StoreError};

impl Calls for Redis {
    fn begin_call(
        &self,
        call: &CallName,
        run: Run,
        lease: Duration,
        life: Duration,
    ) -> BoxFuture<'_, Result<Begun, StoreError>> {
        let key = self.inner.names.call(call);
        Box::pin(async move {
            let (lease, life) = (millis(lease), millis(life));
            let args = [&run.0[..], lease.as_bytes(), life.as_bytes()];
            match self.inner.routes.run(&scripts::BEGIN_CALL, &key, &args).await? {
                Value::Int(1) => Ok(Begun::Yours),
                Value::Int(2) => Ok(Begun::Running),
                Value::Int(0) => Ok(Begun::Lost),
                Value::BulkString(result) => Ok(Begun::Done(Bytes::from(result))),
                _ => Err(unreadable()),
            }
        })
    }

    fn hold_call(
        &self,
        call: &CallName,
        run: Run,
        lease: Duration,
        life: Duration,
    ) -> BoxFuture<'_, Result<Holds, StoreError>> {
        let key = self.inner.names.call(call);
        Box::pin(async move {
            let (lease, life) = (millis(lease), millis(life));
            let args = [&run.0[..], lease.as_bytes(), life.as_bytes()];
            Ok(holds(&self.inner.routes.run(&scripts::HOLD_CALL, &key, &args).await?))
        })
    }

    fn end_call(
        &self,
        call: &CallName,
        run: Run,
        result: Bytes,
        life: Duration,
    ) -> BoxFuture<'_, Result<Holds, StoreError>> {
        let key = self.inner.names.call(call);
        Box::pin(async move {
            if result.len() > CALL_RESULT_MAX {
                return Err(StoreError::TooLarge("result of a call"));
            }
            let life = millis(life);
            let args = [&run.0[..], &result, life.as_bytes()];
            Ok(holds(&self.inner.routes.run(&scripts::END_CALL, &key, &args).await?))
        })
    }

    fn result_of_call(&self, call: &CallName) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        let key = self.inner.names.call(call);
        Box::pin(async move {
            match self.inner.routes.run(&scripts::RESULT_OF_CALL, &key, &[]).await? {
                Value::Nil => Ok(None),
                Value::BulkString(result) => Ok(Some(Bytes::from(result))),
                _ => Err(unreadable()),
            }
        })
    }

    fn forget_call(&self, call: &CallName, run: Run) -> BoxFuture<'_, Result<(), StoreError>> {
        let key = self.inner.names.call(call);
        Box::pin(
            async move { self.inner.routes.run(&scripts::FORGET_CALL, &key, &[&run.0]).await.map(|_| ()) },
        )
    }
}

fn holds(value: &Value) -> Holds {
    if matches!(value, Value::Int(1)) { Holds::Yes } else { Holds::No }
}

fn millis(time: Duration) -> String {
    time.as_millis().max(1).to_string()
}
