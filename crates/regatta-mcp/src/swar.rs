//! Byte searches, eight bytes at a time in a `u64`: the strings of ordinary messages are too short for the
//! start-up costs of vector code, and too long for a loop over bytes. Longer ones are gone through in blocks.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;
/// Bytes that one step over a long string takes: two registers of the smallest vectors.
const BLOCK: usize = 32;

/// Index of the first quote, backslash, control character (< 0x20) or byte beyond ASCII at or after `from`; the length
/// if none.
#[inline(always)]
pub(crate) fn string_stop(text: &[u8], from: usize) -> usize {
    // The first word is apart from the loop: most strings end in it.
    match text.get(from..).and_then(<[u8]>::first_chunk::<8>).map(stops) {
        Some(0) => string_stop_further(text, from + 8),
        Some(found) => from + found.trailing_zeros() as usize / 8,
        None => string_stop_near_end(text, from),
    }
}

#[inline(never)]
fn string_stop_further(text: &[u8], from: usize) -> usize {
    let mut at = from;
    // A string that is longer than two words may be much longer.
    while text.get(at..).and_then(<[u8]>::first_chunk::<BLOCK>).is_some_and(is_quiet) {
        at += BLOCK;
    }
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let found = stops(chunk);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    string_stop_near_end(text, at)
}

/// Whether nothing in a block stops: no branch in it, so that the compiler makes vector code.
#[inline(always)]
fn is_quiet(block: &[u8; BLOCK]) -> bool {
    let stops = |byte: u8| (byte == b'"') | (byte == b'\\') | (byte.cast_signed() < 0x20);
    !block.iter().fold(false, |found, byte| found | stops(*byte))
}

#[inline(never)]
fn string_stop_near_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while text.get(at).is_some_and(|byte| *byte != b'"' && *byte != b'\\' && (0x20..0x80).contains(byte)) {
        at += 1;
    }
    at
}

/// High bits at quotes, backslashes, control characters and beyond ASCII; the lowest is right, as in [`zeros`].
#[inline(always)]
fn stops(chunk: &[u8; 8]) -> u64 {
    let word = u64::from_le_bytes(*chunk);
    // A byte without its high bit has it after a subtraction only if it was less. Those with it stop anyway.
    let less = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ (ONES * 0x22)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    (word | less | quote | backslash) & HIGHS
}

/// The same, but beyond ASCII nothing stops.
pub(crate) fn string_stop_beyond_ascii(text: &[u8], from: usize) -> usize {
    let mut at = string_stop(text, from);
    while let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let found = zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5c)) | controls(word);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|byte| *byte != b'"' && *byte != b'\\' && *byte >= 0x20) {
        at += 1;
    }
    at
}

/// Index of the first quote or backslash at or after `from`; the length if none. Two words by hand, then vector
/// code: a server's strings are short names or very long contents.
#[inline(always)]
pub(crate) fn quote_or_backslash(text: &[u8], from: usize) -> usize {
    match text.get(from..).and_then(<[u8]>::first_chunk::<8>).map(quotes) {
        Some(0) | None => quote_or_backslash_further(text, from),
        Some(found) => from + found.trailing_zeros() as usize / 8,
    }
}

#[inline(never)]
fn quote_or_backslash_further(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let found = rest.get(8..).and_then(<[u8]>::first_chunk::<8>).map_or(0, quotes);
    if found != 0 {
        // The first word was looked at before, and had nothing.
        return from + 8 + found.trailing_zeros() as usize / 8;
    }
    memchr::memchr2(b'"', b'\\', rest).map_or(text.len(), |more| from + more)
}

/// High bits at quotes and backslashes; the lowest is right.
#[inline(always)]
fn quotes(chunk: &[u8; 8]) -> u64 {
    let word = u64::from_le_bytes(*chunk);
    zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5c))
}

/// High bits at the zero bytes. Bits above the lowest one may be wrong (a borrow), the lowest never is.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// High bits at the bytes below 0x20; the lowest is right, as in [`zeros`].
#[inline]
fn controls(word: u64) -> u64 {
    word.wrapping_sub(ONES * 0x20) & !word & HIGHS
}

#[cfg(test)]
mod tests {
    use super::{quote_or_backslash, string_stop, string_stop_beyond_ascii};

    #[test]
    fn finds_each_stop_at_each_place() {
        for length in 0..100 {
            for place in 0..length {
                for stop in [b'"', b'\\', 0, 0x1f, b'\n', 0x80, 0xff, 0xa2, 0xdc] {
                    let mut text = vec![b' '; length];
                    text[place] = stop;
                    assert_eq!(string_stop(&text, 0), place);
                    assert_eq!(string_stop(&text, place), place);
                    let beyond = if stop < 0x80 { place } else { length };
                    assert_eq!(string_stop_beyond_ascii(&text, 0), beyond);
                    let quote = if stop == b'"' || stop == b'\\' { place } else { length };
                    assert_eq!(quote_or_backslash(&text, 0), quote);
                }
            }
            let quiet = vec![0xff; length];
            assert_eq!(string_stop_beyond_ascii(&quiet, 0), length);
            assert_eq!(quote_or_backslash(&quiet, 0), length);
        }
    }

    #[test]
    fn the_first_of_two_stops_wins() {
        for first in 0..16 {
            for second in first..16 {
                let mut text = [b'!'; 16];
                text[second] = b'\\';
                text[first] = b'"';
                assert_eq!(string_stop(&text, 0), first);
                assert_eq!(quote_or_backslash(&text, 0), first);
            }
        }
    }
}
