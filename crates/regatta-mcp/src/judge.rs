//! The shape of JSON-RPC 2.0, judged on a text that is known to be JSON.
//!
//! Sources: JSON-RPC 2.0 sections 4 and 5; 2026-07-28 and 2025-11-25, Base Protocol, Requests (ids are strings or
//! integers, never null).

use crate::json::Value;
use crate::message::{Id, Kind, Malformed, Message, MethodName, Params, Shape};
use crate::method::Method;
use crate::span::Text;

/// The longest id, in bytes of raw JSON.
pub const ID_MAX: usize = 1024;

/// The members of one object, before anybody asked whether they fit together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Members {
    pub(crate) jsonrpc: Option<Value>,
    pub(crate) id: Option<Value>,
    pub(crate) method: Option<Value>,
    pub(crate) result: Option<Value>,
    pub(crate) error: Option<Value>,
    /// `params` stands there and is not an object.
    pub(crate) has_bad_params: bool,
}

/// Judges one object and fills in what it is.
pub(crate) fn message(text: &[u8], members: &Members, message: &mut Message) -> Result<(), Malformed> {
    let id = id(text, members)?;
    let refuse = |fault, why| Malformed { fault, id: id.map(|id: Id| id.raw), why };
    if !members.jsonrpc.and_then(Value::string).is_some_and(|version| is_two(text, version)) {
        return Err(refuse(Shape::NotRequest, "jsonrpc is not \"2.0\""));
    }
    message.id = id;
    let Some(method) = members.method else {
        message.params = Params::default();
        message.kind = response(members, id).map_err(|why| refuse(Shape::NotRequest, why))?;
        return Ok(());
    };
    if members.result.is_some() || members.error.is_some() {
        return Err(refuse(Shape::NotRequest, "both a method and an answer"));
    }
    let Some(name) = method.string().filter(|name| !name.span.is_empty()) else {
        return Err(refuse(Shape::NotRequest, "method is not a name"));
    };
    if members.has_bad_params {
        return Err(refuse(Shape::BadParams, "params is not an object"));
    }
    message.method = Some(MethodName { text: name, method: Method::from_str(&name.get(text)) });
    message.kind = if id.is_some() { Kind::Request } else { Kind::Notification };
    Ok(())
}

fn is_two(text: &[u8], version: Text) -> bool {
    version.span.of(text) == b"2.0" || (version.escaped && version.get(text) == "2.0")
}

/// An id is kept as it was written: a double would round 2^53+1, and `1` is not `"1"`.
fn id(text: &[u8], members: &Members) -> Result<Option<Id>, Malformed> {
    let Some(value) = members.id else { return Ok(None) };
    let refuse = |why| Malformed { fault: Shape::NotRequest, id: None, why };
    let span = value.scalar_id().ok_or(refuse("id is neither a string nor an integer"))?;
    if span.len() > ID_MAX {
        return Err(refuse("an id of more than 1024 bytes"));
    }
    let raw = span.of(text);
    if raw[0] != b'"' && raw.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return Err(refuse("id is neither a string nor an integer"));
    }
    Ok(Some(Id { raw: span }))
}

fn response(members: &Members, id: Option<Id>) -> Result<Kind, &'static str> {
    match (members.result, members.error) {
        (Some(_), Some(_)) => Err("both a result and an error"),
        (None, None) => Err("neither a method nor an answer"),
        (Some(_), None) if id.is_none() => Err("a result without an id"),
        (Some(_), None) => Ok(Kind::Response { failed: false }),
        // An error may lack the id that its sender could not read (2025-11-25 schema, JSONRPCErrorResponse).
        (None, Some(error)) if error.object().is_some() => Ok(Kind::Response { failed: true }),
        (None, Some(_)) => Err("error is not an object"),
    }
}
