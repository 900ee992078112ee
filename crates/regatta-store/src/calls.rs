//! The journal of calls that must not run twice: begun by one, held by a lease, ended with a result.
//!
//! Only who is the first may run a call, ever: when its lease ends without a result, what it did is unknown, and nobody
//! takes over. A result is kept for whoever asks again.

use std::time::Duration;

use bytes::Bytes;

use crate::{BoxFuture, StoreError};

/// Names one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallName(pub [u8; 32]);

/// Names one attempt to run a call: random, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run(pub [u8; 16]);

/// How a call stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The asker's to run, until its lease ends.
    Yours,
    /// Another runs it.
    Running,
    /// Another ran it, and its lease ended without a result.
    Lost,
    /// It was run, with this result.
    Done(Bytes),
}

/// Whether a run still has its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It has.
    Yes,
    /// It has not, or no longer: nothing was written.
    No,
}

/// Bytes of a result that is kept.
pub const CALL_RESULT_MAX: usize = 1 << 20;

/// The journal.
pub trait Calls {
    /// Begins a call as `run` for `lease`, if nobody did; it is remembered for `life`. The same run asked again, after an
    /// answer that was lost, is `Yours` too.
    fn begin_call(
        &self,
        call: &CallName,
        run: Run,
        lease: Duration,
        life: Duration,
    ) -> BoxFuture<'_, Result<Begun, StoreError>>;

    /// Renews the lease of `run`; the call is remembered for `life` from now: one that runs is never forgotten.
    fn hold_call(
        &self,
        call: &CallName,
        run: Run,
        lease: Duration,
        life: Duration,
    ) -> BoxFuture<'_, Result<Holds, StoreError>>;

    /// Keeps the result of `run` for `life`, also if its lease ended meanwhile: nobody else ran the call.
    ///
    /// # Errors
    /// `TooLarge` beyond [`CALL_RESULT_MAX`].
    fn end_call(
        &self,
        call: &CallName,
        run: Run,
        result: Bytes,
        life: Duration,
    ) -> BoxFuture<'_, Result<Holds, StoreError>>;

    /// The result that is kept of a call, if there is one. Begins nothing.
    fn result_of_call(&self, call: &CallName) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>>;

    /// Forgets that `run` began the call, because nothing of it was done.
    fn forget_call(&self, call: &CallName, run: Run) -> BoxFuture<'_, Result<(), StoreError>>;
}
