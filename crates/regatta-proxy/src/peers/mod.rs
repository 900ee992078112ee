//! The other gateways on the same store: who they are, what they write to us, what we ask them for.
//!
//! Nothing here is on the way of an undisturbed request. A gateway asks its peers only when a client comes back to another
//! one than it was cut from, and tells them only what a client waits for. Letters get lost: whoever waits asks again.

pub(crate) mod catch_up;
pub(crate) mod kept;
pub(crate) mod keys;
pub(crate) mod letter;
pub(crate) mod recall;
pub(crate) mod release;
pub(crate) mod spill;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_store::{Arrival, GatewayId, Mailbox, Notice, Uuid16};

use crate::gateway::Gateway;
use kept::Kept;
pub use keys::{KeyPlan, Keys, Rotation};
use letter::{Context, Letter, Received, Unread};
use recall::Searches;
use release::Tickets;
use spill::Spilling;

/// How long a gateway that died counts as live.
const LEASE: Duration = Duration::from_secs(3);
/// Before a mailbox that ended is opened again.
const ENLIST_PAUSE: Duration = Duration::from_millis(500);

/// Whether other gateways use the same store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Nobody else can: it is in this process.
    Alone,
    /// They may.
    Many,
}

/// What a gateway keeps for and of its peers.
pub(crate) struct Peers {
    pub company: Company,
    pub id: GatewayId,
    pub keys: Keys,
    pub searches: Searches,
    pub spilling: Spilling,
    pub tickets: Tickets,
    pub kept: Kept,
}

impl Peers {
    /// Of the run `boot` of a gateway.
    pub fn new(company: Company, boot: [u8; 8], keys: Keys) -> Peers {
        let (searches, spilling, tickets, kept) = Default::default();
        Peers { company, id: GatewayId(boot), keys, searches, spilling, tickets, kept }
    }

    /// Whether there may be others.
    pub fn are_many(&self) -> bool {
        self.company == Company::Many
    }
}

/// Whose stream it is, as far as event ids and letters say it.
pub(crate) fn context_of(caller: &crate::handover::Caller) -> Context {
    let mut short = [0; 8];
    short.copy_from_slice(&caller.context[..8]);
    short
}

/// Posts a letter; that it was lost is found out by who waits for an answer.
pub(crate) async fn post(gateway: &Gateway, to: GatewayId, letter: &Letter) {
    let ring = gateway.ring.load_full();
    let sealed = letter::seal(&ring, gateway.peers.id, to, gateway.clock.wall_seconds(), letter);
    if gateway.store.post(to, sealed).await.is_err() {
        gateway.metrics.letters_unsent.inc();
    }
}

/// Posts a letter to all others, without waiting.
pub(crate) fn tell_all(gateway: &Arc<Gateway>, letter: Letter) {
    if gateway.peers.are_many() {
        let gateway = gateway.clone();
        tokio::spawn(async move { post(&gateway, GatewayId::EVERYBODY, &letter).await });
    }
}

/// Reads mail and keeps the keys fresh, for as long as the gateway lives.
pub(crate) async fn tend(gateway: &Arc<Gateway>) {
    if gateway.peers.are_many() {
        tokio::join!(attend(gateway), keys::tend(gateway));
    }
}

async fn attend(gateway: &Arc<Gateway>) {
    loop {
        let mut own = gateway.store.enlist(gateway.peers.id, LEASE);
        let mut all = gateway.store.enlist(GatewayId::EVERYBODY, LEASE);
        while let Some((to, arrival)) = next(gateway.peers.id, &mut own, &mut all).await {
            match arrival {
                Arrival::Letter(sealed) => take(gateway, to, &sealed).await,
                // The other mailbox gets it too.
                Arrival::Notice(notice) if to == gateway.peers.id => note(gateway, notice),
                Arrival::Notice(_) => {}
            }
        }
        if gateway.is_draining() {
            return;
        }
        tokio::time::sleep(ENLIST_PAUSE).await;
    }
}

async fn next(id: GatewayId, own: &mut Mailbox, all: &mut Mailbox) -> Option<(GatewayId, Arrival)> {
    tokio::select! {
        arrival = own.next() => Some((id, arrival?)),
        arrival = all.next() => Some((GatewayId::EVERYBODY, arrival?)),
    }
}

