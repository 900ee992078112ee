//! This gateway's part of the connections that a server bears from all gateways (`connections_max`), renewed under a lease
//! of the shared store.
//!
//! Parts go by need, evenly where all need more. A gateway that comes gets its part as the others renew; one that dies gives
//! back when its lease ends. While the store is away a gateway keeps its part to the end of its lease, and then an even one
//! of the gateways that were there last: the limit holds unless some of them still reach the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use regatta_seal::digest16;
use regatta_store::{BudgetAsk, BudgetHolder, BudgetName};
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::peers::Company;
use crate::upstream::Budget;

/// How long a part is kept for a gateway, and how often it is renewed: at once where requests wait.
const TERM: Duration = Duration::from_secs(5);
const RENEW_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a gateway has of one server's connections.
struct Part {
    limit: u32,
    name: BudgetName,
    budget: Arc<Budget>,
    /// When it was asked for last, and until when it is ours.
    asked: Option<Instant>,
    until: Instant,
    /// Gateways that share the limit.
    holders: u32,
}

/// Keeps the parts for as long as the gateway lives.
pub(crate) async fn tend(gateway: &Arc<Gateway>) {
    let mut parts: HashMap<String, Part> = HashMap::new();
    let mut beat = tokio::time::interval(LOOK_EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        follow(gateway, &mut parts);
        for (server, part) in &mut parts {
            match gateway.peers.company == Company::Many {
                true => renew(gateway, server, part).await,
                false => part.budget.set(part.limit as usize),
            }
        }
    }
}

/// Takes up what the config says now.
fn follow(gateway: &Gateway, parts: &mut HashMap<String, Part>) {
    let view = gateway.view();
    let limit_of = |name: &str| {
        let server = view.servers.iter().find(|one| one.server.name == name);
        server.and_then(|one| one.server.connections_max)
    };
    parts.retain(|server, _| limit_of(server).is_some());
    for one in &view.servers {
        let (server, Some(limit)) = (&one.server, one.server.connections_max) else { continue };
        let Some(budget) = gateway.upstreams.budget(&server.name) else { continue };
        let name = BudgetName(digest16(&[b"connections", server.name.as_bytes()]));
        let new = || Part { limit, name, budget, asked: None, until: Instant::now(), holders: 1 };
        parts.entry(server.name.clone()).or_insert_with(new).limit = limit;
    }
}

async fn renew(gateway: &Gateway, server: &str, part: &mut Part) {
    let (now, used) = (Instant::now(), part.budget.used());
    let is_due = part.asked.is_none_or(|asked| now >= asked + RENEW_EVERY);
    if !is_due && used.waiting == 0 {
        return;
    }
    part.asked = Some(now);
    let count = |connections: usize| u32::try_from(connections).unwrap_or(u32::MAX);
    // Some ahead, so that what comes next need not wait for the store.
    let ahead = 1 + used.taken / 4;
    let ask = BudgetAsk {
        budget: part.name,
        limit: part.limit,
        holder: BudgetHolder(digest16(&[&gateway.peers.id.0])),
        busy: count(used.taken - used.idle.min(used.taken)),
        want: count(used.taken + used.waiting + ahead).min(part.limit),
        term: TERM,
    };
    match gateway.store.hold_budget(ask).await {
        Ok(given) => {
            (part.until, part.holders) = (now + TERM, given.holders);
            part.budget.set(given.units as usize);
        }
        Err(why) if now + RENEW_EVERY >= part.until => {
            let even = (part.limit / part.holders.max(1)).max(1);
            tracing::debug!(server, connections = even, %why, "the store gives no connections: an even part");
            part.budget.set(even as usize);
        }
        Err(_) => {}
    }
}
