//! A request as the bytes that go out: written once, from the client's headers as they travel, with no map between.
//!
//! The framing is ours alone: the caller gives a body, never a length, and a length of the client's is not let through
//! (`headers.rs`). Values are `HeaderValue`s, so no line break can be in one.

use std::io::IoSlice;

use bytes::{Buf, Bytes};
use http::{HeaderName, HeaderValue, Method};

/// Bodies up to here are copied behind their head: one buffer is cheaper to write than two.
const COPIED_MAX: usize = 4 << 10;
/// Room for an ordinary client's headers and a short body.
const ROOM: usize = 1536;

/// The head of a request, being written.
#[derive(Debug)]
pub struct RequestHead {
    bytes: Vec<u8>,
    /// Whether a body is expected of the method, even an empty one (RFC 9110 8.6).
    has_body: bool,
}

/// A request on its way out.
#[derive(Debug)]
pub struct Outgoing {
    /// The head, and a short body.
    bytes: Vec<u8>,
    /// A long body; else empty.
    body: Bytes,
    /// How much of `bytes` the connection took.
    taken: usize,
    /// Whether it took anything at all.
    touched: bool,
}

impl RequestHead {
    /// Begins with `method` and `opening`: the rest of the request line, and `Host`; see [`opening`].
    pub(crate) fn new(method: &Method, opening: &[u8]) -> RequestHead {
        let mut bytes = Vec::with_capacity(ROOM);
        bytes.extend_from_slice(method.as_str().as_bytes());
        bytes.extend_from_slice(opening);
        RequestHead { bytes, has_body: *method == Method::POST }
    }

    /// Adds one header line.
    pub fn header(&mut self, name: &HeaderName, value: &HeaderValue) {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        self.bytes.reserve(name.len() + value.len() + 4);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Ends the head and adds the body, with its length.
    pub fn finish(self, body: Bytes) -> Outgoing {
        let RequestHead { mut bytes, has_body } = self;
        if has_body || !body.is_empty() {
            bytes.extend_from_slice(b"content-length: ");
            push_decimal(&mut bytes, body.len());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        let body = if body.len() <= COPIED_MAX {
            bytes.extend_from_slice(&body);
            Bytes::new()
        } else {
            body
        };
        Outgoing { bytes, body, taken: 0, touched: false }
    }
}

/// What stands between method and headers in every request to one replica.
pub(in crate::upstream) fn opening(target: &str, authority: &HeaderValue) -> Box<[u8]> {
    [b" ", target.as_bytes(), b" HTTP/1.1\r\nhost: ", authority.as_bytes(), b"\r\n"].concat().into()
}

impl Outgoing {
    /// What is still to be written.
    pub(in crate::upstream) fn left(&self) -> [IoSlice<'_>; 2] {
        [IoSlice::new(&self.bytes[self.taken..]), IoSlice::new(&self.body)]
    }

    /// The connection took `count` bytes more.
    pub(in crate::upstream) fn took(&mut self, count: usize) {
        self.touched |= count > 0;
        let of_head = count.min(self.bytes.len() - self.taken);
        self.taken += of_head;
        self.body.advance(count - of_head);
    }

    /// Whether all of it was taken.
    pub(in crate::upstream) fn is_out(&self) -> bool {
        self.taken == self.bytes.len() && self.body.is_empty()
    }

    /// Whether not a byte of it was taken.
    pub(in crate::upstream) fn is_untouched(&self) -> bool {
        !self.touched
    }
}

/// What is left of it, for people.
#[cfg(test)]
impl std::fmt::Display for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let left = [&self.bytes[self.taken..], &self.body].concat();
        f.write_str(&String::from_utf8_lossy(&left))
    }
}

fn push_decimal(bytes: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    bytes.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_with_our_length_and_in_the_parts_the_connection_takes() {
        let body = Bytes::from(vec![b'x'; 10_000]);
        let mut head = RequestHead::new(&Method::POST, b" /mcp HTTP/1.1\r\nhost: a\r\n");
        head.header(&HeaderName::from_static("x"), &HeaderValue::from_static("1"));
        let mut request = head.finish(body.clone());
        let whole = request.to_string();
        let expected = "POST /mcp HTTP/1.1\r\nhost: a\r\nx: 1\r\ncontent-length: 10000\r\n\r\n";
        assert!(whole.starts_with(expected) && whole.len() == expected.len() + body.len());
        assert!(request.is_untouched());
        for taken in 1.. {
            request.took(7.min(request.to_string().len()));
            assert!(!request.is_untouched());
            assert_eq!(request.to_string(), whole[whole.len().min(7 * taken)..]);
            if request.is_out() {
                break;
            }
        }
        let empty = |method| RequestHead::new(&method, b"\r\n").finish(Bytes::new()).to_string();
        assert_eq!(empty(Method::POST), "POST\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(empty(Method::DELETE), "DELETE\r\n\r\n");
    }
}
