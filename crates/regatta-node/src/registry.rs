//! The node in the registry (docs/registry.md): who it is, how it is, how full it is; again and again.
//!
//! On a thread and a connection of its own, so that no load starves it. An error backs off and never ends the node; every
//! beat writes all fields, so that a store that was wiped is filled again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use regatta_seal::RegistrationSecret;
use regatta_store::{NodeFields, Registry as _, redis};

use crate::places::Places;
use crate::sealing::now_s;

/// What the registry says of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Starting = 0,
    Running = 1,
    Stopping = 2,
    /// It is off the registry, and the thread ends.
    Left = 3,
}

/// Longest pause after errors.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often the thread looks whether the status is another one.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running registration.
pub(crate) struct Registration {
    status: Arc<AtomicU8>,
    thread: JoinHandle<()>,
}

/// What stays the same from beat to beat.
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) server: String,
    pub(crate) url: String,
    pub(crate) version: String,
    /// Its tools as a JSON list of names; empty: calls of any tool may come.
    pub(crate) tools: String,
    /// The tools whose calls are in the journal.
    pub(crate) journal: Vec<String>,
    /// Signs what decides where traffic goes (docs/registry.md).
    pub(crate) secret: Option<RegistrationSecret>,
}

impl Registration {
    /// Begins to register.
    pub(crate) fn start(
        options: redis::Options,
        identity: Identity,
        every: Duration,
        places: Arc<Places>,
    ) -> std::io::Result<Registration> {
        let status = Arc::new(AtomicU8::new(Status::Starting as u8));
        let seen = status.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || runtime.block_on(beat_until_left(options, identity, every, places, seen)))?;
        Ok(Registration { status, thread })
    }

    pub(crate) fn say(&self, status: Status) {
        self.status.store(status as u8, Relaxed);
    }

    /// Takes the node off and waits for it.
    pub(crate) fn leave(self) {
        self.say(Status::Left);
        if self.thread.join().is_err() {
            tracing::warn!("the heartbeat had ended before its time");
        }
    }
}

async fn beat_until_left(
    options: redis::Options,
    identity: Identity,
    every: Duration,
    places: Arc<Places>,
    status: Arc<AtomicU8>,
) {
    let store = redis::open(options);
    let boot = format!("{:016x}", regatta_seal::random_u64());
    let mut failures = 0_u32;
    loop {
        let said = status.load(Relaxed);
        if said == Status::Left as u8 {
            if let Err(why) = store.leave(&identity.id).await {
                tracing::warn!(%why, "the node could not be taken off the registry; its lease ends by itself");
            }
            return;
        }
        let fields = fields(&identity, &boot, said, every, &places);
        let pause = match store.register(&identity.id, fields, every * 16).await {
            Ok(()) => {
                failures = 0;
                every
            }
            Err(why) => {
                failures += 1;
                tracing::warn!(%why, failures, "a heartbeat failed");
                (every * failures.min(16)).min(PAUSE_MAX.max(every))
            }
        };
        let until = tokio::time::Instant::now() + pause;
        while tokio::time::Instant::now() < until && status.load(Relaxed) == said {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn fields(identity: &Identity, boot: &str, status: u8, every: Duration, places: &Places) -> NodeFields {
    let status = match status {
        0 => "starting",
        1 => "running",
        _ => "stopping",
    };
    let fields = [
        ("status", status.to_owned()),
        ("lastHeartbeat", now_s().to_string()),
        ("heartbeatMs", every.as_millis().to_string()),
        ("load", places.in_flight().to_string()),
        ("maxLoad", places.number().to_string()),
        ("url", identity.url.clone()),
        ("server", identity.server.clone()),
        ("boot", boot.to_owned()),
        ("tools", identity.tools.clone()),
        // Any node goes on with any session.
        ("sessionState", "external".to_owned()),
        ("version", identity.version.clone()),
    ];
    let mut fields = BTreeMap::from(fields.map(|(name, value)| (name.to_owned(), value)));
    if !identity.journal.is_empty() {
        fields.insert("journal".to_owned(), serde_json::json!(identity.journal).to_string());
    }
    if let Some(secret) = &identity.secret {
        let sig = signature(secret, &identity.id, &fields);
        fields.insert("sig".to_owned(), sig);
    }
    fields
}

/// Over the id and these fields as they are written, those that are not there as empty.
fn signature(secret: &RegistrationSecret, id: &str, fields: &NodeFields) -> String {
    let field = |name: &str| fields.get(name).map(String::as_bytes).unwrap_or_default();
    let signed = ["boot", "url", "server", "tools", "sessionState"].map(field);
    let journal = fields.get("journal").map(String::as_bytes);
    let parts: Vec<&[u8]> = std::iter::once(id.as_bytes()).chain(signed).chain(journal).collect();
    secret.sign(&parts)
}
