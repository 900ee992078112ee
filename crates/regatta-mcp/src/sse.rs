//! Frames an event stream as it arrives (WHATWG HTML, section 9.2.6): bytes in, whole events out.
//!
//! Each byte is looked at once, however the stream is cut; an event that lies in one chunk is not copied. Nothing
//! is held beyond `event_max`, and of a chunk nothing once it was looked at. Comments and blank lines between events come
//! out as events without fields, so that a caller sees a server that is alive.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The least and the greatest reconnection time that is passed on, in milliseconds: a server's `retry: 0` must not
/// turn its clients into a storm, nor one typing error lock them out.
const RETRY_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;
/// Comments and blank lines are joined into one event up to this many bytes.
const QUIET_MAX: usize = 4096;
const BOM: &[u8] = "\u{feff}".as_bytes();

/// One block of a stream, up to and with its blank line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// As it was received. The raws of a stream, one after the other, are the stream (without its byte order
    /// mark). The LF of a CRLF that was cut in two may open the next raw.
    pub raw: Bytes,
    /// The data lines, joined with LF. Without one, browsers and clients dispatch nothing.
    pub data: Option<Bytes>,
    /// The last `id` field. One that contains NUL is ignored.
    pub id: Option<Bytes>,
    /// The last `event` field.
    pub event: Option<Bytes>,
    /// The last `retry` field of digits only, brought into 1 s to 1 h.
    pub retry_ms: Option<u64>,
}

/// An event grew beyond `event_max`; the stream cannot be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {event_max} bytes")]
pub struct TooLarge {
    /// The bound that it broke.
    pub event_max: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Framer {
    event_max: usize,
    /// Chunks that were not looked at yet.
    waiting: VecDeque<Bytes>,
    /// The chunk that is being looked at.
    chunk: Bytes,
    /// Where the event's part of `chunk` begins, and what has been looked at.
    from: usize,
    at: usize,
    /// The event's bytes from earlier chunks.
    held: BytesMut,
    fields: Fields,
    begun: bool,
    after_cr: bool,
    failed: bool,
}

/// What the lines of the event said so far; ranges count from the event's first byte.
#[derive(Debug, Default)]
struct Fields {
    line: usize,
    data: Option<Range>,
    /// All data lines, if more than one.
    joined: Option<BytesMut>,
    id: Option<Range>,
    event: Option<Range>,
    retry_ms: Option<u64>,
    /// A line that was neither blank nor a comment.
    any: bool,
    /// Comments or blank lines at the start.
    quiet: bool,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    start: usize,
    end: usize,
}

/// What a line means for its event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Ends,
    Continues,
}

impl Event {
    /// Comments and blank lines alone.
    pub fn is_quiet(&self) -> bool {
        self.data.is_none() && self.id.is_none() && self.event.is_none() && self.retry_ms.is_none()
    }
}

impl Framer {
    /// A framer at the start of a stream. `event_max` bounds one event's raw bytes.
    pub fn new(event_max: usize) -> Self {
        Self {
            event_max,
            waiting: VecDeque::new(),
            chunk: Bytes::new(),
            from: 0,
            at: 0,
            held: BytesMut::new(),
            fields: Fields::default(),
            begun: false,
            after_cr: false,
            failed: false,
        }
    }

