//! The first stage: is this HTTP request one that an MCP endpoint answers at all?
//!
//! Checks the head only, in two steps with *identify* between them (RELIABILITY B.1): `accept` looks at Host, Origin
//! and path, `form` at method, content type and Accept. It never reads the body and never trusts a header for more
//! than its own form.

mod host;
mod origin;

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, header};
use http_body::Body;
use regatta_mcp::headers;

pub(crate) use origin::cors;

use crate::fault::Fault;
use crate::handover::{Accepted, Verb};
use crate::listener::Arrival;
use crate::view::View;

/// The methods of an MCP endpoint.
const ALLOW: &str = "POST, GET, DELETE";

/// Whether a request is meant for us at all: by its Host, and by the page that sends it.
pub(crate) fn gate(view: &View, head: &Parts) -> Result<(), Fault> {
    host::check(head, &view.admission)?;
    origin::check(&head.headers, &view.admission)
}

/// Finds the server that a request is for.
pub(crate) fn accept(view: &View, arrival: Box<Arrival>) -> Result<Accepted, Fault> {
    let head = &arrival.head;
    gate(view, head)?;
    // CONNECT names no path that could be looked up (RFC 9110 9.3.6).
    if head.method == Method::CONNECT {
        return Err(Fault::BadVerb { allow: ALLOW });
    }
    let server = view.server_at(head.uri.path()).ok_or(Fault::NoSuchPath)?.clone();
    once(&head.headers, &header::AUTHORIZATION, "Authorization")?;
    Ok(Accepted { server, arrival })
}

/// Checks the form of an accepted request: what it is and what it can read.
pub(crate) fn form(accepted: &Accepted) -> Result<Verb, Fault> {
    let head = &accepted.arrival.head;
    let verb = verb(head)?;
    // A body of known length has no transfer coding: hyper goes by the coding where both are named (RFC 9112 6.3).
    if accepted.arrival.body.size_hint().exact().is_none() {
        framing(&head.headers)?;
    }
    once(&head.headers, &headers::MCP_SESSION_ID, "Mcp-Session-Id")?;
    match verb {
        Verb::Post => post(&head.headers)?,
        Verb::Get if !headers::Accepts::read(&head.headers).event_stream => return Err(Fault::NotAcceptable),
        Verb::Get | Verb::Delete => {}
    }
    // Nobody would read it, and what is unread when the answer is a stream would be taken for the next request.
    if verb != Verb::Post && !accepted.arrival.body.is_end_stream() {
        return Err(Fault::BodyUnexpected);
    }
    Ok(verb)
}

/// The methods are case-sensitive (RFC 9110 9.1), and modern requests have POST only
/// (2026-07-28 basic/transports/streamable-http, *Earlier Streamable HTTP Revisions*).
fn verb(head: &Parts) -> Result<Verb, Fault> {
    let verb = match head.method {
        Method::POST => return Ok(Verb::Post),
        Method::GET => Verb::Get,
        Method::DELETE => Verb::Delete,
        _ => return Err(Fault::BadVerb { allow: ALLOW }),
    };
    let version = head.headers.get(headers::MCP_PROTOCOL_VERSION).and_then(|value| value.to_str().ok());
    if version.is_some_and(regatta_mcp::era::is_modern) {
        return Err(Fault::BadVerb { allow: "POST" });
    }
    Ok(verb)
}

/// hyper lets `gzip, chunked` through; we decode no transfer coding but chunked (RFC 9112 6.1).
fn framing(headers: &HeaderMap) -> Result<(), Fault> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match codings.next() {
        None => Ok(()),
        Some(only)
            if only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && codings.next().is_none() =>
        {
            Ok(())
        }
        Some(_) => Err(Fault::BadTransferCoding),
    }
}

/// What a POST must say of its body and of the answers it can read.
fn post(map: &HeaderMap) -> Result<(), Fault> {
    if map.contains_key(header::CONTENT_ENCODING) || headers::check_content_type(map).is_err() {
        return Err(Fault::BadContentType);
    }
    if headers::Accepts::read(map).both() { Ok(()) } else { Err(Fault::NotAcceptable) }
}

/// Refuses a header that stands twice: two readers could each believe another one.
fn once(map: &HeaderMap, name: &HeaderName, shown: &'static str) -> Result<(), Fault> {
    // The ordinary case, without a look-up: no header stands twice.
    if map.len() == map.keys_len() {
        return Ok(());
    }
    match map.get_all(name).iter().nth(1) {
        None => Ok(()),
        Some(_) => Err(Fault::BadHeader { name: shown }),
    }
}
