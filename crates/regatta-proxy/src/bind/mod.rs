//! The sixth stage: from a session token to the replica that holds the session.
//!
//! No look-up on the undisturbed way: the token says it all, the store only what deviates (SESSIONS 1 and 3).
//! It never moves a session; it says where it is.

pub(crate) mod mint;
pub(crate) mod questions;

use std::sync::Arc;

use http::HeaderValue;
use http::request::Parts;
use regatta_mcp::headers::MCP_SESSION_ID;
use regatta_policy::deviation::Deviation;
use regatta_policy::lifetime::{self, IssueDay, Lifetime};
use regatta_policy::token::SessionToken;
use regatta_seal::{OpenError, Purpose};
use regatta_store::{Buried, Uuid16, Versioned, Warm};

use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::handover::Caller;
use crate::realm::Realm;
use crate::session::{Bound, Home, Recorded, Session};
use crate::view::ServerView;

/// The session that the request names; `None` if it names none.
pub(crate) async fn bind(
    gateway: &Arc<Gateway>,
    server: &ServerView,
    caller: &Caller,
    head: &Parts,
) -> Result<Option<Bound>, Fault> {
    let Some(value) = head.headers.get(MCP_SESSION_ID) else { return Ok(None) };
    let session = open(gateway, server, Realm::of(server, caller), value)?;
    check_alive(gateway, server, &session).await?;
    let record = record(gateway, &session).await?;
    let bound = at_home(session, record);
    if bound.record.is_some() {
        gateway.store.touch(&bound.session.uuid);
    }
    Ok(Some(bound))
}

/// Opens a token, or finds it opened. Of another realm it is broken like any other text, and takes the same way
/// through the seal: neither the answer nor its time tells that there is such a session (RELIABILITY I101, T31).
fn open(
    gateway: &Gateway,
    server: &ServerView,
    realm: Realm,
    value: &HeaderValue,
) -> Result<Arc<Session>, Fault> {
    let text = value.to_str().map_err(|_| Fault::NoSuchSession)?;
    if let Some(session) = gateway.sessions.get(text).filter(|session| session.realm == realm) {
        return Ok(session);
    }
    if text.len() > server.limits.token_max {
        return Err(Fault::NoSuchSession);
    }
    let ring = gateway.ring.load();
    let opened =
        realm.with(|parts| ring.open(Purpose::Session, parts, text)).map_err(|error| match error {
            // The embedded store knows every key there ever was, so no other gateway can have sealed this.
            OpenError::UnknownKey(_) | OpenError::Broken => Fault::NoSuchSession,
        })?;
    let content = SessionToken::from_bytes(&opened.plain).map_err(|_| Fault::NoSuchSession)?;
    let session = Arc::new(session(content, realm).ok_or(Fault::NoSuchSession)?);
    gateway.sessions.insert(text, session.clone());
    Ok(session)
}

fn session(content: SessionToken, realm: Realm) -> Option<Session> {
    let binding = content.bindings.first()?;
    let upstream_session = HeaderValue::try_from(binding.upstream_session.as_deref()?).ok()?;
    let origin = Home { replica: binding.replica, upstream_session, etag: [0; 16] };
    Some(Session { uuid: Uuid16(content.uuid), realm, content, origin })
}

/// 404 for what is past its lifetime or was ended (SESSIONS 8).
async fn check_alive(gateway: &Gateway, server: &ServerView, session: &Session) -> Result<(), Fault> {
    let issued = session.content.issued_s;
    let now = u64::from(gateway.clock.wall_seconds());
    if lifetime::judge(issued, now, server.limits.session_lifetime_max) == Lifetime::Past {
        return Err(Fault::NoSuchSession);
    }
    let (day, digest) = grave(session);
    let buried = match gateway.store.buried(day, &digest) {
        Buried::No => false,
        Buried::Yes => true,
        Buried::Ask => gateway.store.is_buried(day, digest).await.map_err(|_| Fault::StoreAway)?,
    };
    if buried { Err(Fault::NoSuchSession) } else { Ok(()) }
}

/// Where the tombstone of a session lies.
pub(crate) fn grave(session: &Session) -> (u32, [u8; 16]) {
    (IssueDay::of(session.content.issued_s).0, session.uuid.0)
}

/// The deviation record as it is now.
pub(crate) async fn record(gateway: &Gateway, session: &Session) -> Result<Option<Recorded>, Fault> {
    let versioned = match gateway.store.warm(&session.uuid) {
        Warm::None => return Ok(None),
        Warm::Some(versioned) => Some(versioned),
        Warm::Ask => gateway.store.read(&session.uuid).await.map_err(|_| Fault::StoreAway)?,
    };
    versioned.map(|versioned| recorded(&versioned)).transpose()
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
    Bound { session, home, record }
}
