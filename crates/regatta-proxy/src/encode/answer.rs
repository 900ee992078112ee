//! Judges and re-marks messages from a server, one at a time, JSON and SSE alike.
//!
//! Pure but for the seals and the news of a moved session. Says what role a message plays for the request that waits, and makes the splices of
//! DESIGN 3; every other byte stays as the server wrote it.

use bytes::Bytes;
use regatta_mcp::era::Era;
use regatta_mcp::{Skim, SkimKind, Span, Text, insert_member, is_prose, skim, splice, write};
use regatta_policy::ReplicaId;
use regatta_policy::snapshot::Cursors;
use regatta_seal::{Fingerprint, KeyRing};
use regatta_store::Uuid16;

use crate::gateway::Rehoming;
use crate::handles;
use crate::realm::Realm;
use crate::tool_news;

/// What a message is for the request that waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its response: the last message.
    Final,
    /// A server's question to the client; the sealed id is what the client will answer to.
    Question { sealed: String },
    /// A server takes its question back.
    Withdrawal { sealed: String },
    /// The server's list of tools changed; where the gateway is the author of that list, the news is its own to tell.
    ToolsChanged,
    /// Progress or a log message: most of what streams carry, and nothing in it is anybody's to know but the client's.
    Prose,
    /// Anything else that may be said meanwhile.
    Said,
    /// Nothing that this client may get: it is dropped and counted.
    Foreign,
}

/// Who waits for the messages, and with what they are marked.
pub(crate) struct Marks<'a> {
    pub ring: &'a KeyRing,
    pub era: Era,
    /// Raw id of the request that waits; none on a standing stream and for batches.
    pub id: Option<&'a Bytes>,
    /// Which replica speaks.
    pub replica: ReplicaId,
    /// The legacy session and the etag of its binding.
    pub session: Option<(Uuid16, [u8; 16])>,
    /// What modern handles are bound to.
    pub realm: Realm,
    /// Whether list cursors are wrapped too.
    pub cursors: Cursors,
    /// The key that opened the request's handles.
    pub handle_key: Option<Fingerprint>,
    /// Where it stands which sessions moved without their clients knowing; none where no result is waited for.
    pub news: Option<&'a Rehoming>,
}

/// Looks at one message; `None` if it is no JSON-RPC message at all.
pub(crate) fn mark(marks: &Marks<'_>, text: &Bytes) -> Option<(Role, Bytes)> {
    // The same in both eras, and nothing in it is marked.
    if is_prose(text) {
        return Some((Role::Prose, text.clone()));
    }
    let seen = skim(text).ok()?;
    Some(match (seen.kind, marks.era) {
        (SkimKind::Response { .. }, _) => response(marks, text, &seen),
        // A modern server MUST NOT ask on a stream (2026-07-28 streamable-http, *Receiving Messages*).
        (SkimKind::Request, Era::Modern) => (Role::Foreign, Bytes::new()),
        (SkimKind::Request, Era::Legacy) => question(marks, text, &seen),
        (SkimKind::Notification, _) if tool_news::is_told(&seen, text) => (Role::ToolsChanged, text.clone()),
        (SkimKind::Notification, Era::Legacy) => cancellation(marks, text, &seen),
        (SkimKind::Notification, Era::Modern) => (Role::Said, modern_handles(marks, text, &seen, Vec::new())),
    })
}

fn response(marks: &Marks<'_>, text: &Bytes, seen: &Skim) -> (Role, Bytes) {
    let role = match (marks.id, seen.id) {
        (Some(asked), Some(answered)) if same_id(asked, answered.of(text)) => Role::Final,
        // An error about a request that could not be read has no id (2026-07-28 basic, *Error Responses*).
        (Some(_), None) if seen.kind == (SkimKind::Response { failed: true }) => Role::Final,
        (Some(_), _) => return (Role::Foreign, Bytes::new()),
        (None, _) => Role::Said,
    };
    let mut cuts = Vec::new();
    cuts.extend(resumed_cut(marks, text, seen));
    let text = match marks.era {
        Era::Legacy if cuts.is_empty() => text.clone(),
        Era::Legacy => splice(text, &cuts),
        Era::Modern => modern_handles(marks, text, seen, cuts),
    };
    (role, text)
}

