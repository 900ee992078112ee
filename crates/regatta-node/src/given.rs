//! What a node gives a request on its way, for its handler to ask for: one thing in the extensions of its head, from which
//! the session's data, the handles and the announcer are made when they are asked for.

use std::sync::Arc;

use http::request::Parts;
use rmcp::model::Extensions;

use crate::caller::Caller;
use crate::clock::Clock;
use crate::data::{Data, Handles};
use crate::fleet::Fleet;
use crate::news::Announcer;
use crate::session::Sessions;

/// It holds no place: a handler keeps the head for as long as it likes.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) caller: Caller,
    /// The legacy session that the request came in.
    pub(crate) session: Option<[u8; 16]>,
    pub(crate) clock: Arc<Clock>,
}

/// What the node gave the request of these extensions; `None` only outside a node.
pub(crate) fn given(extensions: &Extensions) -> Option<&Given> {
    extensions.get::<Parts>()?.extensions.get()
}

/// The data of the legacy session that a request came in; `None` in the modern era, and outside a node. Asks nobody: the store
/// is asked with each read and write.
pub fn session_data(extensions: &Extensions) -> Option<Data> {
    let given = given(extensions)?;
    Some(Data::of_session(&given.sessions, given.session?))
}

/// The handles of whoever sent a request, in both eras; `None` only outside a node. They open for the same caller only
/// (`session_binding`).
pub fn handles(extensions: &Extensions) -> Option<Handles> {
    given(extensions).map(|given| Handles::new(given.sessions.clone(), given.caller))
}

/// The announcer of the node that serves a request, in both eras; `None` only outside a node. A clone of it may be kept by what
/// outlives the request.
pub fn announcer(extensions: &Extensions) -> Option<Announcer> {
    given(extensions).map(|given| given.fleet.announcer())
}
