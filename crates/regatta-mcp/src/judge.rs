//! The shape of JSON-RPC 2.0, judged on a text that is known to be JSON.
//!
//! Sources: JSON-RPC 2.0 sections 4 and 5; 2026-07-28 and 2025-11-25, Base Protocol, Requests (ids are strings or
//! integers, never null).

use crate::json::Value;
use crate::message::{Id, Kind, Malformed, Message, MethodName, Params, Shape};
use crate::method::Method;
use crate::span::Span;

/// The longest id, in bytes of raw JSON.
pub const ID_MAX: usize = 1024;

/// The members of one object, before anybody asked whether they fit together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) whole: Option<(usize, usize)>,
    pub(crate) jsonrpc: Option<Value>,
    pub(crate) id: Option<Value>,
    pub(crate) method: Option<Value>,
    pub(crate) result: Option<Value>,
    pub(crate) error: Option<Value>,
    /// Filled only if `params` is an object.
    pub(crate) params: Params,
    pub(crate) has_params: bool,
}

/// Judges one object.
pub(crate) fn message(text: &[u8], raw: &Raw) -> Result<Message, Malformed> {
    let id = id(text, raw)?;
    let refuse = |fault, why| Malformed { fault, id: id.map(|id: Id| id.raw), why };
    let version = raw.jsonrpc.and_then(Value::string);
    if version.is_none_or(|version| version.get(text) != "2.0") {
        return Err(refuse(Shape::NotRequest, "jsonrpc is not \"2.0\""));
    }
    let (start, end) = raw.whole.unwrap_or_default();
    let mut message = Message {
        whole: Span::new(start, end),
        kind: Kind::Notification,
        id,
        method: None,
        params: Params::default(),
    };
    let Some(method) = raw.method else {
        message.kind = response(raw, id).map_err(|why| refuse(Shape::NotRequest, why))?;
        return Ok(message);
    };
    if raw.result.is_some() || raw.error.is_some() {
        return Err(refuse(Shape::NotRequest, "both a method and an answer"));
    }
    let Some(name) = method.string().filter(|name| !name.span.is_empty()) else {
        return Err(refuse(Shape::NotRequest, "method is not a name"));
    };
    if raw.has_params && raw.params.span.is_none() {
        return Err(refuse(Shape::BadParams, "params is not an object"));
    }
    message.method = Some(MethodName { text: name, method: Method::from_str(&name.get(text)) });
    message.params = raw.params;
    if id.is_some() {
        message.kind = Kind::Request;
    }
    Ok(message)
}

/// An id is kept as it was written: a double would round 2^53+1, and `1` is not `"1"`.
fn id(text: &[u8], raw: &Raw) -> Result<Option<Id>, Malformed> {
    let Some(value) = raw.id else { return Ok(None) };
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

fn response(raw: &Raw, id: Option<Id>) -> Result<Kind, &'static str> {
    match (raw.result, raw.error) {
        (Some(_), Some(_)) => Err("both a result and an error"),
        (None, None) => Err("neither a method nor an answer"),
        (Some(_), None) if id.is_none() => Err("a result without an id"),
        (Some(_), None) => Ok(Kind::Response { failed: false }),
        // An error may lack the id that its sender could not read (2025-11-25 schema, JSONRPCErrorResponse).
        (None, Some(error)) if error.object().is_some() => Ok(Kind::Response { failed: true }),
        (None, Some(_)) => Err("error is not an object"),
    }
}
