//! One keep-alive connection of the load: writes a request, reads its answer.
//!
//! Nothing is sent twice: a connection that breaks is an error of its call, and the next call gets a new one.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Era;
use super::message;
use super::tally::Run;
use super::target::Target;
use crate::wire::{Broken, Head, Parser};

const READ_SIZE: usize = 16 * 1024;

/// A connection, or the wish for one.
pub struct Conn {
    target: Target,
    stream: Option<TcpStream>,
    chunk: Vec<u8>,
    parser: Parser,
}

impl Conn {
    /// A connection to `target`; it is made by the first exchange.
    pub fn to(target: Target) -> Conn {
        Conn { target, stream: None, chunk: vec![0; READ_SIZE], parser: Parser::default() }
    }

    /// Sends `request` and waits for the whole answer.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<(&Head, &[u8])> {
        self.begin(request).await?;
        while !self.parser.is_done() {
            self.more().await?;
        }
        let head = self.parser.head().ok_or_else(|| broken(Broken::Head))?;
        if head.close {
            self.stream = None;
        }
        Ok((head, &self.parser.body))
    }

    /// Sends `request` and waits for the head of the answer; the body is taken with [`Conn::more`].
    pub async fn start(&mut self, request: &[u8]) -> io::Result<&Head> {
        self.begin(request).await?;
        while self.parser.head().is_none() {
            self.more().await?;
        }
        self.parser.head().ok_or_else(|| broken(Broken::Head))
    }

    /// The bytes of the body that have come and were not yet taken.
    pub fn body(&mut self) -> &mut Vec<u8> {
        &mut self.parser.body
    }

    /// Waits for more of the answer; `false` when it is complete.
    pub async fn more(&mut self) -> io::Result<bool> {
        if self.parser.is_done() {
            return Ok(false);
        }
        let result = self.read().await;
        if result.is_err() {
            self.stream = None;
        }
        result?;
        Ok(!self.parser.is_done())
    }

    async fn begin(&mut self, request: &[u8]) -> io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.target.address).await?;
            stream.set_nodelay(true)?;
            self.parser = Parser::default();
            self.stream = Some(stream);
        }
        self.parser.begin();
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        let written = stream.write_all(request).await;
        if written.is_err() {
            self.stream = None;
        }
        written
    }

    async fn read(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        match stream.read(&mut self.chunk).await? {
            0 => {
                self.parser.end().map_err(broken)?;
                self.stream = None;
            }
            length => {
                self.parser.push(&self.chunk[..length]).map_err(broken)?;
            }
        }
        Ok(())
    }
}

/// Shakes hands in the plan's era. `Ok(None)`: the era or the server has no sessions.
pub async fn shake_hands(conn: &mut Conn, run: &Run, target: &Target) -> io::Result<Option<String>> {
    if run.plan.era == Era::Modern {
        return Ok(None);
    }
    let (head, body) = conn.exchange(message::initialize(target).stamp(run.id())).await?;
    if head.status != 200 || memchr::memmem::find(body, b"\"result\"").is_none() {
        return Err(io::Error::other(format!("initialize was answered with {}", head.status)));
    }
    let session = head.session.clone();
    let (head, _) =
        conn.exchange(message::initialized(target, session.as_deref()).stamp(message::ID_FIRST)).await?;
    match head.status {
        200 | 202 => Ok(session),
        status => Err(io::Error::other(format!("notifications/initialized was answered with {status}"))),
    }
}

/// A framing error as an IO error.
pub fn broken(why: Broken) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an answer: {why:?}"))
}
