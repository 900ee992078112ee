//! Quotas in memory. Whoever asks is in this process, so a question costs nothing: no units are held in advance, and each
//! unit that was granted is remembered by itself. A gateway that is alone does not ask (it counts for itself, in the data
//! plane); this is what the suite asks of every backend.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::expiring::Expiring;
use super::{Embedded, ready};
use crate::{
    BoxFuture, GatewayId, QuotaAsk, QuotaGrant, QuotaKey, QuotaTerms, QuotaWant, Quotas, StoreError,
};

/// Keys counted at most.
const KEYS_MAX: usize = 65_536;
/// Grants that are remembered of a key; beyond, two that follow each other count as the later.
const GRANTS_MAX: usize = 1024;
/// Gateways that are counted.
const GATEWAYS_MAX: usize = 1024;

pub(super) struct Shared {
    used: Expiring<QuotaKey, Used>,
    gateways: Expiring<GatewayId, ()>,
}

impl Default for Shared {
    fn default() -> Self {
        Shared { used: Expiring::new(KEYS_MAX), gateways: Expiring::new(GATEWAYS_MAX) }
    }
}

/// What was used under one key, in microseconds since the process began to count.
#[derive(Clone, Default)]
struct Used {
    /// Moments and units, oldest first.
    grants: VecDeque<(u64, u32)>,
    /// An even rate's next free moment.
    next: u64,
    blocked_until: u64,
}

impl Used {
    fn ask(&mut self, ask: &QuotaAsk, now: u64) -> QuotaGrant {
        if now < self.blocked_until {
            return QuotaGrant::Refused { retry_after_us: Some(self.blocked_until - now) };
        }
        let units = match ask.want {
            QuotaWant::Nothing => 0,
            QuotaWant::AtOnce(units) | QuotaWant::Held(units) => units,
        };
        let granted = match ask.terms {
            QuotaTerms::Window { allow, within_us } => self.window(allow, within_us, units, now),
            QuotaTerms::Even { interval_us, slack_us } => self.even(interval_us, slack_us, units, now),
        };
        match granted {
            QuotaGrant::Refused { .. } if ask.block_us > 0 => {
                self.blocked_until = now.saturating_add(ask.block_us);
                QuotaGrant::Refused { retry_after_us: Some(ask.block_us) }
            }
            granted => granted,
        }
    }

    fn window(&mut self, allow: u32, within: u64, units: u32, now: u64) -> QuotaGrant {
        self.grants.retain(|(at, _)| now < at.saturating_add(within));
        let used: u64 = self.grants.iter().map(|(_, units)| u64::from(*units)).sum();
        let room = u64::from(allow).saturating_sub(used);
        let Some(left) = room.checked_sub(u64::from(units)) else {
            let mut freed = room;
            let enough = |(_, gone): &&(u64, u32)| {
                freed += u64::from(*gone);
                u64::from(units) <= freed
            };
            let free_at = self.grants.iter().find(enough).map(|(at, _)| at.saturating_add(within));
            return QuotaGrant::Refused { retry_after_us: free_at.map(|at| at.saturating_sub(now)) };
        };
        if units > 0 {
            self.grants.push_back((now, units));
        }
        if self.grants.len() > GRANTS_MAX
            && let Some((_, gone)) = self.grants.pop_front()
            && let Some((_, first)) = self.grants.front_mut()
        {
            *first = first.saturating_add(gone);
        }
        let remaining = u32::try_from(left).unwrap_or(u32::MAX);
        QuotaGrant::Granted { held: 0, remaining, reset_after_us: within }
    }

    fn even(&mut self, interval: u64, slack: u64, units: u32, now: u64) -> QuotaGrant {
        let ahead = self.next.saturating_sub(now);
        let more = interval.saturating_mul(u64::from(units.saturating_sub(1)));
        if slack < more {
            return QuotaGrant::Refused { retry_after_us: None };
        }
        if units > 0 && slack - more < ahead {
            return QuotaGrant::Refused { retry_after_us: Some(ahead - (slack - more)) };
        }
        self.next = now.saturating_add(ahead).saturating_add(interval.saturating_mul(u64::from(units)));
        let ahead = self.next - now;
        let room = slack.checked_sub(ahead).map_or(0, |left| left / interval.max(1) + 1);
        let remaining = u32::try_from(room).unwrap_or(u32::MAX);
        QuotaGrant::Granted { held: 0, remaining, reset_after_us: ahead }
    }

    /// How long it says anything, in microseconds from `now`.
    fn rest(&self, terms: QuotaTerms, now: u64) -> u64 {
        let within = match terms {
            QuotaTerms::Window { within_us, .. } => within_us,
            QuotaTerms::Even { .. } => 0,
        };
        let last = self.grants.back().map_or(0, |(at, _)| at.saturating_add(within));
        last.max(self.next).max(self.blocked_until).saturating_sub(now)
    }
}

impl Shared {
    fn ask(&mut self, ask: &QuotaAsk, at: Instant, now: u64) -> Result<QuotaGrant, StoreError> {
        let mut used = self.used.get(&ask.key, at).cloned().unwrap_or_default();
        let granted = used.ask(ask, now);
        let life = Duration::from_micros(used.rest(ask.terms, now));
        self.used.put(ask.key, used, life, at).map_err(|_| StoreError::Full("quotas"))?;
        Ok(granted)
    }
}

impl Embedded {
    fn quotas(&self) -> MutexGuard<'_, Shared> {
        let quotas: &Mutex<Shared> = &self.quotas;
        quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Quotas for Embedded {
    fn ask_quotas(&self, asks: Vec<QuotaAsk>) -> BoxFuture<'_, Vec<Result<QuotaGrant, StoreError>>> {
        let at = Instant::now();
        let now = at.saturating_duration_since(self.opened).as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let mut quotas = self.quotas();
        ready(asks.iter().map(|ask| quotas.ask(ask, at, now)).collect())
    }

    fn attend(&self, gateway: GatewayId, ttl: Duration) -> BoxFuture<'_, Result<u32, StoreError>> {
        let at = Instant::now();
        let mut quotas = self.quotas();
        let put = quotas.gateways.put(gateway, (), ttl, at).map_err(|_| StoreError::Full("gateways"));
        ready(put.map(|()| u32::try_from(quotas.gateways.live(at).count()).unwrap_or(u32::MAX)))
    }

    fn depart(&self, gateway: GatewayId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.quotas().gateways.remove(&gateway);
        ready(Ok(()))
    }
}
