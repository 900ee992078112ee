//! An open session: what its token says, and where it is bound now.
//!
//! What a `Session` says never changes; where it is bound can. Opened tokens are kept in a bounded cache, because a
//! client sends the same token with every request; an idle session costs nothing once it is displaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http::HeaderValue;
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use regatta_policy::ReplicaId;
use regatta_policy::deviation::Deviation;
use regatta_policy::token::SessionToken;
use regatta_store::{Etag, Uuid16};

use crate::realm::Realm;

/// So many of a session's messages are early: among them official clients ask for its standing stream.
const EARLY: u8 = 8;

/// The content of one token.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its name in the store and in associated data.
    pub uuid: Uuid16,
    /// The realm that its token opened in.
    pub realm: Realm,
    /// What the token says.
    pub content: SessionToken,
    /// Where it was bound when it was opened.
    pub origin: Home,
    /// How many of its messages came here, counted up to [`EARLY`].
    pub posts: AtomicU8,
}

/// A place at a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub replica: ReplicaId,
    /// The replica's own `Mcp-Session-Id`.
    pub upstream_session: HeaderValue,
    /// Tells this binding from any other; zero for the one in the token.
    pub etag: [u8; 16],
}

/// A session and where it is bound as of now.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub session: Arc<Session>,
    pub home: Home,
    /// Which of the session's bindings `home` is.
    pub seat: Seat,
    /// The deviation record that says so; none while the token says it.
    pub record: Option<Recorded>,
}

/// Which of a session's bindings is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// The one in its token, wherever it is now.
    Own,
    /// A later one, opened for this tool (pipeline/later.rs).
    Later {
        /// Its name.
        tool: Arc<str>,
    },
}

/// A deviation record with the version that a change must name.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub etag: Etag,
    pub deviation: Arc<Deviation>,
}

/// Opened tokens by their text and the realm that they opened in: for anybody else there is none, and not even the time of a
/// look-up says otherwise (RELIABILITY T31).
pub(crate) struct SessionCache {
    opened: Cache<Key, Arc<Session>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    realm: Realm,
    token: Box<str>,
}

/// A [`Key`] that owns no text.
#[derive(Hash)]
struct Wanted<'a> {
    realm: Realm,
    token: &'a str,
}

impl Equivalent<Key> for Wanted<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.realm == key.realm && *self.token == *key.token
    }
}

impl Session {
    /// Counts a message, and says whether it is one of the first that come here.
    pub fn counts_as_early(&self) -> bool {
        let before = self.posts.load(Ordering::Relaxed);
        if before < EARLY {
            // Of two at once one may go uncounted: then another is early.
            self.posts.store(before + 1, Ordering::Relaxed);
        }
        before < EARLY
    }
}

impl SessionCache {
    /// At most `max` tokens.
    pub fn new(max: usize) -> SessionCache {
        SessionCache { opened: Cache::new(max) }
    }

    /// The session that this very text opened before in this realm.
    pub fn get(&self, realm: Realm, token: &str) -> Option<Arc<Session>> {
        self.opened.get(&Wanted { realm, token })
    }

    /// Keeps an opened token.
    pub fn insert(&self, token: &str, session: Arc<Session>) {
        self.opened.insert(Key { realm: session.realm, token: token.into() }, session);
    }
}
