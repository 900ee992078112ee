//! Who hears of changes: standing streams of the legacy era and `subscriptions/listen` of the modern one.
//!
//! Also holds the tools that `toggle_tool` added, and ticks the clock resource. Never blocks on a reader.

use super::State;
use super::catalogue;
use super::stream::Stream;
use super::wire;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The one resource of the demo server.
pub const CLOCK: &str = "demo://clock";
/// How many tools `toggle_tool` may add.
const EXTRA_TOOLS_MAX: usize = 64;

/// One reader of changes.
#[derive(Debug)]
pub struct Listener {
    pub stream: Arc<Stream>,
    pub tools: bool,
    pub clock: Arc<AtomicBool>,
    /// Raw id of the `subscriptions/listen` request; `None` for a legacy standing stream.
    pub subscription: Option<String>,
}

#[derive(Debug, Default)]
struct Inner {
    listeners: HashMap<u64, Listener>,
    next_key: u64,
    extra: BTreeSet<String>,
}

/// All readers, and the tools that come and go.
#[derive(Debug, Default)]
pub struct Hub(Mutex<Inner>);

/// What happened.
#[derive(Clone, Copy, Debug)]
enum Change {
    Tools,
    Clock,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a reader; the key is for `leave`.
    pub fn join(&self, listener: Listener) -> u64 {
        let mut inner = self.lock();
        inner.next_key += 1;
        let key = inner.next_key;
        inner.listeners.insert(key, listener);
        key
    }

    pub fn leave(&self, key: u64) {
        self.lock().listeners.remove(&key);
    }

    /// Adds the tool, or removes it if it is there; tells everybody. Says whether it is there now;
    /// `None` when the name is not possible or there are too many.
    pub fn toggle(&self, name: &str) -> Option<bool> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) || catalogue::is_built_in(name) {
            return None;
        }
        let mut inner = self.lock();
        let there = !inner.extra.remove(name);
        if there {
            if inner.extra.len() == EXTRA_TOOLS_MAX {
                return None;
            }
            inner.extra.insert(name.to_owned());
        }
        drop(inner);
        self.tell(Change::Tools);
        Some(there)
    }

    pub fn has_extra(&self, name: &str) -> bool {
        self.lock().extra.contains(name)
    }

    pub fn extra(&self) -> Vec<String> {
        self.lock().extra.iter().cloned().collect()
    }

    fn tell(&self, change: Change) {
        for listener in self.lock().listeners.values() {
            let (wanted, method, members) = match change {
                Change::Tools => (listener.tools, "notifications/tools/list_changed", String::new()),
                Change::Clock => (
                    listener.clock.load(Ordering::Relaxed),
                    "notifications/resources/updated",
                    format!(r#""uri":"{CLOCK}""#),
                ),
            };
            if wanted {
                listener.stream.push(&notice(method, &members, listener.subscription.as_deref()));
            }
        }
    }

    /// Ends every listen stream with its result and every standing stream.
    pub fn close(&self) {
        for listener in self.lock().listeners.values() {
            if let Some(id) = &listener.subscription {
                let members = format!(
                    r#""resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#
                );
                listener.stream.push(&wire::result(id, &members));
            }
            listener.stream.finish();
        }
    }
}

/// A change notification; in the modern era it names its subscription (M-SUB, Receiving Notifications).
pub fn notice(method: &str, members: &str, subscription: Option<&str>) -> String {
    let Some(id) = subscription else { return wire::notification(method, members) };
    let comma = if members.is_empty() { "" } else { "," };
    let meta = format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}{comma}{members}"#);
    wire::notification(method, &meta)
}

/// Tells the clock's subscribers once a second, for ever.
pub async fn tick(state: Arc<State>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        state.hub.tell(Change::Clock);
    }
}
