//! Quotas over all gateways: requests spend from purses, and one of them asks the store when a purse is empty.
//!
//! A request looks into all its keys under their locks. Only if all have enough is any spent; else it waits for a question
//! under way, or asks for all that lack something at once, and looks again. docs/adr/2026-11-26-limits-by-leases.md.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use regatta_policy::Micros;
use regatta_policy::quota::counter::{Algorithm, Breach};
use regatta_policy::quota::lease::{Ask, Grant, Heard, Want};
use regatta_policy::quota::{Decision, Quota, Standing};
use regatta_store::{QuotaAsk, QuotaGrant, QuotaKey, QuotaTerms, QuotaWant, Store};
use tokio::time::{Instant, timeout_at};

use super::table::{Open, Table};
use super::till::{Counted, Flight, Look, Till};
use super::{Charge, Key};
use crate::clock::Clock;

/// How long a request waits for others' questions and its own.
const PATIENCE: Duration = Duration::from_millis(500);
/// When it may come again if that was not enough. Nothing was charged, and nothing was refused by the store.
const AGAIN_AFTER: Micros = Micros(100_000);
/// Leases that are over and told of at once.
const OWED_MAX: usize = 256;

/// What all gateways use, as far as this one holds a part of it.
#[derive(Debug)]
pub(crate) struct Shared {
    table: Table<Till>,
    /// Gateways on the store, as last counted.
    gateways: AtomicU32,
    asked: AtomicU64,
    alone: AtomicU64,
}

/// A request that the store has to be asked about.
pub(crate) struct Undecided {
    next: Next,
    counted: Vec<Counted>,
}

/// What it does next.
enum Next {
    Wait(Flight),
    Send(Question),
}

/// One trip to the store. However it ends, whoever waits for it goes on.
struct Question {
    shared: Arc<Shared>,
    flight: Flight,
    lines: Vec<Line>,
    sent: Micros,
}

/// What it asks of one key.
struct Line {
    /// The charge that it is for.
    at: usize,
    key: Key,
    quota: Quota,
    ask: Ask,
}

impl Drop for Question {
    fn drop(&mut self) {
        for line in &self.lines {
            self.shared.table.with(&line.key, &line.quota, |till| till.land(&self.flight));
        }
        self.flight.close();
    }
}

/// One look at all keys of a request.
enum Step {
    Decided(Decision, Vec<Standing>),
    Next(Next),
}

impl Shared {
    pub fn new(keys_max: usize) -> Arc<Shared> {
        Arc::new(Shared {
            table: Table::new(keys_max),
            gateways: AtomicU32::new(1),
            asked: AtomicU64::new(0),
            alone: AtomicU64::new(0),
        })
    }

