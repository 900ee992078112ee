//! The deviation record: where a session differs from what its token says (SESSIONS 3).
//!
//! Pure content, changes and merging. The store keeps the bytes and decides by compare-and-set who wrote first; who
//! lost reads the winner's record and makes the same change on it, or gives way. Every list has a bound.

use std::collections::BTreeSet;

use crate::ids::ReplicaId;
use crate::layout::{Reader, Writer};
use crate::token::{Binding, read_binding, write_binding};

/// Layout 1; what a later version appends is skipped.
const FORMAT: u8 = 1;

/// Retired pairs that are remembered; the oldest goes first.
pub const RETIRED_MAX: usize = 16;
/// Later bindings of one session; the oldest gives way.
pub const LATER_MAX: usize = 8;
/// Bytes of one subscribed URI.
pub const URI_MAX: usize = 8 << 10;

/// The log levels of MCP, from the chattiest (2025-11-25 server/utilities/logging, RFC 5424).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// `debug`.
    Debug = 1,
    /// `info`.
    Info = 2,
    /// `notice`.
    Notice = 3,
    /// `warning`.
    Warning = 4,
    /// `error`.
    Error = 5,
    /// `critical`.
    Critical = 6,
    /// `alert`.
    Alert = 7,
    /// `emergency`.
    Emergency = 8,
}

impl LogLevel {
    const ALL: [LogLevel; 8] = [
        LogLevel::Debug,
        LogLevel::Info,
        LogLevel::Notice,
        LogLevel::Warning,
        LogLevel::Error,
        LogLevel::Critical,
        LogLevel::Alert,
        LogLevel::Emergency,
    ];

    /// The level of this name.
    pub fn named(name: &str) -> Option<LogLevel> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Notice => "notice",
            LogLevel::Warning => "warning",
            LogLevel::Error => "error",
            LogLevel::Critical => "critical",
            LogLevel::Alert => "alert",
            LogLevel::Emergency => "emergency",
        }
    }

    /// Whether a client that asked for this level wants a message of `level`.
    pub fn admits(self, level: LogLevel) -> bool {
        level >= self
    }
}

/// A binding that took the place of one in the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebound {
    /// The replica that the token names: it says which of the token's bindings is meant.
    pub issued: ReplicaId,
    /// Where the session is now.
    pub to: Binding,
    /// Random, new with every re-home: ids sealed under an older binding are told apart (SESSIONS 6).
    pub etag: [u8; 16],
}

/// A second binding, at a replica that has tools which the session's own replica lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Later {
    /// Where it is. No two are at one replica.
    pub to: Binding,
    /// Random, as for a binding that moved.
    pub etag: [u8; 16],
}

/// The content of a session's record. The default says nothing: as good as no record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deviation {
    /// The session is over; no change takes it back.
    pub ended: bool,
    /// The last `logging/setLevel`.
    pub log_level: Option<LogLevel>,
    /// Bindings that moved, at most one for each of the token's.
    pub rebound: Vec<Rebound>,
    /// Upstream sessions that were left behind at a replica that was gone: DELETE them before it gets traffic again.
    /// Oldest first, at most [`RETIRED_MAX`].
    pub retired: Vec<Binding>,
    /// URIs with a live `resources/subscribe`.
    pub subscriptions: BTreeSet<String>,
    /// Bindings beside the session's own, oldest first, at most [`LATER_MAX`].
    pub later: Vec<Later>,
}

