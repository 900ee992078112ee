//! Watches a JSON answer that is too big to hold, as it flows: every byte passes on unchanged, but the handles that
//! the gateway must replace come out as pieces of their own.
//!
//! Watched: `id`, `result.requestState`, `result.taskId`, `result.task.taskId`, each exactly there. Holds at most
//! `handle_max` bytes. Checks that brackets balance, nothing more. Several messages, one after the other, are each
//! watched (RELIABILITY 3.11).

use bytes::{Bytes, BytesMut};

use crate::escape;
use crate::skip::{Nest, Unbalanced};
use crate::swar;

/// A key that is longer than this in its raw spelling is not compared. The longest watched one,
/// with every letter as `\u....`, has 72 bytes.
const KEY_MAX: usize = 128;

/// A part of the answer, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Send it on as it is.
    PassThrough(Bytes),
    /// Replace it by another JSON value, or send it on.
    Handle {
        /// Which one.
        kind: HandleKind,
        /// The raw JSON value, with its quotes if it is a string.
        text: Bytes,
    },
}

/// The handles that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleKind {
    /// `id`: a string or a number.
    Id,
    /// `result.requestState`: a string.
    RequestState,
    /// `result.taskId` or `result.task.taskId`: a string.
    TaskId,
}

/// The answer cannot be sent on further (−31007).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// A handle of more than `handle_max` bytes.
    #[error("a handle of more than {0} bytes")]
    HandleTooLarge(usize),
    /// Brackets, strings or members do not fit together.
    #[error("{0}")]
    Broken(&'static str),
    /// It ended in the middle.
    #[error("the answer ended too early")]
    Incomplete,
}

/// See the module.
#[derive(Debug)]
pub struct AnswerScanner {
    handle_max: usize,
    state: State,
    /// The objects on the way to here, all of them watched.
    path: Vec<Role>,
    /// Open brackets inside a value that is not watched.
    skipped: Nest,
    /// The last byte was a backslash, inside a string.
    after_backslash: bool,
    key: Vec<u8>,
    /// The handle that is being read, and what earlier chunks had of it.
    handle: Option<HandleKind>,
    held: BytesMut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Outside any message.
    Outside,
    /// Before a key or a closing brace.
    Key,
    KeyString,
    Colon,
    Value,
    ValueString,
    Scalar,
    /// After a member's value.
    After,
    /// In a value that is not watched.
    Skip,
    SkipString,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Message,
    Result,
    Task,
}

/// The chunk at hand.
struct Cursor<'a> {
    chunk: &'a Bytes,
    /// First byte that was not handed on.
    from: usize,
    at: usize,
    out: &'a mut Vec<Piece>,
}

impl AnswerScanner {
    /// A scanner before the first byte. `handle_max` bounds one handle's raw bytes.
    pub fn new(handle_max: usize) -> Self {
        Self {
            handle_max,
            state: State::Outside,
            path: Vec::with_capacity(3),
            skipped: Nest::new(),
            after_backslash: false,
            key: Vec::new(),
            handle: None,
            held: BytesMut::new(),
        }
    }

    /// Takes a chunk and appends its pieces to `out`. The bytes of a handle that is cut come with a later chunk.
    ///
    /// # Errors
    /// See [`ScanError`]; nothing may be pushed after one.
    pub fn push(&mut self, chunk: &Bytes, out: &mut Vec<Piece>) -> Result<(), ScanError> {
        let mut cursor = Cursor { chunk, from: 0, at: 0, out };
        while cursor.at < chunk.len() {
            self.step(&mut cursor)?;
        }
        if self.handle.is_some() {
            self.hold(&chunk[cursor.from..])?;
        } else {
            cursor.pass_on();
        }
        Ok(())
    }

    /// At the end of the answer.
    ///
    /// # Errors
    /// [`ScanError::Incomplete`] when it ended inside a message.
    pub fn finish(&self) -> Result<(), ScanError> {
        let whole = self.state == State::Outside || (self.state == State::Scalar && self.path.is_empty());
        if whole { Ok(()) } else { Err(ScanError::Incomplete) }
    }

