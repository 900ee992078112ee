//! Active probes: whether a replica speaks MCP, and which eras (issue of the gateway, item 6).
//!
//! One task a replica, with its own pace; what it sees goes up a bounded channel. A probe is never a tool call,
//! never follows a redirect to another host, and says nothing about work in flight: that is the data plane's.

mod answer;
pub(crate) mod client;
mod judge;
mod round;
mod speak;
#[cfg(test)]
mod tests;
pub mod tools;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use regatta_policy::ReplicaId;
use regatta_policy::snapshot::{Endpoint, Eras, Health};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use client::Client;
use judge::{Outcome, Standing};
use round::{Known, Sight};
use tools::Listing;

/// How long a replica may take to end our session when its probing ends.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// What probes say of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// For the data plane.
    pub health: Health,
    /// Which eras it answered to.
    pub eras: Eras,
    /// The path it is really served under.
    pub path: String,
    /// Why the last probe failed, for people.
    pub why: Option<String>,
    /// Its tools as they were read last.
    pub tools: Listing,
    /// The `ask` of the target that was in force when they were read.
    pub asked: u64,
}

/// A replica to be probed.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its id.
    pub id: ReplicaId,
    /// Its server's name, for the log.
    pub server: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// 0: its tools are nobody's business. A higher number than before: read them now.
    pub ask: u64,
}

/// The probing of a changing set of replicas.
#[derive(Debug)]
pub struct Prober {
    client: Arc<Client>,
    /// Each with the `ask` in force.
    running: HashMap<ReplicaId, watch::Sender<u64>>,
    tasks: JoinSet<()>,
    reports: mpsc::Sender<(ReplicaId, Seen)>,
}

impl Prober {
    /// Probes nothing yet; what is seen will come out of `reports`, only when it changed.
    pub fn new(reports: mpsc::Sender<(ReplicaId, Seen)>) -> Prober {
        Prober { client: Arc::new(Client::new()), running: HashMap::new(), tasks: JoinSet::new(), reports }
    }

    /// Probes exactly these from now on; those that are already probed go on undisturbed.
    pub fn set(&mut self, targets: Vec<Target>) {
        while self.tasks.try_join_next().is_some() {}
        let wanted: Vec<ReplicaId> = targets.iter().map(|target| target.id).collect();
        // Dropping the sender is the word to stop.
        self.running.retain(|id, _| wanted.contains(id));
        for target in targets {
            let id = target.id;
            if let Some(running) = self.running.get(&id) {
                running.send_if_modified(|ask| std::mem::replace(ask, target.ask) != target.ask);
                continue;
            }
            let (order, orders) = watch::channel(target.ask);
            self.running.insert(id, order);
            self.tasks.spawn(probe(Arc::clone(&self.client), target, orders, self.reports.clone()));
        }
    }

    /// Stops all, ending the sessions that were kept; takes at most about a second.
    pub async fn stop(mut self) {
        self.running.clear();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(CLOSE_MAX + Duration::from_millis(100), all).await;
    }
}

async fn probe(
    client: Arc<Client>,
    target: Target,
    mut orders: watch::Receiver<u64>,
    reports: mpsc::Sender<(ReplicaId, Seen)>,
) {
    let dice = RandomState::new();
    let (born, mut rounds) = (Instant::now(), 0_u64);
    let mut known = Known::new(target.endpoint.clone());
    let mut standing = Standing::NEW;
    let mut last: Option<Seen> = None;
    loop {
        let ask = *orders.borrow_and_update();
        // A round that is cut short may leave a session behind; the server's own idle time-out ends it.
        let (sight, listing) = tokio::select! {
            round = round(&mut known, &client, ask) => round,
            () = closed(&orders) => break,
        };
        let seen = see(&sight, &mut standing, last.as_ref(), known.path());
        let seen = with_tools(seen, listing, ask);
        if last.as_ref() != Some(&seen) {
            tell(&target, last.as_ref(), &seen);
            if reports.send((target.id, seen.clone())).await.is_err() {
                break;
            }
            last = Some(seen);
        }
        rounds += 1;
        let mut hasher = dice.build_hasher();
        hasher.write_u64(rounds);
        tokio::select! {
            () = tokio::time::sleep(standing.pause(born.elapsed(), hasher.finish())) => {}
            // A new `ask` is a reason not to wait; the end of all orders is the end.
            order = orders.changed() => if order.is_err() { break },
        }
    }
    let _ = timeout(CLOSE_MAX, known.close(&client)).await;
}

/// One round, and the tools if they are anybody's business and the replica speaks.
async fn round(known: &mut Known, client: &Client, ask: u64) -> (Sight, Listing) {
    let sight = known.round(client).await;
    let listing = match sight {
        Sight::Speaks(_) if ask > 0 => known.tools(client).await,
        Sight::Speaks(_) | Sight::Busy | Sight::Alien(_) | Sight::Mute(_) => Listing::NotRead,
    };
    (sight, listing)
}

/// Until nobody gives orders any more.
async fn closed(orders: &watch::Receiver<u64>) {
    let mut orders = orders.clone();
    while orders.changed().await.is_ok() {}
}

fn see(sight: &Sight, standing: &mut Standing, last: Option<&Seen>, path: &str) -> Seen {
    let eras = last.map_or(Eras::Unknown, |seen| seen.eras);
    let (outcome, eras, why) = match sight {
        Sight::Speaks(eras) => (Outcome::Spoke, *eras, None),
        Sight::Busy => (Outcome::Spoke, eras, None),
        Sight::Alien(why) => (Outcome::Failed, eras, Some(why.clone())),
        Sight::Mute(why) => (Outcome::Mute, eras, Some(why.clone())),
    };
    *standing = standing.after(outcome);
    let (tools, asked) = last.map_or((Listing::NotRead, 0), |seen| (seen.tools.clone(), seen.asked));
    Seen { health: standing.health, eras, path: path.to_owned(), why, tools, asked }
}

/// What could not be read this time stays what it was.
fn with_tools(seen: Seen, listing: Listing, ask: u64) -> Seen {
    match (listing, &seen.tools) {
        (Listing::NotRead, _) => seen,
        (Listing::Unreadable(_), Listing::Read(_)) => Seen { asked: ask, ..seen },
        (tools @ (Listing::Guarded | Listing::Unreadable(_) | Listing::Read(_)), _) => {
            Seen { tools, asked: ask, ..seen }
        }
    }
}

fn tell(target: &Target, before: Option<&Seen>, now: &Seen) {
    let (server, replica) = (target.server.as_str(), target.endpoint.url.as_str());
    if now.path != before.map_or(target.endpoint.path.as_str(), |seen| seen.path.as_str()) {
        tracing::info!(
            server,
            replica,
            path = now.path,
            "the replica redirects to another path, which is used"
        );
    }
    if before.map(|seen| (seen.health, seen.eras)) == Some((now.health, now.eras)) {
        return;
    }
    match now.health {
        Health::Healthy => tracing::info!(server, replica, eras = ?now.eras, "the replica is healthy"),
        Health::Unhealthy => tracing::warn!(server, replica, why = now.why, "the replica is unhealthy"),
        Health::Unreachable => tracing::warn!(server, replica, why = now.why, "the replica is unreachable"),
        Health::Unknown => tracing::debug!(server, replica, why = now.why, "a first probe failed"),
    }
}
