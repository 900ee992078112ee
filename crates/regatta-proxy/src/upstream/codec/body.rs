//! The body of an answer, from bytes as they come: how it is framed, and where it ends (RFC 9112 6.3).
//!
//! What is wrong stays wrong: once malformed, a body gives nothing more.

use bytes::Bytes;

use super::chunked::{Chunked, fitting};

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyReader(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// After so many bytes; not zero.
    Length(u64),
    /// By its own coding.
    Chunked(Chunked),
    /// With the connection.
    UntilClose,
    /// It has ended.
    End,
    /// It can have no end.
    Malformed,
}

/// What comes next in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Data; not empty.
    Data(&'a [u8]),
    /// Nothing, until there are more bytes.
    More,
    /// Its end; what is left of the bytes does not belong to it.
    End,
    /// What is no body.
    Malformed,
}

impl BodyReader {
    /// No body, or none any more.
    pub const NONE: BodyReader = BodyReader(State::End);

    /// A body of `length` bytes.
    pub(super) fn of_length(length: u64) -> BodyReader {
        BodyReader(if length == 0 { State::End } else { State::Length(length) })
    }

    /// A body in chunks.
    pub(super) fn chunked() -> BodyReader {
        BodyReader(State::Chunked(Chunked::new()))
    }

    /// A body that ends with its connection.
    pub(super) fn until_close() -> BodyReader {
        BodyReader(State::UntilClose)
    }

    /// Reads on in `input`, which loses what was read.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Step<'a> {
        match &mut self.0 {
            State::End => Step::End,
            State::Malformed => Step::Malformed,
            State::Length(_) | State::UntilClose if input.is_empty() => Step::More,
            State::UntilClose => Step::Data(std::mem::take(input)),
            State::Length(left) => {
                let (data, rest) = input.split_at(fitting(*left, input.len()));
                *input = rest;
                *left -= data.len() as u64;
                if *left == 0 {
                    self.0 = State::End;
                }
                Step::Data(data)
            }
            State::Chunked(chunked) => {
                let step = chunked.next(input);
                match step {
                    Step::End => self.0 = State::End,
                    Step::Malformed => self.0 = State::Malformed,
                    Step::Data(_) | Step::More => {}
                }
                step
            }
        }
    }

    /// All data in `input`, in one piece; what is left in `input` does not belong to the body.
    pub fn take(&mut self, input: &mut &[u8]) -> Bytes {
        let Step::Data(first) = self.next(input) else { return Bytes::new() };
        let room = first.len() + input.len();
        let Step::Data(second) = self.next(input) else { return Bytes::copy_from_slice(first) };
        let mut all = Vec::with_capacity(room);
        all.extend_from_slice(first);
        all.extend_from_slice(second);
        while let Step::Data(more) = self.next(input) {
            all.extend_from_slice(more);
        }
        Bytes::from(all)
    }

    /// The connection ended: whether the body did, too.
    pub fn close(&mut self) -> bool {
        if self.0 == State::UntilClose {
            self.0 = State::End;
        }
        self.has_ended()
    }

    /// Whether all of it came.
    pub fn has_ended(&self) -> bool {
        self.0 == State::End
    }

    /// Whether it can have no end.
    pub fn is_malformed(&self) -> bool {
        self.0 == State::Malformed
    }

    /// Bytes to come, if that is known.
    pub(in crate::upstream) fn left(&self) -> Option<u64> {
        match self.0 {
            State::Length(left) => Some(left),
            State::End => Some(0),
            State::Chunked(_) | State::UntilClose | State::Malformed => None,
        }
    }
}
