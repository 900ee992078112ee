//! A server that forgets sessions when it is told to, so that the gateways must move them; no test lives here.
//!
//! A move is what a session writes into the store. This makes one for the price of three requests, and no replica dies.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regatta_testkit::client::{Outcome, Session};
use regatta_testkit::stub::answers;
use regatta_testkit::{Reply, Result, Seen, Stub};
use serde_json::{Value, json};

/// A server of both eras whose tool `forget` makes it forget the session that calls it.
pub struct Forgetful {
    pub stub: Stub,
    handshake_ms: Arc<AtomicU64>,
}

impl Forgetful {
    pub async fn start() -> Forgetful {
        let (base, forgotten) = (answers::dual(), Mutex::new(HashSet::<String>::new()));
        let handshake_ms = Arc::new(AtomicU64::new(0));
        let takes = handshake_ms.clone();
        let stub = Stub::start(move |seen| {
            let session = seen.header("mcp-session-id");
            let mut forgotten = forgotten.lock().unwrap_or_else(PoisonError::into_inner);
            if forgotten.contains(session) {
                return Reply::text(404, "text/plain", "forgotten");
            }
            if seen.tool() == "forget" {
                forgotten.insert(session.to_owned());
            }
            match seen.rpc() {
                "initialize" => base(seen).after(Duration::from_millis(takes.load(Ordering::Relaxed))),
                _ => base(seen),
            }
        })
        .await;
        Forgetful { stub, handshake_ms }
    }

    /// From now on handshakes take so many milliseconds.
    pub fn handshakes_take(&self, ms: u64) {
        self.handshake_ms.store(ms, Ordering::Relaxed);
    }

    /// Handshakes that clients of the testkit, or gateways in their name, have begun so far.
    pub fn handshakes(&self) -> usize {
        let ours = |seen: &&Arc<Seen>| seen.json["params"]["clientInfo"]["name"] == "regatta-testkit";
        self.stub.seen_rpc("initialize").iter().filter(ours).count()
    }
}

/// Where a call of `work` was executed: the server's own session, as it echoes it.
pub fn seat(outcome: &Outcome) -> Option<String> {
    let echo: Value = serde_json::from_str(outcome.text()).ok()?;
    Some(echo["session"].as_str()?.to_owned())
}

/// Makes the server forget the session; the next call moves it.
pub async fn forget(session: &Session) -> Result<()> {
    session.call("forget", json!({})).await?.result().map(drop)
}
