//! The member names that `decode` knows, each in the object it belongs to. Names are compared exactly.

use crate::meta;

/// Members of a JSON-RPC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopKey {
    Jsonrpc,
    Id,
    Method,
    Params,
    Result,
    Error,
    Unknown,
}

/// Members of `params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParamKey {
    Meta,
    Name,
    Uri,
    TaskId,
    Cursor,
    Level,
    Arguments,
    RequestState,
    InputResponses,
    RequestId,
    ProtocolVersion,
    Capabilities,
    Notifications,
    Unknown,
}

/// Members of `params._meta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetaKey {
    Version,
    Capabilities,
    ClientInfo,
    LogLevel,
    SubscriptionId,
    ProgressToken,
    Traceparent,
    Tracestate,
    IdempotencyKey,
    Unknown,
}

impl TopKey {
    pub(crate) fn of(key: &[u8]) -> Self {
        match key {
            b"jsonrpc" => Self::Jsonrpc,
            b"id" => Self::Id,
            b"method" => Self::Method,
            b"params" => Self::Params,
            b"result" => Self::Result,
            b"error" => Self::Error,
            _ => Self::Unknown,
        }
    }
}

impl ParamKey {
    pub(crate) fn of(key: &[u8]) -> Self {
        match key {
            b"_meta" => Self::Meta,
            b"name" => Self::Name,
            b"uri" => Self::Uri,
            b"taskId" => Self::TaskId,
            b"cursor" => Self::Cursor,
            b"level" => Self::Level,
            b"arguments" => Self::Arguments,
            b"requestState" => Self::RequestState,
            b"inputResponses" => Self::InputResponses,
            b"requestId" => Self::RequestId,
            b"protocolVersion" => Self::ProtocolVersion,
            b"capabilities" => Self::Capabilities,
            b"notifications" => Self::Notifications,
            _ => Self::Unknown,
        }
    }
}

impl MetaKey {
    pub(crate) fn of(key: &[u8]) -> Self {
        if let Some(name) = key.strip_prefix(b"io.modelcontextprotocol/") {
            return match name {
                b"protocolVersion" => Self::Version,
                b"clientCapabilities" => Self::Capabilities,
                b"clientInfo" => Self::ClientInfo,
                b"logLevel" => Self::LogLevel,
                b"subscriptionId" => Self::SubscriptionId,
                _ => Self::Unknown,
            };
        }
        match key {
            b"progressToken" => Self::ProgressToken,
            b"traceparent" => Self::Traceparent,
            b"tracestate" => Self::Tracestate,
            _ if key == meta::IDEMPOTENCY_KEY.as_bytes() => Self::IdempotencyKey,
            _ => Self::Unknown,
        }
    }
}
