//! Is this the answer to that call? Every answer of every run is asked.
//!
//! The quick way looks for the id and the text as compact JSON writes them; what it does not find is parsed, so a server that
//! writes JSON differently is judged by meaning. Never counts a fault as a right answer.

use memchr::memmem;
use serde_json::Value;

use super::Expected;
use crate::wire::{Head, Media};

/// What one answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The result of this very call.
    Right,
    /// A JSON-RPC error under this call's id, by its code.
    Fault(i64),
    /// An HTTP status other than 200 without a JSON-RPC error of ours in it.
    Status(u16),
    /// Something else: another id, other content, another kind of body.
    Wrong,
}

/// Judges the answer to the call `id`, which must carry `text`.
pub fn judge(head: &Head, body: &[u8], expected: Expected, id: u64, text: &str) -> Verdict {
    let media_fits = match expected {
        Expected::Any => head.media != Media::Other,
        Expected::Json => head.media == Media::Json,
        Expected::Sse => head.media == Media::Sse,
    };
    if head.status == 200 && media_fits && looks_right(body, id, text) {
        return Verdict::Right;
    }
    let message = match head.media {
        Media::Sse => final_message(body),
        Media::Json | Media::Other => serde_json::from_slice(body).ok(),
    };
    match message {
        Some(message) if message["id"] == id && message["error"]["code"].is_i64() => {
            Verdict::Fault(message["error"]["code"].as_i64().unwrap_or_default())
        }
        Some(message)
            if head.status == 200
                && media_fits
                && message["id"] == id
                && message["result"]["content"][0]["text"] == text =>
        {
            Verdict::Right
        }
        _ if head.status != 200 => Verdict::Status(head.status),
        _ => Verdict::Wrong,
    }
}

fn looks_right(body: &[u8], id: u64, text: &str) -> bool {
    let mut needle = [0u8; 14];
    needle[..5].copy_from_slice(b"\"id\":");
    let mut rest = id;
    for at in (5..14).rev() {
        needle[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    memmem::find(body, &needle).is_some()
        && memmem::find(body, text.as_bytes()).is_some()
        && memmem::find(body, b"\"result\":").is_some()
        && memmem::find(body, b"\"error\":").is_none()
}

/// The last event of a stream that is a JSON-RPC response.
fn final_message(body: &[u8]) -> Option<Value> {
    body.split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"data:"))
        .filter_map(|data| serde_json::from_slice::<Value>(data).ok())
        .rfind(|message| message.get("result").is_some() || message.get("error").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, media: Media) -> Head {
        Head { status, media, session: None, close: false }
    }

    fn verdict(media: Media, body: &str) -> Verdict {
        judge(&head(200, media), body.as_bytes(), Expected::Any, 100_000_001, "op-1")
    }

    #[test]
    fn tells_right_from_wrong() {
        let right =
            r#"{"jsonrpc":"2.0","id":100000001,"result":{"content":[{"type":"text","text":"op-1"}]}}"#;
        assert_eq!(verdict(Media::Json, right), Verdict::Right);
        assert_eq!(verdict(Media::Sse, &format!("data: {right}\n\n")), Verdict::Right);
        assert_eq!(verdict(Media::Json, &right.replace("\"id\":", "\"id\": ")), Verdict::Right);
        assert_eq!(verdict(Media::Json, &right.replace("100000001", "100000002")), Verdict::Wrong);
        assert_eq!(verdict(Media::Json, &right.replace("op-1", "op-2")), Verdict::Wrong);
        assert_eq!(verdict(Media::Other, right), Verdict::Wrong);
    }

    #[test]
    fn a_fault_is_told_by_its_code_whatever_the_status() {
        let fault = br#"{"jsonrpc":"2.0","id":100000001,"error":{"code":-31001,"message":"lost"}}"#;
        let verdict = judge(&head(503, Media::Json), fault, Expected::Json, 100_000_001, "op-1");
        assert_eq!(verdict, Verdict::Fault(-31001));
        assert_eq!(
            judge(&head(404, Media::Other), b"", Expected::Json, 100_000_001, "x"),
            Verdict::Status(404)
        );
    }
}
