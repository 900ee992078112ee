//! `Content-Type`: of requests (strict), and of servers' answers (by media type alone).

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::accept::split_outside_quotes;
use super::{Single, single};

/// The body is not JSON by its own account: HTTP 415.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentTypeFault {
    /// None, or several.
    #[error("Content-Type must stand exactly once")]
    NotOne,
    /// Another media type.
    #[error("Content-Type is not application/json")]
    NotJson,
    /// JSON is UTF-8 on the wire (RFC 8259 section 8.1).
    #[error("the charset of JSON is UTF-8")]
    NotUtf8,
}

/// A request's body must be `application/json`, in any case, with no charset but UTF-8 (RFC 9110 section 8.3.1).
///
/// # Errors
/// See [`ContentTypeFault`].
pub fn check_content_type(headers: &HeaderMap) -> Result<(), ContentTypeFault> {
    let Single::Once(value) = single(headers, &CONTENT_TYPE) else { return Err(ContentTypeFault::NotOne) };
    if value.as_bytes() == b"application/json" {
        return Ok(());
    }
    if !is_json(value) {
        return Err(ContentTypeFault::NotJson);
    }
    if split_outside_quotes(value.as_bytes(), b';').skip(1).any(is_foreign_charset) {
        return Err(ContentTypeFault::NotUtf8);
    }
    Ok(())
}

/// Whether the media type is `application/json`, whatever its parameters.
pub fn is_json(value: &HeaderValue) -> bool {
    is_media_type(value, b"application/json")
}

/// Whether the media type is `text/event-stream`, whatever its parameters.
pub fn is_event_stream(value: &HeaderValue) -> bool {
    is_media_type(value, b"text/event-stream")
}

fn is_media_type(value: &HeaderValue, media: &[u8]) -> bool {
    let first = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    first.trim_ascii().eq_ignore_ascii_case(media)
}

fn is_foreign_charset(parameter: &[u8]) -> bool {
    let mut halves = parameter.splitn(2, |byte| *byte == b'=');
    let name = halves.next().unwrap_or_default().trim_ascii();
    let value = halves.next().unwrap_or_default().trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value);
    name.eq_ignore_ascii_case(b"charset") && !value.eq_ignore_ascii_case(b"utf-8")
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::CONTENT_TYPE;

    use super::{ContentTypeFault, check_content_type, is_event_stream};

    fn check(lines: &[&'static str]) -> Result<(), ContentTypeFault> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_TYPE, line.parse().unwrap());
        }
        check_content_type(&headers)
    }

    #[test]
    fn i10_other_media_types_are_refused() {
        assert_eq!(check(&[]), Err(ContentTypeFault::NotOne));
        assert_eq!(check(&["application/json", "text/plain"]), Err(ContentTypeFault::NotOne));
        for other in [
            "text/plain",
            "application/jsonp",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "",
        ] {
            assert_eq!(check(&[other]), Err(ContentTypeFault::NotJson), "{other}");
        }
    }

    #[test]
    fn i11_case_and_utf8_do_not_matter() {
        for good in [
            "application/json",
            "APPLICATION/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/json ; x=y",
        ] {
            assert_eq!(check(&[good]), Ok(()), "{good}");
        }
    }

    #[test]
    fn i12_other_charsets_are_refused() {
        assert_eq!(check(&["application/json; charset=utf-16"]), Err(ContentTypeFault::NotUtf8));
        assert_eq!(check(&["application/json; x=1; Charset=latin1"]), Err(ContentTypeFault::NotUtf8));
    }

    #[test]
    fn event_streams_are_known_by_their_media_type() {
        assert!(is_event_stream(&"Text/Event-Stream;charset=utf-8".parse().unwrap()));
        assert!(!is_event_stream(&"text/event-streamx".parse().unwrap()));
    }
}