    fn step(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
        match self.state {
            State::KeyString | State::ValueString | State::SkipString => self.in_string(cursor),
            State::Scalar => self.in_scalar(cursor),
            State::Skip => self.in_skipped(cursor),
            State::Outside | State::Key | State::Colon | State::Value | State::After => {
                let byte = cursor.chunk[cursor.at];
                if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                    cursor.at += 1;
                    return Ok(());
                }
                self.between(cursor, byte)
            }
        }
    }

    /// At a byte of the structure of a watched object.
    fn between(&mut self, cursor: &mut Cursor<'_>, byte: u8) -> Result<(), ScanError> {
        match (self.state, byte) {
            (State::Outside, b'{') => {
                self.path.push(Role::Message);
                self.state = State::Key;
            }
            (State::Outside | State::Value, _) => return self.value(cursor, byte),
            (State::Key, b'"') => {
                self.key.clear();
                self.state = State::KeyString;
            }
            (State::Key | State::After, b'}') => {
                self.path.pop();
                self.value_done();
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::After, b',') => self.state = State::Key,
            _ => return Err(ScanError::Broken("a key, a comma or a brace is missing")),
        }
        cursor.at += 1;
        Ok(())
    }

    /// At the first byte of a value.
    fn value(&mut self, cursor: &mut Cursor<'_>, first: u8) -> Result<(), ScanError> {
        let role = self.path.last().copied();
        if let Some(kind) = role.and_then(|role| watched(role, &self.key))
            && (first == b'"' || (kind == HandleKind::Id && matches!(first, b'-' | b'0'..=b'9')))
        {
            cursor.pass_on();
            self.handle = Some(kind);
        }
        match first {
            b'"' => self.state = State::ValueString,
            b'{' if inner(role, &self.key).is_some() => {
                self.path.extend(inner(role, &self.key));
                self.state = State::Key;
            }
            b'{' | b'[' => {
                self.skipped.push(first == b'{')?;
                self.state = State::Skip;
            }
            _ if is_scalar(first) => {
                self.state = State::Scalar;
                return Ok(());
            }
            _ => return Err(ScanError::Broken("a value is missing")),
        }
        cursor.at += 1;
        Ok(())
    }

    fn in_string(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
        let start = cursor.at;
        let ended = self.string_end(cursor);
        if self.state == State::KeyString && self.key.len() <= KEY_MAX {
            let content = &cursor.chunk[start..cursor.at - usize::from(ended)];
            self.key.extend_from_slice(&content[..content.len().min(KEY_MAX + 1)]);
        }
        if !ended {
            return Ok(());
        }
        match self.state {
            State::KeyString => {
                if self.key.contains(&b'\\') {
                    let raw = std::mem::take(&mut self.key);
                    escape::unescape_into(&raw, &mut self.key);
                }
                self.state = State::Colon;
            }
            State::SkipString => self.state = State::Skip,
            _ => {
                self.handle_done(cursor)?;
                self.value_done();
            }
        }
        Ok(())
    }

    /// Goes behind the closing quote; false if the chunk ends before it.
    fn string_end(&mut self, cursor: &mut Cursor<'_>) -> bool {
        if self.after_backslash {
            self.after_backslash = false;
            cursor.at += 1;
        }
        loop {
            cursor.at = swar::quote_or_backslash(cursor.chunk, cursor.at.min(cursor.chunk.len()));
            match cursor.chunk.get(cursor.at) {
                Some(b'"') => {
                    cursor.at += 1;
                    return true;
                }
                Some(_) if cursor.at + 1 == cursor.chunk.len() => {
                    self.after_backslash = true;
                    cursor.at += 1;
                    return false;
                }
                Some(_) => cursor.at += 2,
                None => return false,
            }
        }
    }

    fn in_scalar(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
        while cursor.chunk.get(cursor.at).is_some_and(|byte| is_scalar(*byte)) {
            cursor.at += 1;
        }
        if cursor.at < cursor.chunk.len() {
            self.handle_done(cursor)?;
            self.value_done();
        }
        Ok(())
    }

    fn in_skipped(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
        while let Some(&byte) = cursor.chunk.get(cursor.at) {
            cursor.at += 1;
            match byte {
                b'"' => {
                    self.state = State::SkipString;
                    return Ok(());
                }
                b'{' | b'[' => self.skipped.push(byte == b'{')?,
                b'}' | b']' => {
                    self.skipped.pop(byte == b'}')?;
                    if self.skipped.depth() == 0 {
                        self.value_done();
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn value_done(&mut self) {
        self.state = if self.path.is_empty() { State::Outside } else { State::After };
    }

    /// The handle, if one was being read, ends here.
    fn handle_done(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
        let Some(kind) = self.handle.take() else { return Ok(()) };
        let mut text = cursor.chunk.slice(cursor.from..cursor.at);
        if self.held.len() + text.len() > self.handle_max {
            return Err(ScanError::HandleTooLarge(self.handle_max));
        }
        if !self.held.is_empty() {
            self.held.extend_from_slice(&text);
            text = self.held.split().freeze();
        }
        cursor.from = cursor.at;
        cursor.out.push(Piece::Handle { kind, text });
        Ok(())
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), ScanError> {
        if self.held.len() + part.len() > self.handle_max {
            return Err(ScanError::HandleTooLarge(self.handle_max));
        }
        self.held.extend_from_slice(part);
        Ok(())
    }
}

impl Cursor<'_> {
    fn pass_on(&mut self) {
        if self.from < self.at {
            self.out.push(Piece::PassThrough(self.chunk.slice(self.from..self.at)));
            self.from = self.at;
        }
    }
}

impl From<Unbalanced> for ScanError {
    fn from(unbalanced: Unbalanced) -> Self {
        Self::Broken(unbalanced.0)
    }
}

fn watched(role: Role, key: &[u8]) -> Option<HandleKind> {
    match (role, key) {
        (Role::Message, b"id") => Some(HandleKind::Id),
        (Role::Result, b"requestState") => Some(HandleKind::RequestState),
        (Role::Result | Role::Task, b"taskId") => Some(HandleKind::TaskId),
        _ => None,
    }
}

/// The role of an object under this key, if anything in it is watched.
fn inner(role: Option<Role>, key: &[u8]) -> Option<Role> {
    match (role, key) {
        (Some(Role::Message), b"result") => Some(Role::Result),
        (Some(Role::Result), b"task") => Some(Role::Task),
        _ => None,
    }
}

fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

#[cfg(test)]
mod tests;
