//! Writes server-sent events (WHATWG HTML, section 9.2).

use bytes::{BufMut, Bytes, BytesMut};

/// Appends one event. Data with line ends (LF, CR or CRLF) is split over several `data:` lines, so that no content
/// can end the event; the reader joins them with LF. The id and the name are ours or came off a line, and
/// hold no line ends.
pub fn write(out: &mut BytesMut, id: Option<&str>, event_name: Option<&[u8]>, data: &[u8]) {
    out.reserve(data.len() + id.map_or(0, str::len) + event_name.map_or(0, <[u8]>::len) + 32);
    if let Some(id) = id {
        field(out, b"id: ", id.as_bytes());
    }
    append(out, event_name, data);
}

/// The same for an event whose id, if it has one, is there already.
pub fn append(out: &mut impl BufMut, event_name: Option<&[u8]>, data: &[u8]) {
    if let Some(name) = event_name {
        field(out, b"event: ", name);
    }
    let mut rest = data;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        field(out, b"data: ", &rest[..at]);
        let crlf = rest[at..].starts_with(b"\r\n");
        rest = &rest[at + 1 + usize::from(crlf)..];
    }
    field(out, b"data: ", rest);
    out.put_u8(b'\n');
}

/// Appends an event that has an id and no content, so that the client can resume from it before anything happened
/// (2025-11-25, Streamable HTTP, Sending Messages 6).
pub fn write_priming(out: &mut BytesMut, id: &str) {
    field(out, b"id: ", id.as_bytes());
    out.put_slice(b"data:\n\n");
}

/// Appends an event that tells the client how long to wait before it reconnects.
pub fn write_retry(out: &mut BytesMut, retry_ms: u64) {
    field(out, b"retry: ", retry_ms.to_string().as_bytes());
    out.put_u8(b'\n');
}

/// One JSON-RPC message as an event of its own, without an id.
pub fn message(text: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 32);
    write(&mut out, None, Some(b"message"), text);
    out.freeze()
}

/// A comment that keeps a quiet connection alive (WHATWG HTML, section 9.2.7).
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");

fn field(out: &mut impl BufMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(value);
    out.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{write, write_priming, write_retry};

    fn written(id: Option<&str>, name: Option<&[u8]>, data: &[u8]) -> String {
        let mut out = BytesMut::new();
        write(&mut out, id, name, data);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn writes_an_event() {
        assert_eq!(written(None, None, b"{}"), "data: {}\n\n");
        assert_eq!(written(Some("7"), Some(b"message"), b"{}"), "id: 7\nevent: message\ndata: {}\n\n");
        let mut out = BytesMut::new();
        write_priming(&mut out, "x");
        write_retry(&mut out, 500);
        assert_eq!(&out[..], b"id: x\ndata:\n\nretry: 500\n\n");
    }

    #[test]
    fn line_ends_in_data_cannot_end_the_event() {
        assert_eq!(
            written(None, None, b"a\nb\r\nc\r\rd\n"),
            "data: a\ndata: b\ndata: c\ndata: \ndata: d\ndata: \n\n"
        );
    }
}
