//! HTTP/1.1 as far as an instrument needs it: one answer at a time, from bytes that arrive in pieces.
//!
//! No IO of its own, so that the asynchronous loops and the blocking one share it. It is deliberately thin (RFC 9112
//! framing, three header fields): the loader's own cost must vanish beside what it measures. Never used by a gateway.

use memchr::memmem;

/// A head longer than this is not an answer that an instrument waits for.
const HEAD_MAX: usize = 64 * 1024;

/// What kind of body an answer has, by its `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/json`.
    Json,
    /// `text/event-stream`.
    Sse,
    /// Anything else, or no content type.
    Other,
}

/// The parts of an answer's head that a measurement looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Status code, 100–599.
    pub status: u16,
    /// The kind of the body.
    pub media: Media,
    /// The value of `Mcp-Session-Id`, if it is there.
    pub session: Option<String>,
    /// Whether the peer will close the connection after this answer.
    pub close: bool,
}

/// Why bytes are not an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The head is not HTTP/1.1, or too long.
    Head,
    /// A chunk size or chunk end is not as RFC 9112 section 7.1 has it.
    Chunk,
    /// The stream ended inside an answer.
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(usize),
    ChunkSize,
    ChunkData(usize),
    ChunkEnd,
    Trailer,
    UntilClose,
    Done,
}

/// Reads one answer after the other from one connection.
pub struct Parser {
    raw: Vec<u8>,
    at: usize,
    state: State,
    head: Option<Head>,
    /// The decoded body so far; whoever reads a stream may take bytes out of it as they come.
    pub body: Vec<u8>,
}

impl Default for Parser {
    fn default() -> Self {
        Parser { raw: Vec::new(), at: 0, state: State::Head, head: None, body: Vec::new() }
    }
}

impl Parser {
    /// Forgets the last answer and begins the next; bytes already received stay.
    pub fn begin(&mut self) {
        self.raw.drain(..self.at);
        self.at = 0;
        self.state = State::Head;
        self.head = None;
        self.body.clear();
    }

    /// The head, once it has been read whole.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Whether the answer is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next bytes of the connection. `true`: the answer is complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, Broken> {
        self.raw.extend_from_slice(bytes);
        while self.step()? {}
        if self.state != State::Head {
            self.raw.drain(..self.at);
            self.at = 0;
        }
        Ok(self.is_done())
    }

    /// The peer closed the connection: the end of an answer that had no length, or a cut.
    pub fn end(&mut self) -> Result<(), Broken> {
        if self.state != State::UntilClose {
            return Err(Broken::Cut);
        }
        self.state = State::Done;
        Ok(())
    }

    /// One transition; `false` when more bytes are needed or the answer is complete.
    fn step(&mut self) -> Result<bool, Broken> {
        let left = &self.raw[self.at..];
        match self.state {
            State::Head => return self.step_head(),
            State::Length(remaining) | State::ChunkData(remaining) => {
                let taken = remaining.min(left.len());
                self.body.extend_from_slice(&left[..taken]);
                self.at += taken;
                let chunked = matches!(self.state, State::ChunkData(_));
                self.state = match (remaining - taken, chunked) {
                    (0, true) => State::ChunkEnd,
                    (0, false) => State::Done,
                    (rest, true) => State::ChunkData(rest),
                    (rest, false) => State::Length(rest),
                };
                return Ok(taken == remaining && chunked);
            }
            State::UntilClose => {
                self.body.extend_from_slice(left);
                self.at = self.raw.len();
                return Ok(false);
            }
            State::Done => return Ok(false),
            State::ChunkSize | State::ChunkEnd | State::Trailer => {}
        }
        let Some(length) = memchr::memchr(b'\n', left) else { return Ok(false) };
        let line = left[..length].strip_suffix(b"\r").ok_or(Broken::Chunk)?;
        self.state = match self.state {
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::ChunkEnd => return Err(Broken::Chunk),
            State::Trailer if line.is_empty() => State::Done,
            State::Trailer => State::Trailer,
            _ => match chunk_size(line)? {
                0 => State::Trailer,
                size => State::ChunkData(size),
            },
        };
        self.at += length + 1;
        Ok(true)
    }

    fn step_head(&mut self) -> Result<bool, Broken> {
        let left = &self.raw[self.at..];
        let Some(length) = memmem::find(left, b"\r\n\r\n") else {
            return if left.len() > HEAD_MAX { Err(Broken::Head) } else { Ok(false) };
        };
        let (head, state) = read_head(&left[..length + 2])?;
        self.at += length + 4;
        if head.status >= 200 {
            self.state = state;
            self.head = Some(head);
        }
        Ok(self.state != State::Done)
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, Broken> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or(line);
    let digits = std::str::from_utf8(digits).map_err(|_| Broken::Chunk)?;
    usize::from_str_radix(digits.trim(), 16).map_err(|_| Broken::Chunk)
}

