//! Opens an upstream session in a client's name, for a home that the session is to have (SESSIONS 4).
//!
//! With the client's own params, and only where the replica offers what the client was promised. Whether it becomes a home
//! is for the callers; what does not is ended, however they leave.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use regatta_mcp::{Method, write};
use regatta_policy::snapshot::SessionState;
use regatta_policy::token::Capabilities;

use crate::bind::mint::Negotiated;
use crate::forward::probe;
use crate::headers::Outbound;
use crate::session::{Bound, Home};
use crate::view::{ReplicaView, ServerView};

/// An upstream session that is nobody's home yet. Dropped, it is ended where it was opened: nobody waits for that.
pub(super) struct Opened {
    /// The home that it would be.
    pub home: Home,
    /// Since when it is open.
    pub since: Since,
    server: Arc<ServerView>,
    client: Outbound,
    is_kept: bool,
}

impl Opened {
    fn new(server: &Arc<ServerView>, view: &ReplicaView, client: &Outbound, session: HeaderValue) -> Opened {
        let home =
            Home { replica: view.replica.id, upstream_session: session, etag: regatta_seal::random16() };
        Opened { home, since: Since::Now, server: server.clone(), client: client.clone(), is_kept: false }
    }

    /// The session's own upstream session at `view`: whether or not that becomes its home, it lives on.
    fn shared(server: &Arc<ServerView>, view: &ReplicaView, client: &Outbound, bound: &Bound) -> Opened {
        let mut opened = Opened::new(server, view, client, bound.home.upstream_session.clone());
        (opened.since, opened.is_kept) = (Since::Ever, true);
        opened
    }

    /// It is the session's home now, and lives on.
    pub fn keep(mut self) -> Home {
        self.is_kept = true;
        self.home.clone()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // A caller that ran out of time is dropped in the middle of a step, and cannot wait either.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (home, server, client) = (self.home.clone(), self.server.clone(), self.client.clone());
        runtime.spawn(async move {
            let Some(view) = server.replica(home.replica) else { return };
            let _ = probe::delete(view, &client, &home.upstream_session, &server.server.call).await;
        });
    }
}

/// Since when an upstream session is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// For as long as the session is: it is the same at every replica. Nothing is to be repeated, told or ended.
    Ever,
    /// It was opened for this home.
    Now,
}

/// An upstream session at `view`: the session's own one, where the server keeps sessions outside its processes and this
/// replica knows it, else a new one.
pub(super) async fn enter(
    server: &Arc<ServerView>,
    bound: &Bound,
    view: &ReplicaView,
    client: &Outbound,
    needs: Capabilities,
) -> Option<Opened> {
    match server.server.session_state {
        SessionState::External => {}
        SessionState::Unknown | SessionState::Memory => {
            return shake_hands(server, bound, view, client, needs).await;
        }
    }
    let ping = write::request(&own_id(), "ping", None);
    match probe::status(view, client, &bound.home.upstream_session, ping, &server.server.call).await {
        Ok(StatusCode::OK) => Some(Opened::shared(server, view, client, bound)),
        // Its own words for a session that it does not know (SESSIONS 4).
        Ok(StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST) => {
            shake_hands(server, bound, view, client, needs).await
        }
        // Unwell, or out of reach of where sessions are kept: a new session would lose what this one has.
        Ok(_) | Err(_) => None,
    }
}

/// The same params, the same version, at least the capabilities that are needed.
pub(super) async fn shake_hands(
    server: &Arc<ServerView>,
    bound: &Bound,
    view: &ReplicaView,
    client: &Outbound,
    needs: Capabilities,
) -> Option<Opened> {
    let params = String::from_utf8(bound.session.content.params.unpack().ok()?).ok()?;
    let text = write::request(&own_id(), Method::Initialize.as_str(), Some(&params));
    let bounds = &server.server.call;
    let shaken = probe::initialize(view, client, text, bounds).await.ok()?;
    let opened = Opened::new(server, view, client, shaken.session?);
    let negotiated = Negotiated { text: &shaken.text, skim: &shaken.skim };
    let content = &bound.session.content;
    let fits = negotiated.version() == Some(content.version) && negotiated.capabilities().covers(needs);
    let initialized = write::notification(Method::NotificationInitialized.as_str(), None);
    let session = &opened.home.upstream_session;
    let is_taken = fits && probe::tell(view, client, session, initialized, bounds).await == Ok(true);
    is_taken.then_some(opened)
}

/// An id for a request of our own: no client's can be equal but by malice, and then only its own session suffers.
pub(crate) fn own_id() -> String {
    format!("\"regatta-{:016x}\"", regatta_seal::random_u64())
}
