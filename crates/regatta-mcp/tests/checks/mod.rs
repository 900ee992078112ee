//! What must hold for any bytes whatever. Shared by the seeded test (`mutations.rs`) and the fuzz targets.

#![allow(dead_code, reason = "each fuzz target uses one of them")]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use regatta_mcp::scan::{AnswerScanner, Piece};
use regatta_mcp::sse::{Event, Framer};
use regatta_mcp::{Decoded, Message, Span, decode, documents, headers, modern, skim, splice};

/// Client bodies and server messages.
pub fn envelope(bytes: &[u8]) {
    match decode(bytes) {
        Ok(Decoded::One(message)) => decoded(&message, bytes),
        Ok(Decoded::Batch(messages)) => messages.iter().for_each(|message| decoded(message, bytes)),
        Err(malformed) => {
            // An id that is given back is JSON.
            let id = malformed.id.map(|id| serde_json::from_slice::<serde_json::Value>(id.of(bytes)).is_ok());
            assert_ne!(id, Some(false));
        }
    }
    for span in documents(bytes) {
        let text = span.of(bytes);
        if let Ok(found) = skim(text) {
            let ids = found.task_ids.iter().map(|text| text.outer());
            let handles: Vec<Span> =
                ids.chain(found.request_state.map(|state| state.outer())).chain(found.id).collect();
            assert!(handles.iter().all(|span| !span.of(text).is_empty()));
        }
    }
    scanned(bytes);
}

/// Whatever passes the strict pass is JSON to others too, and every span is a JSON value of its own.
fn decoded(message: &Message, bytes: &[u8]) {
    let whole = message.whole.of(bytes);
    let value: serde_json::Value = match serde_json::from_slice(whole) {
        Ok(value) => value,
        // Its bound is one level less than ours.
        Err(error) if error.to_string().contains("recursion") => return,
        Err(error) => panic!("others do not read it: {error}"),
    };
    if let (Some(method), Some(name)) = (value.get("method"), message.method) {
        assert_eq!(method.as_str(), Some(name.text.get(bytes).as_ref()));
    }
    let params = value.get("params");
    let member = |name: &str| params.and_then(|params| params.get(name)).and_then(serde_json::Value::as_str);
    assert_eq!(member("name"), message.params.name.map(|text| text.get(bytes)).as_deref());
    assert_eq!(member("requestState"), message.params.request_state.map(|text| text.get(bytes)).as_deref());
    drop(modern::check(message, bytes, &HeaderMap::new()));
    let text = Bytes::copy_from_slice(bytes);
    let name = message.params.name.map(|text| (text.outer(), Bytes::from_static(b"\"n\"")));
    let spliced = splice(&text, name.as_slice());
    assert!(decode(&spliced).is_ok());
}

/// The scanner hands on every byte, however it is cut.
fn scanned(bytes: &[u8]) {
    let chunk = usize::from(bytes.first().copied().unwrap_or(1)).max(1);
    let mut scanner = AnswerScanner::new(1 << 16);
    let mut pieces = Vec::new();
    for part in bytes.chunks(chunk) {
        if scanner.push(&Bytes::copy_from_slice(part), &mut pieces).is_err() {
            return;
        }
    }
    if scanner.finish().is_ok() {
        let all: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| match piece {
                Piece::PassThrough(part) | Piece::Handle { text: part, .. } => part.to_vec(),
            })
            .collect();
        assert_eq!(all, bytes);
    }
}

/// Event streams: whole, and cut by the first byte.
pub fn sse(bytes: &[u8]) {
    let whole = framed(bytes, bytes.len().max(1));
    let chunk = usize::from(bytes.first().copied().unwrap_or(1)).max(1);
    let cut = framed(bytes, chunk);
    let loud = |events: Vec<Event>| -> Vec<_> {
        let loud = events.into_iter().filter(|event| !event.is_quiet());
        loud.map(|event| (event.data, event.id, event.event, event.retry_ms)).collect()
    };
    if let (Some(whole), Some(cut)) = (whole, cut) {
        assert_eq!(loud(whole), loud(cut));
    }
}

fn framed(bytes: &[u8], chunk: usize) -> Option<Vec<Event>> {
    let mut framer = Framer::new(1 << 16);
    let mut events = Vec::new();
    for part in bytes.chunks(chunk) {
        framer.push(Bytes::copy_from_slice(part));
        while let Some(event) = framer.next().ok()? {
            assert!(event.raw.len() <= 1 << 16);
            events.push(event);
        }
    }
    framer.finish();
    Some(events)
}

/// Header values: any that HTTP lets through.
pub fn headers(bytes: &[u8]) {
    let mut lines = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        if let Ok(name) = headers::decode_name(&value) {
            let again = headers::encode_name(&name);
            assert_eq!(headers::decode_name(&again).as_deref(), Ok(name.as_ref()));
        }
        for name in
            [http::header::ACCEPT, http::header::CONTENT_TYPE, http::header::CONNECTION, headers::MCP_NAME]
        {
            lines.append(name, value.clone());
        }
    }
    let accepts = headers::Accepts::read(&lines);
    assert_eq!(accepts.both(), accepts.json && accepts.event_stream);
    let _ = headers::check_content_type(&lines);
    headers::strip_hop_by_hop(&mut lines);
    assert!(!lines.contains_key(http::header::CONNECTION));
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert_eq!(headers::decode_name(&headers::encode_name(text)).as_deref(), Ok(text));
    }
}
