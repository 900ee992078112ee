//! The light JSON walker, for texts of servers: finds where values end, checks that brackets balance, and
//! leaves the rest (grammar of scalars, UTF-8, duplicate keys) to the client that gets the text unchanged.
//!
//! No recursion; nesting is bounded by [`NEST_MAX`].

use crate::span::{Span, Text};
use crate::swar;

/// How deep a server's values may nest. Beyond what any client library reads; one bit each.
pub(crate) const NEST_MAX: usize = 1024;

/// A broken structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unbalanced(pub(crate) &'static str);

/// A position in a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walker<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) at: usize,
}

/// Open brackets, one bit each: set for an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nest {
    bits: [u64; NEST_MAX / 64],
    depth: usize,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// The next byte; 0 at the end.
    #[inline]
    pub(crate) fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    pub(crate) fn blank(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// The string at the quote here.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Text, Unbalanced> {
        let start = self.at;
        let (end, escaped) = string_end(self.text, start + 1)?;
        self.at = end;
        Ok(Text::within(Span::new(start, end), escaped))
    }

    /// Any value.
    pub(crate) fn value(&mut self) -> Result<Span, Unbalanced> {
        let start = self.at;
        match self.peek() {
            b'"' => drop(self.string()?),
            b'{' | b'[' => self.container()?,
            _ => self.scalar(),
        }
        if self.at == start { Err(Unbalanced("a value is missing")) } else { Ok(Span::new(start, self.at)) }
    }

    /// Any value that nobody needs.
    pub(crate) fn skip(&mut self) -> Result<(), Unbalanced> {
        self.value().map(|_| ())
    }

    /// Steps over an opening brace here, if there is one.
    pub(crate) fn open(&mut self) -> bool {
        let object = self.peek() == b'{';
        self.at += usize::from(object);
        object
    }

    /// Steps to the next member's value and gives its key; `None` after the closing brace.
    pub(crate) fn member(&mut self, begun: &mut bool) -> Result<Option<Text>, Unbalanced> {
        self.blank();
        match self.peek() {
            b'}' => {
                self.at += 1;
                return Ok(None);
            }
            b',' if *begun => {
                self.at += 1;
                self.blank();
            }
            _ if *begun => return Err(Unbalanced("a comma or a brace is missing")),
            _ => *begun = true,
        }
        if self.peek() != b'"' {
            return Err(Unbalanced("a key is missing"));
        }
        let key = self.string()?;
        self.blank();
        if self.peek() != b':' {
            return Err(Unbalanced("a colon is missing"));
        }
        self.at += 1;
        self.blank();
        Ok(Some(key))
    }

    /// A run of bytes that can belong to a number or a word.
    fn scalar(&mut self) {
        while matches!(self.peek(), b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') {
            self.at += 1;
        }
    }

    fn container(&mut self) -> Result<(), Unbalanced> {
        let mut nest = Nest::new();
        let mut at = self.at;
        while let Some(&byte) = self.text.get(at) {
            at += 1;
            match byte {
                b'"' => at = string_end(self.text, at)?.0,
                b'{' | b'[' => nest.push(byte == b'{')?,
                b'}' | b']' => {
                    nest.pop(byte == b'}')?;
                    if nest.depth == 0 {
                        self.at = at;
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        Err(Unbalanced("a bracket without an end"))
    }
}

/// The index after the closing quote of the string whose content begins at `from`, and whether it has escapes.
#[inline(always)]
fn string_end(text: &[u8], from: usize) -> Result<(usize, bool), Unbalanced> {
    let stop = swar::quote_or_backslash(text, from);
    if text.get(stop) == Some(&b'"') { Ok((stop + 1, false)) } else { escaped_string_end(text, stop) }
}

#[inline(never)]
fn escaped_string_end(text: &[u8], stop: usize) -> Result<(usize, bool), Unbalanced> {
    let mut at = stop;
    loop {
        match text.get(at) {
            Some(b'"') => return Ok((at + 1, true)),
            Some(b'\\') => at = swar::quote_or_backslash(text, at + 2),
            _ => return Err(Unbalanced("a string without an end")),
        }
    }
}

impl Nest {
    pub(crate) fn new() -> Self {
        Self { bits: [0; NEST_MAX / 64], depth: 0 }
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn push(&mut self, object: bool) -> Result<(), Unbalanced> {
        let Some(word) = self.bits.get_mut(self.depth / 64) else {
            return Err(Unbalanced("nested too deep"));
        };
        let bit = 1 << (self.depth % 64);
        *word = if object { *word | bit } else { *word & !bit };
        self.depth += 1;
        Ok(())
    }

    /// Whether the innermost open bracket is an object's.
    pub(crate) fn in_object(&self) -> bool {
        self.depth > 0 && self.bits[(self.depth - 1) / 64] >> ((self.depth - 1) % 64) & 1 == 1
    }

    pub(crate) fn pop(&mut self, object: bool) -> Result<(), Unbalanced> {
        if self.depth == 0 || self.in_object() != object {
            return Err(Unbalanced("brackets do not match"));
        }
        self.depth -= 1;
        Ok(())
    }
}
