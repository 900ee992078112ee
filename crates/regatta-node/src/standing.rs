//! Standing streams of legacy sessions (GET without an event id): where they hear news.
//!
//! Of a session one is served, the newest, at whichever node it is: a message must not go out on two (2025-11-25,
//! *Multiple Connections*). A client that comes back with the id of an event is told that all it subscribed to may have
//! changed; a node keeps nothing for one that is away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use regatta_policy::token::Capabilities;
use regatta_store::{Uuid16, Warm};
use tokio::sync::mpsc;

use crate::answers::{come_back, event_with_id, primer};
use crate::drain::{Phase, Phases, phase_reached};
use crate::event_id::Ids;
use crate::news::{Change, News, message};
use crate::serve::Room;
use crate::session::{Session, SessionRecord, Sessions};

/// Messages that a slow reader may be behind; then its stream is ended, and it comes back.
const BEHIND_MAX: usize = 64;
/// A sign of life on a stream that has nothing to say.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// The standing streams of this node.
pub(crate) struct Standing {
    sessions: Arc<Sessions>,
    held: Mutex<HashMap<[u8; 16], Held>>,
}

struct Held {
    ticket: u64,
    messages: mpsc::Sender<String>,
    /// Of its server, as the session's token says.
    can: Capabilities,
}

/// One stream, as its client reads it; gone from the table when it is dropped.
struct Attached {
    standing: Arc<Standing>,
    session: [u8; 16],
    ticket: u64,
    messages: mpsc::Receiver<String>,
    /// Of its node, until it drains.
    phases: Option<Phases>,
    ids: Ids,
    sequence: u64,
    is_primed: bool,
    _room: Room,
}

impl Standing {
    pub(crate) fn new(sessions: Arc<Sessions>) -> Standing {
        Standing { sessions, held: Mutex::default() }
    }

    /// How many there are.
    pub(crate) fn number(&self) -> usize {
        self.held().len()
    }

    /// The frames of a stream that is opened; `resumed`: its client was here before.
    pub(crate) fn attach(
        self: &Arc<Self>,
        session: &Session,
        ids: Ids,
        phases: Phases,
        room: Room,
        resumed: Resumed,
    ) -> impl Stream<Item = Bytes> + use<> {
        let (messages, receiver) = mpsc::channel(BEHIND_MAX);
        let ticket = regatta_seal::random_u64();
        if let Resumed::From(_) = resumed {
            for change in may_have_changed(session.can, &session.record) {
                // A client with more subscriptions than that hears of the rest as it reads.
                let _ = messages.try_send(message(&change));
            }
        }
        let held = Held { ticket, messages, can: session.can };
        self.held().insert(session.uuid, held);
        let attached = Attached {
            standing: self.clone(),
            session: session.uuid,
            ticket,
            messages: receiver,
            phases: Some(phases),
            ids,
            sequence: match resumed {
                Resumed::No => 0,
                Resumed::From(sequence) => sequence,
            },
            is_primed: session.primes(),
            _room: room,
        };
        futures_util::stream::unfold(attached, |mut attached| async {
            let frame = attached.next().await?;
            Some((frame, attached))
        })
    }

    /// The session's stream is at another node now.
    pub(crate) fn let_go(&self, session: [u8; 16]) {
        self.held().remove(&session);
    }

    /// Tells the sessions whose it is.
    pub(crate) async fn tell(&self, news: &News) {
        let all: Vec<_> = self.held().iter().map(|(uuid, held)| (*uuid, held.ticket, held.can)).collect();
        for (uuid, ticket, can) in all {
            let record = self.record(uuid).await;
            let changes = match news {
                News::One(change) if is_wanted(change, can, &record) => vec![change.clone()],
                News::One(_) => Vec::new(),
                News::All => may_have_changed(can, &record),
            };
            for change in changes {
                self.send(uuid, ticket, message(&change));
            }
        }
    }

    fn send(&self, uuid: [u8; 16], ticket: u64, message: String) {
        let mut held = self.held();
        let Some(stream) = held.get(&uuid).filter(|held| held.ticket == ticket) else { return };
        if stream.messages.try_send(message).is_err() {
            held.remove(&uuid);
        }
    }

    /// As of now, asked of the store only if this node does not know it.
    async fn record(&self, uuid: [u8; 16]) -> SessionRecord {
        let store = &self.sessions.store;
        let record = match store.warm(&Uuid16(uuid)) {
            Warm::None => None,
            Warm::Some(record) => Some(record),
            Warm::Ask => store.read(&Uuid16(uuid)).await.ok().flatten(),
        };
        record.and_then(|record| serde_json::from_slice(&record.value).ok()).unwrap_or_default()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<[u8; 16], Held>> {
        // Nothing is left half done while it is held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a client was here before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resumed {
    No,
    /// It saw this event last.
    From(u64),
}

fn is_wanted(change: &Change, can: Capabilities, record: &SessionRecord) -> bool {
    match change {
        Change::Tools => can.covers(Capabilities::TOOLS_CHANGED),
        Change::Prompts => can.covers(Capabilities::PROMPTS_CHANGED),
        Change::Resources => can.covers(Capabilities::RESOURCES_CHANGED),
        Change::Resource(uri) => record.subscriptions.contains(uri),
    }
}

fn may_have_changed(can: Capabilities, record: &SessionRecord) -> Vec<Change> {
    let lists = [Change::Tools, Change::Prompts, Change::Resources];
    let lists = lists.into_iter().filter(|change| is_wanted(change, can, record));
    lists.chain(record.subscriptions.iter().cloned().map(Change::Resource)).collect()
}

impl Attached {
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.is_primed) {
            return Some(primer(&self.ids.of(self.sequence)));
        }
        let phases = self.phases.as_mut()?;
        tokio::select! {
            message = self.messages.recv() => {
                self.sequence += 1;
                Some(event_with_id(&self.ids.of(self.sequence), message?.as_bytes()))
            }
            () = phase_reached(phases, Phase::Draining) => {
                self.phases = None;
                Some(come_back())
            }
            () = tokio::time::sleep(ALIVE_EVERY) => Some(Bytes::from_static(b": \n\n")),
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut held = self.standing.held();
        if held.get(&self.session).is_some_and(|held| held.ticket == self.ticket) {
            held.remove(&self.session);
        }
    }
}
