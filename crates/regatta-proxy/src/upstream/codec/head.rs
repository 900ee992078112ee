//! The head of an answer: what travels down of it, and what it says of the body and the connection.
//!
//! Headers that are dropped on the way (`headers.rs`) never become more than a look. Interim answers are passed over.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::body::BodyReader;
use crate::content::{self, Kind};
use crate::headers::{is_for_one_hop, travels_down};

/// Bytes of the head of an answer, those of interim answers before it included.
const HEAD_MAX: usize = 64 << 10;
/// Header lines of one head.
const LINES_MAX: usize = 100;

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct AnswerHead {
    /// Its status; never 1xx.
    pub status: StatusCode,
    /// What its body is.
    pub kind: Kind,
    /// The replica's session id, which never travels down.
    pub session: Option<HeaderValue>,
    /// What may travel down of its headers.
    pub headers: HeaderMap,
}

/// A head that came whole.
#[derive(Debug)]
pub struct Received {
    /// The head.
    pub head: AnswerHead,
    /// How the body goes on.
    pub reader: BodyReader,
    /// What came of the body with it.
    pub ahead: Bytes,
    /// Whether the connection can carry another exchange when the body has ended.
    pub lasts: Lasts,
}

/// Whether a connection may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// As far as its peer says.
    ForMore,
    /// Its peer closes it, or something came that nobody asked for.
    UntilEnd,
}

/// Why bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// They are no HTTP/1.1, or say two things about one.
    Malformed,
    /// The head is over its bound.
    TooLarge,
}

/// Reads heads from bytes as they come.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// A head that began; empty in the ordinary case, in which it comes at once.
    held: Vec<u8>,
    /// Bytes of interim answers.
    passed: usize,
}

enum Parsed {
    Partly,
    Interim { length: usize },
    Final { length: usize, head: AnswerHead, reader: BodyReader, lasts: Lasts },
}

impl HeadReader {
    /// Takes bytes; gives the answer once its head is whole.
    ///
    /// # Errors
    /// When no more bytes can make it an answer.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Received>, Broken> {
        if self.held.is_empty() {
            return self.read(bytes);
        }
        let looked_at = self.held.len();
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        if !may_be_whole(&held, looked_at) {
            return self.hold(held).map(|()| None);
        }
        self.read(&held)
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<Option<Received>, Broken> {
        loop {
            match parse(bytes)? {
                Parsed::Partly => return self.hold(bytes.to_vec()).map(|()| None),
                Parsed::Interim { length } => {
                    self.passed += length;
                    bytes = &bytes[length..];
                    self.check(0)?;
                }
                Parsed::Final { length, head, mut reader, lasts } => {
                    self.check(length)?;
                    let mut rest = &bytes[length..];
                    let ahead = reader.take(&mut rest);
                    let lasts = if rest.is_empty() { lasts } else { Lasts::UntilEnd };
                    return Ok(Some(Received { head, reader, ahead, lasts }));
                }
            }
        }
    }

    fn hold(&mut self, bytes: Vec<u8>) -> Result<(), Broken> {
        self.held = bytes;
        self.check(self.held.len())
    }

    fn check(&self, length: usize) -> Result<(), Broken> {
        if self.passed + length > HEAD_MAX { Err(Broken::TooLarge) } else { Ok(()) }
    }
}

/// Whether an empty line ends in what came after the first `looked_at` bytes: so a head that comes byte by byte is
/// not parsed once a byte.
fn may_be_whole(bytes: &[u8], looked_at: usize) -> bool {
    let new = &bytes[looked_at.saturating_sub(2)..];
    new.windows(2).any(|two| two == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

fn parse(bytes: &[u8]) -> Result<Parsed, Broken> {
    let mut lines = [const { MaybeUninit::uninit() }; LINES_MAX];
    let mut answer = httparse::Response::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut answer, bytes, &mut lines);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(Parsed::Partly),
        Err(httparse::Error::TooManyHeaders) => return Err(Broken::TooLarge),
        Err(_) => return Err(Broken::Malformed),
    };
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Broken::Malformed)?;
    // We never ask for an upgrade.
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Broken::Malformed);
    }
    if status.is_informational() {
        return Ok(Parsed::Interim { length });
    }
    let mut seen = Seen::default();
    for line in &*answer.headers {
        seen.line(line.name, line.value)?;
    }
    let is_current = answer.version == Some(1);
    let lasts = match is_current && !seen.closes && !seen.announces_in_vain(status) {
        true => Lasts::ForMore,
        false => Lasts::UntilEnd,
    };
    let reader = seen.framing(status, is_current)?;
    let kind = content::kind(seen.content_type, seen.encoding);
    let session = seen.session.map(HeaderValue::from_bytes).transpose().map_err(|_| Broken::Malformed)?;
    let head = AnswerHead { status, kind, session, headers: seen.into_headers() };
    Ok(Parsed::Final { length, head, reader, lasts })
}