/// `bytes` are the head's lines, each with its CRLF.
fn read_head(bytes: &[u8]) -> Result<(Head, State), Broken> {
    let mut lines = Lines(bytes);
    let first = lines.next().ok_or(Broken::Head)?;
    let status =
        first.get(9..12).filter(|_| first.starts_with(b"HTTP/1.")).and_then(number).ok_or(Broken::Head)?;
    let status = u16::try_from(status).map_err(|_| Broken::Head)?;
    let mut head = Head { status, media: Media::Other, session: None, close: false };
    // RFC 9112 section 6.3: no body on these, whatever the header says.
    let mut state = if matches!(status, 100..=199 | 204 | 304) { State::Done } else { State::UntilClose };
    let bodiless = state == State::Done;
    for line in lines {
        let Some((name, value)) = field(line) else { return Err(Broken::Head) };
        if name.eq_ignore_ascii_case(b"content-length") && !bodiless {
            let length = number(value).ok_or(Broken::Head)?;
            state = if length == 0 { State::Done } else { State::Length(length) };
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") && !bodiless {
            state = State::ChunkSize;
        } else if name.eq_ignore_ascii_case(b"content-type") {
            head.media = media(value);
        } else if name.eq_ignore_ascii_case(b"mcp-session-id") {
            head.session = Some(String::from_utf8_lossy(value).into_owned());
        } else if name.eq_ignore_ascii_case(b"connection") {
            head.close = value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok((head, state))
}

fn media(value: &[u8]) -> Media {
    let kind = value.split(|byte| *byte == b';').next().unwrap_or(value).trim_ascii();
    if kind.eq_ignore_ascii_case(b"application/json") {
        Media::Json
    } else if kind.eq_ignore_ascii_case(b"text/event-stream") {
        Media::Sse
    } else {
        Media::Other
    }
}

/// The lines of a head without their line ends.
pub struct Lines<'a>(pub &'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = memchr::memchr(b'\n', self.0)?;
        let (line, rest) = (&self.0[..length], &self.0[length + 1..]);
        self.0 = rest;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// One header line as name and trimmed value.
pub fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

/// Decimal digits as a number; nothing else is one.
pub fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nMcp-Session-Id: s1\r\n\
        transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n";

    #[test]
    fn reads_a_chunked_answer_however_it_is_cut() {
        for cut in 1..CHUNKED.len() {
            let mut parser = Parser::default();
            assert_eq!(parser.push(&CHUNKED[..cut]), Ok(false), "cut at {cut}");
            assert_eq!(parser.push(&CHUNKED[cut..]), Ok(true), "cut at {cut}");
            assert_eq!(parser.body, b"hello!");
            let head = parser.head().unwrap();
            assert_eq!((head.media, head.session.as_deref()), (Media::Sse, Some("s1")));
        }
    }

    #[test]
    fn reads_two_answers_that_arrive_together() {
        let mut parser = Parser::default();
        let two = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(parser.push(two), Ok(true));
        assert_eq!(parser.head().unwrap().status, 202);
        parser.begin();
        assert_eq!(parser.push(b""), Ok(true));
        assert_eq!(parser.body, b"ok");
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_connection() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b"HTTP/1.1 200 OK\r\n\r\nab"), Ok(false));
        assert_eq!(parser.end(), Ok(()));
        assert_eq!(parser.body, b"ab");
    }

    #[test]
    fn a_cut_inside_a_body_is_told() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"), Ok(false));
        assert_eq!(parser.end(), Err(Broken::Cut));
    }

    #[test]
    fn a_bad_chunk_size_is_told() {
        let mut parser = Parser::default();
        let bad = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n";
        assert_eq!(parser.push(bad), Err(Broken::Chunk));
    }
}
