//! The store in Redis (or Valkey), shared by any number of gateways: standalone, sentinel or cluster.
//!
//! Knowledge answers the undisturbed request without the network; notices keep it true. Every operation is bounded in
//! time, idempotent, and touches one slot; when Redis is away it costs one operation's time once and then nothing.
//! From the outside in: traits (`sessions` … `registry`), `routes` to the right server, a `line` to each, `connector`.

mod address;
mod budgets;
mod bulletin;
mod calls;
mod caretaker;
mod claims;
mod cluster;
mod connector;
mod counters;
mod data;
mod dice;
mod fault;
mod kept;
mod keys;
mod knowledge;
mod line;
mod mail;
mod names;
mod notices;
mod options;
mod quotas;
mod refusal;
mod registry;
mod remembered;
mod results;
mod routes;
mod scripts;
mod sentinel;
mod sessions;
mod spills;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::mail::Mailboxes;
use crate::{Durability, GatewayId, Link, Merge, Notice, Stats, Store, Uuid16};
pub use address::{Addr, BadUrl, Credentials, Layout, Transport, Url};
use connector::Connector;
use counters::Counters;
use kept::KeptRecords;
use knowledge::Knowledge;
use line::Means;
use names::Names;
pub use names::slot as slot_of;
pub use options::{Limits, Options, Timing};
use refusal::Refusal;
use remembered::Remembered;
use routes::Routes;

/// Uses of records that the store has not heard of yet.
const TOUCHES_MAX: usize = 4096;

/// The store in Redis. Dropped, it lets go of everything; leases end by themselves.
pub struct Redis {
    inner: Arc<Inner>,
    touches: mpsc::Sender<Uuid16>,
    leases: Mutex<HashMap<GatewayId, AbortHandle>>,
    tasks: [JoinHandle<()>; 2],
    runtime: Handle,
}

/// What the store's tasks share.
struct Inner {
    /// Tells this process's notices from others'.
    instance: [u8; 8],
    names: Names,
    routes: Routes,
    means: Arc<Means>,
    kept: KeptRecords,
    remembered: Remembered,
    mailboxes: Mailboxes,
    refusal: Refusal,
    merge: Merge,
    limits: Limits,
    /// Gateways of this process whose letters must be heard,
    mail: watch::Sender<BTreeSet<GatewayId>>,
    /// and those whose letters are.
    hearing: watch::Sender<BTreeSet<GatewayId>>,
}

/// Opens the store and returns at once: it connects in the background, and `link` says when it did. Call it within a
/// tokio runtime, which then runs its tasks.
pub fn open(options: Options) -> Redis {
    let limits = options.limits;
    let means = Arc::new(Means {
        connector: Connector::new(&options),
        counters: Counters::default(),
        timing: options.timing,
        changes: watch::channel(0).0,
        knowledge: Knowledge::new(&limits),
    });
    let inner = Arc::new(Inner {
        instance: dice::random(),
        names: Names::new(&options.prefix),
        routes: Routes::open(options.layout, means.clone()),
        means,
        kept: KeptRecords::new(limits.unpublished_max),
        remembered: Remembered::new(options.timing.remember_for, limits.remembered_max),
        mailboxes: Mailboxes::new(limits.mailbox),
        refusal: Refusal::default(),
        merge: options.merge,
        limits,
        mail: watch::channel(BTreeSet::new()).0,
        hearing: watch::channel(BTreeSet::new()).0,
    });
    let (touches, touched) = mpsc::channel(TOUCHES_MAX);
    let tasks =
        [tokio::spawn(notices::keep(inner.clone())), tokio::spawn(caretaker::care(inner.clone(), touched))];
    Redis { inner, touches, leases: Mutex::default(), tasks, runtime: Handle::current() }
}

impl Redis {
    /// Who we are from now on: connections that are made stay, the next one is made so.
    pub fn renew_credentials(&self, credentials: Credentials) {
        self.inner.means.connector.renew(credentials);
    }

    /// Why the server may throw away what must stay, if it said so: sessions of a server that evicts keys end when it
    /// likes.
    pub fn policy_warning(&self) -> Option<String> {
        self.inner.means.connector.policy_warning()
    }
}

impl Inner {
    /// Another process says that something changed.
    fn hear(&self, notice: Notice) {
        match notice {
            Notice::RecordChanged(session) => {
                self.means.knowledge.heard_of(&session);
                self.remembered.forget(&session);
            }
            Notice::Buried { day, digest } => self.means.knowledge.heard_of_grave(day, &digest),
            Notice::KeysChanged | Notice::LinkLost | Notice::LinkRestored | Notice::Missed => {}
        }
        self.mailboxes.tell(notice);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        let leases = self.leases.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        leases.values().for_each(AbortHandle::abort);
    }
}

impl Store for Redis {
    fn link(&self) -> Link {
        let refusal = self.inner.refusal.get().filter(|_| self.inner.kept.len() > 0);
        match (self.inner.routes.link(), refusal) {
            (Link::Up, Some((since_s, why))) => Link::Degraded { since_s, why },
            (link, _) => link,
        }
    }

    fn is_long_away(&self) -> bool {
        self.inner.routes.is_long_away()
    }

    fn durability(&self) -> Durability {
        match self.inner.kept.len() {
            0 => Durability::Durable,
            number => Durability::ProcessOnly {
                why: format!(
                    "redis was away when {number} sessions changed; they are published when it is back"
                ),
            },
        }
    }

    fn tend(&self) {
        // Redis ends what is over by itself.
    }

    fn stats(&self) -> Stats {
        let (inner, counters) = (&self.inner, &self.inner.means.counters);
        Stats {
            records: inner.means.knowledge.records_len(),
            tombstones: inner.means.knowledge.graves_len(),
            refused_records: counters.refused_records.get(),
            refused_values: counters.refused_values.get(),
            refused_tombstones: counters.refused_tombstones.get(),
            refused_keys: counters.refused_keys.get(),
            refused_spills: counters.refused_spills.get(),
            refused_nodes: counters.refused_nodes.get(),
            letters_dropped: inner.mailboxes.letters_dropped() + counters.refused_letters.get(),
            notices_missed: inner.mailboxes.notices_missed(),
            link: counters.link(inner.kept.len() as u64),
            ..Stats::default()
        }
    }
}
