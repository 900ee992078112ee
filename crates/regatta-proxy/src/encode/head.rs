//! Heads of answers: what is kept of the upstream's, and what a stream needs on its way.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use regatta_mcp::headers::X_ACCEL_BUFFERING;

use crate::cors::Cors;
use crate::reply::ReplyBody;
use crate::upstream::AnswerHead;

/// An answer with the upstream's status and what may travel of its headers.
pub(crate) fn like(upstream: AnswerHead, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = upstream.status;
    *response.headers_mut() = upstream.headers;
    response
}

/// The head alone of a server's answer whose body nobody reads.
pub(crate) fn bare(mut upstream: AnswerHead) -> Response<ReplyBody> {
    for about_body in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING] {
        upstream.headers.remove(about_body);
    }
    like(upstream, ReplyBody::Empty)
}

/// A 200 with one message in JSON.
pub(crate) fn json(body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, const { HeaderValue::from_static("application/json") });
    response
}

/// A 200 with an event stream that nobody on the way should buffer or transform.
pub(crate) fn events(body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    stream_headers(response.headers_mut());
    response
}

/// The headers of every event stream (2026-07-28 basic/transports/streamable-http, *Receiving Messages*).
pub(crate) fn stream_headers(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, const { HeaderValue::from_static("text/event-stream") });
    headers.insert(header::CACHE_CONTROL, const { HeaderValue::from_static("no-cache, no-transform") });
    headers.insert(X_ACCEL_BUFFERING, const { HeaderValue::from_static("no") });
}

/// Headers that a page may send in any case.
const ALLOWED: &str = "content-type, accept, authorization, x-api-key, mcp-session-id, mcp-protocol-version, mcp-method, mcp-name, last-event-id";
/// Headers beyond these that a preflight may ask for.
const ASKED_MAX: usize = 64;

/// The answer to a browser's preflight from an origin that is let in. Such a page may send any header: which `Mcp-Param-*`
/// there are is known to the servers' tools alone (2026-07-28 basic/transports/streamable-http, *Custom Headers*).
pub(crate) fn preflight(asked: &HeaderMap) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, DELETE"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed(asked));
    headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// What is always allowed, and what is asked for.
fn allowed(asked: &HeaderMap) -> HeaderValue {
    let lines = asked.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).take(ASKED_MAX);
    let all = names.fold(ALLOWED.to_owned(), |all, name| all + ", " + name.as_str());
    HeaderValue::from_str(&all).unwrap_or(HeaderValue::from_static(ALLOWED))
}

/// Lets a page of this origin read the answer; never `*`.
pub(crate) fn allow(headers: &mut HeaderMap, cors: Cors) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, cors.0);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "mcp-session-id, mcp-protocol-version, retry-after, www-authenticate, ratelimit, ratelimit-policy, \
             x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset",
        ),
    );
}