/// One change of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The session left the replica that held it for `to`.
    Rehome {
        /// The binding in the token.
        issued: &'a Binding,
        /// The new one.
        to: &'a Binding,
        /// Random.
        etag: [u8; 16],
    },
    /// A later binding was opened for a tool, perhaps in place of one that was lost.
    Settle {
        /// The later binding that is given up.
        left: Option<&'a Binding>,
        /// The new one.
        to: &'a Binding,
        /// Random.
        etag: [u8; 16],
        /// All replicas that would do: a binding at one of them that somebody else made is as good.
        places: &'a [ReplicaId],
    },
    /// `logging/setLevel`: the last writer wins.
    SetLogLevel(LogLevel),
    /// `resources/subscribe`, before it is forwarded.
    Subscribe(&'a str),
    /// `resources/unsubscribe`, or a subscription that was refused upstream.
    Unsubscribe(&'a str),
    /// A retired upstream session was deleted where it was left behind.
    Cleared(&'a Binding),
    /// DELETE.
    End,
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The record differs: write it.
    Changed,
    /// It said so already: nothing to write.
    Same,
}

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `subscriptions_max` is reached.
    #[error("the session has too many subscriptions")]
    Subscriptions,
    /// The URI is longer than [`URI_MAX`].
    #[error("the URI is too long")]
    Uri,
    /// The session is over.
    #[error("the session is over")]
    Ended,
}

/// The bytes are no record that this version understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session record of a layout unknown here")]
pub struct UnknownRecord;

impl Deviation {
    /// Where the session of the token's binding `issued` is now, and the etag of that binding (zeros if it never moved).
    pub fn binding<'a>(&'a self, issued: &'a Binding) -> (&'a Binding, [u8; 16]) {
        let rebound = self.rebound.iter().find(|rebound| rebound.issued == issued.replica);
        rebound.map_or((issued, [0; 16]), |rebound| (&rebound.to, rebound.etag))
    }

    /// Makes `change`. `subscriptions_max` bounds the URIs.
    pub fn apply(&mut self, change: Change<'_>, subscriptions_max: usize) -> Result<Applied, Refused> {
        if self.ended {
            return if change == Change::End { Ok(Applied::Same) } else { Err(Refused::Ended) };
        }
        let changed = match change {
            Change::Rehome { issued, to, etag } => self.rehome(issued, to, etag),
            Change::Settle { left, to, etag, places } => self.settle(left, to, etag, places),
            Change::SetLogLevel(level) => self.log_level.replace(level) != Some(level),
            Change::Subscribe(uri) => self.subscribe(uri, subscriptions_max)?,
            Change::Unsubscribe(uri) => self.subscriptions.remove(uri),
            Change::Cleared(binding) => {
                let before = self.retired.len();
                self.retired.retain(|retired| retired != binding);
                self.retired.len() != before
            }
            Change::End => {
                self.ended = true;
                true
            }
        };
        Ok(if changed { Applied::Changed } else { Applied::Same })
    }

    /// Brings a record that was kept here while the store was away (`self`) together with the one the store has.
    ///
    /// The store's bindings win, and what we had bound instead is retired; an end holds whoever saw it; subscriptions
    /// of both live on (spurious is allowed, missing is not); our log level is the later one if we have any.
    pub fn merge(&self, stored: &Deviation, subscriptions_max: usize) -> Deviation {
        let mut merged = stored.clone();
        merged.ended |= self.ended;
        merged.log_level = self.log_level.or(stored.log_level);
        let room = subscriptions_max.saturating_sub(stored.subscriptions.len());
        let missing = self.subscriptions.difference(&stored.subscriptions).take(room);
        merged.subscriptions.extend(missing.cloned());
        for ours in &self.rebound {
            match stored.rebound.iter().find(|theirs| theirs.issued == ours.issued) {
                None => merged.rebound.push(ours.clone()),
                Some(theirs) if theirs.to != ours.to => merged.retire(ours.to.clone()),
                Some(_) => {}
            }
        }
        for retired in &self.retired {
            merged.retire(retired.clone());
        }
        for ours in &self.later {
            match stored.later.iter().find(|theirs| theirs.to.replica == ours.to.replica) {
                None if merged.later.len() < LATER_MAX => merged.later.push(ours.clone()),
                Some(theirs) if theirs.to == ours.to => {}
                None | Some(_) => merged.retire(ours.to.clone()),
            }
        }
        // What lives must never be deleted, whoever retired it.
        let Deviation { rebound, retired, later, .. } = &mut merged;
        retired.retain(|retired| {
            let is_other = |to: &Binding| to.upstream_session != retired.upstream_session;
            rebound.iter().all(|rebound| is_other(&rebound.to)) && later.iter().all(|one| is_other(&one.to))
        });
        merged
    }

    fn rehome(&mut self, issued: &Binding, to: &Binding, etag: [u8; 16]) -> bool {
        let left = self.binding(issued).0.clone();
        if left == *to {
            return false;
        }
        let rebound = Rebound { issued: issued.replica, to: to.clone(), etag };
        match self.rebound.iter_mut().find(|rebound| rebound.issued == issued.replica) {
            Some(old) => *old = rebound,
            None => self.rebound.push(rebound),
        }
        self.retired.retain(|retired| retired.upstream_session != to.upstream_session);
        self.retire(left);
        true
    }

    /// The later binding at one of `places`, if there is one.
    pub fn later_at(&self, places: &[ReplicaId]) -> Option<&Later> {
        self.later.iter().find(|later| places.contains(&later.to.replica))
    }

    fn settle(&mut self, left: Option<&Binding>, to: &Binding, etag: [u8; 16], places: &[ReplicaId]) -> bool {
        if let Some(left) = left {
            // Somebody else gave it up already, and made another if one was needed.
            let Some(at) = self.later.iter().position(|later| later.to == *left) else { return false };
            self.later.remove(at);
            self.retire(left.clone());
        }
        if self.later_at(places).is_some() {
            return left.is_some();
        }
        if self.later.len() == LATER_MAX {
            let oldest = self.later.remove(0);
            self.retire(oldest.to);
        }
        self.retired.retain(|retired| retired.upstream_session != to.upstream_session);
        self.later.push(Later { to: to.clone(), etag });
        true
    }

    /// Remembers an upstream session left behind, unless the session lives in it, or there was none. Replicas that share
    /// their sessions know it under one name at every place: ended at one, it would be over at all.
    fn retire(&mut self, left: Binding) {
        let is_it = |to: &Binding| to.upstream_session == left.upstream_session;
        let alive = self.rebound.iter().any(|rebound| is_it(&rebound.to))
            || self.later.iter().any(|later| is_it(&later.to));
        if left.upstream_session.is_none() || alive || self.retired.contains(&left) {
            return;
        }
        if self.retired.len() == RETIRED_MAX {
            self.retired.remove(0);
        }
        self.retired.push(left);
    }

    fn subscribe(&mut self, uri: &str, subscriptions_max: usize) -> Result<bool, Refused> {
        if self.subscriptions.contains(uri) {
            return Ok(false);
        }
        if uri.len() > URI_MAX {
            return Err(Refused::Uri);
        }
        if self.subscriptions.len() >= subscriptions_max {
            return Err(Refused::Subscriptions);
        }
        Ok(self.subscriptions.insert(uri.to_owned()))
    }

    /// The bytes for the store.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.byte(FORMAT);
        writer.byte(u8::from(self.ended));
        writer.byte(self.log_level.map_or(0, |level| level as u8));
        writer.number(self.rebound.len() as u64);
        for rebound in &self.rebound {
            writer.nested(|writer| {
                writer.array(rebound.issued.0);
                write_binding(writer, &rebound.to);
                writer.array(rebound.etag);
            });
        }
        writer.number(self.retired.len() as u64);
        for retired in &self.retired {
            writer.nested(|writer| write_binding(writer, retired));
        }
        writer.number(self.subscriptions.len() as u64);
        self.subscriptions.iter().for_each(|uri| writer.bytes(uri.as_bytes()));
        // Appended last: a gateway that knows nothing of later bindings reads all the rest.
        writer.number(self.later.len() as u64);
        for later in &self.later {
            writer.nested(|writer| {
                write_binding(writer, &later.to);
                writer.array(later.etag);
            });
        }
        writer.finish()
    }

    /// The record in bytes of the store.
    pub fn from_bytes(bytes: &[u8]) -> Result<Deviation, UnknownRecord> {
        read(&mut Reader(bytes)).ok_or(UnknownRecord)
    }
}

