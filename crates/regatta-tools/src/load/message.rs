//! The requests that the load sends, as bytes that are built once and stamped with a new id for each call.
//!
//! Ids have nine digits, so a stamp changes bytes in place and no request allocates. The text that a call wants echoed begins
//! with the same number: an answer that went to the wrong caller cannot pass for a right one. Where only so many texts are
//! wanted, it begins with the number of the text.

use super::target::Target;
use super::{Era, Plan};

/// The first id; all ids have the same number of digits.
pub const ID_FIRST: u64 = 100_000_000;
/// The legacy version that the load speaks.
pub const LEGACY: &str = "2025-11-25";
/// The modern version that the load speaks.
pub const MODERN: &str = "2026-07-28";

const DIGITS: usize = 9;
/// Stands in templates where the number of a text goes.
const TEXT: u64 = 900_000_009;
const META: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"regatta-bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}"#;

/// One request whose id can be stamped.
#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
    stamps: Vec<usize>,
    text_stamps: Vec<usize>,
    text: String,
    /// How many different texts are sent; none: a new one with each call.
    texts: Option<u64>,
}

impl Template {
    fn new(head: String, body: &str, text: String) -> Template {
        let whole = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let places = |number: u64| memchr::memmem::find_iter(whole.as_bytes(), &number.to_string()).collect();
        let (stamps, text_stamps) = (places(ID_FIRST), places(TEXT));
        Template { bytes: whole.into_bytes(), stamps, text_stamps, text, texts: None }
    }

    fn number(&self, id: u64) -> u64 {
        self.texts.map_or(id, |texts| ID_FIRST + id % texts)
    }

    /// The request with this id.
    pub fn stamp(&mut self, id: u64) -> &[u8] {
        let digits = id.to_string();
        debug_assert_eq!(digits.len(), DIGITS);
        for at in &self.stamps {
            self.bytes[*at..at + DIGITS].copy_from_slice(digits.as_bytes());
        }
        let digits = self.number(id).to_string();
        for at in &self.text_stamps {
            self.bytes[*at..at + DIGITS].copy_from_slice(digits.as_bytes());
        }
        &self.bytes
    }

    /// The text that the answer to the call with this id must carry.
    pub fn text(&self, id: u64) -> String {
        self.text.replace(&TEXT.to_string(), &self.number(id).to_string())
    }
}

/// The `initialize` of a legacy session.
pub fn initialize(target: &Target) -> Template {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":{ID_FIRST},"method":"initialize","params":{{"protocolVersion":"{LEGACY}","capabilities":{{}},"clientInfo":{{"name":"regatta-bench","version":"1"}}}}}}"#
    );
    Template::new(head("POST", target, ""), &body, String::new())
}

/// The notification that ends a legacy handshake.
pub fn initialized(target: &Target, session: Option<&str>) -> Template {
    let body = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    Template::new(head("POST", target, &legacy_fields(session)), body, String::new())
}

/// A `tools/call` that wants `plan.text_bytes` bytes echoed.
pub fn call(plan: &Plan, target: &Target, session: Option<&str>) -> Template {
    let text = pad(&format!("op-{TEXT}-{} ", plan.tag), plan.text_bytes);
    let arguments = format!(r#"{{"text":"{text}"}}"#);
    Template { texts: plan.texts, ..tool_call(plan, target, session, &arguments, text) }
}

/// A `tools/call` that wants a stream of `plan.events` progress events, `plan.event_every` apart.
pub fn events(plan: &Plan, target: &Target, session: Option<&str>) -> Template {
    let every_us = plan.event_every.as_micros();
    let arguments =
        format!(r#"{{"count":{},"every_us":{every_us},"bytes":{}}}"#, plan.events, plan.text_bytes);
    tool_call(plan, target, session, &arguments, "streamed".to_owned())
}

fn tool_call(plan: &Plan, target: &Target, session: Option<&str>, arguments: &str, text: String) -> Template {
    let tool = &plan.tool;
    let (fields, meta) = match plan.era {
        Era::Legacy => (legacy_fields(session), format!(r#""progressToken":{ID_FIRST}"#)),
        Era::Modern => {
            (modern_fields("tools/call", Some(tool)), format!(r#"{META},"progressToken":{ID_FIRST}"#))
        }
    };
    // Only a stream of events needs the token; a plain legacy call has no `_meta` at all, as most clients send it.
    let meta = match (plan.era, plan.kind.wants_progress()) {
        (_, true) => format!(r#","_meta":{{{meta}}}"#),
        (Era::Legacy, false) => String::new(),
        (Era::Modern, false) => format!(r#","_meta":{{{META}}}"#),
    };
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":{ID_FIRST},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}{meta}}}}}"#
    );
    Template::new(head("POST", target, &fields), &body, text)
}

/// A stream that stands: the GET of a legacy session, or a modern `subscriptions/listen`.
pub fn standing(plan: &Plan, target: &Target, session: Option<&str>) -> Template {
    match plan.era {
        Era::Legacy => {
            let fields = legacy_fields(session);
            let bytes = format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n{fields}\r\n",
                target.path, target.host
            );
            Template {
                bytes: bytes.into_bytes(),
                stamps: Vec::new(),
                text_stamps: Vec::new(),
                text: String::new(),
                texts: None,
            }
        }
        Era::Modern => {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{ID_FIRST},"method":"subscriptions/listen","params":{{"notifications":{{"toolsListChanged":true}},"_meta":{{{META}}}}}}}"#
            );
            Template::new(
                head("POST", target, &modern_fields("subscriptions/listen", None)),
                &body,
                String::new(),
            )
        }
    }
}

fn head(method: &str, target: &Target, fields: &str) -> String {
    let bearer = target.bearer.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
    let bearer = bearer.unwrap_or_default();
    format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n{bearer}{fields}",
        target.path, target.host
    )
}

fn legacy_fields(session: Option<&str>) -> String {
    let session = session.map(|id| format!("Mcp-Session-Id: {id}\r\n")).unwrap_or_default();
    format!("MCP-Protocol-Version: {LEGACY}\r\n{session}")
}

fn modern_fields(method: &str, name: Option<&str>) -> String {
    let name = name.map(|name| format!("Mcp-Name: {name}\r\n")).unwrap_or_default();
    format!("MCP-Protocol-Version: {MODERN}\r\nMcp-Method: {method}\r\n{name}")
}

fn pad(start: &str, length: usize) -> String {
    let mut text = start.to_owned();
    while text.len() < length {
        text.push(char::from(b'a' + (text.len() % 26) as u8));
    }
    text
}
