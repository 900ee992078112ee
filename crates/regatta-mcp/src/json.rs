//! The strict JSON scanner (RFC 8259): one pass over a text from outside that checks every rule and gives spans.
//!
//! Never builds a tree. Recursion is bounded by [`DEPTH_MAX`], so a million open brackets end at the 129th.
//! Refused beyond the grammar: duplicate keys, lone surrogates, numbers that are too long or not finite.

use crate::escape::hex4;
use crate::keys::{Frame, Keys};
use crate::number;
use crate::span::{Span, TEXT_MAX, Text};
use crate::swar;

/// How deep arrays and objects may nest; the outermost is 1.
pub const DEPTH_MAX: u32 = 128;

/// Why a text is refused; one byte, because it travels in every result of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    TooLong,
    NotUtf8,
    Tail,
    NoValue,
    NoComma,
    NoKey,
    NoColon,
    UnknownWord,
    EndlessString,
    Control,
    Escape,
    Surrogate,
    Number,
    LongNumber,
    HugeNumber,
    KeyTwice,
    TooDeep,
}

/// A step of the walk.
pub(crate) type Walk<T> = Result<T, Flaw>;

/// One value that was checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    pub(crate) span: Span,
    /// A string with a backslash.
    escaped: bool,
    /// First byte, which tells the type.
    first: u8,
}

/// A position in a text, and the keys of the objects that are open there.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    keys: Keys,
}

/// An object that is being read, member by member.
#[derive(Debug)]
pub(crate) struct Object {
    frame: Frame,
    begun: bool,
}

impl Flaw {
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::TooLong => "a body beyond 2 GiB",
            Self::NotUtf8 => "not JSON: not UTF-8",
            Self::Tail => "not JSON: text after the value",
            Self::NoValue => "not JSON: a value is missing",
            Self::NoComma => "not JSON: a comma or a closing bracket is missing",
            Self::NoKey => "not JSON: a key is missing",
            Self::NoColon => "not JSON: a colon is missing",
            Self::UnknownWord => "not JSON: an unknown word",
            Self::EndlessString => "not JSON: a string without an end",
            Self::Control => "not JSON: a control character in a string",
            Self::Escape => "not JSON: a malformed escape",
            Self::Surrogate => "a lone surrogate",
            Self::Number => "not JSON: a malformed number",
            Self::LongNumber => "a number of more than 1024 characters",
            Self::HugeNumber => "a number beyond the range of a double",
            Self::KeyTwice => "a key appears twice in one object",
            Self::TooDeep => "nested deeper than 128",
        }
    }
}

impl Value {
    pub(crate) fn string(self) -> Option<Text> {
        (self.first == b'"').then(|| Text::within(self.span, self.escaped))
    }

    /// Whether it is a string with a backslash.
    pub(crate) fn has_escapes(self) -> bool {
        self.escaped
    }

    pub(crate) fn object(self) -> Option<Span> {
        (self.first == b'{').then_some(self.span)
    }

    /// A string or any number.
    pub(crate) fn scalar_id(self) -> Option<Span> {
        matches!(self.first, b'"' | b'-' | b'0'..=b'9').then_some(self.span)
    }
}

impl<'a> Scan<'a> {
    /// At the first byte of a text that is not longer than spans reach.
    pub(crate) fn new(text: &'a [u8]) -> Walk<Self> {
        if text.len() > TEXT_MAX {
            return Err(Flaw::TooLong);
        }
        Ok(Self { text, at: 0, keys: Keys::new() })
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The next byte; 0, which JSON never allows here, at the end.
    #[inline]
    pub(crate) fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    /// Skips insignificant whitespace.
    #[inline(always)]
    pub(crate) fn blank(&mut self) {
        // Most messages have none: nothing else that may follow is at or below the space.
        if self.peek() <= b' ' {
            self.skip_blanks();
        }
    }

    #[inline(never)]
    fn skip_blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Nothing but whitespace may be left.
    pub(crate) fn end(&mut self) -> Walk<()> {
        self.blank();
        if self.at == self.text.len() { Ok(()) } else { Err(Flaw::Tail) }
    }

    /// Any value. `depth` is that of the container it stands in, 0 outside.
    #[inline(always)]
    pub(crate) fn value(&mut self, depth: u32) -> Walk<Value> {
        let start = self.at;
        let first = self.peek();
        let mut escaped = false;
        match first {
            b'"' => escaped = self.string()?,
            b'1'..=b'9' => self.at = number::check(self.text, start)?,
            _ => self.other_value(depth, first)?,
        }
        Ok(Value { span: Span::new(start, self.at), escaped, first })
    }

    /// A value that is neither a string nor an ordinary number.
    #[inline(never)]
    fn other_value(&mut self, depth: u32, first: u8) -> Walk<()> {
        match first {
            b'{' => self.skip_object(depth),
            b'[' => self.skip_array(depth),
            b'-' | b'0'..=b'9' => {
                self.at = number::check(self.text, self.at)?;
                Ok(())
            }
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => Err(Flaw::NoValue),
        }
    }

    /// Any value that nobody needs.
    pub(crate) fn skip(&mut self, depth: u32) -> Walk<()> {
        self.value(depth).map(|_| ())
    }

    /// Enters the object at the brace here. `depth` is that of the container it stands in.
    #[inline]
    pub(crate) fn open(&mut self, depth: u32) -> Walk<Object> {
        deeper(depth)?;
        self.at += 1;
        Ok(Object { frame: self.keys.open(), begun: false })
    }

    /// Steps to the next member's value; false after the closing brace. The key is then in [`Scan::key`].
    pub(crate) fn member(&mut self, object: &mut Object) -> Walk<bool> {
        self.blank();
        match self.peek() {
            b'}' => {
                self.at += 1;
                self.keys.close(&object.frame);
                return Ok(false);
            }
            b',' if object.begun => {
                self.at += 1;
                self.blank();
            }
            _ if object.begun => return Err(Flaw::NoComma),
            _ => object.begun = true,
        }
        let start = self.at + 1;
        if self.peek() != b'"' {
            return Err(Flaw::NoKey);
        }
        let escaped = self.string()?;
        if !self.keys.add(&mut object.frame, self.text, start, self.at - 1, escaped) {
            return Err(Flaw::KeyTwice);
        }
        self.blank();
        if self.peek() != b':' {
            return Err(Flaw::NoColon);
        }
        self.at += 1;
        self.blank();
        Ok(true)
    }

    /// The key of the member that was stepped to, unescaped.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        self.keys.last(self.text)
    }

