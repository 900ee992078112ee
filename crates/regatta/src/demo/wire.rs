//! Messages of the demo server: borrowed reading, and writing by hand.
//!
//! Ids and progress tokens stay raw JSON text from end to end. Never touches HTTP.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A JSON string that borrows where it has no escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl Text<'_> {
    /// The decoded text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One JSON-RPC message as it arrived.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Text<'a>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub method: Option<Text<'a>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub error: Option<&'a RawValue>,
}

/// An explicit `null` is a value here, not an absent member.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// What kind of message an envelope holds.
pub enum Message<'a> {
    Request { id: &'a str, method: Text<'a>, params: Params<'a> },
    Notification { method: Text<'a>, params: Params<'a> },
    Response { id: &'a str, result: Option<&'a RawValue> },
}

/// The members of `params` that this server knows. Others are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Params<'a> {
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    #[serde(borrow)]
    pub uri: Option<Text<'a>>,
    #[serde(borrow)]
    pub level: Option<Text<'a>>,
    #[serde(borrow)]
    pub protocol_version: Option<Text<'a>>,
    #[serde(borrow)]
    pub capabilities: Option<Capabilities<'a>>,
    #[serde(borrow)]
    pub arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    pub request_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub request_state: Option<Text<'a>>,
    #[serde(borrow)]
    pub input_responses: Option<&'a RawValue>,
    pub notifications: Option<ListenFilter>,
    #[serde(borrow, default, rename = "_meta")]
    pub meta: Option<Meta<'a>>,
}

/// `params._meta`.
#[derive(Debug, Default, Deserialize)]
pub struct Meta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    pub protocol_version: Option<Text<'a>>,
    #[serde(borrow, rename = "io.modelcontextprotocol/clientCapabilities")]
    pub capabilities: Option<Capabilities<'a>>,
    #[serde(borrow, rename = "io.modelcontextprotocol/logLevel")]
    pub log_level: Option<Text<'a>>,
    #[serde(borrow, rename = "progressToken")]
    pub progress_token: Option<&'a RawValue>,
}

/// The client capabilities that a tool here may need.
#[derive(Debug, Default, Deserialize)]
pub struct Capabilities<'a> {
    #[serde(borrow)]
    pub elicitation: Option<&'a RawValue>,
    #[serde(borrow)]
    pub sampling: Option<&'a RawValue>,
}

/// The filter of `subscriptions/listen` (M-SUB, Notification Filter).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenFilter {
    #[serde(default)]
    pub tools_list_changed: bool,
    #[serde(default)]
    pub resource_subscriptions: Vec<String>,
}

/// A JSON-RPC error before it becomes bytes.
#[derive(Debug)]
pub struct Fault {
    pub code: i32,
    pub message: String,
    /// Raw JSON of `error.data`.
    pub data: Option<String>,
}

impl Fault {
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Fault { code, message: message.into(), data: None }
    }

    /// A resource that is not there, with its URI in the data (M-RES, Error Handling).
    pub fn no_such_resource(code: i32, uri: &str) -> Self {
        let data = Some(format!(r#"{{"uri":{}}}"#, quote(uri)));
        Fault { code, message: "no such resource".into(), data }
    }
}

pub const PARSE: i32 = -32700;
pub const INVALID_REQUEST: i32 = -32600;
pub const METHOD_NOT_FOUND: i32 = -32601;
pub const INVALID_PARAMS: i32 = -32602;

/// Reads one message. The error holds the raw id when it could be read.
pub fn read(body: &[u8]) -> Result<Message<'_>, (Option<String>, Fault)> {
    let text = std::str::from_utf8(body).map_err(|_| (None, Fault::new(PARSE, "the body is not UTF-8")))?;
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| {
        let code = if error.is_data() { INVALID_REQUEST } else { PARSE };
        (None, Fault::new(code, "the body is not one JSON-RPC message"))
    })?;
    if envelope.jsonrpc.as_str() != "2.0" {
        return Err((None, Fault::new(INVALID_REQUEST, "jsonrpc is not \"2.0\"")));
    }
    let id = match envelope.id.map(RawValue::get) {
        Some(raw) if !is_id(raw) => {
            return Err((None, Fault::new(INVALID_REQUEST, "id is no string or integer")));
        }
        id => id,
    };
    classify(envelope, id).map_err(|fault| (id.map(str::to_owned), fault))
}

fn classify<'a>(envelope: Envelope<'a>, id: Option<&'a str>) -> Result<Message<'a>, Fault> {
    let answered = envelope.result.is_some() || envelope.error.is_some();
    match (envelope.method, id) {
        (Some(_), _) if answered => Err(Fault::new(INVALID_REQUEST, "both a request and a response")),
        (None, Some(id)) if answered => Ok(Message::Response { id, result: envelope.result }),
        (None, _) => Err(Fault::new(INVALID_REQUEST, "neither a request nor a response")),
        (Some(method), id) => {
            let params = match envelope.params {
                None => Params::default(),
                Some(raw) if raw.get().starts_with('{') => serde_json::from_str(raw.get())
                    .map_err(|error| Fault::new(INVALID_PARAMS, format!("params: {error}")))?,
                Some(_) => return Err(Fault::new(INVALID_PARAMS, "params is not an object")),
            };
            Ok(match id {
                Some(id) => Message::Request { id, method, params },
                None => Message::Notification { method, params },
            })
        }
    }
}

/// A string or an integer, at most 1 KiB (M-BASE, Requests).
fn is_id(raw: &str) -> bool {
    raw.len() <= 1024
        && match raw.as_bytes() {
            [b'"', ..] => true,
            [b'-' | b'0'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}

/// The text as a JSON string, quotes included.
pub fn quote(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".into())
}

/// A response with a result; `members` are the result's members without braces.
pub fn result(id: &str, members: &str) -> String {
    let mut out = String::with_capacity(id.len() + members.len() + 40);
    for part in [r#"{"jsonrpc":"2.0","id":"#, id, r#","result":{"#, members, "}}"] {
        out.push_str(part);
    }
    out
}

/// A response with an error. Without a readable id the member is left out.
pub fn error(id: Option<&str>, fault: &Fault) -> String {
    let id = id.map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
    let data = fault.data.as_ref().map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
    let message = quote(&fault.message);
    format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":{},"message":{message}{data}}}}}"#, fault.code)
}

/// A notification; `members` are the members of `params` without braces.
pub fn notification(method: &str, members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{members}}}}}"#)
}

/// A request of ours to the client; `id` is raw JSON.
pub fn request(id: &str, method: &str, members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{members}}}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> i32 {
        match read(body.as_bytes()) {
            Err((_, fault)) => fault.code,
            Ok(_) => 0,
        }
    }

    #[test]
    fn keeps_the_id_as_raw_text() {
        let body = r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"ping"}"#;
        let Ok(Message::Request { id, .. }) = read(body.as_bytes()) else { panic!("not read") };
        assert_eq!(id, "123456789012345678901234567890");
    }

    #[test]
    fn refuses_what_is_no_message() {
        assert_eq!(code("{"), PARSE);
        assert_eq!(code("[]"), INVALID_REQUEST);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#), INVALID_REQUEST);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#), INVALID_REQUEST);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#), INVALID_REQUEST);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#), INVALID_PARAMS);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":3}}"#), INVALID_PARAMS);
    }
}
