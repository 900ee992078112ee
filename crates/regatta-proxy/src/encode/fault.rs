//! The only place that turns a fault into a status, a JSON-RPC code, headers and words.
//!
//! Codes and statuses: RELIABILITY A.0 and B, and the specification's error tables. Inside a live legacy session
//! 503-class faults of requests ride on HTTP 200 (DESIGN 5.4); outcome-unknown always does (RELIABILITY 0.3).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use regatta_mcp::era::Era;
use regatta_mcp::{codes, write};

use super::{challenge, quota};
use crate::fault::{Challenge, Fault, Limited, Place, Problem, Refusal};
use crate::reply::ReplyBody;

/// What is known about the execution of a refused request, for `data.executed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Executed {
    No,
    Unknown,
}

/// A fault's shape on the wire.
struct Shape {
    status: StatusCode,
    code: i32,
    words: String,
    data: Option<String>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    close: bool,
}

impl Shape {
    fn new(status: StatusCode, code: i32, words: impl Into<String>) -> Shape {
        Shape { status, code, words: words.into(), data: None, retry_after: None, allow: None, close: false }
    }

    fn executed(mut self, executed: Executed) -> Shape {
        let executed = match executed {
            Executed::No => "no",
            Executed::Unknown => "unknown",
        };
        self.data = Some(match self.retry_after {
            Some(after) => format!(r#"{{"executed":"{executed}","retryAfterMs":{}}}"#, after.as_millis()),
            None => format!(r#"{{"executed":"{executed}"}}"#),
        });
        self
    }

    /// As a JSON-RPC error under `id`.
    fn text(&self, id: Option<&Bytes>) -> Bytes {
        write::error(id.map(|id| &id[..]), self.code, &self.words, self.data.as_deref())
    }

    /// Not executed, and worth another try after `after`.
    fn again(mut self, after: Duration) -> Shape {
        self.retry_after = Some(after);
        self.executed(Executed::No)
    }
}

/// The answer to a refused request.
pub(crate) fn answer(refusal: &Refusal) -> Response<ReplyBody> {
    let Refusal { fault, asker } = refusal;
    let shape = shape(fault, asker.era);
    let id = match fault {
        Fault::Malformed { id, .. } => id.as_ref(),
        _other => asker.id.as_ref(),
    };
    if matches!(fault, Fault::NoSuchPath) {
        // Not an MCP endpoint at all, so no JSON-RPC either (RELIABILITY B.1).
        return plain(StatusCode::NOT_FOUND);
    }
    if is_dropped(refusal) {
        return plain(StatusCode::ACCEPTED);
    }
    let rides = asker.waits() && rides_on_200(fault, asker.place, shape.status);
    let status = if rides { StatusCode::OK } else { shape.status };
    let body = match &asker.batch {
        // What refuses the whole body has no id (2025-03-26 basic/transports, *Sending Messages* 4).
        Some(ids) if status == StatusCode::OK => list(ids.iter().map(|id| shape.text(Some(id)))),
        Some(_) | None => shape.text(id),
    };
    let mut response = Response::new(ReplyBody::whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(after) = shape.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(quota::whole_seconds(after).max(1)));
    }
    if let Fault::Limited(limited) = fault {
        quota::write(headers, &limited.shown);
    }
    if let Some(allow) = shape.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if let Fault::Refused(refused) = fault
        && let Some(value) = challenge::of(refused)
    {
        headers.insert(header::WWW_AUTHENTICATE, value);
    }
    if shape.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether what was refused is a message inside a live legacy session that nothing waits for a response to: it is dropped,
/// because official clients end their session when a notification or an answer is refused (RELIABILITY 3.4).
pub(crate) fn is_dropped(refusal: &Refusal) -> bool {
    refusal.asker.place == Place::Session && !refusal.asker.waits() && is_passing(refusal)
}

/// Whether another try may succeed in a while: nothing that was asked for is wrong.
pub(crate) fn is_passing(Refusal { fault, asker }: &Refusal) -> bool {
    shape(fault, asker.era).status == StatusCode::SERVICE_UNAVAILABLE
}

/// A JSON array of `texts`.
fn list(texts: impl Iterator<Item = Bytes>) -> Bytes {
    let mut out = BytesMut::from(&b"["[..]);
    for text in texts {
        if out.len() > 1 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(&text);
    }
    out.extend_from_slice(b"]");
    out.freeze()
}

/// Whether a fault of a request is told on HTTP 200: 503-class ones inside a live legacy session, because some clients
/// drop their session on any other status, and a limit whose rule says so (DESIGN 5.4, RELIABILITY 3.2).
fn rides_on_200(fault: &Fault, place: Place, status: StatusCode) -> bool {
    match fault {
        Fault::Limited(limited) => limited.ready.rule.answer == regatta_policy::quota::rule::Answer::JsonRpc,
        _other => place == Place::Session && status == StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The same as one JSON-RPC message, for a stream whose head has gone out already.
pub(crate) fn message(refusal: &Refusal) -> Bytes {
    shape(&refusal.fault, refusal.asker.era).text(refusal.asker.id.as_ref())
}

/// The same for each request that waits: of a batch there may be several.
pub(crate) fn messages(refusal: &Refusal) -> Vec<Bytes> {
    let Some(ids) = &refusal.asker.batch else { return vec![message(refusal)] };
    let shape = shape(&refusal.fault, refusal.asker.era);
    ids.iter().map(|id| shape.text(Some(id))).collect()
}

/// An answer without a body.
pub(crate) fn plain(status: StatusCode) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Empty);
    *response.status_mut() = status;
    response
}

fn shape(fault: &Fault, era: Option<Era>) -> Shape {
    http_shape(fault).or_else(|| message_shape(fault, era)).unwrap_or_else(|| call_shape(fault))
}

/// Faults of the HTTP request itself.
fn http_shape(fault: &Fault) -> Option<Shape> {
    let bad = |status, words: &str| Shape::new(status, codes::INVALID_REQUEST, words);
    Some(match fault {
        Fault::BadHost => {
            bad(StatusCode::BAD_REQUEST, "Bad Request: exactly one valid Host header is required")
        }
        Fault::ForeignHost => bad(StatusCode::FORBIDDEN, "Forbidden: this Host is not served here"),
        Fault::ForeignOrigin => bad(StatusCode::FORBIDDEN, "Forbidden: this Origin is not let in"),
        Fault::NoSuchPath => bad(StatusCode::NOT_FOUND, "Not Found"),
        Fault::Refused(challenge) => refused(challenge),
        Fault::BadVerb { allow } => {
            Shape { allow: Some(allow), ..bad(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") }
        }
        Fault::BadContentType => bad(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Unsupported Media Type: send application/json in UTF-8, without Content-Encoding",
        ),
        Fault::NotAcceptable => bad(
            StatusCode::NOT_ACCEPTABLE,
            "Not Acceptable: Accept must list application/json and text/event-stream (GET: text/event-stream)",
        ),
        Fault::BadTransferCoding => Shape {
            close: true,
            ..bad(StatusCode::NOT_IMPLEMENTED, "Not Implemented: this Transfer-Encoding")
        },
        Fault::BadHeader { name } => {
            bad(StatusCode::BAD_REQUEST, &format!("Bad Request: {name} must stand once, as text"))
        }
        Fault::BodyTooLarge => {
            Shape { close: true, ..bad(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large") }
                .executed(Executed::No)
        }
        Fault::BodyTimeout => Shape {
            close: true,
            ..bad(StatusCode::REQUEST_TIMEOUT, "Request Timeout: the body came too slowly")
        },
        Fault::BodyBroken => {
            Shape { close: true, ..bad(StatusCode::BAD_REQUEST, "Bad Request: the body broke off") }
        }
        Fault::BodyUnexpected => {
            Shape { close: true, ..bad(StatusCode::BAD_REQUEST, "Bad Request: only a POST has a body") }
        }
        _message_or_call => return None,
    })
}

/// 400, 401 or 403 (2026-07-28 basic/authorization, *Error Handling*), with a body for clients that read no further.
fn refused(challenge: &Challenge) -> Shape {
    let (status, word) = match challenge.problem {
        Problem::Malformed => (StatusCode::BAD_REQUEST, "Bad Request"),
        Problem::Scope => (StatusCode::FORBIDDEN, "Forbidden"),
        Problem::Missing | Problem::OtherScheme | Problem::InQuery | Problem::Invalid { .. } => {
            (StatusCode::UNAUTHORIZED, "Unauthorized")
        }
    };
    let words = format!("{word}: {}", challenge::words(challenge.problem));
    Shape::new(status, codes::INVALID_REQUEST, words).executed(Executed::No)
}

/// Faults of the JSON-RPC message, and of the session it names.
fn message_shape(fault: &Fault, era: Option<Era>) -> Option<Shape> {
    let bad = |code, words: &str| Shape::new(StatusCode::BAD_REQUEST, code, words);
    Some(match fault {
        Fault::Malformed { fault, .. } => bad(fault.fault.code(), fault.why),
        Fault::Modern(fault) => Shape { data: fault.data.clone(), ..bad(fault.code, fault.why) },
        Fault::BatchRefused => {
            bad(codes::INVALID_REQUEST, "Invalid Request: send one message in each request")
        }
        Fault::BadVersion => bad(codes::INVALID_REQUEST, "Bad Request: unsupported MCP-Protocol-Version"),
        Fault::BadInitialize { why } => bad(codes::INVALID_PARAMS, why),
        Fault::SecondInitialize => {
            bad(codes::INVALID_REQUEST, "Invalid Request: this session is initialized already")
        }
        Fault::SessionRequired => bad(codes::INVALID_REQUEST, "Bad Request: Mcp-Session-Id is required"),
        Fault::NoSuchSession => {
            Shape::new(StatusCode::NOT_FOUND, codes::LEGACY_SESSION_NOT_FOUND, "Session not found")
        }
        Fault::UnusableEventId => {
            bad(codes::INVALID_REQUEST, "Bad Request: Last-Event-ID is not one of this session")
        }
        Fault::StreamTaken => Shape::new(
            StatusCode::CONFLICT,
            codes::INVALID_REQUEST,
            "Conflict: the standing stream of this session is open already",
        ),
        Fault::BadHandle => {
            bad(codes::INVALID_PARAMS, "Invalid params: this handle is not one of this server's")
        }
        Fault::EraNotSpoken => match era {
            // A modern error would tell a dual-era client to stay modern (2026-07-28 basic/versioning).
            Some(Era::Modern) | None => {
                bad(codes::INVALID_REQUEST, "This server speaks legacy versions of MCP only: initialize")
            }
            Some(Era::Legacy) => Shape {
                data: Some(regatta_mcp::modern::unsupported_version_data(regatta_mcp::era::MODERN, "")),
                ..bad(
                    codes::UNSUPPORTED_PROTOCOL_VERSION,
                    "Unsupported protocol version: this server speaks 2026-07-28 only",
                )
            },
        },
        _http_or_call => return None,
    })
}

/// Faults of the call: refused before it ran, or lost.
fn call_shape(fault: &Fault) -> Shape {
    let busy = |code, words: &str| Shape::new(StatusCode::SERVICE_UNAVAILABLE, code, words);
    let second = Duration::from_secs(1);
    match fault {
        Fault::Overloaded => busy(codes::OVERLOADED, "Overloaded: try again later").again(second),
        Fault::Draining => {
            Shape { close: true, ..busy(codes::DRAINING, "Draining: this gateway is leaving").again(second) }
        }
        Fault::StoreAway => {
            busy(codes::STORE_UNAVAILABLE, "The session cannot be looked up now").again(second)
        }
        Fault::KeysAway => {
            busy(codes::KEYS_UNAVAILABLE, "Whether the token is good cannot be found out now").again(second)
        }
        Fault::CredentialRefused => {
            busy(codes::NO_REPLICA, "The server does not take this gateway's credential").again(second)
        }
        Fault::NoReplica | Fault::MakerGone => {
            busy(codes::NO_REPLICA, "No replica of this server can take the request now").again(second)
        }
        Fault::Limited(limited) => {
            let Limited { ready, retry_after, .. } = &**limited;
            let words = format!("Too many requests: the limit {:?} is used up", ready.rule.name);
            Shape::new(StatusCode::TOO_MANY_REQUESTS, codes::RATE_LIMITED, words).again(*retry_after)
        }
        Fault::TooManySubscriptions => {
            Shape::new(StatusCode::OK, codes::RATE_LIMITED, "Too many subscriptions in this session")
                .executed(Executed::No)
        }
        Fault::TooManyStreams => {
            Shape::new(StatusCode::TOO_MANY_REQUESTS, codes::RATE_LIMITED, "Too many open streams")
                .again(second)
        }
        Fault::OutcomeUnknown { why } => {
            Shape::new(StatusCode::OK, codes::OUTCOME_UNKNOWN, format!("Outcome unknown: {why}"))
                .executed(Executed::Unknown)
        }
        Fault::StreamLost => Shape::new(
            StatusCode::OK,
            codes::OUTCOME_UNKNOWN,
            "Outcome unknown: the rest of this stream cannot be had any more",
        )
        .executed(Executed::Unknown),
        Fault::BadAnswer { why } => Shape::new(
            StatusCode::OK,
            codes::UNUSABLE_ANSWER,
            format!("The server's answer is unusable: {why}"),
        )
        .executed(Executed::Unknown),
        _http_or_message => {
            Shape::new(StatusCode::INTERNAL_SERVER_ERROR, codes::INTERNAL_ERROR, "Internal error")
        }
    }
}
