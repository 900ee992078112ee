//! The modern ladder: do the headers and the body of a request say the same, and is it complete?
//!
//! In this order (RELIABILITY B.1; 2026-07-28, Streamable HTTP, Server Validation; Base Protocol, `_meta`): a routing
//! header that stands twice −32020, `_meta` −32602, header against body −32020, version −32022. `Mcp-Param-…`
//! headers are left to whoever keys on them, methods and parameters to the server. HTTP 400 in every case.

use http::{HeaderMap, HeaderName};

use crate::codes;
use crate::era;
use crate::headers::{self, MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION, Single};
use crate::message::{Kind, Message};
use crate::method::NameSource;
use crate::span::Text;
use crate::write::json_string;

/// The longest requested version that is repeated in an error, in bytes.
const REQUESTED_MAX: usize = 128;

/// Why a modern request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ModernFault {
    /// The JSON-RPC code.
    pub code: i32,
    /// For the client; a fixed sentence without data from the request.
    pub why: &'static str,
    /// `error.data` as JSON.
    pub data: Option<String>,
}

/// Checks a message that [`era::decide`] called modern.
///
/// Notifications pass: this revision defines no header requirements for them (Streamable HTTP, Sending
/// Messages, Note).
///
/// # Errors
/// See [`ModernFault`]; −32600 for a response, which modern clients MUST NOT post (Sending Messages 4).
pub fn check(message: &Message, text: &[u8], headers: &HeaderMap) -> Result<(), ModernFault> {
    match message.kind {
        Kind::Request => {}
        Kind::Notification => return Ok(()),
        Kind::Response { .. } => {
            return Err(fault(codes::INVALID_REQUEST, "a client posts no responses in this revision"));
        }
    }
    let version_header = once(headers, &MCP_PROTOCOL_VERSION)?;
    let method_header = once(headers, &MCP_METHOD)?;
    let name_header = once(headers, &MCP_NAME)?;
    let version = check_meta(message)?;
    check_version_header(version_header, version, text)?;
    check_method(method_header, message, text)?;
    check_name(name_header, message, text)?;
    check_version(version, text)
}

/// `error.data` of −32022 (2026-07-28, schema, UnsupportedProtocolVersionError).
pub fn unsupported_version_data<'a>(supported: impl IntoIterator<Item = &'a str>, requested: &str) -> String {
    let supported: Vec<String> = supported.into_iter().map(json_string).collect();
    let mut end = requested.len().min(REQUESTED_MAX);
    while !requested.is_char_boundary(end) {
        end -= 1;
    }
    format!("{{\"supported\":[{}],\"requested\":{}}}", supported.join(","), json_string(&requested[..end]))
}

fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a http::HeaderValue>, ModernFault> {
    match headers::single(headers, name) {
        Single::Absent => Ok(None),
        Single::Once(value) => Ok(Some(value)),
        Single::Repeated => Err(mismatch("a routing header stands more than once")),
    }
}

/// The required members, and their types (Base Protocol, `_meta`, Per-request protocol fields). `clientInfo` is not
/// required.
fn check_meta(message: &Message) -> Result<Text, ModernFault> {
    let meta = &message.params.meta;
    if !meta.is_object {
        return Err(fault(codes::INVALID_PARAMS, "params._meta is missing or not an object"));
    }
    let Some(version) = meta.protocol_version else {
        return Err(fault(
            codes::INVALID_PARAMS,
            "params._meta has no io.modelcontextprotocol/protocolVersion",
        ));
    };
    if meta.client_capabilities.is_none() {
        return Err(fault(
            codes::INVALID_PARAMS,
            "params._meta has no io.modelcontextprotocol/clientCapabilities",
        ));
    }
    if !meta.capabilities_is_object {
        return Err(fault(codes::INVALID_PARAMS, "a capability in params._meta is not an object"));
    }
    Ok(version)
}

/// A header that differs is told so before anything is said about the version itself: a client that disagrees
/// with itself has another trouble than one that is too new.
fn check_version_header(
    header: Option<&http::HeaderValue>,
    version: Text,
    text: &[u8],
) -> Result<(), ModernFault> {
    let header = header.ok_or(mismatch("MCP-Protocol-Version is missing"))?;
    if headers::plain(header).is_none_or(|header| header != version.get(text)) {
        return Err(mismatch("MCP-Protocol-Version differs from params._meta"));
    }
    Ok(())
}

fn check_method(
    header: Option<&http::HeaderValue>,
    message: &Message,
    text: &[u8],
) -> Result<(), ModernFault> {
    let header = header.ok_or(mismatch("Mcp-Method is missing"))?;
    let method = message.method.map(|name| name.text.get(text)).unwrap_or_default();
    if headers::plain(header).is_none_or(|header| header != method) {
        return Err(mismatch("Mcp-Method differs from the body's method"));
    }
    Ok(())
}

/// `Mcp-Name` on a method that has none is ignored (and must not be used by anybody).
fn check_name(header: Option<&http::HeaderValue>, message: &Message, text: &[u8]) -> Result<(), ModernFault> {
    if message.method().is_none_or(|method| method.name_source() == NameSource::None) {
        return Ok(());
    }
    let header = header.ok_or(mismatch("Mcp-Name is missing"))?;
    let header = headers::decode_name(header).map_err(|_| mismatch("Mcp-Name is malformed"))?;
    match message.name() {
        Some(name) if name.get(text) == header => Ok(()),
        Some(_) => Err(mismatch("Mcp-Name differs from the body's")),
        None => Err(mismatch("Mcp-Name names what the body does not")),
    }
}

fn check_version(version: Text, text: &[u8]) -> Result<(), ModernFault> {
    let version = version.get(text);
    if era::MODERN.contains(&version.as_ref()) {
        return Ok(());
    }
    // Not those of the other era: what is listed must be what `server/discover` lists (conformance suite,
    // sep-2575-server-unsupported-version-error).
    Err(ModernFault {
        code: codes::UNSUPPORTED_PROTOCOL_VERSION,
        why: "Unsupported protocol version",
        data: Some(unsupported_version_data(era::MODERN, &version)),
    })
}

fn mismatch(why: &'static str) -> ModernFault {
    fault(codes::HEADER_MISMATCH, why)
}

fn fault(code: i32, why: &'static str) -> ModernFault {
    ModernFault { code, why, data: None }
}

#[cfg(test)]
mod tests;
