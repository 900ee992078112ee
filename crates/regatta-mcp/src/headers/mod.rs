//! The HTTP headers of MCP: their names, and the rules to read them by.
//!
//! Header values are claims until they have been compared with the body; nothing here decides by them.

mod accept;
mod content_type;
mod hop;
mod name;

use http::{HeaderMap, HeaderName, HeaderValue};

pub use accept::Accepts;
pub use content_type::{ContentTypeFault, check_content_type, is_event_stream, is_json};
pub use hop::{is_hop_by_hop, named_in_connection, strip_hop_by_hop};
pub use name::{BadName, decode_name, encode_name};

/// Legacy: the session. Ignored in the modern era.
pub const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The protocol version; required in the modern era.
pub const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Modern: repeats `method`.
pub const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// Modern: repeats `params.name`, `params.uri` or `params.taskId`.
pub const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
/// Legacy: where to resume an event stream.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks proxies on the way not to buffer an event stream.
pub const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How often a header that may stand once does stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single<'a> {
    /// Not there.
    Absent,
    /// Once.
    Once(&'a HeaderValue),
    /// More than once, equal or not: two readers may pick different ones.
    Repeated,
}

/// Looks up a header that may stand only once.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Single<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Single::Absent,
        (Some(value), None) => Single::Once(value),
        (Some(_), Some(_)) => Single::Repeated,
    }
}

/// A header value without the blanks around it (RFC 9110 section 5.5), if it consists of visible ASCII, blanks and tabs.
pub fn plain(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(|text| text.trim_matches([' ', '\t']))
}
