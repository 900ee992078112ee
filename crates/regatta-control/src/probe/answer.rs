//! The JSON-RPC response in an answer to a probe, whether it came as JSON, as JSON lines or as SSE.
//!
//! Pure, and lenient on purpose: it looks for one small message of ours and ignores everything else.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

/// What a server said to our request.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A result.
    Result(Value),
    /// A JSON-RPC error with this code.
    Error(i64),
}

/// The response to `id` in `text`, if it is complete: what it says, and its own text.
pub fn find(headers: &HeaderMap, text: &[u8], id: &str) -> Option<(Said, String)> {
    let text = std::str::from_utf8(text).ok()?;
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.to_ascii_lowercase().starts_with("text/event-stream") {
        return events(text).find_map(|data| Some((response(&data, id)?, data)));
    }
    let found = |text: &str| Some((response(text, id)?, text.to_owned()));
    // Some servers answer with several JSON lines under application/json (RELIABILITY 3.11).
    found(text).or_else(|| text.lines().find_map(found))
}

/// The data of each complete event.
fn events(text: &str) -> impl Iterator<Item = String> {
    let normal = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    let mut events: Vec<String> = normal.split("\n\n").map(data).collect();
    // What follows the last blank line is not complete yet.
    events.pop();
    events.into_iter()
}

fn data(event: &str) -> String {
    let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn response(text: &str, id: &str) -> Option<Said> {
    let mut message: Value = serde_json::from_str(text.trim()).ok()?;
    let error = message.get("error").cloned();
    let ours = message.get("id").is_some_and(|answered| answered == id);
    // An error about a request that the server could not read carries no id or null.
    let unread = error.is_some() && message.get("id").is_none_or(Value::is_null);
    if message.get("jsonrpc")? != "2.0" || !(ours || unread) {
        return None;
    }
    match error {
        Some(error) => Some(Said::Error(error.get("code")?.as_i64()?)),
        None => message.get_mut("result").map(|result| Said::Result(result.take())),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn find(headers: &HeaderMap, text: &[u8], id: &str) -> Option<Said> {
        super::find(headers, text, id).map(|(said, _)| said)
    }

    fn headers(kind: &'static str) -> HeaderMap {
        [(CONTENT_TYPE, HeaderValue::from_static(kind))].into_iter().collect()
    }

    #[test]
    fn finds_the_response_however_it_comes() {
        let found = Some(Said::Result(json!({"a": 1})));
        let whole = r#"{"jsonrpc":"2.0","id":"p","result":{"a":1}}"#;
        let lines = format!("{}\n{whole}\n", r#"{"jsonrpc":"2.0","method":"notifications/message"}"#);
        let sse = format!(": hello\nid: 1\ndata:\n\nevent: message\r\ndata: {whole}\r\n\r\n");
        let split = "data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":\"p\",\"result\":{\"a\":1}}\n\n";
        assert_eq!(find(&headers("application/json"), whole.as_bytes(), "p"), found);
        assert_eq!(find(&headers("application/json"), lines.as_bytes(), "p"), found);
        assert_eq!(find(&headers("Text/Event-Stream; charset=utf-8"), sse.as_bytes(), "p"), found);
        assert_eq!(find(&headers("text/event-stream"), split.as_bytes(), "p"), found);
    }

    #[test]
    fn ignores_what_is_no_response_to_us() {
        for text in [
            "<html>",
            "{}",
            r#"{"jsonrpc":"2.0","id":"q","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#,
        ] {
            assert_eq!(find(&headers("application/json"), text.as_bytes(), "p"), None, "{text}");
        }
        let unfinished = br#"data: {"jsonrpc":"2.0","id":"p","result":{}}"#;
        assert_eq!(find(&headers("text/event-stream"), unfinished, "p"), None);
        let error = br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no session"}}"#;
        assert_eq!(find(&headers("application/json"), error, "p"), Some(Said::Error(-32000)));
    }
}
