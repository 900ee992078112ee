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
use regatta_policy::deviation::{Change, Deviation};
use regatta_policy::snapshot::{Health, SessionState};
use regatta_policy::token::Binding;
use regatta_store::Uuid16;
use tokio::task::JoinSet;

use crate::bind;
use crate::fault::Fault;
use crate::forward::probe;
use crate::gateway::{Gateway, Rehoming};
use crate::headers::Outbound;
use crate::pipeline::handshake::{self, Since, own_id};
use crate::pipeline::{later, record};
use crate::route;
use crate::session::{Bound, Home, Seat, Session};
use crate::view::{ReplicaView, ServerView, View};

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
/// Homes at one replica that are ended at once.
const ENDS_AT_ONCE: usize = 16;
/// The longest that new work waits for the end of what was left at a replica.
const HELD_MAX: std::time::Duration = std::time::Duration::from_secs(1);

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
    server: &Arc<ServerView>,
    bound: &Bound,
    view: &ReplicaView,
    client: &Outbound,
    reason: Reason,
) -> Result<Bound, Unsettled> {
    let Some(issued) = bound.session.content.bindings.first() else { return Err(Unsettled::NextPlease) };
    let needs = bound.session.content.capabilities;
    let opened = match reason {
        Reason::SessionUnknown => handshake::shake_hands(server, bound, view, client, needs).await,
        Reason::Removed | Reason::OutOfReach => handshake::enter(server, bound, view, client, needs).await,
    };
    let opened = opened.ok_or(Unsettled::NextPlease)?;
    let (home, since) = (&opened.home, opened.since);
    if since == Since::Now {
        repeat(server, bound, view, client, home).await;
    }
    // The handshake took its time. To a gateway that was stopped meanwhile the store seems away, and what it would keep for
    // later then is a move that another gateway made long ago (RELIABILITY F8, F9).
    let record = bind::meet_patiently(gateway, &bound.session).await.map_err(Unsettled::Fault)?;
    let now = bind::at_home(bound.session.clone(), record);
    if now.home.etag != bound.home.etag {
        return Ok(now);
    }
    let upstream_session = home.upstream_session.to_str().ok().map(str::to_owned);
    let to = Binding { replica: home.replica, upstream_session };
    let change = Change::Rehome { issued, to: &to, etag: home.etag };
    let moved = record::change(gateway, &now, change).await.map_err(Unsettled::Fault)?;
    if moved.home.etag != home.etag {
        // Another gateway was first: its home is the session's, ours is ended.
        return Ok(moved);
    }
    let home = opened.keep();
    if since == Since::Now {
        if !is_told_alike(bound, &moved) {
            // What was asked for at the old home meanwhile.
            repeat(server, &moved, view, client, &home).await;
        }
        gateway.rehoming.moved(bound, reason, client);
    }
    follow(gateway, bound.session.uuid);
    gateway.metrics.rehomed.inc();
    tracing::info!(from = %bound.home.replica, to = %home.replica, ?reason, "session re-homed");
    Ok(moved)
}

/// Lets the session's standing stream, if it is here, look where the session lives. In a task: it may be that very stream
/// whose source moves the session.
fn follow(gateway: &Gateway, session: Uuid16) {
    if let Some(stream) = gateway.streams.standing(session) {
        tokio::spawn(async move { stream.session_changed() });
    }
}