    /// Takes the next chunk; call [`Framer::next`] until it has nothing more.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.waiting.push_back(chunk);
        }
    }

    /// The next whole event, or `None` until more is pushed.
    ///
    /// # Errors
    /// [`TooLarge`], now and ever after.
    #[expect(clippy::should_implement_trait, reason = "None is not the end, more may be pushed")]
    pub fn next(&mut self) -> Result<Option<Event>, TooLarge> {
        loop {
            if self.failed {
                return Err(TooLarge { event_max: self.event_max });
            }
            if self.at == self.chunk.len() {
                let quiet = self.take_quiet();
                if quiet.is_some() {
                    return Ok(quiet);
                }
                if !self.next_chunk() {
                    self.let_go();
                    return Ok(None);
                }
            }
            let event = self.step();
            if self.length() > self.event_max
                || event.as_ref().is_some_and(|event| event.raw.len() > self.event_max)
            {
                self.failed = true;
                continue;
            }
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// At the end of the stream: the bytes of an event that never ended, which readers discard.
    pub fn finish(&mut self) -> Option<Bytes> {
        while self.next_chunk() {
            self.at = self.chunk.len();
        }
        let left = self.take_raw();
        self.fields = Fields::default();
        // The second half of a CRLF whose CR ended an event is nothing of its own.
        (!left.is_empty() && left != "\n").then_some(left)
    }

    /// Bytes of the current event that have been looked at.
    fn length(&self) -> usize {
        self.held.len() + self.at - self.from
    }

    /// Goes to the next chunk, keeping the current event's bytes of this one.
    fn next_chunk(&mut self) -> bool {
        let Some(next) = self.waiting.pop_front() else { return false };
        self.let_go();
        self.chunk = next;
        true
    }

    /// Lets go of a chunk that has been looked at: a stream may wait for days, and a chunk keeps alive the whole buffer
    /// that it was read into.
    fn let_go(&mut self) {
        self.held.extend_from_slice(&self.chunk[self.from..self.at]);
        self.chunk = Bytes::new();
        self.from = 0;
        self.at = 0;
    }

    /// Looks at the chunk up to the end of a line; the event, if that line ended it.
    fn step(&mut self) -> Option<Event> {
        if !self.begun && !self.pass_bom() {
            return None;
        }
        if self.after_cr {
            self.after_cr = false;
            if self.chunk.get(self.at) == Some(&b'\n') {
                self.at += 1;
                self.fields.line += 1;
                return None;
            }
        }
        if self.fields.quiet
            && (self.length() > QUIET_MAX || !matches!(self.chunk[self.at], b'\n' | b'\r' | b':'))
        {
            let quiet = self.take_quiet();
            if quiet.is_some() {
                return quiet;
            }
        }
        let Some(more) = memchr::memchr2(b'\n', b'\r', &self.chunk[self.at..]) else {
            self.at = self.chunk.len();
            return None;
        };
        let content = self.length() + more;
        self.at += more + 1;
        if self.chunk[self.at - 1] == b'\r' {
            match self.chunk.get(self.at) {
                Some(b'\n') => self.at += 1,
                Some(_) => {}
                None => self.after_cr = true,
            }
        }
        self.line(content)
    }

    /// Whether the position is at the first byte of a line.
    fn at_line(&self) -> bool {
        self.length() == self.fields.line
    }

    /// Takes in the line that ends before `content_end`, counted from the event's start.
    fn line(&mut self, content_end: usize) -> Option<Event> {
        if !self.held.is_empty() {
            self.held.extend_from_slice(&self.chunk[self.from..self.at]);
            self.from = self.at;
        }
        let event = if self.held.is_empty() { &self.chunk[self.from..self.at] } else { &self.held[..] };
        let verdict = self.fields.take_line(event, content_end);
        match verdict {
            Line::Continues => None,
            Line::Ends => Some(self.take_event()),
        }
    }

    /// Drops a byte order mark at the start of the stream; false until that is decided.
    fn pass_bom(&mut self) -> bool {
        while self.at < self.chunk.len() {
            let seen = self.length();
            if self.chunk[self.at] != BOM[seen] {
                self.begun = true;
                return true;
            }
            self.at += 1;
            if seen + 1 == BOM.len() {
                self.begun = true;
                self.held.clear();
                self.from = self.at;
                return self.at < self.chunk.len();
            }
        }
        false
    }

    fn take_raw(&mut self) -> Bytes {
        let here = self.chunk.slice(self.from..self.at);
        self.from = self.at;
        if self.held.is_empty() {
            return here;
        }
        self.held.extend_from_slice(&here);
        self.held.split().freeze()
    }

    fn take_event(&mut self) -> Event {
        let raw = self.take_raw();
        let fields = std::mem::take(&mut self.fields);
        let slice = |range: Range| raw.slice(range.start..range.end);
        Event {
            data: fields.joined.map(BytesMut::freeze).or(fields.data.map(slice)),
            id: fields.id.map(slice),
            event: fields.event.map(slice),
            retry_ms: fields.retry_ms,
            raw,
        }
    }

    /// Comments and blank lines, if that is all there is and the position is between lines.
    fn take_quiet(&mut self) -> Option<Event> {
        let whole = self.fields.quiet && !self.fields.any && self.at_line();
        whole.then(|| self.take_event())
    }
}

impl Fields {
    /// `event` is what is known of the event; its last line ends (without its line end) at `content_end`.
    fn take_line(&mut self, event: &[u8], content_end: usize) -> Line {
        let start = self.line;
        self.line = event.len();
        let line = &event[start..content_end];
        if line.is_empty() {
            self.quiet |= !self.any;
            return if self.any { Line::Ends } else { Line::Continues };
        }
        if line[0] == b':' {
            self.quiet |= !self.any;
            return Line::Continues;
        }
        self.any = true;
        let colon = memchr::memchr(b':', line);
        let name = &line[..colon.unwrap_or(line.len())];
        let value = colon.map_or(line.len(), |at| at + 1 + usize::from(line.get(at + 1) == Some(&b' ')));
        self.take_field(event, name, Range { start: start + value, end: content_end });
        Line::Continues
    }

    fn take_field(&mut self, event: &[u8], name: &[u8], value: Range) {
        let text = &event[value.start..value.end];
        match name {
            b"data" => self.take_data(event, value),
            b"id" if memchr::memchr(0, text).is_none() => self.id = Some(value),
            b"event" => self.event = Some(value),
            b"retry" if !text.is_empty() && text.iter().all(u8::is_ascii_digit) => {
                let asked = text
                    .iter()
                    .fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
                self.retry_ms = Some(asked.clamp(*RETRY_MS.start(), *RETRY_MS.end()));
            }
            _ => {}
        }
    }

    fn take_data(&mut self, event: &[u8], value: Range) {
        let Some(first) = self.data else {
            self.data = Some(value);
            return;
        };
        let joined = self.joined.get_or_insert_with(|| BytesMut::from(&event[first.start..first.end]));
        joined.extend_from_slice(b"\n");
        joined.extend_from_slice(&event[value.start..value.end]);
    }
}

#[cfg(test)]
mod tests;
