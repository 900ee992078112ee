//! The sixth stage: from a session token to the replica that holds the session.
//!
//! No look-up on the undisturbed way: the token says it all, the store only what deviates (SESSIONS 1 and 3).
//! It never moves a session; it says where it is.

pub(crate) mod mint;
pub(crate) mod questions;

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use http::HeaderValue;
use http::request::Parts;
use regatta_mcp::headers::MCP_SESSION_ID;
use regatta_policy::ReplicaId;
use regatta_policy::deviation::{Deviation, Later};
use regatta_policy::lifetime::{self, IssueDay, Lifetime};
use regatta_policy::token::SessionToken;
use regatta_seal::Purpose;
use regatta_store::{Buried, Grave, Met, Uuid16, Versioned, Warm};

use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::handover::Caller;
use crate::peers;
use crate::realm::Realm;
use crate::session::{Bound, Home, Recorded, Seat, Session};
use crate::view::ServerView;

/// The session that the request names; `None` if it names none.
pub(crate) async fn bind(
    gateway: &Arc<Gateway>,
    server: &ServerView,
    caller: &Caller,
    head: &Parts,
) -> Result<Option<Bound>, Fault> {
    let Some(value) = head.headers.get(MCP_SESSION_ID) else { return Ok(None) };
    let session = open(gateway, server, Realm::of(server, caller), value).await?;
    check_lifetime(gateway, server, &session)?;
    let record = look_up(gateway, &session).await?;
    let bound = at_home(session, record);
    if bound.record.is_some() {
        gateway.store.touch(&bound.session.uuid);
    }
    Ok(Some(bound))
}

/// Opens a token, or finds it opened. Of another realm it is broken like any other text, and takes the same way
/// through the seal: neither the answer nor its time tells that there is such a session (RELIABILITY I101, T31).
async fn open(
    gateway: &Gateway,
    server: &ServerView,
    realm: Realm,
    value: &HeaderValue,
) -> Result<Arc<Session>, Fault> {
    let text = value.to_str().map_err(|_| Fault::NoSuchSession)?;
    if let Some(session) = gateway.sessions.get(realm, text) {
        return Ok(session);
    }
    if text.len() > server.limits.token_max {
        return Err(Fault::NoSuchSession);
    }
    peers::keys::learn_key_of(gateway, text).await?;
    let ring = gateway.ring.load();
    // A key that no gateway has published, or a bad seal: none of ours made this.
    let opened = realm.with(|parts| ring.open(Purpose::Session, parts, text));
    let opened = opened.map_err(|_| Fault::NoSuchSession)?;
    let content = SessionToken::from_bytes(&opened.plain).map_err(|_| Fault::NoSuchSession)?;
    let session = Arc::new(session(content, realm).ok_or(Fault::NoSuchSession)?);
    gateway.sessions.insert(text, session.clone());
    Ok(session)
}

fn session(content: SessionToken, realm: Realm) -> Option<Session> {
    let binding = content.bindings.first()?;
    let upstream_session = HeaderValue::try_from(binding.upstream_session.as_deref()?).ok()?;
    let origin = Home { replica: binding.replica, upstream_session, etag: [0; 16] };
    Some(Session { uuid: Uuid16(content.uuid), realm, content, origin, posts: AtomicU8::new(0) })
}

/// 404 for what is past its lifetime (SESSIONS 8).
fn check_lifetime(gateway: &Gateway, server: &ServerView, session: &Session) -> Result<(), Fault> {
    let issued = session.content.issued_s;
    let now = u64::from(gateway.clock.wall_seconds());
    match lifetime::judge(issued, now, server.limits.session_lifetime_max) {
        Lifetime::Past => Err(Fault::NoSuchSession),
        Lifetime::Alive => Ok(()),
    }
}

/// What deviates from the session's token, as far as known; asks the store only at the first meeting. 404 for a session
/// that was ended. With the store away a session goes on by what was known last, else by its token (DESIGN 4).
pub(crate) async fn look_up(
    gateway: &Arc<Gateway>,
    session: &Arc<Session>,
) -> Result<Option<Recorded>, Fault> {
    let (day, digest) = grave(session);
    match (gateway.store.buried(day, &digest), gateway.store.warm(&session.uuid)) {
        (Buried::Yes, _) => Err(Fault::NoSuchSession),
        (Buried::No, Warm::None) => Ok(None),
        (Buried::No, Warm::Some(versioned)) => recorded(&versioned).map(Some),
        (Buried::No, Warm::Ask) | (Buried::Ask, _) => meet(gateway, session).await,
    }
}

