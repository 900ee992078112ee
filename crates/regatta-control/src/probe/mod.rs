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
}

/// The probing of a changing set of replicas.
#[derive(Debug)]
pub struct Prober {
    client: Arc<Client>,
    running: HashMap<ReplicaId, watch::Sender<bool>>,
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
            if self.running.contains_key(&id) {
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            self.running.insert(id, stop);
            self.tasks.spawn(probe(Arc::clone(&self.client), target, stopped, self.reports.clone()));
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
    mut stopped: watch::Receiver<bool>,
    reports: mpsc::Sender<(ReplicaId, Seen)>,
) {
    let dice = RandomState::new();
    let (born, mut rounds) = (Instant::now(), 0_u64);
    let mut known = Known::new(target.endpoint.clone());
    let mut standing = Standing::NEW;
    let mut last: Option<Seen> = None;
    loop {
        // A round that is cut short may leave a session behind; the server's own idle time-out ends it.
        let sight = tokio::select! {
            sight = known.round(&client) => sight,
            _ = stopped.changed() => break,
        };
        let eras = last.as_ref().map_or(Eras::Unknown, |seen| seen.eras);
        let seen = see(&sight, &mut standing, eras, known.path());
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
            _ = stopped.changed() => break,
        }
    }
    let _ = timeout(CLOSE_MAX, known.close(&client)).await;
}

fn see(sight: &Sight, standing: &mut Standing, eras: Eras, path: &str) -> Seen {
    let (outcome, eras, why) = match sight {
        Sight::Speaks(eras) => (Outcome::Spoke, *eras, None),
        Sight::Busy => (Outcome::Spoke, eras, None),
        Sight::Alien(why) => (Outcome::Failed, eras, Some(why.clone())),
        Sight::Mute(why) => (Outcome::Mute, eras, Some(why.clone())),
    };
    *standing = standing.after(outcome);
    Seen { health: standing.health, eras, path: path.to_owned(), why }
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
