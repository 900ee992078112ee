//! Quotas that gateways share: what was used under a key, units on lease, and how many gateways there are.
//!
//! Plain numbers in and out: what a rule is, whom it counts and what a refusal means is the asker's business. The sum is
//! `regatta_policy::quota::lease::Ledger`; a test of regatta-testkit asks it and the script the same questions.

use std::time::Duration;

use crate::{BoxFuture, GatewayId, StoreError};

/// Names what is counted together: a rule, and whoever it is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuotaKey(pub [u8; 24]);

/// How it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaTerms {
    /// So many units in any span of so many microseconds.
    Window {
        /// Units.
        allow: u32,
        /// Microseconds.
        within_us: u64,
    },
    /// An even rate: a unit each `interval_us`, of which `slack_us` may be spent ahead of time.
    Even {
        /// Microseconds.
        interval_us: u64,
        /// Microseconds.
        slack_us: u64,
    },
}

/// What a request takes that waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaWant {
    /// There is none: the question only gives back.
    Nothing,
    /// So many units, used at once.
    AtOnce(u32),
    /// So many, held with the extra ones where the terms and the number of leases allow it.
    Held(u32),
}

/// A question about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaAsk {
    /// Which.
    pub key: QuotaKey,
    /// As agreed by all who ask about it.
    pub terms: QuotaTerms,
    /// How long nothing is granted after a refusal, in microseconds; 0: that is not so.
    pub block_us: u64,
    /// Whose lease it is: a number that nobody else has.
    pub holder: u64,
    /// What was used of the holder's last lease, which ends with this question,
    pub used: u32,
    /// and how long ago the last of it, in microseconds.
    pub last_ago_us: u64,
    /// What the request takes.
    pub want: QuotaWant,
    /// Units to hold besides,
    pub extra: u32,
    /// and for how long, in microseconds.
    pub term_us: u64,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaGrant {
    /// The request goes on.
    Granted {
        /// Units held from now to the end of the term; what the request takes is among them if it wanted it held and they
        /// are that many.
        held: u32,
        /// Units left for all.
        remaining: u32,
        /// How long until all are there again, in microseconds.
        reset_after_us: u64,
    },
    /// It does not.
    Refused {
        /// When it would be worth asking again, in microseconds; `None`: never.
        retry_after_us: Option<u64>,
    },
}

/// Shared quotas. In no span does the store grant more than the terms say, leases of gateways that died included; what it
/// forgets (a restart, a wipe) is granted again.
pub trait Quotas {
    /// The answers to a request's questions, whose keys differ, in one trip to each server. Each key is decided alone. A
    /// question that is sent again after a lost answer counts what it wants twice, never too little.
    fn ask_quotas(&self, asks: Vec<QuotaAsk>) -> BoxFuture<'_, Vec<Result<QuotaGrant, StoreError>>>;

    /// Notes that `gateway` is there for `ttl`, and counts all that are, itself included.
    fn attend(&self, gateway: GatewayId, ttl: Duration) -> BoxFuture<'_, Result<u32, StoreError>>;

    /// Notes that `gateway` has left.
    fn depart(&self, gateway: GatewayId) -> BoxFuture<'_, Result<(), StoreError>>;
}
