//! JSON string escapes, both ways (RFC 8259 section 7).
//!
//! `unescape` never fails: the strict scanner has refused broken escapes before, and in a server's text, which
//! is only skimmed, what means nothing becomes U+FFFD.

use crate::swar;

/// The value of a raw string (without its quotes).
pub(crate) fn unescape(raw: &[u8]) -> String {
    let mut out = Vec::with_capacity(raw.len());
    unescape_into(raw, &mut out);
    String::from_utf8(out).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned())
}

/// The same, appended to `out` as UTF-8.
pub(crate) fn unescape_into(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(slash) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..slash]);
        rest = &rest[slash + 1..];
        let Some((&kind, after)) = rest.split_first() else { return };
        rest = after;
        let plain = match kind {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                rest = push_code_point(rest, out);
                continue;
            }
            other => other,
        };
        out.push(plain);
    }
    out.extend_from_slice(rest);
}

/// Four hexadecimal digits as a UTF-16 unit.
pub(crate) fn hex4(digits: &[u8]) -> Option<u16> {
    let digits = digits.get(..4)?;
    let mut unit = 0u16;
    for &digit in digits {
        unit = unit << 4 | (digit as char).to_digit(16)? as u16;
    }
    Some(unit)
}

/// Appends a string as a JSON string, quotes included.
pub(crate) fn escape_into(value: &str, out: &mut Vec<u8>) {
    let text = value.as_bytes();
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut start = 0;
    loop {
        let stop = swar::string_stop_beyond_ascii(text, start);
        out.extend_from_slice(&text[start..stop]);
        let Some(&byte) = text.get(stop) else { break };
        push_escape(byte, out);
        start = stop + 1;
    }
    out.push(b'"');
}

/// Appends the escape of a quote, a backslash or a control character.
fn push_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            return out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Takes what follows `\u`; gives what is left of the raw text.
fn push_code_point<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some(first) = hex4(rest) else {
        out.extend_from_slice("\u{fffd}".as_bytes());
        return rest;
    };
    let mut rest = &rest[4..];
    let mut code = u32::from(first);
    if (0xd800..0xdc00).contains(&first)
        && let Some(low) = rest.strip_prefix(b"\\u").and_then(hex4)
        && (0xdc00..0xe000).contains(&low)
    {
        code = 0x10000 + (u32::from(first - 0xd800) << 10 | u32::from(low - 0xdc00));
        rest = &rest[6..];
    }
    let letter = char::from_u32(code).unwrap_or('\u{fffd}');
    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    rest
}

#[cfg(test)]
mod tests {
    use super::{escape_into, unescape};

    #[test]
    fn what_was_escaped_comes_back() {
        for value in ["", "plain", "a\"b\\c\n\r\t\u{1}\u{7f}é漢😀"] {
            let mut out = Vec::new();
            escape_into(value, &mut out);
            assert_eq!(unescape(&out[1..out.len() - 1]), value);
        }
    }

    #[test]
    fn pairs_join_and_lone_surrogates_become_the_replacement() {
        assert_eq!(unescape(br"\ud83d\ude00\/\b\f"), "😀/\u{8}\u{c}");
        assert_eq!(unescape(br"\ud83dx"), "\u{fffd}x");
        assert_eq!(unescape(br"\udc00"), "\u{fffd}");
        assert_eq!(unescape(br"\ud83d\u0041"), "\u{fffd}A");
    }
}
