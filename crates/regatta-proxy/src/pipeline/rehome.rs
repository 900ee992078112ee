//! Moves a session whose replica is gone to another one, behind its client's back (SESSIONS 4).
//!
//! Optimistic, one at a time for each session in this process: shake hands in the client's name, repeat what the
//! old replica had been told, write the record by compare-and-set; who loses that race uses the winner's home.
//! It never moves a session for ejection, 5xx or 503, and never one whose server keeps its state in memory.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderValue, StatusCode};
use regatta_mcp::{Method, write};
use regatta_policy::ReplicaId;
use regatta_policy::deviation::Change;
use regatta_policy::snapshot::SessionState;
use regatta_policy::token::{Binding, Capabilities};
use regatta_store::Uuid16;

use crate::bind::{self, mint::Negotiated};
use crate::fault::Fault;
use crate::forward::probe;
use crate::gateway::{Gateway, Rehoming};
use crate::headers::Outbound;
use crate::pipeline::{later, record};
use crate::route;
use crate::session::{Bound, Home, Seat, Session};
use crate::view::{ReplicaView, ServerView};

/// Why a session leaves its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The replica left the config.
    Removed,
    /// The replica is gone.
    OutOfReach,
    /// The replica is there and does not know the session.
    SessionUnknown,
}

/// A home that was left while its replica was out of reach, to be ended when that returns.
pub(crate) struct Retired {
    pub session: Arc<Session>,
    pub home: Home,
    /// As whom it is ended: its server may let nobody else.
    client: Outbound,
}

/// Sessions that moved and whose client was not told yet.
#[derive(Default)]
pub(crate) struct Untold {
    sessions: Mutex<HashSet<Uuid16>>,
}

/// Moved sessions remembered until they are told; beyond it the news is lost, not the session.
const UNTOLD_MAX: usize = 65_536;
/// The longest that a re-homing may take, whatever its candidates do.
pub(crate) const WHOLE_MAX: std::time::Duration = std::time::Duration::from_secs(15);
/// Homes remembered for their end.
const RETIRED_MAX: usize = 4096;

/// Moves the session of `bound`, or finds that somebody else did.
pub(crate) async fn rehome(
    gateway: &Arc<Gateway>,
    server: &Arc<ServerView>,
    bound: &Bound,
    client: &Outbound,
    reason: Reason,
) -> Result<Bound, Fault> {
    if let Seat::Later { tool } = &bound.seat {
        return later::replace(gateway, server, bound, client, reason, tool).await;
    }
    if server.server.session_state == SessionState::Memory {
        return Err(Fault::NoSuchSession);
    }
    let uuid = bound.session.uuid;
    let flight = gateway.rehoming.flight(uuid);
    let _turn = flight.lock().await;
    // Asked of the store itself, tombstone and all: the move of another gateway, or the end, may be that fresh.
    let record = bind::meet_patiently(gateway, &bound.session).await?;
    let now = bind::at_home(bound.session.clone(), record);
    if now.home.etag != bound.home.etag {
        return Ok(now);
    }
    let left = match reason {
        Reason::SessionUnknown => None,
        Reason::Removed | Reason::OutOfReach => Some(now.home.replica),
    };
    for view in route::homes(server, &uuid.0, left) {
        match settle(gateway, server, &now, view, client, reason).await {
            Ok(moved) => return Ok(moved),
            Err(Unsettled::Fault(fault)) => return Err(fault),
            Err(Unsettled::NextPlease) => {}
        }
    }
    Err(Fault::NoReplica)
}

enum Unsettled {
    NextPlease,
    Fault(Fault),
}

/// Makes `view` the session's home, if it offers what the client was promised.
async fn settle(
    gateway: &Arc<Gateway>,
    server: &ServerView,
    bound: &Bound,
    view: &ReplicaView,
    client: &Outbound,
    reason: Reason,
) -> Result<Bound, Unsettled> {
    let needs = bound.session.content.capabilities;
    let home = shake_hands(server, bound, view, client, needs).await.ok_or(Unsettled::NextPlease)?;
    repeat(server, bound, view, client, &home).await;
    // The handshake took its time. A gateway that was stopped meanwhile finds the store silent, and what it would keep here
    // The handshake took its time. To a gateway that was stopped meanwhile the store seems away, and what it would keep for
    // later then is a move that another gateway made long ago (RELIABILITY F8, F9).
    let record = bind::meet_patiently(gateway, &bound.session).await.map_err(Unsettled::Fault)?;
    let now = bind::at_home(bound.session.clone(), record);
    if now.home.etag != bound.home.etag {
        let _ = probe::delete(view, client, &home.upstream_session, &server.server.call).await;
        return Ok(now);
    }
    let to = Binding {
        replica: home.replica,
        upstream_session: home.upstream_session.to_str().ok().map(str::to_owned),
    };
    let Some(issued) = bound.session.content.bindings.first() else { return Err(Unsettled::NextPlease) };
    let change = Change::Rehome { issued, to: &to, etag: home.etag };
    let moved = record::change(gateway, bound, change).await.map_err(Unsettled::Fault)?;
    if moved.home.etag == home.etag {
        gateway.rehoming.moved(bound, reason, client);
        gateway.metrics.rehomed.inc();
        tracing::info!(from = %bound.home.replica, to = %home.replica, ?reason, "session re-homed");
    } else {
        // Another gateway was first: its home is the session's, ours is ended.
        let _ = probe::delete(view, client, &home.upstream_session, &server.server.call).await;
    }
    Ok(moved)
}

