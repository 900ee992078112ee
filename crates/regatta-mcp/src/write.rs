//! The bytes of messages that the gateway itself says.
//!
//! Ids, data, results and params are raw JSON of the caller's and written as they are; messages and methods are
//! strings and escaped here.

use bytes::Bytes;

use crate::escape;

/// An error response. Without an id the member is left out: the schema has it optional and never null
/// (2026-07-28, schema, JSONRPCErrorResponse).
pub fn error(id: Option<&[u8]>, code: i32, message: &str, data: Option<&str>) -> Bytes {
    let mut out = head(96 + message.len() + id.map_or(0, <[u8]>::len) + data.map_or(0, str::len), id);
    out.extend_from_slice(b",\"error\":{\"code\":");
    out.extend_from_slice(code.to_string().as_bytes());
    out.extend_from_slice(b",\"message\":");
    escape::escape_into(message, &mut out);
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data.as_bytes());
    }
    out.extend_from_slice(b"}}");
    out.into()
}

/// A successful response.
pub fn result(id: &[u8], result_json: &str) -> Bytes {
    let mut out = head(48 + id.len() + result_json.len(), Some(id));
    out.extend_from_slice(b",\"result\":");
    out.extend_from_slice(result_json.as_bytes());
    out.push(b'}');
    out.into()
}

/// A request.
pub fn request(id_json: &str, method: &str, params_json: Option<&str>) -> Bytes {
    call(Some(id_json.as_bytes()), method, params_json)
}

/// A notification.
pub fn notification(method: &str, params_json: Option<&str>) -> Bytes {
    call(None, method, params_json)
}

/// A string as JSON, quotes included.
pub fn json_string(value: &str) -> String {
    let mut out = Vec::new();
    escape::escape_into(value, &mut out);
    // Escaping adds ASCII only; the fallback cannot happen.
    String::from_utf8(out).unwrap_or_default()
}

fn call(id: Option<&[u8]>, method: &str, params_json: Option<&str>) -> Bytes {
    let mut out = head(64 + id.map_or(0, <[u8]>::len) + method.len() + params_json.map_or(0, str::len), id);
    out.extend_from_slice(b",\"method\":");
    escape::escape_into(method, &mut out);
    if let Some(params) = params_json {
        out.extend_from_slice(b",\"params\":");
        out.extend_from_slice(params.as_bytes());
    }
    out.push(b'}');
    out.into()
}

fn head(capacity: usize, id: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\"");
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(id);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{error, json_string, notification, request, result};

    #[test]
    fn writes_each_kind() {
        assert_eq!(
            error(Some(b"\"a\""), -32600, "no \"x\"\n", Some("{\"executed\":\"no\"}")),
            r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32600,"message":"no \"x\"\n","data":{"executed":"no"}}}"#
        );
        assert_eq!(
            error(None, -32700, "bad", None),
            r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"bad"}}"#
        );
        assert_eq!(result(b"1", "{}"), r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        assert_eq!(request("1", "ping", None), r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        assert_eq!(
            notification("notifications/message", Some("{}")),
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#
        );
        assert_eq!(json_string("é\u{1}"), "\"é\\u0001\"");
    }
}
