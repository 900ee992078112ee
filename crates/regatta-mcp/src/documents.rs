//! Splits a body into the JSON values that stand in it one after another.
//!
//! Some servers answer `application/json` with several messages, one a line (RELIABILITY 3.11); and a single message
//! may be printed over many lines. So the split follows the values, not the line ends.

use crate::skip::Walker;
use crate::span::{Span, TEXT_MAX};

/// The values in `text`, in order. What cannot be a value ends the walk as one last span, which
/// [`crate::skim()`] then refuses.
pub fn documents(text: &[u8]) -> Documents<'_> {
    Documents { walker: Walker::new(&text[..text.len().min(TEXT_MAX)], 0) }
}

/// See [`documents`].
#[derive(Clone, Debug)]
pub struct Documents<'a> {
    walker: Walker<'a>,
}

impl Iterator for Documents<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        self.walker.blank();
        let start = self.walker.at;
        let length = self.walker.text.len();
        if start >= length {
            return None;
        }
        Some(self.walker.value().unwrap_or_else(|_| {
            self.walker.at = length;
            Span::new(start, length)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::documents;

    fn split(text: &str) -> Vec<&str> {
        documents(text.as_bytes()).map(|span| span.text(text.as_bytes())).collect()
    }

    #[test]
    fn splits_between_values_not_at_line_ends() {
        assert_eq!(
            split("{\"a\":\n1}\n{\"b\":\"}\\\"\"}\r\n[1,\n2] 3\n"),
            ["{\"a\":\n1}", "{\"b\":\"}\\\"\"}", "[1,\n2]", "3"]
        );
        assert!(split(" \n").is_empty());
    }

    #[test]
    fn a_broken_tail_is_one_span() {
        assert_eq!(split("{} {\"a\": [}"), ["{}", "{\"a\": [}"]);
        assert_eq!(split("{}]{}"), ["{}", "]{}"]);
    }
}
