//! What kind of body an upstream answer has, by its head.

/// The kinds that MCP knows, and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `application/json`: one message, or several lines (RELIABILITY 3.11).
    Json,
    /// `text/event-stream`.
    Events,
    /// No content type: mostly no body.
    None,
    /// Anything else, or something encoded in a way that we cannot look into.
    Foreign,
}

/// The kind that `Content-Type` and `Content-Encoding` announce.
pub(crate) fn kind(content_type: Option<&[u8]>, encoding: Option<&[u8]>) -> Kind {
    if encoding.is_some_and(|value| !value.eq_ignore_ascii_case(b"identity")) {
        return Kind::Foreign;
    }
    let Some(value) = content_type else { return Kind::None };
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") {
        Kind::Json
    } else if essence.eq_ignore_ascii_case(b"text/event-stream") {
        Kind::Events
    } else {
        Kind::Foreign
    }
}
