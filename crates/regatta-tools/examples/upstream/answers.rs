//! The answers, each as the bytes of one write.

use std::io::{self, Write};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Shared;
use crate::request::{Message, Request};

/// What goes back.
pub enum Reply {
    /// One complete answer.
    Whole(Vec<u8>),
    /// The start of a stream that stands until the peer goes.
    Standing(Vec<u8>),
    /// The start of a stream of events, what its events are called by, and how many there are.
    Events { start: Vec<u8>, token: String, id: String, order: Order },
}

/// What a call of `events` wants.
#[derive(Deserialize)]
pub struct Order {
    pub count: u64,
    #[serde(default)]
    pub every_us: u64,
    #[serde(default)]
    pub bytes: usize,
}

#[derive(Deserialize)]
struct Echo<'a> {
    #[serde(borrow)]
    text: &'a RawValue,
}

const SSE_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n";
const TOOLS: &str = r#"{"tools":[{"name":"echo","inputSchema":{"type":"object","properties":{"text":{"type":"string"}}}},{"name":"echo_sse","inputSchema":{"type":"object","properties":{"text":{"type":"string"}}}},{"name":"events","inputSchema":{"type":"object"}}]"#;
const SERVER: &str = r#"{"name":"bench-upstream","version":"1"}"#;

/// Answers one request.
pub fn answer(request: &Request<'_>, shared: &Shared) -> io::Result<Reply> {
    let Some(message) = &request.message else {
        return Ok(match request.verb {
            "GET" if shared.refuses(request.session) => status("404 Not Found"),
            "GET" => Reply::Standing(chunk(SSE_HEAD.as_bytes().to_vec(), b": standing\n\n")),
            "DELETE" => status("200 OK"),
            _ => status("400 Bad Request"),
        });
    };
    let Some(id) = message.id else { return Ok(status("202 Accepted")) };
    let id = id.get();
    if !request.is_modern && message.method != "initialize" && shared.refuses(request.session) {
        return Ok(unknown_session(id));
    }
    let kind = if request.is_modern { r#""resultType":"complete","# } else { "" };
    match message.method {
        "tools/call" => call(message, id, kind, shared),
        "initialize" => Ok(initialize(message, id, shared)),
        "ping" => Ok(json(id, "{}", "")),
        "tools/list" if request.is_modern => {
            Ok(json(id, &format!(r#"{TOOLS},"resultType":"complete","ttlMs":0,"cacheScope":"public"}}"#), ""))
        }
        "tools/list" => Ok(json(id, &format!("{TOOLS}}}"), "")),
        "server/discover" => Ok(json(id, &format!(r#"{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{{"tools":{{"listChanged":true}}}},"_meta":{{"io.modelcontextprotocol/serverInfo":{SERVER}}},"ttlMs":0,"cacheScope":"public"}}"#), "")),
        "subscriptions/listen" => Ok(Reply::Standing(chunk(SSE_HEAD.as_bytes().to_vec(), format!("data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{{\"_meta\":{{\"io.modelcontextprotocol/subscriptionId\":{id}}},\"notifications\":{{\"toolsListChanged\":true}}}}}}\n\n").as_bytes()))),
        _ => Ok(unknown_method(id, request.is_modern)),
    }
}

fn call(message: &Message<'_>, id: &str, kind: &str, shared: &Shared) -> io::Result<Reply> {
    let params = message.params.as_ref();
    let arguments = params.and_then(|params| params.arguments).map_or("{}", RawValue::get);
    let name = params.map_or("", |params| params.name);
    if name == "events" {
        let Ok(order) = serde_json::from_str::<Order>(arguments) else {
            return Ok(status("400 Bad Request"));
        };
        let token = params.and_then(|params| params.meta.as_ref()).and_then(|meta| meta.progress_token);
        let token = token.map_or("0", RawValue::get).to_owned();
        return Ok(Reply::Events { start: SSE_HEAD.as_bytes().to_vec(), token, id: id.to_owned(), order });
    }
    let Ok(echo) = serde_json::from_str::<Echo<'_>>(arguments) else { return Ok(status("400 Bad Request")) };
    let text = echo.text.get();
    shared.execute(text)?;
    let result = format!(r#"{{{kind}"content":[{{"type":"text","text":{text}}}],"isError":false}}"#);
    if name != "echo_sse" {
        return Ok(json(id, &result, ""));
    }
    let event = format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}\n\n");
    let mut bytes = chunk(SSE_HEAD.as_bytes().to_vec(), event.as_bytes());
    bytes.extend_from_slice(b"0\r\n\r\n");
    Ok(Reply::Whole(bytes))
}

fn initialize(message: &Message<'_>, id: &str, shared: &Shared) -> Reply {
    let asked = message.params.as_ref().and_then(|params| params.protocol_version).unwrap_or_default();
    let known = ["2025-03-26", "2025-06-18", "2025-11-25"];
    let version = known.into_iter().find(|version| *version == asked).unwrap_or("2025-11-25");
    let result = format!(
        r#"{{"protocolVersion":"{version}","capabilities":{{"tools":{{"listChanged":true}}}},"serverInfo":{SERVER}}}"#
    );
    json(id, &result, &format!("mcp-session-id: {}\r\n", shared.begin_session()))
}

/// One progress event as a chunk of its stream.
pub fn progress(token: &str, number: u64, bytes: usize) -> Vec<u8> {
    let event = format!(
        "data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{token},\"progress\":{number},\"message\":\"{:x>bytes$}\"}}}}\n\n",
        ""
    );
    chunk(Vec::with_capacity(event.len() + 16), event.as_bytes())
}

/// The result of a stream of events, and the end of its body.
pub fn last_event(id: &str) -> Vec<u8> {
    let event = format!(
        "data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\",\"content\":[{{\"type\":\"text\",\"text\":\"streamed\"}}]}}}}\n\n"
    );
    let mut bytes = chunk(Vec::new(), event.as_bytes());
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn json(id: &str, result: &str, fields: &str) -> Reply {
    let length = r#"{"jsonrpc":"2.0","id":,"result":}"#.len() + id.len() + result.len();
    let mut bytes = Vec::with_capacity(length + fields.len() + 128);
    // Writing to a vector cannot fail.
    let _ = write!(
        bytes,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{fields}content-length: {length}\r\n\r\n{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}"
    );
    Reply::Whole(bytes)
}

fn error(line: &str, id: &str, code: i64, words: &str) -> Reply {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{words}"}}}}"#);
    let head = format!(
        "HTTP/1.1 {line}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Reply::Whole((head + &body).into_bytes())
}

fn unknown_session(id: &str) -> Reply {
    error("404 Not Found", id, -32001, "Session not found")
}

fn unknown_method(id: &str, is_modern: bool) -> Reply {
    let line = if is_modern { "404 Not Found" } else { "200 OK" };
    error(line, id, -32601, "Method not found")
}

fn status(line: &str) -> Reply {
    Reply::Whole(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

fn chunk(mut head: Vec<u8>, data: &[u8]) -> Vec<u8> {
    let _ = write!(head, "{:x}\r\n", data.len());
    head.extend_from_slice(data);
    head.extend_from_slice(b"\r\n");
    head
}
