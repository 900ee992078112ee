//! One HTTP/1.1 request and the JSON-RPC message in it, as borrowed slices. Only as strict as two trusted peers need.

use std::io;

use regatta_tools::wire::{Lines, field, number};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A request as far as this upstream looks at it.
pub struct Request<'a> {
    /// `POST`, `GET` or `DELETE`.
    pub verb: &'a str,
    /// `Mcp-Session-Id`.
    pub session: Option<&'a str>,
    /// Whether the message is of the modern era.
    pub is_modern: bool,
    /// The JSON-RPC message of a POST.
    pub message: Option<Message<'a>>,
}

/// A JSON-RPC message.
#[derive(Deserialize)]
pub struct Message<'a> {
    #[serde(borrow)]
    pub id: Option<&'a RawValue>,
    #[serde(default)]
    pub method: &'a str,
    #[serde(borrow)]
    pub params: Option<Params<'a>>,
}

/// The members of `params` that matter here.
#[derive(Deserialize)]
pub struct Params<'a> {
    #[serde(default)]
    pub name: &'a str,
    #[serde(borrow)]
    pub arguments: Option<&'a RawValue>,
    #[serde(borrow, rename = "protocolVersion")]
    pub protocol_version: Option<&'a str>,
    #[serde(borrow, rename = "_meta")]
    pub meta: Option<Meta<'a>>,
}

/// The members of `_meta` that matter here.
#[derive(Deserialize)]
pub struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    pub progress_token: Option<&'a RawValue>,
}

impl Request<'_> {
    /// Whether this is a `tools/call`.
    pub fn is_call(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.method == "tools/call")
    }
}

/// The request at the start of `bytes` and its length; `None` until it is whole.
pub fn read(bytes: &[u8]) -> io::Result<Option<(Request<'_>, usize)>> {
    let Some(head) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut lines = Lines(&bytes[..head + 2]);
    let first = lines.next().ok_or_else(|| bad("no request line"))?;
    let verb = first.split(|byte| *byte == b' ').next().unwrap_or_default();
    let verb = std::str::from_utf8(verb).map_err(|_| bad("method"))?;
    let mut request = Request { verb, session: None, is_modern: false, message: None };
    let mut length = 0;
    for line in lines {
        let (name, value) = field(line).ok_or_else(|| bad("header line"))?;
        if name.eq_ignore_ascii_case(b"content-length") {
            length = number(value).ok_or_else(|| bad("content-length"))?;
        } else if name.eq_ignore_ascii_case(b"mcp-session-id") {
            request.session = std::str::from_utf8(value).ok();
        } else if name.eq_ignore_ascii_case(b"mcp-method") {
            request.is_modern = true;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(bad("a chunked request; the proxy under test must send a length"));
        }
    }
    let body = head + 4;
    let Some(text) = bytes.get(body..body + length) else { return Ok(None) };
    if length > 0 {
        request.message = serde_json::from_slice(text).ok();
    }
    Ok(Some((request, body + length)))
}
