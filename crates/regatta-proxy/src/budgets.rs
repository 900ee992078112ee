//! This gateway's part of the connections that a server bears from all gateways (`connections_max`), renewed under a lease
//! of the shared store.
//!
//! Parts go by need, evenly where all need more. A gateway that comes gets its part as the others' connections end; one that
//! dies gives back when its lease ends. While the store is away a gateway keeps its part to the end of its lease, and then an
//! even one of the gateways that were there last: the limit holds unless some of them still reach the store. The rules are
//! `regatta_store::Holding`'s; here they get time and counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regatta_seal::digest16;
use regatta_store::{Allowance, Alone, BudgetHolder, BudgetName, Holding};

use crate::gateway::Gateway;
use crate::peers::Company;
use crate::upstream::Budget;

/// How long a part is kept for a gateway, and how often it is renewed: at once where requests wait, or where connections
/// beyond the part have ended.
const TERM: Duration = Duration::from_secs(5);
const RENEW_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How many others there are, nobody can tell a gateway that has never reached the store.
const ALONE: Alone = Alone { stranger: 1, most: u32::MAX };

/// What a gateway has of one server's connections.
struct Part {
    /// `None`: the server left the config, and has connections that have not ended.
    limit: Option<u32>,
    budget: Arc<Budget>,
    name: BudgetName,
    holding: Holding,
    asked: Option<Instant>,
    /// Connections that the store was told of.
    told: usize,
}

/// Keeps the parts for as long as the gateway lives.
pub(crate) async fn tend(gateway: &Arc<Gateway>) {
    let mut parts: HashMap<String, Part> = HashMap::new();
    let mut beat = tokio::time::interval(LOOK_EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        for over in follow(gateway, &mut parts) {
            // Unheard, its lease ends by itself.
            let _ = gateway.store.leave_budget(over.name, holder(gateway)).await;
        }
        for (server, part) in &mut parts {
            match gateway.peers.company == Company::Many {
                true => renew(gateway, server, part).await,
                false => part.budget.set(Allowance::always(part.limit.unwrap_or_default())),
            }
        }
    }
}

/// Takes up what the config says now; what is not needed any more is taken out.
fn follow(gateway: &Gateway, parts: &mut HashMap<String, Part>) -> Vec<Part> {
    let view = gateway.view();
    parts.values_mut().for_each(|part| part.limit = None);
    for one in &view.servers {
        let (server, Some(limit)) = (&one.server, one.server.connections_max) else { continue };
        let Some(budget) = gateway.upstreams.budget(&server.name) else { continue };
        let part =
            parts.entry(server.name.clone()).or_insert_with(|| Part::new(gateway, &server.name, &budget));
        // One that left and returned may have another.
        (part.limit, part.budget) = (Some(limit), budget);
    }
    let is_here = |name: &str| view.servers.iter().any(|one| one.server.name == name);
    // Of a server that lost its bound nothing is counted any more.
    let is_over =
        |name: &str, part: &Part| part.limit.is_none() && (is_here(name) || part.budget.used().taken == 0);
    parts.extract_if(|name, part| is_over(name, part)).map(|(_, part)| part).collect()
}

fn holder(gateway: &Gateway) -> BudgetHolder {
    BudgetHolder(digest16(&[&gateway.peers.id.0]))
}

impl Part {
    fn new(gateway: &Gateway, server: &str, budget: &Arc<Budget>) -> Part {
        let name = BudgetName(digest16(&[b"connections", server.as_bytes()]));
        let holding = Holding::new(name, holder(gateway), TERM, ALONE);
        Part { limit: None, budget: budget.clone(), name, holding, asked: None, told: 0 }
    }

    /// Whether to ask the store at `now`.
    fn is_due(&self, now: Instant) -> bool {
        let used = self.budget.used();
        let has_let_go = used.taken < self.told && used.allowed < self.told;
        used.waiting > 0 || has_let_go || self.asked.is_none_or(|asked| now >= asked + RENEW_EVERY)
    }
}

async fn renew(gateway: &Gateway, server: &str, part: &mut Part) {
    let now = Instant::now();
    if !part.is_due(now) {
        return;
    }
    part.asked = Some(now);
    let count = |connections: usize| u32::try_from(connections).unwrap_or(u32::MAX);
    let before = part.budget.used();
    // Some ahead, so that what comes next need not wait for the store.
    let ahead = 1 + before.taken / 4;
    let (want, limit) = match part.limit {
        Some(limit) => (count(before.taken + before.waiting + ahead).min(limit), limit),
        None => (0, count(before.taken)),
    };
    part.budget.set(part.holding.begin(want, now));
    // Looked at after that: nothing is opened beyond it from now on.
    part.told = part.budget.used().taken;
    let ask = part.holding.ask(limit, count(part.told), want);
    let allowance = match gateway.store.hold_budget(ask).await {
        Ok(share) => part.holding.granted(share, now),
        Err(why) => {
            tracing::debug!(server, %why, "the store gives no connections");
            part.holding.refused(limit)
        }
    };
    part.budget.set(allowance);
}