/// What the lines of a head say.
#[derive(Default)]
struct Seen<'a> {
    headers: HeaderMap,
    content_type: Option<&'a [u8]>,
    encoding: Option<&'a [u8]>,
    session: Option<&'a [u8]>,
    length: Option<u64>,
    coding: Option<&'a [u8]>,
    closes: bool,
    /// What `Connection` names besides its own words.
    hop: Vec<&'a [u8]>,
}

impl<'a> Seen<'a> {
    fn line(&mut self, name: &str, value: &'a [u8]) -> Result<(), Broken> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is("date") => {}
            6 if is("server") => {}
            10 if is("connection") => self.connection(value),
            10 if is("keep-alive") => {}
            // As all that `travels_down` leaves behind; named here because every stream says them.
            13 if is("cache-control") => {}
            17 if is("x-accel-buffering") => {}
            12 if is("content-type") => {
                self.content_type = self.content_type.or(Some(value));
                self.headers.append(header::CONTENT_TYPE, content_type(value)?);
            }
            14 if is("content-length") => {
                let length = decimal(value).ok_or(Broken::Malformed)?;
                if self.length.replace(length).is_some_and(|before| before != length) {
                    return Err(Broken::Malformed);
                }
            }
            14 if is("mcp-session-id") => self.session = self.session.or(Some(value)),
            16 if is("content-encoding") => self.encoding = self.encoding.or(Some(value)),
            17 if is("transfer-encoding") => {
                if self.coding.replace(value).is_some() {
                    return Err(Broken::Malformed);
                }
            }
            _ => self.other(name, value)?,
        }
        Ok(())
    }

    fn other(&mut self, name: &str, value: &[u8]) -> Result<(), Broken> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Broken::Malformed)?;
        if travels_down(&name) {
            let value = HeaderValue::from_bytes(value).map_err(|_| Broken::Malformed)?;
            self.headers.append(name, value);
        }
        Ok(())
    }

    fn connection(&mut self, value: &'a [u8]) {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if !token.eq_ignore_ascii_case(b"keep-alive") {
                self.hop.push(token);
            }
        }
    }

    /// How the body is framed (RFC 9112 6.3). Two ways at once, or one that we cannot read, are how answers are smuggled.
    /// Whether a body is announced where none can be (RFC 9110 6.4.1): who sends it all the same would have it taken for
    /// the next answer. A 304 may tell the length of what it stands for.
    fn announces_in_vain(&self, status: StatusCode) -> bool {
        let length = self.length.is_some_and(|length| length > 0);
        match status {
            StatusCode::NO_CONTENT => self.coding.is_some() || length,
            StatusCode::NOT_MODIFIED => self.coding.is_some(),
            _has_a_body => false,
        }
    }

    fn framing(&self, status: StatusCode, is_current: bool) -> Result<BodyReader, Broken> {
        if self.coding.is_some() && (self.length.is_some() || !is_current) {
            return Err(Broken::Malformed);
        }
        if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Ok(BodyReader::NONE);
        }
        match (self.coding, self.length) {
            (Some(coding), _) if coding.eq_ignore_ascii_case(b"chunked") => Ok(BodyReader::chunked()),
            (Some(_), _) => Err(Broken::Malformed),
            (None, Some(length)) => Ok(BodyReader::of_length(length)),
            (None, None) => Ok(BodyReader::until_close()),
        }
    }

    /// What travels down.
    fn into_headers(mut self) -> HeaderMap {
        for token in self.hop {
            if let Ok(name) = HeaderName::from_bytes(token)
                && is_for_one_hop(&name)
            {
                self.headers.remove(name);
            }
        }
        self.headers
    }
}

/// The two values that MCP knows cost no copy.
fn content_type(value: &[u8]) -> Result<HeaderValue, Broken> {
    match value {
        b"application/json" => Ok(const { HeaderValue::from_static("application/json") }),
        b"text/event-stream" => Ok(const { HeaderValue::from_static("text/event-stream") }),
        _ => HeaderValue::from_bytes(value).map_err(|_| Broken::Malformed),
    }
}

/// Digits and nothing else (RFC 9110 8.6): no sign, no list, no more than fits.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_body_is_read_from_its_first_type_and_coding() {
        for (head, kind) in [
            ("content-type: Application/JSON; charset=utf-8\r\n", Kind::Json),
            ("content-type: text/event-stream\r\n", Kind::Events),
            ("content-type: text/event-stream\r\ncontent-encoding: gzip\r\n", Kind::Foreign),
            ("content-encoding: identity\r\ncontent-type: application/json\r\n", Kind::Json),
            ("content-type: text/html\r\ncontent-type: application/json\r\n", Kind::Foreign),
            ("", Kind::None),
        ] {
            let bytes = format!("HTTP/1.1 200 OK\r\n{head}content-length: 0\r\n\r\n");
            let received = HeadReader::default().feed(bytes.as_bytes()).expect("an answer").expect("whole");
            assert_eq!(received.head.kind, kind, "{head}");
        }
    }
}
