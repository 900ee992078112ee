//! What a client's body means: the hand-over types of `decode`.
//!
//! Everything here is a note about the text, by byte range; the text itself stays where it is. In a batch all
//! spans are relative to the whole body.

use crate::method::Method;
use crate::span::{Span, Text};

/// A body that is JSON and has the shape of JSON-RPC 2.0.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one message is the ordinary case and must not allocate")]
pub enum Decoded {
    /// One message, as every revision but 2025-03-26 demands.
    One(Message),
    /// One to [`crate::BATCH_MAX`] messages (JSON-RPC batch, served in 2025-03-26 sessions only).
    Batch(Vec<Message>),
}

/// Why a body was refused. HTTP 400 in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Malformed {
    /// Which rung of the ladder it failed on.
    pub fault: Shape,
    /// The request's id as raw JSON, when it could be read.
    pub id: Option<Span>,
    /// For the client and the log; a fixed sentence without data from the body.
    pub why: &'static str,
}

/// The kind of a [`Malformed`]; `code` gives the JSON-RPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// −32700: not JSON, or JSON that two parsers may read differently.
    NotJson,
    /// −32600: JSON, but no JSON-RPC 2.0 message.
    NotRequest,
    /// −32602: a request whose `params` is not an object.
    BadParams,
}

/// One JSON-RPC message from a client.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The whole object, braces included.
    pub whole: Span,
    /// What it is.
    pub kind: Kind,
    /// Present for requests and responses (a failed response may lack it).
    pub id: Option<Id>,
    /// Present for requests and notifications.
    pub method: Option<MethodName>,
    /// Empty for responses and where there are none.
    pub params: Params,
}

/// The three kinds of JSON-RPC messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Answers a server's request.
    Response {
        /// It has `error`, not `result`.
        failed: bool,
    },
}

/// A JSON-RPC id: a string or an integer (2026-07-28 and 2025-11-25, Base Protocol, Requests).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// The raw JSON text, quotes included, digits as written; at most [`crate::ID_MAX`] bytes.
    pub raw: Span,
}

/// The method as written, and which one that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodName {
    /// Never empty.
    pub text: Text,
    /// [`Method::Other`] when unknown.
    pub method: Method,
}

/// The members of `params` that the gateway may need. A member of another JSON type than the protocol's counts
/// as absent: the server judges it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Params {
    /// The whole object; `None` when there is no `params`.
    pub span: Option<Span>,
    /// `name` of `tools/call` and `prompts/get`.
    pub name: Option<Text>,
    /// `uri`
    pub uri: Option<Text>,
    /// `taskId`
    pub task_id: Option<Text>,
    /// `cursor`
    pub cursor: Option<Text>,
    /// `level` of `logging/setLevel`.
    pub level: Option<Text>,
    /// `arguments`, any JSON value.
    pub arguments: Option<Span>,
    /// `requestState` of a retried multi-round-trip request.
    pub request_state: Option<Text>,
    /// Whether `inputResponses` is there.
    pub has_input_responses: bool,
    /// `requestId` of `notifications/cancelled`, raw, a string or a number.
    pub request_id: Option<Span>,
    /// `protocolVersion` of `initialize`.
    pub protocol_version: Option<Text>,
    /// `capabilities` of `initialize`, raw, an object.
    pub capabilities: Option<Span>,
    /// `notifications` filter of `subscriptions/listen`, raw, an object.
    pub notifications: Option<Span>,
    /// `_meta`
    pub meta: Meta,
}

/// The members of `params._meta` that the gateway may need; the keys are in [`crate::meta`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    /// The whole value, whatever its type.
    pub span: Option<Span>,
    /// Whether it is there and an object.
    pub is_object: bool,
    /// `io.modelcontextprotocol/protocolVersion`
    pub protocol_version: Option<Text>,
    /// `io.modelcontextprotocol/clientCapabilities`, whatever its type.
    pub client_capabilities: Option<Span>,
    /// Whether those are an object whose core capabilities are objects too.
    pub capabilities_is_object: bool,
    /// `io.modelcontextprotocol/clientInfo`, whatever its type.
    pub client_info: Option<Span>,
    /// `io.modelcontextprotocol/logLevel`
    pub log_level: Option<Text>,
    /// `progressToken`, raw, a string or a number.
    pub progress_token: Option<Span>,
    /// `io.modelcontextprotocol/subscriptionId`, raw, a string or a number.
    pub subscription_id: Option<Span>,
    /// `io.regatta/idempotencyKey`
    pub idempotency_key: Option<Text>,
    /// `traceparent`
    pub traceparent: Option<Text>,
    /// `tracestate`
    pub tracestate: Option<Text>,
}

impl Shape {
    /// The JSON-RPC error code.
    pub fn code(self) -> i32 {
        match self {
            Self::NotJson => crate::codes::PARSE_ERROR,
            Self::NotRequest => crate::codes::INVALID_REQUEST,
            Self::BadParams => crate::codes::INVALID_PARAMS,
        }
    }
}

impl Message {
    /// Nothing noted yet.
    pub(crate) fn blank() -> Self {
        Self {
            whole: Span { start: 0, end: 0 },
            kind: Kind::Notification,
            id: None,
            method: None,
            params: Params::default(),
        }
    }

    /// Its method; [`None`] for a response.
    pub fn method(&self) -> Option<Method> {
        self.method.map(|name| name.method)
    }

    /// The value that an `Mcp-Name` header has to repeat, if the method has one and the body carries it.
    pub fn name(&self) -> Option<Text> {
        match self.method()?.name_source() {
            crate::NameSource::None => None,
            crate::NameSource::Name => self.params.name,
            crate::NameSource::Uri => self.params.uri,
            crate::NameSource::TaskId => self.params.task_id,
        }
    }
}
