//! The chunked coding (RFC 9112 7.1), read strictly: lines end in CRLF, sizes are hexadecimal and nothing else.
//!
//! Extensions and trailers are passed over, within bounds; trailers are never merged (RFC 9110 6.5.1).

use super::body::Step;

/// Bytes of one chunk's extension.
const EXTENSION_MAX: u32 = 4 << 10;
/// Bytes of all trailers.
const TRAILERS_MAX: u32 = 16 << 10;
/// Digits of a size: what fits in 64 bits.
const DIGITS_MAX: u32 = 16;
/// Digits of a size that is read in one leap.
const LEAP_DIGITS_MAX: usize = 8;

/// Where in the coding we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// In a size, of which so many digits came.
    Size { size: u64, digits: u32 },
    /// Between a size and what follows it.
    Blank { size: u64 },
    /// In an extension.
    Extension { size: u64, bytes: u32 },
    /// Before the LF that ends the line of a size.
    SizeEnd { size: u64 },
    /// In the data of a chunk.
    Data { left: u64 },
    /// Before the CR that follows the data.
    DataCr,
    /// Before the LF that follows the data.
    DataLf,
    /// At the beginning of a trailer line, after so many bytes of trailers.
    TrailerStart { bytes: u32 },
    /// In a trailer line.
    Trailer { bytes: u32 },
    /// Before the LF of a trailer line.
    TrailerLf { bytes: u32 },
    /// Before the last LF.
    LastLf,
    /// All was read.
    End,
}

impl Chunked {
    pub(super) fn new() -> Chunked {
        Chunked::Size { size: 0, digits: 0 }
    }

    /// Reads on in `input`, which loses what was read.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Step<'a> {
        loop {
            if let Chunked::Data { left } = self {
                if input.is_empty() {
                    return Step::More;
                }
                let (data, rest) = input.split_at(fitting(*left, input.len()));
                *input = rest;
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Chunked::DataCr;
                }
                return Step::Data(data);
            }
            if *self == Chunked::End {
                return Step::End;
            }
            if let Some((next, length)) = self.leap(input) {
                *self = next;
                *input = &input[length..];
                continue;
            }
            let Some((byte, rest)) = input.split_first() else { return Step::More };
            *input = rest;
            match self.after(*byte) {
                Some(next) => *self = next,
                None => return Step::Malformed,
            }
        }
    }

    /// What follows a line that came whole and in its plainest form, and how long it is. All else goes byte by byte.
    fn leap(self, input: &[u8]) -> Option<(Chunked, usize)> {
        match self {
            Chunked::DataCr if input.starts_with(b"\r\n") => Some((Chunked::new(), 2)),
            Chunked::Size { digits: 0, .. } => {
                let digits = input.iter().take(LEAP_DIGITS_MAX + 1).position(|byte| *byte == b'\r')?;
                let mut left = 0;
                for digit in &input[..digits] {
                    left = left << 4 | u64::from(char::from(*digit).to_digit(16)?);
                }
                let is_data = left > 0 && input.get(digits + 1) == Some(&b'\n');
                is_data.then_some((Chunked::Data { left }, digits + 2))
            }
            _of_other_lines => None,
        }
    }

    /// What follows `byte`; `None` if it must not stand here. Never asked about data.
    fn after(self, byte: u8) -> Option<Chunked> {
        Some(match (self, byte) {
            (Chunked::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16)?;
                Chunked::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Chunked::Size { size, digits: 1.. } | Chunked::Blank { size }, b'\r') => {
                Chunked::SizeEnd { size }
            }
            (Chunked::Size { size, digits: 1.. } | Chunked::Blank { size }, b';') => {
                Chunked::Extension { size, bytes: 0 }
            }
            // Blanks behind a size are bad form that is common (RFC 9112 7.1.1).
            (Chunked::Size { size, digits: 1.. } | Chunked::Blank { size }, b' ' | b'\t') => {
                Chunked::Blank { size }
            }
            (Chunked::Extension { size, .. }, b'\r') => Chunked::SizeEnd { size },
            (Chunked::Extension { size, bytes }, _) if byte != b'\n' && bytes < EXTENSION_MAX => {
                Chunked::Extension { size, bytes: bytes + 1 }
            }
            (Chunked::SizeEnd { size: 0 }, b'\n') => Chunked::TrailerStart { bytes: 0 },
            (Chunked::SizeEnd { size }, b'\n') => Chunked::Data { left: size },
            (Chunked::DataCr, b'\r') => Chunked::DataLf,
            (Chunked::DataLf, b'\n') => Chunked::new(),
            (Chunked::TrailerStart { .. }, b'\r') => Chunked::LastLf,
            (Chunked::Trailer { bytes }, b'\r') => Chunked::TrailerLf { bytes },
            (Chunked::TrailerLf { bytes }, b'\n') => Chunked::TrailerStart { bytes },
            (Chunked::TrailerStart { bytes } | Chunked::Trailer { bytes }, _)
                if byte != b'\n' && bytes < TRAILERS_MAX =>
            {
                Chunked::Trailer { bytes: bytes + 1 }
            }
            (Chunked::LastLf, b'\n') => Chunked::End,
            _nothing_else_may_follow => return None,
        })
    }
}

/// The smaller of both, as a length.
pub(super) fn fitting(left: u64, length: usize) -> usize {
    usize::try_from(left).map_or(length, |left| left.min(length))
}