    /// The same as it is written, quotes included; none if it has escapes.
    #[inline]
    pub(crate) fn key_as_written(&self) -> Option<&'a [u8]> {
        self.keys.last_as_written(self.text)
    }

    /// Enters the array at the bracket here, which must not be deeper than allowed.
    pub(crate) fn open_array(&mut self, depth: u32) -> Walk<()> {
        deeper(depth)?;
        self.at += 1;
        Ok(())
    }

    /// Steps to the next element; false after the closing bracket. `begun` is false for the first.
    pub(crate) fn element(&mut self, begun: bool) -> Walk<bool> {
        self.blank();
        match self.peek() {
            b']' => {
                self.at += 1;
                return Ok(false);
            }
            b',' if begun => {
                self.at += 1;
                self.blank();
                // A closing bracket here would be a trailing comma; `value` refuses it.
            }
            _ if begun => return Err(Flaw::NoComma),
            _ => {}
        }
        Ok(true)
    }

    /// The string at the quote here; whether it has escapes.
    #[inline(always)]
    fn string(&mut self) -> Walk<bool> {
        let start = self.at + 1;
        let stop = swar::string_stop(self.text, start);
        if self.text.get(stop) == Some(&b'"') {
            self.at = stop + 1;
            return Ok(false);
        }
        self.rich_string(start, stop)
    }

    /// A string that has more than plain ASCII in it, the first such thing at `stop`. Text that is not UTF-8 can stand in
    /// strings only, because everywhere else the grammar is ASCII.
    #[inline(never)]
    fn rich_string(&mut self, start: usize, stop: usize) -> Walk<bool> {
        let mut at = stop;
        let mut escaped = false;
        let mut ascii = true;
        loop {
            match self.text.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at = escape_end(self.text, at)?;
                }
                Some(0x80..) => ascii = false,
                Some(_) => return Err(Flaw::Control),
                None => return Err(Flaw::EndlessString),
            }
            at = if ascii {
                swar::string_stop(self.text, at)
            } else {
                swar::string_stop_beyond_ascii(self.text, at)
            };
        }
        if !ascii && std::str::from_utf8(&self.text[start..at]).is_err() {
            return Err(Flaw::NotUtf8);
        }
        self.at = at + 1;
        Ok(escaped)
    }

    fn literal(&mut self, word: &[u8]) -> Walk<()> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Flaw::UnknownWord);
        }
        self.at += word.len();
        Ok(())
    }

    fn skip_object(&mut self, depth: u32) -> Walk<()> {
        let mut object = self.open(depth)?;
        while self.member(&mut object)? {
            self.value(depth + 1)?;
        }
        Ok(())
    }

    fn skip_array(&mut self, depth: u32) -> Walk<()> {
        self.open_array(depth)?;
        let mut begun = false;
        while self.element(begun)? {
            begun = true;
            self.value(depth + 1)?;
        }
        Ok(())
    }
}

fn deeper(depth: u32) -> Walk<()> {
    if depth < DEPTH_MAX { Ok(()) } else { Err(Flaw::TooDeep) }
}

/// Checks the escape at the backslash here; gives the index after it.
fn escape_end(text: &[u8], at: usize) -> Walk<usize> {
    match text.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            let unit = text.get(at + 2..).and_then(hex4).ok_or(Flaw::Escape)?;
            match unit {
                0xd800..0xdc00 => low_surrogate(text, at + 6),
                0xdc00..0xe000 => Err(Flaw::Surrogate),
                _ => Ok(at + 6),
            }
        }
        _ => Err(Flaw::Escape),
    }
}

/// A high surrogate must be followed by a low one (RFC 8259 section 8.2 leaves others unpredictable).
fn low_surrogate(text: &[u8], at: usize) -> Walk<usize> {
    let low = text.get(at..).and_then(|rest| rest.strip_prefix(b"\\u")).and_then(hex4);
    match low {
        Some(0xdc00..0xe000) => Ok(at + 6),
        _ => Err(Flaw::Surrogate),
    }
}
