//! The signals a gateway listens to: SIGTERM and SIGINT end it, SIGHUP reloads it.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// End, politely.
    End,
    /// Read the config again.
    Reload,
}

/// The signals, caught from the moment this is made.
#[derive(Debug)]
pub struct Signs {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signs {
    /// Catches the signals. Needs a tokio runtime with IO.
    pub fn new() -> io::Result<Signs> {
        Ok(Signs {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// The next sign. Cancel safe.
    pub async fn next(&mut self) -> Sign {
        tokio::select! {
            _ = self.term.recv() => Sign::End,
            _ = self.int.recv() => Sign::End,
            _ = self.hup.recv() => Sign::Reload,
        }
    }

    /// The next sign to end; others are passed over. Cancel safe.
    pub async fn end(&mut self) {
        while self.next().await != Sign::End {}
    }
}