/// The same params, the same version, at least the capabilities that are needed.
pub(super) async fn shake_hands(
    server: &ServerView,
    bound: &Bound,
    view: &ReplicaView,
    client: &Outbound,
    needs: Capabilities,
) -> Option<Home> {
    let params = String::from_utf8(bound.session.content.params.unpack().ok()?).ok()?;
    let text = write::request(&own_id(), Method::Initialize.as_str(), Some(&params));
    let bounds = &server.server.call;
    let shaken = probe::initialize(view, client, text, bounds).await.ok()?;
    let session = shaken.session?;
    let negotiated = Negotiated { text: &shaken.text, skim: &shaken.skim };
    let content = &bound.session.content;
    let fits = negotiated.version() == Some(content.version) && negotiated.capabilities().covers(needs);
    let initialized = write::notification(Method::NotificationInitialized.as_str(), None);
    if fits && probe::tell(view, client, &session, initialized, bounds).await == Ok(true) {
        return Some(Home {
            replica: view.replica.id,
            upstream_session: session,
            etag: regatta_seal::random16(),
        });
    }
    let _ = probe::delete(view, client, &session, bounds).await;
    None
}

/// Tells the new replica what the old one had been told: the log level, live subscriptions.
async fn repeat(server: &ServerView, bound: &Bound, view: &ReplicaView, client: &Outbound, home: &Home) {
    let Some(record) = &bound.record else { return };
    let bounds = &server.server.call;
    if let Some(level) = record.deviation.log_level {
        let params = format!(r#"{{"level":{}}}"#, write::json_string(level.as_str()));
        let text = write::request(&own_id(), Method::LoggingSetLevel.as_str(), Some(&params));
        let _ = probe::tell(view, client, &home.upstream_session, text, bounds).await;
    }
    for uri in &record.deviation.subscriptions {
        let params = format!(r#"{{"uri":{}}}"#, write::json_string(uri));
        let text = write::request(&own_id(), Method::ResourcesSubscribe.as_str(), Some(&params));
        let _ = probe::tell(view, client, &home.upstream_session, text, bounds).await;
    }
}

/// An id for a request of our own: no client's can be equal but by malice, and then only its own session suffers.
pub(crate) fn own_id() -> String {
    format!("\"regatta-{:016x}\"", regatta_seal::random_u64())
}

impl Rehoming {
    /// The lock under which `session` is moved; dropped from the list when nobody holds it.
    pub(super) fn flight(&self, session: Uuid16) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|other, flight| *other == session || Arc::strong_count(flight) > 1);
        flights.entry(session).or_default().clone()
    }

    pub(super) fn moved(&self, bound: &Bound, reason: Reason, client: &Outbound) {
        self.untold.add(bound.session.uuid);
        if reason == Reason::OutOfReach {
            let (session, home, client) = (bound.session.clone(), bound.home.clone(), client.compact());
            self.retire(Retired { session, home, client });
        }
    }

    /// Homes that the record of a session says were left: by us before a restart, or by another gateway. As whom they could
    /// be ended, no record says.
    pub fn retire_all(&self, session: &Arc<Session>, left: &[Binding]) {
        for binding in left {
            let Some(upstream_session) = &binding.upstream_session else { continue };
            let Ok(upstream_session) = HeaderValue::try_from(&upstream_session[..]) else { continue };
            let home = Home { replica: binding.replica, upstream_session, etag: [0; 16] };
            self.retire(Retired { session: session.clone(), home, client: Outbound::default() });
        }
    }

    fn retire(&self, left: Retired) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        if retired.len() < RETIRED_MAX && !retired.iter().any(|other| other.is_same(&left)) {
            retired.push(left);
        }
    }

    /// Whether `session` moved and nobody told its client yet; whoever asks first tells.
    pub fn take_untold(&self, session: Uuid16) -> bool {
        self.untold.take(session)
    }

    /// Homes at `replica` that were left while it was out of reach.
    pub fn take_retired(&self, replica: ReplicaId) -> Vec<Retired> {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        if retired.is_empty() {
            return Vec::new();
        }
        let is_there = |left: &Retired| left.home.replica == replica;
        let (taken, kept) = std::mem::take(&mut *retired).into_iter().partition(is_there);
        *retired = kept;
        taken
    }
}

impl Retired {
    fn is_same(&self, other: &Retired) -> bool {
        self.home.replica == other.home.replica && self.home.upstream_session == other.home.upstream_session
    }
}

/// Whether nothing is left to end: it was ended, is not known there, or nobody may end sessions of this server.
fn is_over(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::NOT_FOUND || status == StatusCode::METHOD_NOT_ALLOWED
}

/// Ends what was left at a replica that is back, and strikes it from the session's record.
pub(crate) async fn end_retired(gateway: &Arc<Gateway>, server: &ServerView, view: &ReplicaView) {
    for Retired { session, home, client } in gateway.rehoming.take_retired(view.replica.id) {
        let told = probe::delete(view, &client, &home.upstream_session, &server.server.call).await;
        if !told.is_ok_and(is_over) {
            continue;
        }
        let Ok(Some(record)) = bind::look_up(gateway, &session).await else { continue };
        let Ok(upstream_session) = home.upstream_session.to_str() else { continue };
        let left = Binding { replica: home.replica, upstream_session: Some(upstream_session.to_owned()) };
        let bound = bind::at_home(session, Some(record));
        // Who fails to strike it leaves a DELETE too many to the next gateway.
        let _ = record::change(gateway, &bound, Change::Cleared(&left)).await;
    }
}

impl Untold {
    pub fn add(&self, session: Uuid16) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() < UNTOLD_MAX {
            sessions.insert(session);
        }
    }

    fn take(&self, session: Uuid16) -> bool {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        !sessions.is_empty() && sessions.remove(&session)
    }
}
