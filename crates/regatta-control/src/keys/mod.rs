//! The public keys of the issuers: fetched, kept, and fetched again when somebody meets a key that is not here.
//!
//! One task an issuer, with its own pace; what it finds goes up a bounded channel. Keys that were found stay until newer
//! ones are: an issuer that is away locks nobody out who has a token. It verifies nothing; that is the data plane's.

mod discover;
mod issuer;
mod jwks;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regatta_policy::access::{Asked, VerificationKey};
use regatta_policy::snapshot::Endpoint;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub(crate) use discover::place as key_place;

use crate::probe::client::Client;

/// Asks for keys of one issuer that wait for it; more are told that nobody knows.
const ASKS_MAX: usize = 256;

/// An issuer, and where its keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerPlan {
    /// Its identifier.
    pub url: String,
    /// Where its keys are.
    pub keys: KeysAt,
    /// How long keys are kept before a look for newer ones.
    pub refresh: Duration,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysAt {
    /// Where its metadata says (RFC 8414, OpenID Connect Discovery).
    Discovered,
    /// Here.
    Url(Endpoint),
    /// In this file.
    File(PathBuf),
}

/// What an issuer's task has to say.
#[derive(Debug)]
pub struct Report {
    /// Whose keys.
    pub issuer: String,
    /// The keys, if they are others than before.
    pub keys: Option<Vec<VerificationKey>>,
    /// Who waits to hear in which snapshot they are.
    pub waiting: Vec<Waiting>,
}

/// Somebody who asked for a key.
pub type Waiting = oneshot::Sender<Asked>;

/// The way to ask for newer keys. Clones ask the same.
#[derive(Clone, Debug)]
pub struct Asking(mpsc::Sender<(String, Waiting)>);

impl Asking {
    /// A way to ask, and where the asks come out.
    pub fn new() -> (Asking, mpsc::Receiver<(String, Waiting)>) {
        let (asks, inbox) = mpsc::channel(ASKS_MAX);
        (Asking(asks), inbox)
    }

    /// Asks for newer keys of `issuer`; waits until they are in a snapshot, or cannot be had.
    pub async fn ask(&self, issuer: String) -> Asked {
        let (waiting, answer) = oneshot::channel();
        if self.0.try_send((issuer, waiting)).is_err() {
            return Asked::Away;
        }
        answer.await.unwrap_or(Asked::Away)
    }
}

/// The tasks of a changing set of issuers.
#[derive(Debug)]
pub struct Issuers {
    client: Arc<Client>,
    running: HashMap<String, (IssuerPlan, mpsc::Sender<Waiting>)>,
    tasks: JoinSet<()>,
    reports: mpsc::Sender<Report>,
}

impl Issuers {
    /// No issuers yet; what is found will come out of `reports`.
    pub fn new(reports: mpsc::Sender<Report>) -> Issuers {
        let client = Arc::new(Client::new());
        Issuers { client, running: HashMap::new(), tasks: JoinSet::new(), reports }
    }

    /// Keeps the keys of exactly these from now on; those that did not change go on undisturbed.
    pub fn set(&mut self, plans: &[IssuerPlan]) {
        while self.tasks.try_join_next().is_some() {}
        // Dropping the sender is the word to stop.
        self.running.retain(|_, (plan, _)| plans.contains(plan));
        for plan in plans {
            if self.running.contains_key(&plan.url) {
                continue;
            }
            let (asks, inbox) = mpsc::channel(ASKS_MAX);
            self.running.insert(plan.url.clone(), (plan.clone(), asks));
            self.tasks.spawn(issuer::keep(self.client.clone(), plan.clone(), inbox, self.reports.clone()));
        }
    }

    /// Hands an ask to its issuer; dropped, which says that nobody knows, if there is none or too many wait.
    pub fn ask(&self, issuer: &str, waiting: Waiting) {
        if let Some((_, asks)) = self.running.get(issuer) {
            let _ = asks.try_send(waiting);
        }
    }
}