fn read(reader: &mut Reader<'_>) -> Option<Deviation> {
    if reader.byte()? != FORMAT {
        return None;
    }
    // Bits of `ended` that a later version gives a meaning are not ours to judge.
    let ended = reader.byte()? & 1 == 1;
    let log_level = match reader.byte()? {
        0 => None,
        code => Some(LogLevel::ALL.into_iter().find(|level| *level as u8 == code)?),
    };
    let rebound = list(reader, |reader| {
        let mut inner = Reader(reader.bytes()?);
        let issued = ReplicaId(inner.array()?);
        Some(Rebound { issued, to: read_binding(&mut inner)?, etag: inner.array()? })
    })?;
    let retired = list(reader, |reader| read_binding(&mut Reader(reader.bytes()?)))?;
    let subscriptions = list(reader, |reader| reader.text())?.into_iter().collect();
    // Records of gateways that knew nothing of later bindings end here.
    let later = match reader.0 {
        [] => Vec::new(),
        _more => list(reader, |reader| {
            let mut inner = Reader(reader.bytes()?);
            Some(Later { to: read_binding(&mut inner)?, etag: inner.array()? })
        })?,
    };
    Some(Deviation { ended, log_level, rebound, retired, subscriptions, later })
}

fn list<T>(reader: &mut Reader<'_>, mut item: impl FnMut(&mut Reader<'_>) -> Option<T>) -> Option<Vec<T>> {
    // Each item takes at least a byte, so the bytes bound the list whatever its length claims.
    (0..reader.number()?).map(|_| item(reader)).collect()
}

#[cfg(test)]
mod tests;
