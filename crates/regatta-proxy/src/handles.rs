//! Names of things that only one replica knows, wrapped so that any gateway finds that replica again.
//!
//! Questions of legacy servers, `requestState`, task ids. Each is sealed under its own purpose; questions and
//! task ids deterministically, because clients compare them (SESSIONS 6 and 7). Modern handles are bound to their
//! `Realm`, with `[auth]` to the principal too; questions to their session, which is.

use regatta_policy::ReplicaId;
use regatta_seal::{Fingerprint, KeyRing, Purpose};
use regatta_store::Uuid16;

use crate::realm::Realm;

/// A wrapped handle, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    /// Who made it.
    pub maker: ReplicaId,
    /// What the maker called it.
    pub text: String,
    /// The key it was sealed with.
    pub key: Fingerprint,
}

/// A server's question, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Who asked.
    pub replica: ReplicaId,
    /// The etag of the binding that it asked under.
    pub etag: [u8; 16],
    /// The raw JSON id of the question.
    pub id: Vec<u8>,
}

/// The id that a client is asked under.
pub(crate) fn seal_question(
    ring: &KeyRing,
    session: Uuid16,
    replica: ReplicaId,
    etag: [u8; 16],
    id: &[u8],
) -> String {
    let plain = [&replica.0[..], &etag[..], id].concat();
    ring.seal_same(Purpose::ServerRequest, &[&session.0], &plain, None)
}

/// What a client answers to; `None` if it is nothing that we asked in this session.
pub(crate) fn open_question(ring: &KeyRing, session: Uuid16, sealed: &str) -> Option<Question> {
    let plain = ring.open(Purpose::ServerRequest, &[&session.0], sealed).ok()?.plain;
    let (replica, rest) = plain.split_first_chunk()?;
    let (etag, id) = rest.split_first_chunk()?;
    Some(Question { replica: ReplicaId(*replica), etag: *etag, id: id.to_vec() })
}

/// Wraps a `requestState`.
pub(crate) fn seal_state(ring: &KeyRing, realm: Realm, maker: ReplicaId, state: &str) -> String {
    let plain = [&maker.0, state.as_bytes()].concat();
    realm.with(|parts| ring.seal(Purpose::RequestState, parts, &plain))
}

/// Wraps a task id; equal ids stay equal as long as `key` stays the same.
pub(crate) fn seal_task(
    ring: &KeyRing,
    realm: Realm,
    maker: ReplicaId,
    task: &str,
    key: Option<Fingerprint>,
) -> String {
    let plain = [&maker.0, task.as_bytes()].concat();
    realm.with(|parts| ring.seal_same(Purpose::Task, parts, &plain, key))
}

/// Wraps a list cursor, where only its maker understands it (`cursors = "replica"`).
pub(crate) fn seal_cursor(ring: &KeyRing, realm: Realm, maker: ReplicaId, cursor: &str) -> String {
    let plain = [&maker.0, cursor.as_bytes()].concat();
    realm.with(|parts| ring.seal(Purpose::Cursor, parts, &plain))
}

/// Opens a wrapped `requestState`, task id or cursor.
pub(crate) fn open(ring: &KeyRing, purpose: Purpose, realm: Realm, sealed: &str) -> Option<Handle> {
    let opened = realm.with(|parts| ring.open(purpose, parts, sealed)).ok()?;
    let (maker, text) = opened.plain.split_first_chunk()?;
    Some(Handle { maker: ReplicaId(*maker), text: String::from_utf8(text.to_vec()).ok()?, key: opened.key })
}