/// Whether a home has to be told the same by both.
fn is_told_alike(one: &Bound, other: &Bound) -> bool {
    let nothing = Deviation::default();
    let [one, other] =
        [one, other].map(|bound| bound.record.as_ref().map_or(&nothing, |record| &record.deviation));
    one.log_level == other.log_level && one.subscriptions == other.subscriptions
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
        if retired.iter().any(|other| other.is_same(&left)) {
            return;
        }
        if retired.len() >= RETIRED_MAX {
            // The oldest: its replica may never return. The session's record still says so.
            retired.remove(0);
        }
        retired.push(left);
    }

    /// Whether `session` moved and nobody told its client yet; whoever asks first tells.
    pub fn take_untold(&self, session: Uuid16) -> bool {
        self.untold.take(session)
    }

    /// Whether a home at `replica` was left while it was out of reach.
    pub fn has_retired(&self, replica: ReplicaId) -> bool {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.iter().any(|left| left.home.replica == replica)
    }

    /// Homes at `replica` that were left while it was out of reach.
    pub fn take_retired(&self, replica: ReplicaId) -> Vec<Retired> {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Holds new work back from replicas that are there again and still hold sessions that left them, until these were ended or
/// for [`HELD_MAX`] (SESSIONS 4). What is bound there is no new work.
pub(crate) fn hold_returning(gateway: &Gateway, before: &View, view: &View) {
    let was_there = |id| before.servers.iter().filter_map(|server| server.replica(id)).any(is_there);
    let all = view.servers.iter().flat_map(|server| &server.replicas);
    for back in all.filter(|back| is_there(back) && !was_there(back.replica.id)) {
        if gateway.rehoming.has_retired(back.replica.id) {
            back.upstream.hold(gateway.clock.now().after(HELD_MAX));
        }
    }
}

/// Ends what was left at replicas that are there, each in a task of its own: one that is slow to end sessions is slow for
/// itself.
pub(crate) fn end_retired(gateway: &Arc<Gateway>) {
    for server in &gateway.view().servers {
        let there = server.replicas.iter().filter(|view| is_there(view));
        for view in there.filter(|view| gateway.rehoming.has_retired(view.replica.id)) {
            let (gateway, server, upstream) = (gateway.clone(), server.clone(), view.upstream.clone());
            let left = gateway.rehoming.take_retired(view.replica.id);
            tokio::spawn(async move {
                end_all(&gateway, &server, left).await;
                upstream.let_in();
            });
        }
    }
}

/// Whether new work may be sent there, as far as probes say.
fn is_there(view: &ReplicaView) -> bool {
    matches!(view.replica.health, Health::Unknown | Health::Healthy)
}

/// Ends all that was `left` at one replica. Once that does not answer, the rest is left for another time.
async fn end_all(gateway: &Arc<Gateway>, server: &Arc<ServerView>, left: Vec<Retired>) {
    let (mut left, mut ends) = (left.into_iter(), JoinSet::new());
    loop {
        for left in left.by_ref().take(ENDS_AT_ONCE - ends.len()) {
            ends.spawn(end(gateway.clone(), server.clone(), left));
        }
        match ends.join_next().await {
            None => return,
            Some(Ok(Some(lost))) => {
                std::iter::once(lost).chain(left.by_ref()).for_each(|left| gateway.rehoming.retire(left));
            }
            Some(_) => {}
        }
    }
}

/// Ends a home that was left, and strikes it from the session's record; gives it back if its replica did not answer.
async fn end(gateway: Arc<Gateway>, server: Arc<ServerView>, left: Retired) -> Option<Retired> {
    let Retired { session, home, client } = &left;
    let view = server.replica(home.replica)?;
    if is_lived_in(&gateway, &server, session, home).await {
        return None;
    }
    match probe::delete(view, client, &home.upstream_session, &server.server.call).await {
        Err(_) => return Some(left),
        Ok(head) if !is_over(head.status) => return None,
        Ok(_) => {}
    }
    let record = bind::look_up(&gateway, session).await.ok()??;
    let upstream_session = home.upstream_session.to_str().ok()?.to_owned();
    let struck = Binding { replica: home.replica, upstream_session: Some(upstream_session) };
    let bound = bind::at_home(session.clone(), Some(record));
    // Who fails to strike it leaves a DELETE too many to the next gateway.
    let _ = record::change(&gateway, &bound, Change::Cleared(&struck)).await;
    None
}

/// Whether the session lives in the same upstream session at another place, as it can where sessions are kept outside the
/// replicas. A record that cannot be read says nothing: then it counts as lived in, and is met again with the next reading.
async fn is_lived_in(
    gateway: &Arc<Gateway>,
    server: &ServerView,
    session: &Arc<Session>,
    home: &Home,
) -> bool {
    if server.server.session_state != SessionState::External {
        return false;
    }
    let record = match bind::look_up(gateway, session).await {
        Ok(record) => record,
        Err(fault) => return !matches!(fault, Fault::NoSuchSession),
    };
    let bound = bind::at_home(session.clone(), record);
    let later = bound.later().iter().filter_map(bind::seated);
    later.chain([bound.home.clone()]).any(|lived| lived.upstream_session == home.upstream_session)
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