/// Says in the result that the session moved, if nobody said so yet: never in an error, never over what is there
/// (SESSIONS 4).
fn resumed_cut(marks: &Marks<'_>, text: &Bytes, seen: &Skim) -> Option<(Span, Bytes)> {
    const MEMBER: &str = r#""io.regatta/sessionResumed":true"#;
    let (news, (session, _), _) = (marks.news?, marks.session?, marks.id?);
    let result = seen.result.filter(|result| result.of(text).first() == Some(&b'{'))?;
    // Asked last, because the news is told with the asking.
    news.take_untold(session).then(|| match seen.result_meta {
        Some(meta) => insert_member(meta, MEMBER, text),
        None => insert_member(result, &format!(r#""_meta":{{{MEMBER}}}"#), text),
    })
}

/// A server's id means something to one replica only; the sealed one means the same at any gateway (SESSIONS 6).
fn question(marks: &Marks<'_>, text: &Bytes, seen: &Skim) -> (Role, Bytes) {
    let (Some(id), Some((uuid, etag))) = (seen.id, marks.session) else {
        return (Role::Foreign, Bytes::new());
    };
    let sealed = handles::seal_question(marks.ring, uuid, marks.replica, etag, id.of(text));
    let cut = (id, Bytes::from(write::json_string(&sealed)));
    (Role::Question { sealed }, splice(text, &[cut]))
}

/// A server's cancellation of its own question names the sealed id too.
fn cancellation(marks: &Marks<'_>, text: &Bytes, seen: &Skim) -> (Role, Bytes) {
    let (Some(id), Some((uuid, etag))) = (seen.cancelled_request_id, marks.session) else {
        return (Role::Said, text.clone());
    };
    let sealed = handles::seal_question(marks.ring, uuid, marks.replica, etag, id.of(text));
    let text = splice(text, &[(id, Bytes::from(write::json_string(&sealed)))]);
    (Role::Withdrawal { sealed }, text)
}

/// Wraps `requestState` and task ids with their maker (SESSIONS 7).
fn modern_handles(marks: &Marks<'_>, text: &Bytes, seen: &Skim, mut cuts: Vec<(Span, Bytes)>) -> Bytes {
    if let (Some(cursor), Cursors::Replica) = (seen.next_cursor, marks.cursors) {
        let sealed = handles::seal_cursor(marks.ring, marks.realm, marks.replica, &cursor.get(text));
        cuts.push((cursor.outer(), Bytes::from(write::json_string(&sealed))));
    }
    if let Some(state) = seen.request_state {
        let sealed = handles::seal_state(marks.ring, marks.realm, marks.replica, &state.get(text));
        cuts.push((state.outer(), Bytes::from(write::json_string(&sealed))));
    }
    for task in &seen.task_ids {
        let sealed =
            handles::seal_task(marks.ring, marks.realm, marks.replica, &task.get(text), marks.handle_key);
        cuts.push((task.outer(), Bytes::from(write::json_string(&sealed))));
    }
    if cuts.is_empty() {
        return text.clone();
    }
    cuts.sort_unstable_by_key(|(span, _)| span.start);
    splice(text, &cuts)
}

/// The same id, though the server may have spelled a string's escapes in another way. `1` is not `"1"`.
pub(crate) fn same_id(asked: &[u8], answered: &[u8]) -> bool {
    asked == answered || (is_string(asked) && is_string(answered) && unquote(asked) == unquote(answered))
}

fn is_string(raw: &[u8]) -> bool {
    raw.len() >= 2 && raw[0] == b'"'
}

/// The value of a JSON string with its quotes.
pub(crate) fn unquote(raw: &[u8]) -> Option<String> {
    let end = u32::try_from(raw.len()).ok()?.checked_sub(1)?;
    Some(Text { span: Span { start: 1, end }, escaped: true }.get(raw).into_owned())
}
