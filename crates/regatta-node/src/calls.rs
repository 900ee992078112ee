//! Calls of legacy sessions that run here, so that `notifications/cancelled` finds them from whichever node it comes to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::Notify;

/// A session and the id of a request in it, as JSON: `1` is not `"1"`.
type Key = ([u8; 16], String);

/// The calls.
#[derive(Default)]
pub(crate) struct Calls {
    running: Mutex<HashMap<Key, Arc<Notify>>>,
}

/// One of them, until it is dropped.
pub(crate) struct Listed {
    calls: Arc<Calls>,
    key: Key,
    cancelled: Arc<Notify>,
}

impl Calls {
    pub(crate) fn list(self: &Arc<Self>, session: [u8; 16], id: &Value) -> Listed {
        let (key, cancelled) = ((session, id.to_string()), Arc::new(Notify::new()));
        self.running().insert(key.clone(), cancelled.clone());
        Listed { calls: self.clone(), key, cancelled }
    }

    /// Whether such a call runs here; it is told.
    pub(crate) fn cancel(&self, session: [u8; 16], id: &Value) -> bool {
        let found = self.running().get(&(session, id.to_string())).cloned();
        if let Some(cancelled) = &found {
            cancelled.notify_one();
        }
        found.is_some()
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Key, Arc<Notify>>> {
        // Nothing is left half done while it is held.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    /// Returns when the client takes the request back.
    pub(crate) async fn cancelled(&self) {
        self.cancelled.notified().await;
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut running = self.calls.running();
        // A client that uses an id twice has replaced it.
        if running.get(&self.key).is_some_and(|listed| Arc::ptr_eq(listed, &self.cancelled)) {
            running.remove(&self.key);
        }
    }
}
