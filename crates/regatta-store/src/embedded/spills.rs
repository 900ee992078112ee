//! Spilled streams in memory: for a client that comes back to the same process.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::expiring::Expiring;
use super::{Embedded, ready};
use crate::{BoxFuture, Course, Recalled, SpilledEvent, Spills, StoreError, StreamName};

/// What spilled streams may take.
#[derive(Clone, Copy, Debug)]
pub struct SpillBounds {
    /// Streams; one more is refused.
    pub streams_max: usize,
    /// Events of a stream; the oldest go.
    pub events_max: usize,
    /// Bytes of the events of a stream; the oldest go.
    pub bytes_max: usize,
    /// Bytes of the events of all streams; what would be more is refused.
    pub total_bytes_max: usize,
    /// Bytes of events in one answer of `recall`, but for the first event.
    pub recall_bytes_max: usize,
    /// How long a stream is held after its last event.
    pub ttl: Duration,
}

impl Default for SpillBounds {
    fn default() -> Self {
        SpillBounds {
            streams_max: 10_000,
            events_max: 1000,
            bytes_max: 4 << 20,
            total_bytes_max: 64 << 20,
            recall_bytes_max: 1 << 20,
            ttl: Duration::from_secs(300),
        }
    }
}

pub(super) struct SpillTable {
    streams: Mutex<Expiring<StreamName, Spilled>>,
    bounds: SpillBounds,
    refused: AtomicU64,
}

#[derive(Default)]
struct Spilled {
    events: VecDeque<Bytes>,
    first: u64,
    next: u64,
    bytes: usize,
    ended: bool,
}

impl Spilled {
    /// Appends an event; gives how many older ones had to go.
    fn append(&mut self, event: SpilledEvent, bounds: &SpillBounds) -> u64 {
        let SpilledEvent { sequence, bytes } = event;
        if sequence < self.next {
            return 0;
        }
        let mut dropped = 0;
        if self.next < sequence {
            dropped = self.events.len() as u64;
            self.events.clear();
            (self.first, self.bytes) = (sequence, 0);
        }
        self.bytes += bytes.len();
        self.events.push_back(bytes);
        self.next = sequence + 1;
        while self.events.len() > bounds.events_max || self.bytes > bounds.bytes_max {
            self.bytes -= self.events.pop_front().map_or(0, |event| event.len());
            self.first += 1;
            dropped += 1;
        }
        dropped
    }

    fn recall(&self, from: u64, events_max: usize, bytes_max: usize) -> Recalled {
        let begin = from.clamp(self.first, self.next);
        let mut bytes = 0;
        let held = self.events.iter().skip((begin - self.first) as usize).take(events_max);
        let fitting = held.enumerate().take_while(|(at, event)| {
            bytes += event.len();
            *at == 0 || bytes <= bytes_max
        });
        let numbered =
            fitting.map(|(at, event)| SpilledEvent { sequence: begin + at as u64, bytes: event.clone() });
        Recalled {
            events: numbered.collect(),
            first: self.first,
            next: self.next,
            course: if self.ended { Course::Ended } else { Course::Open },
        }
    }
}

impl SpillTable {
    pub(super) fn new(bounds: SpillBounds) -> SpillTable {
        let streams = Mutex::new(Expiring::new(bounds.streams_max));
        SpillTable { streams, bounds, refused: AtomicU64::new(0) }
    }

    fn streams(&self) -> MutexGuard<'_, Expiring<StreamName, Spilled>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    pub(super) fn tend(&self) {
        self.streams().expire(Instant::now());
    }

    fn append(
        &self,
        stream: StreamName,
        events: Vec<SpilledEvent>,
        course: Course,
    ) -> Result<(), StoreError> {
        let (now, ttl) = (Instant::now(), self.bounds.ttl);
        let mut streams = self.streams();
        let held: usize = streams.held().map(|spilled| spilled.bytes).sum();
        let new: usize = events.iter().map(|event| event.bytes.len()).sum();
        let refuse = |what| {
            self.refused.fetch_add(events.len() as u64, Relaxed);
            Err(StoreError::Full(what))
        };
        if held + new > self.bounds.total_bytes_max {
            return refuse("bytes of spilled streams");
        }
        if streams.get(&stream, now).is_none() {
            let first = events.first().map_or(0, |event| event.sequence);
            let fresh = Spilled { first, next: first, ..Spilled::default() };
            if streams.put(stream, fresh, ttl, now).is_err() {
                return refuse("spilled streams");
            }
        }
        let Some(spilled) = streams.renew(&stream, ttl, now) else { return refuse("spilled streams") };
        let dropped: u64 = events.into_iter().map(|event| spilled.append(event, &self.bounds)).sum();
        spilled.ended |= course == Course::Ended;
        self.refused.fetch_add(dropped, Relaxed);
        Ok(())
    }
}

impl Spills for Embedded {
    fn spill(
        &self,
        stream: StreamName,
        events: Vec<SpilledEvent>,
        course: Course,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.spills.append(stream, events, course))
    }

    fn recall(
        &self,
        stream: StreamName,
        from: u64,
        events_max: usize,
    ) -> BoxFuture<'_, Result<Option<Recalled>, StoreError>> {
        let streams = self.spills.streams();
        let spilled = streams.get(&stream, Instant::now());
        ready(
            Ok(spilled.map(|spilled| spilled.recall(from, events_max, self.spills.bounds.recall_bytes_max))),
        )
    }

    fn discard(&self, stream: StreamName) -> BoxFuture<'_, Result<(), StoreError>> {
        self.spills.streams().remove(&stream);
        ready(Ok(()))
    }
}
