//! A call that runs, in the journal: signs of life while it does, and its result before anybody is told it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use regatta_store::{CallName, Holds, Run, Store, StoreError};
use tokio::sync::Semaphore;

use super::Counts;
use super::outcome::{End, outcome};
use crate::places::Place;

/// How long a run is believed in without a sign of it, and how often it gives one.
pub(super) const LEASE: Duration = Duration::from_secs(3);
const SIGN_EVERY: Duration = Duration::from_millis(750);
/// Attempts to keep a result, and the pause between two.
const KEEP_ATTEMPTS: usize = 4;
const KEEP_PAUSE: Duration = Duration::from_millis(300);
/// The same for runs that are taken back, and how many are at one time.
const TAKE_BACK_ATTEMPTS: usize = 10;
const TAKING_BACK_MAX: usize = 1000;

/// A call that was begun and is not ended. Dropped as it is, it leaves one of which nothing is known.
pub(crate) struct Entry {
    pub(super) store: Arc<dyn Store>,
    pub(super) call: CallName,
    pub(super) run: Run,
    pub(super) life: Duration,
    pub(super) counts: Arc<Counts>,
    pub(super) signs: Signs,
    /// To the end of its last write.
    pub(super) place: Arc<Place>,
}

/// An entry on its way to whoever will know first how its call ended: who drives a legacy call's stream takes it, else it is
/// read from the answer.
#[derive(Clone)]
pub(crate) struct Handed(Arc<Mutex<Option<Entry>>>);

/// Signs that a run lives; they end when this is dropped, by a panic too: for as long as they come, repeats wait.
pub(super) struct Signs(tokio::task::JoinHandle<()>);

/// A run that was asked for and not answered: it may be written. Dropped as it is, it is taken back, because nothing ran
/// under it; else a repeat would be told that nobody knows what became of it.
pub(super) struct Unanswered(Option<(Arc<dyn Store>, CallName, Run, TakingBack)>);

/// Room for runs that are taken back: their clients are not kept waiting, nor their places.
#[derive(Clone, Debug)]
pub(crate) struct TakingBack(Arc<Semaphore>);

impl Default for TakingBack {
    fn default() -> Self {
        TakingBack(Arc::new(Semaphore::new(TAKING_BACK_MAX)))
    }
}

impl Unanswered {
    pub(super) fn of(store: &Arc<dyn Store>, call: CallName, run: Run, room: &TakingBack) -> Unanswered {
        Unanswered(Some((store.clone(), call, run, room.clone())))
    }

    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let (Some((store, call, run, room)), Ok(runtime)) =
            (self.0.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let Ok(permit) = room.0.try_acquire_owned() else {
            tracing::warn!(
                "too many calls that were not run are taken back already; a repeat is told that one is unknown"
            );
            return;
        };
        runtime.spawn(async move {
            take_back(&*store, &call, run).await;
            drop(permit);
        });
    }
}

async fn take_back(store: &dyn Store, call: &CallName, run: Run) {
    for _ in 0..TAKE_BACK_ATTEMPTS {
        match store.forget_call(call, run).await {
            Err(StoreError::Away(_)) => tokio::time::sleep(KEEP_PAUSE).await,
            Ok(()) | Err(_) => return,
        }
    }
}

impl Handed {
    pub(super) fn new(entry: Entry) -> Handed {
        Handed(Arc::new(Mutex::new(Some(entry))))
    }

    pub(crate) fn take(&self) -> Option<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Entry {
    /// What its call is called.
    pub(crate) fn name(&self) -> CallName {
        self.call
    }

    /// Ends it with this response of its handler.
    pub(crate) async fn told(self, response: &[u8]) {
        let told = outcome(StatusCode::OK, response);
        self.end(told.map_or(End::Broken, |outcome| End::Told(outcome.kept))).await;
    }

    pub(super) async fn end(self, end: End) {
        let Entry { store, call, run, life, counts, signs, place } = self;
        let kept = match end {
            End::Told(result) => keep(&*store, &call, run, result, life).await,
            End::NotBegun => store.forget_call(&call, run).await.map(|()| Holds::Yes),
            // It was begun and not ended: that is what the journal says from now on.
            End::Broken => Ok(Holds::Yes),
        };
        if !matches!(kept, Ok(Holds::Yes)) {
            counts.note_lost();
            tracing::warn!(
                ?kept,
                "the result of a call could not be kept; a repeat will be told that it is unknown"
            );
        }
        drop((signs, place));
    }
}

async fn keep(
    store: &dyn Store,
    call: &CallName,
    run: Run,
    result: Bytes,
    life: Duration,
) -> Result<Holds, StoreError> {
    let mut last = Ok(Holds::No);
    for _ in 0..KEEP_ATTEMPTS {
        last = match store.end_call(call, run, result.clone(), life).await {
            // What it is worth to know: that it was run.
            Err(StoreError::TooLarge(_)) => store.end_call(call, run, Bytes::new(), life).await,
            kept => kept,
        };
        match &last {
            Err(StoreError::Away(_)) => tokio::time::sleep(KEEP_PAUSE).await,
            _ => return last,
        }
    }
    last
}

impl Signs {
    pub(super) fn give(store: Arc<dyn Store>, call: CallName, run: Run, life: Duration) -> Signs {
        Signs(tokio::spawn(async move {
            loop {
                tokio::time::sleep(SIGN_EVERY).await;
                if let Err(why) = store.hold_call(&call, run, LEASE, life).await {
                    tracing::debug!(%why, "a sign of a running call was lost");
                }
            }
        }))
    }
}

impl Drop for Signs {
    fn drop(&mut self) {
        self.0.abort();
    }
}
