//! Reads the whole registry again and again, once for all servers, and hands each reading on.
//!
//! It judges nothing. A store that is slow delays the next reading and nothing else.

use std::sync::Arc;
use std::time::Duration;

use regatta_store::{Nodes, Store, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// What one reading gave.
pub type Registered = Result<Nodes, StoreError>;

/// A reading that takes longer counts as none.
const READING_MAX: Duration = Duration::from_secs(2);

/// Reads every `every`, until nobody wants it any more; not at all while it is `None`.
pub async fn poll(
    store: Arc<dyn Store>,
    mut every: watch::Receiver<Option<Duration>>,
    readings: mpsc::Sender<Registered>,
) {
    loop {
        let pause = *every.borrow_and_update();
        let Some(pause) = pause else {
            if every.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = every.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        if readings.send(read(&*store).await).await.is_err() {
            return;
        }
    }
}

/// One reading.
pub async fn read(store: &dyn Store) -> Registered {
    let late = || StoreError::Away(format!("no answer within {} s", READING_MAX.as_secs()));
    timeout(READING_MAX, store.nodes()).await.unwrap_or_else(|_| Err(late()))
}
