//! Names of things that only one replica knows, wrapped so that any gateway finds that replica again.
//!
//! Questions of legacy servers, `requestState`, task ids. Each is sealed under its own purpose; questions and
//! task ids deterministically, because clients compare them (SESSIONS 6 and 7). No principal is bound in yet:
//! without `[auth]` nobody has proven one, and the servers check for themselves (SESSIONS 9).

use regatta_policy::ReplicaId;
use regatta_seal::{Fingerprint, KeyRing, Purpose};
use regatta_store::Uuid16;

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
pub(crate) fn seal_state(ring: &KeyRing, fleet: [u8; 8], maker: ReplicaId, state: &str) -> String {
    ring.seal(Purpose::RequestState, &[&fleet], &[&maker.0, state.as_bytes()].concat())
}

/// Wraps a task id; equal ids stay equal as long as `key` stays the same.
pub(crate) fn seal_task(
    ring: &KeyRing,
    fleet: [u8; 8],
    maker: ReplicaId,
    task: &str,
    key: Option<Fingerprint>,
) -> String {
    ring.seal_same(Purpose::Task, &[&fleet], &[&maker.0, task.as_bytes()].concat(), key)
}

/// Wraps a list cursor, where only its maker understands it (`cursors = "replica"`).
pub(crate) fn seal_cursor(ring: &KeyRing, fleet: [u8; 8], maker: ReplicaId, cursor: &str) -> String {
    ring.seal(Purpose::Cursor, &[&fleet], &[&maker.0, cursor.as_bytes()].concat())
}

/// Opens a wrapped `requestState`, task id or cursor.
pub(crate) fn open(ring: &KeyRing, purpose: Purpose, fleet: [u8; 8], sealed: &str) -> Option<Handle> {
    let opened = ring.open(purpose, &[&fleet], sealed).ok()?;
    let (maker, text) = opened.plain.split_first_chunk()?;
    Some(Handle { maker: ReplicaId(*maker), text: String::from_utf8(text.to_vec()).ok()?, key: opened.key })
}
