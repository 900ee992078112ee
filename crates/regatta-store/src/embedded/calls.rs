//! The journal in memory: a call that is repeated to the same process is told what became of it.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::expiring::Expiring;
use super::{Embedded, ready};
use crate::calls::CALL_RESULT_MAX;
use crate::{Begun, BoxFuture, CallName, Calls, Holds, Run, StoreError};

/// Calls that are remembered; one more is refused before it runs.
const CALLS_MAX: usize = 10_000;
/// Bytes of all results that are kept.
const RESULTS_BYTES_MAX: usize = 64 << 20;

pub(super) type Journal = Expiring<CallName, Call>;

pub(super) fn journal() -> Journal {
    Expiring::new(CALLS_MAX)
}

pub(super) struct Call {
    run: Run,
    until: Instant,
    result: Option<Bytes>,
}

/// Bytes of all results that take room, those whose time is over too.
fn held(journal: &Journal) -> usize {
    journal.held().filter_map(|call| call.result.as_ref()).map(Bytes::len).sum()
}

impl Embedded {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, name: &CallName, run: Run, lease: Duration, life: Duration) -> Result<Begun, StoreError> {
        let now = Instant::now();
        let mut journal = self.journal();
        match journal.get(name, now) {
            Some(Call { result: Some(result), .. }) => return Ok(Begun::Done(result.clone())),
            Some(call) if call.run != run => {
                return Ok(if now < call.until { Begun::Running } else { Begun::Lost });
            }
            Some(_) | None => {}
        }
        let call = Call { run, until: now + lease, result: None };
        journal.put(*name, call, life, now).map_err(|_| StoreError::Full("calls"))?;
        Ok(Begun::Yours)
    }

    fn end(&self, name: &CallName, run: Run, result: Bytes, life: Duration) -> Result<Holds, StoreError> {
        if result.len() > CALL_RESULT_MAX {
            return Err(StoreError::TooLarge("result of a call"));
        }
        let now = Instant::now();
        let mut journal = self.journal();
        if journal.get(name, now).is_none_or(|call| call.run != run) {
            return Ok(Holds::No);
        }
        if held(&journal) + result.len() > RESULTS_BYTES_MAX {
            journal.expire(now);
        }
        if held(&journal) + result.len() > RESULTS_BYTES_MAX {
            return Err(StoreError::Full("bytes of results of calls"));
        }
        let call = Call { run, until: now, result: Some(result) };
        journal.put(*name, call, life, now).map_err(|_| StoreError::Full("calls"))?;
        Ok(Holds::Yes)
    }
}

impl Calls for Embedded {
    fn begin_call(
        &self,
        call: &CallName,
        run: Run,
        lease: Duration,
        life: Duration,
    ) -> BoxFuture<'_, Result<Begun, StoreError>> {
        ready(self.begin(call, run, lease, life))
    }

    fn hold_call(
        &self,
        call: &CallName,
        run: Run,
        lease: Duration,
        life: Duration,
    ) -> BoxFuture<'_, Result<Holds, StoreError>> {
        let now = Instant::now();
        let mut journal = self.journal();
        if journal.get(call, now).is_none_or(|call| call.run != run || call.result.is_some()) {
            return ready(Ok(Holds::No));
        }
        if let Some(call) = journal.renew(call, life, now) {
            call.until = now + lease;
        }
        ready(Ok(Holds::Yes))
    }

    fn end_call(
        &self,
        call: &CallName,
        run: Run,
        result: Bytes,
        life: Duration,
    ) -> BoxFuture<'_, Result<Holds, StoreError>> {
        ready(self.end(call, run, result, life))
    }

    fn result_of_call(&self, call: &CallName) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        let journal = self.journal();
        ready(Ok(journal.get(call, Instant::now()).and_then(|call| call.result.clone())))
    }

    fn forget_call(&self, call: &CallName, run: Run) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut journal = self.journal();
        if journal.get(call, Instant::now()).is_some_and(|call| call.run == run && call.result.is_none()) {
            journal.remove(call);
        }
        ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bounds;
    use crate::embedded::open;

    #[tokio::test]
    async fn results_whose_time_is_over_make_room_for_others() {
        let (store, result) = (open(None, Bounds::default()).unwrap(), Bytes::from(vec![0; CALL_RESULT_MAX]));
        let life = Duration::from_secs(60);
        let call = async |number, kept_for| {
            let (name, run) = (CallName([number; 32]), Run([number; 16]));
            assert_eq!(store.begin_call(&name, run, life, life).await, Ok(Begun::Yours));
            store.end_call(&name, run, result.clone(), kept_for).await
        };
        for number in 0..64 {
            assert_eq!(call(number, Duration::ZERO).await, Ok(Holds::Yes));
        }
        for number in 64..128 {
            assert_eq!(call(number, life).await, Ok(Holds::Yes), "{number}");
        }
        assert!(matches!(call(128, life).await, Err(StoreError::Full(_))), "these are all remembered");
    }
}
