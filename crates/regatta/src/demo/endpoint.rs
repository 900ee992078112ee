//! The HTTP face of the demo server: path, Origin, method, media types, size; then the era, then over to it.
//!
//! The order is the ladder of RELIABILITY B.1. Knows no tool.

use super::stream::Events;
use super::wire::{self, Fault, Message};
use super::{Eras, State, batch, legacy, modern};
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// A whole body or an event stream.
pub type Body = Either<Full<Bytes>, Events>;

pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const BODY_MAX: usize = 4 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers one request.
pub async fn serve(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(route(state, request).await)
}

async fn route(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    if request.uri().path() != "/mcp" {
        return plain(StatusCode::NOT_FOUND, "only /mcp is here");
    }
    if !request.headers().get_all(header::ORIGIN).iter().all(is_local) {
        return plain(StatusCode::FORBIDDEN, "foreign Origin");
    }
    let legacy_too = state.eras != Eras::Modern && !is_modern(text(request.headers(), &PROTOCOL_VERSION));
    match *request.method() {
        Method::POST => post(state, request).await,
        Method::GET if legacy_too => legacy::listen(&state, request.headers()),
        Method::DELETE if legacy_too => legacy::end(&state, request.headers()),
        _ => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "no such method here");
            let allow = if legacy_too { "POST, GET, DELETE" } else { "POST" };
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
            response
        }
    }
}

async fn post(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    if !media_type_is_json(&headers) {
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json");
    }
    if !accepts(&headers, "application/json") || !accepts(&headers, "text/event-stream") {
        return plain(StatusCode::NOT_ACCEPTABLE, "Accept must list application/json and text/event-stream");
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_MAX).collect()).await {
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 4 MiB");
        }
        Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST, "the body is cut off"),
        Ok(Ok(body)) => body.to_bytes(),
    };
    if state.eras != Eras::Modern && body.trim_ascii_start().starts_with(b"[") {
        return batch::post(state, &headers, &body).await;
    }
    let message = match wire::read(&body) {
        Ok(message) => message,
        Err((id, fault)) => return failed(StatusCode::BAD_REQUEST, id.as_deref(), &fault),
    };
    let modern = match state.eras {
        Eras::Legacy => false,
        Eras::Modern => true,
        Eras::Dual => is_modern(text(&headers, &PROTOCOL_VERSION)) || speaks_modern(&message),
    };
    if modern { modern::post(state, &headers, message) } else { legacy::post(state, &headers, message).await }
}

fn speaks_modern(message: &Message<'_>) -> bool {
    let (Message::Request { params, .. } | Message::Notification { params, .. }) = message else {
        return false;
    };
    params.meta.as_ref().is_some_and(|meta| meta.protocol_version.is_some())
}

/// Versions are dates, so their order as text is their order in time.
fn is_modern(version: Option<&str>) -> bool {
    version.is_some_and(|version| modern::VERSION <= version && version.starts_with("20"))
}

/// The header's text, if it is there once and printable.
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is_local(origin: &HeaderValue) -> bool {
    let Some(host) = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host)
    else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ["127.0.0.1", "localhost", "[::1]"].contains(&name)
}

fn media_type_is_json(headers: &HeaderMap) -> bool {
    let value = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Whether Accept lists the type, a range over it, or everything.
pub fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let group = kind.split('/').next().unwrap_or_default();
    headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').filter_map(|range| range.split(';').next()).map(str::trim).any(|range| {
            range == "*/*" || range.eq_ignore_ascii_case(kind) || range.strip_suffix("/*") == Some(group)
        })
    })
}

/// A refusal in words.
pub fn plain(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(format!("{why}\n").into())));
    *response.status_mut() = status;
    response
}

/// 202 without a body.
pub fn accepted() -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// One JSON message.
pub fn json(status: StatusCode, message: String) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(message.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A JSON-RPC error as JSON.
pub fn failed(status: StatusCode, id: Option<&str>, fault: &Fault) -> Response<Body> {
    json(status, wire::error(id, fault))
}

/// An event stream.
pub fn events(events: Events) -> Response<Body> {
    let mut response = Response::new(Either::Right(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