/// The same, asked of the store whatever is known.
async fn meet(gateway: &Arc<Gateway>, session: &Arc<Session>) -> Result<Option<Recorded>, Fault> {
    match ask(gateway, session).await {
        Ok(record) => Ok(record),
        Err(Unanswered::Fault(fault)) => Err(fault),
        Err(Unanswered::Away) => last_known(gateway, session),
    }
}

/// The same, for a change that two sides of a partition should not both make: a store that has only just stopped to answer
/// is asked again for a while. A gateway that was stopped and wakes finds all its connections silent (RELIABILITY F9).
pub(crate) async fn meet_patiently(
    gateway: &Arc<Gateway>,
    session: &Arc<Session>,
) -> Result<Option<Recorded>, Fault> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match ask(gateway, session).await {
            Ok(record) => return Ok(record),
            Err(Unanswered::Fault(fault)) => return Err(fault),
            Err(Unanswered::Away)
                if tokio::time::Instant::now() >= deadline || is_known_to_be_away(gateway) =>
            {
                return last_known(gateway, session);
            }
            Err(Unanswered::Away) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Whether the store is away for so long that nobody waits for it. What was known before this process was stopped does not
/// count: the store may have come back meanwhile, and the way to it takes a moment.
fn is_known_to_be_away(gateway: &Gateway) -> bool {
    gateway.store.is_long_away() && !gateway.nap.is_fresh(gateway.clock.now())
}

/// How long a change waits for a store that has just gone away, and between two questions.
const PATIENCE: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(100);
enum Unanswered {
    Away,
    Fault(Fault),
}

async fn ask(gateway: &Arc<Gateway>, session: &Arc<Session>) -> Result<Option<Recorded>, Unanswered> {
    let (day, digest) = grave(session);
    match gateway.store.meet(&session.uuid, day, digest).await {
        Ok(Met { grave: Grave::Dug, .. }) => Err(Unanswered::Fault(Fault::NoSuchSession)),
        Ok(Met { grave: Grave::None, record }) => {
            let record = record.map(|versioned| recorded(&versioned)).transpose();
            let record = record.map_err(Unanswered::Fault)?;
            if let Some(record) = &record {
                gateway.rehoming.retire_all(session, &record.deviation.retired);
            }
            Ok(record)
        }
        Err(_) => Err(Unanswered::Away),
    }
}

fn last_known(gateway: &Gateway, session: &Session) -> Result<Option<Recorded>, Fault> {
    gateway.metrics.store_away.inc();
    match gateway.store.last_known(&session.uuid) {
        Warm::Some(versioned) => recorded(&versioned).map(Some),
        Warm::None | Warm::Ask => Ok(None),
    }
}

/// Where the tombstone of a session lies.
pub(crate) fn grave(session: &Session) -> (u32, [u8; 16]) {
    (IssueDay::of(session.content.issued_s).0, session.uuid.0)
}

/// A record's content; a layout that this version does not know is no reason to guess.
pub(crate) fn recorded(versioned: &Versioned) -> Result<Recorded, Fault> {
    let deviation = Deviation::from_bytes(&versioned.value).map_err(|_| Fault::StoreAway)?;
    Ok(Recorded { etag: versioned.etag, deviation: Arc::new(deviation) })
}

/// Joins a session with what deviates from its token.
pub(crate) fn at_home(session: Arc<Session>, record: Option<Recorded>) -> Bound {
    let moved = record.as_ref().and_then(|record| {
        let (binding, etag) = record.deviation.binding(session.content.bindings.first()?);
        let upstream_session = HeaderValue::try_from(binding.upstream_session.as_deref()?).ok()?;
        Some(Home { replica: binding.replica, upstream_session, etag })
    });
    let home = moved.unwrap_or_else(|| session.origin.clone());
    Bound { session, home, seat: Seat::Own, record }
}

impl Bound {
    /// The later bindings.
    pub fn later(&self) -> &[Later] {
        self.record.as_ref().map_or(&[], |record| &record.deviation.later)
    }

    /// The same session as it is bound at one of `places`, if it is.
    pub fn at(&self, places: &[ReplicaId], tool: &str) -> Option<Bound> {
        if places.contains(&self.home.replica) {
            return Some(self.clone());
        }
        let later = self.later().iter().find(|later| places.contains(&later.to.replica))?;
        Some(Bound { home: seated(later)?, seat: Seat::Later { tool: tool.into() }, ..self.clone() })
    }
}

/// The home that a later binding is.
pub(crate) fn seated(later: &Later) -> Option<Home> {
    let upstream_session = HeaderValue::try_from(later.to.upstream_session.as_deref()?).ok()?;
    Some(Home { replica: later.to.replica, upstream_session, etag: later.etag })
}
