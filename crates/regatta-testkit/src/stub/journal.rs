//! The journal of executions: append-only, one entry a run of a tool.
//!
//! It decides the invariants V2 and V3 of RELIABILITY A.0: at most one execution per op, none for a refused one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One execution.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which operation.
    pub op: String,
    /// Counts the executions of this op from 1.
    pub attempt: usize,
    /// When it began.
    pub start: Instant,
    /// When its reply was written whole; `None`: it was cut or still runs.
    pub end: Option<Instant>,
}

/// All executions of one stub.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Vec<Entry>>);

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the start of an execution; the number is for `end`.
    pub fn begin(&self, op: &str) -> usize {
        let mut entries = self.lock();
        let attempt = entries.iter().filter(|entry| entry.op == op).count() + 1;
        entries.push(Entry { op: op.to_owned(), attempt, start: Instant::now(), end: None });
        entries.len() - 1
    }

    /// Notes its end.
    pub fn end(&self, number: usize) {
        if let Some(entry) = self.lock().get_mut(number) {
            entry.end = Some(Instant::now());
        }
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// How often this op was executed.
    pub fn executions(&self, op: &str) -> usize {
        self.lock().iter().filter(|entry| entry.op == op).count()
    }

    /// Ops that were executed more than once.
    pub fn repeated(&self) -> Vec<String> {
        let mut counts = HashMap::<String, usize>::new();
        for entry in self.lock().iter() {
            *counts.entry(entry.op.clone()).or_default() += 1;
        }
        let mut repeated: Vec<_> =
            counts.into_iter().filter(|(_, count)| *count > 1).map(|(op, _)| op).collect();
        repeated.sort();
        repeated
    }
}