    /// Decides by what is held here, if that is enough.
    pub fn take(
        self: &Arc<Self>,
        charges: &[Charge<'_>],
        now: Micros,
    ) -> Result<(Decision, Vec<Standing>), Undecided> {
        let counted = vec![Counted::No; charges.len()];
        let mut open = self.table.open(charges, now);
        for (at, charge) in charges.iter().enumerate() {
            open.kept(at).want(charge.asked.cost);
        }
        match self.step(open, charges, &counted, now) {
            Step::Decided(decision, standings) => Ok((decision, standings)),
            Step::Next(next) => Err(Undecided { next, counted }),
        }
    }

    /// Asks the store until the request is decided; within [`PATIENCE`].
    pub async fn settle(
        self: &Arc<Self>,
        (store, clock): (&dyn Store, &Clock),
        charges: &[Charge<'_>],
        undecided: Undecided,
    ) -> (Decision, Vec<Standing>) {
        let deadline = Instant::now() + PATIENCE;
        let Undecided { mut next, mut counted } = undecided;
        loop {
            match next {
                Next::Wait(flight) => {
                    // Closed when the question is over; it never gives a permit.
                    if timeout_at(deadline, flight.acquire()).await.is_err() {
                        return self.too_late(charges, clock.now());
                    }
                }
                Next::Send(question) => {
                    let refused = self.send(question, store, clock, &mut counted).await;
                    if let Some((by, retry_after)) = refused {
                        return self.limited(charges, (by, retry_after), clock.now());
                    }
                }
            }
            let now = clock.now();
            match self.step(self.table.open(charges, now), charges, &counted, now) {
                Step::Decided(decision, standings) => return (decision, standings),
                Step::Next(Next::Send(_)) if deadline <= Instant::now() => {
                    return self.too_late(charges, now);
                }
                Step::Next(after) => next = after,
            }
        }
    }

    fn step(
        self: &Arc<Self>,
        mut open: Open<'_, Till>,
        charges: &[Charge<'_>],
        counted: &[Counted],
        now: Micros,
    ) -> Step {
        let gateways = self.gateways();
        let (mut refused, mut waits, mut lacks) = (None, None, Vec::new());
        for (at, charge) in charges.iter().enumerate().filter(|(at, _)| counted[*at] == Counted::No) {
            match open.kept(at).look(charge, gateways, now) {
                Look::Fits => {}
                Look::Refused { retry_after } => refused = longest(refused, (at, retry_after)),
                Look::Wait(flight) => waits = Some(flight),
                Look::Ask(extra, term) => lacks.push((at, extra, term)),
            }
        }
        if refused.is_none() {
            if let Some(flight) = waits {
                return Step::Next(Next::Wait(flight));
            }
            if !lacks.is_empty() {
                return Step::Next(Next::Send(self.question(&mut open, charges, &lacks, now)));
            }
        }
        let decision = match refused {
            Some((by, retry_after)) => Decision::Limited { by, retry_after },
            None => {
                self.charge_all(&mut open, charges, counted, now);
                Decision::Granted
            }
        };
        open.note(charges);
        Step::Decided(decision, standings(&mut open, charges, gateways, now))
    }

    fn charge_all(
        &self,
        open: &mut Open<'_, Till>,
        charges: &[Charge<'_>],
        counted: &[Counted],
        now: Micros,
    ) {
        let mut is_alone = false;
        for (at, (charge, counted)) in charges.iter().zip(counted).enumerate() {
            let till = open.kept(at);
            is_alone |= till.is_alone(charge.reach, now);
            till.charge(charge, *counted, self.gateways(), now);
        }
        self.alone.fetch_add(u64::from(is_alone), Relaxed);
    }

    /// Begins one question for all that a request lacks.
    fn question(
        self: &Arc<Self>,
        open: &mut Open<'_, Till>,
        charges: &[Charge<'_>],
        lacks: &[(usize, u32, Micros)],
        now: Micros,
    ) -> Question {
        let flight = Flight::new(tokio::sync::Semaphore::new(0));
        let line = |&(at, extra, term): &(usize, u32, Micros)| {
            let Charge { key, asked, .. } = &charges[at];
            let want = match (charges.len(), asked.quota.algorithm) {
                (1, _) | (_, Algorithm::Gcra(_)) => Want::AtOnce(asked.cost),
                // Another rule may refuse the request, and then it must not be charged here.
                (_, Algorithm::SlidingWindow(_)) => Want::Held(asked.cost),
            };
            let ask = open.kept(at).question(want, (extra, term), &flight, now);
            Line { at, key: *key, quota: *asked.quota, ask }
        };
        let lines = lacks.iter().map(line).collect();
        Question { shared: self.clone(), flight, lines, sent: now }
    }

    /// Sends a question and hears its answers. Gives the rule that refused, if one did.
    async fn send(
        &self,
        question: Question,
        store: &dyn Store,
        clock: &Clock,
        counted: &mut [Counted],
    ) -> Option<(usize, Micros)> {
        self.asked.fetch_add(1, Relaxed);
        let answers = store.ask_quotas(question.lines.iter().map(told).collect()).await;
        let mut refused = None;
        for (line, answer) in question.lines.iter().zip(answers) {
            let heard = self.table.with(&line.key, &line.quota, |till| match answer {
                Ok(grant) => till.hear(&line.ask, read(grant), question.sent),
                Err(_) => {
                    till.miss(clock.now());
                    None
                }
            });
            match (heard.flatten(), answer) {
                (Some(Heard::Counted), _) if line.ask.want != Want::Nothing => {
                    counted[line.at] = Counted::AtTheStore;
                }
                (Some(Heard::Refused), Ok(QuotaGrant::Refused { retry_after_us })) => {
                    let retry_after = Micros(retry_after_us.unwrap_or(u64::MAX));
                    refused = longest(refused, (line.at, retry_after));
                }
                (Some(Heard::Counted | Heard::InPurse | Heard::Refused) | None, _) => {}
            }
        }
        refused
    }

    fn limited(
        &self,
        charges: &[Charge<'_>],
        (by, retry_after): (usize, Micros),
        now: Micros,
    ) -> (Decision, Vec<Standing>) {
        let mut open = self.table.open(charges, now);
        let standings = standings(&mut open, charges, self.gateways(), now);
        (Decision::Limited { by, retry_after }, standings)
    }

    fn too_late(&self, charges: &[Charge<'_>], now: Micros) -> (Decision, Vec<Standing>) {
        self.limited(charges, (0, AGAIN_AFTER), now)
    }

    /// Tells the store what became of leases that are over, so that what was not used is there for others.
    pub async fn give_back(self: &Arc<Self>, store: &dyn Store, clock: &Clock) {
        let (flight, now) = (Flight::new(tokio::sync::Semaphore::new(0)), clock.now());
        let mut lines = Vec::new();
        self.table.each(|key, till| {
            if lines.len() < OWED_MAX
                && let Some((quota, ask)) = till.owed(&flight, now)
            {
                lines.push(Line { at: 0, key, quota, ask });
            }
        });
        if !lines.is_empty() {
            let question = Question { shared: self.clone(), flight, lines, sent: now };
            self.send(question, store, clock, &mut []).await;
        }
    }

    fn gateways(&self) -> NonZeroU32 {
        NonZeroU32::new(self.gateways.load(Relaxed)).unwrap_or(NonZeroU32::MIN)
    }

    /// So many gateways there are.
    pub fn count(&self, gateways: u32) {
        self.gateways.store(gateways, Relaxed);
    }

    pub fn rebound(&self, keys_max: usize) {
        self.table.rebound(keys_max);
    }

    pub fn sweep(&self, now: Micros) {
        self.table.sweep(now);
    }

    pub fn keys(&self) -> usize {
        self.table.keys()
    }

    pub fn displaced(&self) -> u64 {
        self.table.displaced()
    }

    /// Questions to the store, requests granted without it while it was away, and gateways on it.
    pub fn counts(&self) -> (u64, u64, u32) {
        (self.asked.load(Relaxed), self.alone.load(Relaxed), self.gateways().get())
    }
}

fn standings(
    open: &mut Open<'_, Till>,
    charges: &[Charge<'_>],
    gateways: NonZeroU32,
    now: Micros,
) -> Vec<Standing> {
    let of = |(at, charge)| open.kept(at).standing(charge, gateways, now);
    charges.iter().enumerate().map(of).collect()
}

/// Of two refusals the one that keeps the request waiting longest.
fn longest(refused: Option<(usize, Micros)>, next: (usize, Micros)) -> Option<(usize, Micros)> {
    refused.filter(|(_, wait)| next.1 <= *wait).or(Some(next))
}

/// A question in the store's words.
fn told(line: &Line) -> QuotaAsk {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&line.key.0.to_be_bytes());
    key[8..].copy_from_slice(&line.key.1);
    QuotaAsk {
        key: QuotaKey(key),
        terms: match line.quota.algorithm {
            Algorithm::SlidingWindow(allowance) => {
                QuotaTerms::Window { allow: allowance.allow(), within_us: allowance.within().0 }
            }
            Algorithm::Gcra(rate) => {
                QuotaTerms::Even { interval_us: rate.interval().0, slack_us: rate.slack().0 }
            }
        },
        block_us: match line.quota.breach {
            Breach::Refused => 0,
            Breach::Blocked(block) => u64::try_from(block.as_micros()).unwrap_or(u64::MAX),
        },
        holder: line.ask.holder.0,
        used: line.ask.used,
        last_ago_us: line.ask.last_ago.0,
        want: match line.ask.want {
            Want::Nothing => QuotaWant::Nothing,
            Want::AtOnce(units) => QuotaWant::AtOnce(units.get()),
            Want::Held(units) => QuotaWant::Held(units.get()),
        },
        extra: line.ask.extra,
        term_us: line.ask.term.0,
    }
}

/// An answer in the rule's words.
fn read(grant: QuotaGrant) -> Grant {
    match grant {
        QuotaGrant::Granted { held, remaining, reset_after_us } => {
            Grant::Granted { held, remaining, reset_after: Micros(reset_after_us) }
        }
        QuotaGrant::Refused { retry_after_us } => {
            Grant::Refused { retry_after: Micros(retry_after_us.unwrap_or(u64::MAX)) }
        }
    }
}

#[cfg(test)]
mod tests;
