//! Byte ranges of a message's text, and JSON strings in it.
//!
//! A span never owns or copies; it means something only together with the text it was noted in. Handing it
//! another text is a bug of the caller and panics like any slice out of range.

use std::borrow::Cow;

use crate::escape;

/// The longest text that spans can address, in bytes.
pub const TEXT_MAX: usize = i32::MAX as usize;

/// A byte range `start..end` in a message's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// One JSON string value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// The raw text between the quotes.
    pub span: Span,
    /// Whether the raw text contains a backslash, so that it must be unescaped before it is compared.
    pub escaped: bool,
}

impl Span {
    /// A span from indices that lie within a text of at most [`TEXT_MAX`] bytes.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= TEXT_MAX);
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes it names.
    pub fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }

    /// The same as a string; empty if the bytes are not UTF-8, which `decode` and `skim` rule out.
    pub fn text(self, text: &[u8]) -> &str {
        std::str::from_utf8(self.of(text)).unwrap_or_default()
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it names no byte.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

impl Text {
    /// The text inside the quotes of the string that covers `outer`.
    pub(crate) fn within(outer: Span, escaped: bool) -> Self {
        Self { span: Span { start: outer.start + 1, end: outer.end - 1 }, escaped }
    }

    /// The string's value, unescaped; borrowed when nothing was escaped.
    pub fn get(self, text: &[u8]) -> Cow<'_, str> {
        if self.escaped {
            Cow::Owned(escape::unescape(self.span.of(text)))
        } else {
            Cow::Borrowed(self.span.text(text))
        }
    }

    /// The whole JSON string, quotes included: what a splice replaces.
    pub fn outer(self) -> Span {
        Span { start: self.span.start - 1, end: self.span.end + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Span, Text};

    #[test]
    fn a_text_is_unescaped_only_when_it_must_be() {
        let raw = br#""na\u006de""#;
        let text = Text::within(Span::new(0, raw.len()), true);
        assert_eq!(text.get(raw), "name");
        assert_eq!(text.outer(), Span::new(0, raw.len()));
        let plain = br#"["x"]"#;
        let text = Text::within(Span::new(1, 4), false);
        assert!(matches!(text.get(plain), std::borrow::Cow::Borrowed("x")));
    }
}
