//! JSON number literals (RFC 8259 section 6): the grammar, and two bounds of our own.
//!
//! A literal is at most [`NUMBER_MAX`] bytes, and finite as an IEEE 754 double, because a server that reads
//! `1e400` as infinity and one that refuses it are two different servers. The value itself is never used.

use crate::json::{Flaw, Walk};

/// The longest number literal, in bytes.
pub const NUMBER_MAX: usize = 1024;

/// Checks the literal that starts at `start`; gives the index after it.
#[inline]
pub(crate) fn check(text: &[u8], start: usize) -> Walk<usize> {
    // Nearly all are small whole numbers.
    if matches!(text.get(start), Some(b'1'..=b'9')) {
        let at = digits(text, start + 1);
        if at - start < 300 && !matches!(text.get(at), Some(b'.' | b'e' | b'E')) {
            return Ok(at);
        }
    }
    check_any(text, start)
}

#[inline(never)]
fn check_any(text: &[u8], start: usize) -> Walk<usize> {
    let unsigned = start + usize::from(text.get(start) == Some(&b'-'));
    let whole = digits(text, unsigned);
    let mut at = whole;
    if whole == unsigned || (text[unsigned] == b'0' && whole > unsigned + 1) {
        return Err(Flaw::Number);
    }
    if text.get(at) == Some(&b'.') {
        at = digits(text, at + 1);
        if at == whole + 1 {
            return Err(Flaw::Number);
        }
    }
    let mut exponent = 0;
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let negative = text.get(at + 1) == Some(&b'-');
        let first = at + 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at = digits(text, first);
        if at == first {
            return Err(Flaw::Number);
        }
        exponent = if negative { 0 } else { small(&text[first..at]) };
    }
    if at - start > NUMBER_MAX {
        return Err(Flaw::LongNumber);
    }
    // Below 10^(digits + exponent), and 10^308 is finite: nearly every literal is decided here.
    if whole - unsigned + exponent > 308 && !finite(&text[start..at]) {
        return Err(Flaw::HugeNumber);
    }
    Ok(at)
}

/// Index of the first byte that is not a digit.
#[inline]
fn digits(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// The value of a run of digits, at most 10,000.
fn small(digits: &[u8]) -> usize {
    digits.iter().fold(0, |sum, digit| (sum * 10 + usize::from(digit - b'0')).min(10_000))
}

fn finite(literal: &[u8]) -> bool {
    std::str::from_utf8(literal).ok().and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::{NUMBER_MAX, check};

    #[test]
    fn takes_the_grammar_and_nothing_else() {
        for good in ["0", "-0", "10", "1.5", "-0.0e-5", "1E+30", "1e308", "0e999", "0.001e310", "1e-999"] {
            assert_eq!(check(good.as_bytes(), 0), Ok(good.len()), "{good}");
        }
        for bad in ["-", "01", "-01", "1.", ".5", "1e", "1e+", "--1", "+1", "1.e3"] {
            assert_ne!(check(bad.as_bytes(), 0).ok(), Some(bad.len()), "{bad}");
        }
    }

    #[test]
    fn refuses_what_is_too_large_or_too_long() {
        for bad in ["1e400", "-1e309", "1.8e308", "1e99999999999999999999"] {
            assert!(check(bad.as_bytes(), 0).is_err(), "{bad}");
        }
        assert!(check("1.7976931348623157e308".as_bytes(), 0).is_ok());
        assert!(check("9".repeat(308).as_bytes(), 0).is_ok());
        assert!(check("9".repeat(310).as_bytes(), 0).is_err());
        assert!(check(format!("0.{}", "1".repeat(NUMBER_MAX - 2)).as_bytes(), 0).is_ok());
        assert!(check(format!("0.{}", "1".repeat(NUMBER_MAX - 1)).as_bytes(), 0).is_err());
    }
}
