//! `Accept` by RFC 9110 section 12.5.1: media ranges are compared whole, the most specific one decides, and `q=0`
//! refuses. (Substring matching takes `application/jsonx` for JSON.)

use http::HeaderMap;
use http::header::ACCEPT;

/// Which of the two media types of Streamable HTTP a client takes. A missing header takes neither: clients
/// MUST list both (2026-07-28 and 2025-11-25, Streamable HTTP, Sending Messages).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// `application/json`
    pub json: bool,
    /// `text/event-stream`
    pub event_stream: bool,
}

/// What official clients send, so that the usual line is one comparison.
const USUAL: [&[u8]; 3] = [
    b"application/json, text/event-stream",
    b"text/event-stream, application/json",
    b"application/json,text/event-stream",
];

impl Accepts {
    /// Reads all `Accept` lines.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(ACCEPT).iter();
        if let (Some(only), None) = (lines.next(), lines.next())
            && USUAL.contains(&only.as_bytes())
        {
            return Self { json: true, event_stream: true };
        }
        let mut json = Verdict::default();
        let mut event_stream = Verdict::default();
        for line in headers.get_all(ACCEPT) {
            for range in split_outside_quotes(line.as_bytes(), b',') {
                judge(range, &mut json, &mut event_stream);
            }
        }
        Self { json: json.accepted, event_stream: event_stream.accepted }
    }

    /// Whether a POST may be answered.
    pub fn both(self) -> bool {
        self.json && self.event_stream
    }
}

/// The verdict of the most specific range so far.
#[derive(Clone, Copy, Default)]
struct Verdict {
    specificity: u8,
    accepted: bool,
}

impl Verdict {
    fn hear(&mut self, specificity: u8, accepted: bool) {
        if specificity > self.specificity {
            *self = Self { specificity, accepted };
        } else if specificity == self.specificity {
            self.accepted |= accepted;
        }
    }
}

fn judge(range: &[u8], json: &mut Verdict, event_stream: &mut Verdict) {
    let mut parts = split_outside_quotes(range, b';');
    let media = parts.next().unwrap_or_default().trim_ascii();
    let accepted = !parts.any(is_zero_weight);
    if media.eq_ignore_ascii_case(b"application/json") {
        json.hear(3, accepted);
    } else if media.eq_ignore_ascii_case(b"text/event-stream") {
        event_stream.hear(3, accepted);
    } else if media.eq_ignore_ascii_case(b"application/*") {
        json.hear(2, accepted);
    } else if media.eq_ignore_ascii_case(b"text/*") {
        event_stream.hear(2, accepted);
    } else if media == b"*/*" {
        json.hear(1, accepted);
        event_stream.hear(1, accepted);
    }
}

/// `q=0`, `q=0.`, `q=0.000`: not acceptable (RFC 9110 section 12.4.2).
fn is_zero_weight(parameter: &[u8]) -> bool {
    let parameter = parameter.trim_ascii();
    let Some(weight) = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q=")) else {
        return false;
    };
    weight.first() == Some(&b'0') && weight[1..].iter().all(|byte| matches!(byte, b'.' | b'0'))
}

/// Parts between separators, which do not separate inside a quoted string.
pub(super) fn split_outside_quotes(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |&byte| {
        let literal = escaped;
        escaped = quoted && byte == b'\\' && !literal;
        if byte == b'"' && !literal {
            quoted = !quoted;
        }
        byte == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::ACCEPT;

    use super::Accepts;

    fn read(lines: &[&'static str]) -> (bool, bool) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, line.parse().unwrap());
        }
        let accepts = Accepts::read(&headers);
        (accepts.json, accepts.event_stream)
    }

    #[test]
    fn i14_both_types_must_be_listed() {
        assert_eq!(read(&["application/json, text/event-stream"]), (true, true));
        assert_eq!(read(&["Application/JSON;charset=utf-8;q=0.5", "text/event-stream"]), (true, true));
        assert_eq!(read(&[]), (false, false));
        assert_eq!(read(&["application/json"]), (true, false));
        assert_eq!(read(&["text/event-stream"]), (false, true));
    }

    #[test]
    fn i15_ranges_are_compared_whole_and_zero_weight_refuses() {
        assert_eq!(read(&["application/jsonx, text/event-streamx"]), (false, false));
        assert_eq!(read(&["application/json;q=0, text/event-stream"]), (false, true));
        assert_eq!(read(&["application/json; q=0.000, text/event-stream;q=0.001"]), (false, true));
        assert_eq!(read(&["x/y;a=\"application/json, text/event-stream\""]), (false, false));
    }

    #[test]
    fn i16_wildcards_count_unless_something_more_specific_refuses() {
        assert_eq!(read(&["*/*"]), (true, true));
        assert_eq!(read(&["application/*, text/*"]), (true, true));
        assert_eq!(read(&["*/*, application/json;q=0"]), (false, true));
        assert_eq!(read(&["text/*;q=0, */*"]), (true, false));
        assert_eq!(read(&["application/*;q=0, application/json, text/event-stream"]), (true, true));
    }
}