/// Opens a letter and does what it asks.
async fn take(gateway: &Arc<Gateway>, to: GatewayId, sealed: &Bytes) {
    let read = || {
        let ring = gateway.ring.load();
        letter::open(&ring, to, gateway.clock.wall_seconds(), sealed)
    };
    let mut opened = read();
    if let Err(Unread::Key(key)) = opened
        && gateway.peers.keys.learn(&*gateway.store, &gateway.ring, key).await.is_ok()
    {
        opened = read();
    }
    match opened {
        Ok(Received { from, .. }) if from == gateway.peers.id => {}
        Ok(received) => {
            gateway.metrics.letters.inc();
            obey(gateway, received);
        }
        Err(why) => {
            gateway.metrics.letters_refused.inc();
            tracing::debug!(?why, "a letter was not read");
        }
    }
}

fn obey(gateway: &Arc<Gateway>, Received { from, letter }: Received) {
    match letter {
        Letter::Spill { stream, at, context } => spill::demanded(gateway, from, stream, at, context),
        Letter::Spilled { stream, told } => gateway.peers.searches.hint(stream, from, told),
        Letter::Release { session, context, ticket } => {
            release::demanded(gateway, from, session, context, ticket);
        }
        Letter::Released { ticket, hold } => gateway.peers.tickets.settle(ticket, hold),
        Letter::Answered { question } => {
            // Known as answered from now on, so that a second answer is dropped here as well.
            let _ = gateway.pending.answer(&question);
        }
        Letter::Cancelled { session, id } => cancelled(gateway, session, &id),
    }
}

/// The call that runs here under `id`, if there is one, waits for no person any more.
pub(crate) fn cancelled(gateway: &Gateway, session: Uuid16, id: &[u8]) {
    for stream in gateway.streams.of_session(session) {
        if stream.carries_request(id) {
            stream.cancelled();
        }
    }
}

fn note(gateway: &Arc<Gateway>, notice: Notice) {
    match notice {
        Notice::RecordChanged(session) => {
            if let Some(stream) = gateway.streams.standing(session) {
                stream.session_changed();
            }
            changed(gateway, session);
        }
        Notice::Buried { digest, .. } => end_streams(gateway, Uuid16(digest)),
        Notice::KeysChanged => refresh_keys(gateway),
        Notice::LinkRestored | Notice::Missed => {
            refresh_keys(gateway);
            let gateway = gateway.clone();
            tokio::spawn(async move { look_after_streams(&gateway).await });
        }
        Notice::LinkLost => tracing::warn!("the store sends no notices: known sessions are asked for anew"),
    }
}

fn refresh_keys(gateway: &Arc<Gateway>) {
    let gateway = gateway.clone();
    tokio::spawn(async move { gateway.peers.keys.refresh(&*gateway.store, &gateway.ring).await });
}

/// Between two sessions that are looked after: a store that is just back is not run over.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// Notices were missed: sessions with a standing stream here may have moved, or ended, unheard of.
async fn look_after_streams(gateway: &Gateway) {
    for stream in gateway.streams.all().into_iter().filter(|stream| stream.is_standing()) {
        stream.session_changed();
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// A session that was ended elsewhere has no streams here.
pub(crate) fn end_streams(gateway: &Gateway, session: Uuid16) {
    for stream in gateway.streams.of_session(session) {
        let turned = stream.end(None);
        gateway.note_turn(&stream, turned);
    }
}

/// A binding that only we knew lost against another gateway's: the client must hear that its session moved once more
/// (SESSIONS 4).
fn changed(gateway: &Arc<Gateway>, session: Uuid16) {
    let Some(etag) = gateway.peers.kept.take(session) else { return };
    let gateway = gateway.clone();
    tokio::spawn(async move {
        let Ok(record) = gateway.store.read(&session).await else {
            // Asked again with the next notice.
            return gateway.peers.kept.keep(session, etag);
        };
        let record = record.and_then(|record| crate::bind::recorded(&record).ok());
        let is_ours = |record: crate::session::Recorded| {
            record.deviation.rebound.iter().any(|rebound| rebound.etag == etag)
        };
        if !record.is_some_and(is_ours) {
            gateway.rehoming.untold.add(session);
        }
    });
}

/// The last thing a gateway does: what its streams hold goes to the store, and it is known to be gone.
pub(crate) async fn leave(gateway: &Arc<Gateway>, patience: Duration) {
    if gateway.peers.are_many() {
        spill::everything(gateway, patience).await;
        let _ = tokio::time::timeout(patience, gateway.store.resign(gateway.peers.id)).await;
    }
}
