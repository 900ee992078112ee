//! What sessions and handles are bound to beside their content: the fleet, and with `[auth]` the principal.
//!
//! Goes into the associated data of every seal (SESSIONS 1, 7, 8): opened in another realm, a seal is broken, and
//! nothing tells that from a seal that never was. A session that was opened before `[auth]` came on has no principal
//! in its realm, so it ends then (SESSIONS 9).

use crate::handover::Caller;
use crate::view::ServerView;

/// A fleet, for one caller or for whoever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Realm {
    fleet: [u8; 8],
    /// The caller's context where it is checked; zero for the nobody of `anonymous = "allow"`.
    context: Option<[u8; 16]>,
}

impl Realm {
    /// The realm of `caller` at `server`.
    pub fn of(server: &ServerView, caller: &Caller) -> Realm {
        Realm { fleet: server.fleet, context: server.guard.is_some().then_some(caller.context) }
    }

    /// Calls `then` with the parts for associated data.
    pub fn with<T>(&self, then: impl FnOnce(&[&[u8]]) -> T) -> T {
        match &self.context {
            None => then(&[&self.fleet]),
            Some(context) => then(&[&self.fleet, context]),
        }
    }
}
