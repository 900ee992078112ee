//! What a gateway keeps under one key of a rule that counts over all gateways: a purse of units on lease, and what it
//! granted itself, by which it judges alone while the store is away.
//!
//! It knows no lock, no clock and no store.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use regatta_policy::Micros;
use regatta_policy::quota::counter::Look as Judged;
use regatta_policy::quota::lease::{Ask, Grant, Heard, Holder, Purse, Spend, Want, share};
use regatta_policy::quota::{Counter, Quota, Standing};
use tokio::sync::Semaphore;

use super::Charge;
use super::ready::Reach;
use super::shard::Kept;

/// How long a key is judged alone after the store did not answer; then one request asks again.
const ALONE_FOR: Duration = Duration::from_millis(250);

/// A question under way: closed when it is over.
pub(super) type Flight = Arc<Semaphore>;

/// What is kept under a key.
#[derive(Debug)]
pub(super) struct Till {
    quota: Quota,
    purse: Purse,
    /// The purse's name at the store: of this purse alone, because one that was forgotten may have used what it held.
    holder: Holder,
    /// What this gateway granted.
    own: Counter,
    /// The one question that is under way; all others wait for it.
    flight: Option<Flight>,
    alone_until: Micros,
}

/// What a key says to a request.
pub(super) enum Look {
    /// It fits.
    Fits,
    /// It does not.
    Refused { retry_after: Micros },
    /// The store is being asked.
    Wait(Flight),
    /// The store has to be asked for so much besides, for so long.
    Ask(u32, Micros),
}

/// By what a request is judged.
enum Judge {
    /// By units on lease.
    Purse,
    /// By what was granted here, against this.
    Own(Quota),
}

/// What was wanted of a key, and how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Not yet.
    No,
    /// The store has counted it.
    AtTheStore,
}

impl Kept for Till {
    fn new(quota: &Quota) -> Till {
        Till {
            quota: *quota,
            purse: Purse::default(),
            holder: Holder(regatta_seal::random_u64()),
            own: Counter::new(quota),
            flight: None,
            alone_until: Micros(0),
        }
    }

    fn empty_at(&self, quota: &Quota) -> Micros {
        self.purse.empty_at().max(self.own.empty_at(quota)).max(self.alone_until)
    }
}

impl Till {
    /// Counts that something is wanted.
    pub fn want(&mut self, cost: NonZeroU32) {
        self.purse.want(cost);
    }

    /// Whether a request fits, in company of so many gateways.
    pub fn look(&mut self, charge: &Charge<'_>, gateways: NonZeroU32, now: Micros) -> Look {
        let cost = charge.asked.cost;
        match self.judge(charge.reach, gateways, now) {
            Judge::Own(quota) => match self.own.look(&quota, cost, now) {
                Judged::Fits => Look::Fits,
                Judged::Blocked { retry_after } => Look::Refused { retry_after },
                Judged::Over { retry_after } => {
                    Look::Refused { retry_after: self.own.breach(&quota, retry_after, now) }
                }
            },
            Judge::Purse => match (self.purse.look(&self.quota, cost, now), &self.flight) {
                (Spend::Spent, _) => Look::Fits,
                (Spend::Limited { retry_after }, _) => Look::Refused { retry_after },
                (Spend::Ask { .. }, Some(flight)) => Look::Wait(flight.clone()),
                (Spend::Ask { extra, term }, None) => Look::Ask(extra, term),
            },
        }
    }

    fn judge(&self, reach: Reach, gateways: NonZeroU32, now: Micros) -> Judge {
        match reach {
            Reach::Gateway => Judge::Own(self.quota),
            Reach::Fleet if now < self.alone_until => Judge::Own(share(&self.quota, gateways)),
            Reach::Fleet => Judge::Purse,
        }
    }

    /// Whether this key is judged without the store, though its rule counts over all gateways.
    pub fn is_alone(&self, reach: Reach, now: Micros) -> bool {
        reach == Reach::Fleet && now < self.alone_until
    }

    /// Charges what `look` found to fit, or what the store has counted.
    pub fn charge(&mut self, charge: &Charge<'_>, counted: Counted, gateways: NonZeroU32, now: Micros) {
        let cost = charge.asked.cost;
        let quota = match (self.judge(charge.reach, gateways, now), counted) {
            (Judge::Own(quota), _) => quota,
            (Judge::Purse, Counted::AtTheStore) => self.quota,
            (Judge::Purse, Counted::No) => {
                self.purse.spend(&self.quota, cost, now);
                self.quota
            }
        };
        // Looked at first, because that forgets what has left the window.
        let _ = self.own.look(&quota, cost, now);
        self.own.charge(&quota, cost, now);
    }

    /// How the key stands.
    pub fn standing(&self, charge: &Charge<'_>, gateways: NonZeroU32, now: Micros) -> Standing {
        match self.judge(charge.reach, gateways, now) {
            Judge::Own(quota) => self.own.standing(&quota, now),
            Judge::Purse => self.purse.standing(charge.asked.cost, now),
        }
    }

    /// Begins a question.
    pub fn question(&mut self, want: Want, more: (u32, Micros), flight: &Flight, now: Micros) -> Ask {
        self.flight = Some(flight.clone());
        self.purse.question(self.holder, want, more, now)
    }

    /// The answer to a question; nothing if the purse that asked is not there any more.
    pub fn hear(&mut self, ask: &Ask, grant: Grant, sent: Micros) -> Option<Heard> {
        (self.holder == ask.holder).then(|| self.purse.hear(ask, grant, sent, &self.quota))
    }

    /// The store did not answer.
    pub fn miss(&mut self, now: Micros) {
        self.alone_until = now.after(ALONE_FOR);
    }

    /// The question is over.
    pub fn land(&mut self, flight: &Flight) {
        self.flight.take_if(|own| Arc::ptr_eq(own, flight));
    }

    /// What to tell the store of a lease that is over, if it should be told, and whom it is about.
    pub fn owed(&mut self, flight: &Flight, now: Micros) -> Option<(Quota, Ask)> {
        let is_owed =
            self.flight.is_none() && self.alone_until <= now && self.purse.is_owed(&self.quota, now);
        is_owed.then(|| (self.quota, self.question(Want::Nothing, (0, Micros(0)), flight, now)))
    }
}
