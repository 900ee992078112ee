//! The value of `Mcp-Name` (and of `Mcp-Param-…`): plain ASCII, or Base64 between two markers.
//!
//! Source: 2026-07-28, Streamable HTTP, Value Encoding. The markers are case-sensitive; a plain value that looks
//! like an encoded one must be encoded itself, so decoding is never ambiguous.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

const PREFIX: &str = "=?base64?";
const SUFFIX: &str = "?=";

/// The value cannot be read: bytes that no header may carry, broken Base64, or not UTF-8 inside (−32020).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed header value")]
pub struct BadName;

/// The value that a header carries. Blanks around it do not belong to it (RFC 9110 section 5.5).
///
/// # Errors
/// [`BadName`]
pub fn decode_name(value: &HeaderValue) -> Result<Cow<'_, str>, BadName> {
    let plain = super::plain(value).ok_or(BadName)?;
    let Some(encoded) = plain.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)) else {
        return Ok(Cow::Borrowed(plain));
    };
    let bytes = STANDARD.decode(encoded).map_err(|_| BadName)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| BadName)
}

/// A header that carries the value: as it is where that is safe, else encoded.
pub fn encode_name(value: &str) -> HeaderValue {
    let visible = value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    let padded = value.trim_matches([' ', '\t']).len() != value.len();
    let ambiguous = value.starts_with(PREFIX) && value.ends_with(SUFFIX);
    let text = if visible && !padded && !ambiguous {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(format!("{PREFIX}{}{SUFFIX}", STANDARD.encode(value)))
    };
    // Visible ASCII is always a header value; the fallback cannot happen.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::{BadName, decode_name, encode_name};

    fn decode(value: &[u8]) -> Result<String, BadName> {
        decode_name(&HeaderValue::from_bytes(value).unwrap()).map(std::borrow::Cow::into_owned)
    }

    #[test]
    fn the_examples_of_the_specification() {
        for (value, header) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
            ("", ""),
        ] {
            assert_eq!(encode_name(value), header);
            assert_eq!(decode(header.as_bytes()).as_deref(), Ok(value));
        }
    }

    #[test]
    fn i69_broken_encodings_are_refused() {
        for bad in [
            &b"=?base64?!!!?="[..],
            b"=?base64?Zm9?=",
            b"=?base64?Zm9v=?=",
            b"=?base64?/w==?=",
            b"=?base64?Zh==?=",
        ] {
            assert_eq!(decode(bad), Err(BadName), "{bad:?}");
        }
    }

    #[test]
    fn i70_other_markers_are_plain_text() {
        for plain in ["=?BASE64?Zm9v?=", "=?base64?Zm9v", "=?utf-8?b?Zm9v?=", "=?base64?="] {
            assert_eq!(decode(plain.as_bytes()).as_deref(), Ok(plain));
        }
    }

    #[test]
    fn i67_raw_utf8_is_refused() {
        assert_eq!(decode("é".as_bytes()), Err(BadName));
    }
}
