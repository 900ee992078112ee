//! Server-sent events, read byte by byte as WHATWG says (LF, CR, CRLF, BOM, comments).
//!
//! Slow and plain on purpose: it is the second opinion to the gateway's framer.

use serde_json::Value;

/// One event, or a block of comments only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The `id:` line of this event.
    pub id: Option<String>,
    /// The `event:` line.
    pub event: Option<String>,
    /// The `data:` lines joined with LF.
    pub data: Option<String>,
    /// The `retry:` line in milliseconds.
    pub retry_ms: Option<u64>,
    /// Comment lines without the colon.
    pub comments: Vec<String>,
}

impl Event {
    /// The data as JSON; `Null` when there is none or it is no JSON (a priming event).
    pub fn json(&self) -> Value {
        self.data.as_deref().and_then(|data| serde_json::from_str(data).ok()).unwrap_or(Value::Null)
    }

    /// The JSON-RPC method in the data, or "".
    pub fn method(&self) -> String {
        self.json()["method"].as_str().unwrap_or_default().to_owned()
    }
}

/// Bytes in, events out.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    started: bool,
    dirty: bool,
    event: Event,
}

impl Parser {
    /// All events that `bytes` complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut out = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    self.end_line(&mut out);
                }
                _ => self.line.push(byte),
            }
        }
        out
    }

    fn end_line(&mut self, out: &mut Vec<Event>) {
        let line = std::mem::take(&mut self.line);
        let mut line = String::from_utf8_lossy(&line).into_owned();
        if !std::mem::replace(&mut self.started, true) {
            line = line.trim_start_matches('\u{feff}').to_owned();
        }
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.dirty) {
                out.push(event);
            }
            return;
        }
        self.dirty = true;
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.event.comments.push(value.to_owned()),
            "id" => self.event.id = Some(value.to_owned()),
            "event" => self.event.event = Some(value.to_owned()),
            "retry" => self.event.retry_ms = value.parse().ok(),
            "data" => match &mut self.event.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_line_end_and_any_split() {
        let text = "\u{feff}: hi\n\nid: 1\r\nevent: message\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nretry: 5\rdata:x\r\r";
        for size in 1..8 {
            let mut parser = Parser::default();
            let events: Vec<_> = text.as_bytes().chunks(size).flat_map(|chunk| parser.push(chunk)).collect();
            assert_eq!(events.len(), 3, "chunks of {size}");
            assert_eq!(events[0].comments, ["hi"]);
            assert_eq!(events[1].json()["a"], 1);
            assert_eq!((events[2].retry_ms, events[2].data.as_deref()), (Some(5), Some("x")));
        }
    }
}
