//! The shared state behind one object-safe seam: what deviates from session tokens, tombstones, sealing keys, spilled
//! streams, mail between gateways, claims, the registry of nodes, shared results, quotas, data of tools, the journal of
//! calls.
//!
//! Bytes in, bytes out: it knows no MCP. Nothing here is on the way of an undisturbed request but `warm` and
//! `buried`, which never wait. `embedded` keeps the state of one process, with a log in the state directory; every
//! backend passes the conformance suite of `suite`.

mod budgets;
mod calls;
mod claims;
mod data;
pub mod embedded;
mod error;
mod key_search;
mod keys;
mod link;
mod mail;
mod quotas;
pub mod redis;
mod registry;
mod results;
mod sessions;
mod spills;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

use std::future::Future;
use std::pin::Pin;

pub use budgets::{
    Allowance, Alone, BUDGET_HOLDERS_MAX, BudgetAsk, BudgetHolder, BudgetName, BudgetShare, Budgets, Holding,
};
pub use calls::{Begun, CALL_RESULT_MAX, CallName, Calls, Holds, Run};
pub use claims::{Claim, Claims};
pub use data::{Data, Datum, SPACE_BYTES_MAX, SPACE_VALUES_MAX, SpaceName, Written};
pub use embedded::{Bounds, Embedded, OpenError};
pub use error::StoreError;
pub use key_search::{KeyHolder, KeySearch, Learned};
pub use keys::{Keys, StoredKey};
pub use link::{Durability, Link, LinkStats, Stats};
pub use mail::{Arrival, GatewayId, Mail, Mailbox, MailboxBounds, Notice};
pub use quotas::{QuotaAsk, QuotaGrant, QuotaKey, QuotaTerms, QuotaWant, Quotas};
pub use registry::{Beat, NODE_ID_MAX, NodeFields, Nodes, Registry, RegistryBounds};
pub use results::{Fetch, Fetcher, Heed, Purged, ResultKey, Results, SharedResult, ShelfName};
pub use sessions::{Buried, Cas, Etag, Grave, Merge, Met, Sessions, Uuid16, Versioned, Warm};
pub use spills::{Course, Recalled, SpilledEvent, Spills, StreamName};

/// A boxed future, so that a store can be chosen when the process starts.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The shared state. Every method may be called from many tasks at once, and every future may be dropped at any time.
pub trait Store:
    Sessions
    + Keys
    + Spills
    + Mail
    + Claims
    + Registry
    + Results
    + Quotas
    + Budgets
    + Data
    + Calls
    + Send
    + Sync
    + 'static
{
    /// Whether the store can be reached; as of now.
    fn link(&self) -> Link;

    /// Whether the store has been away for seconds, as attempts up to now have shown: nobody need wait for it. To a process
    /// that was stopped meanwhile, and has not tried again yet, it has not (RELIABILITY F8, F9).
    fn is_long_away(&self) -> bool;

    /// Whether the state outlives this process; as of now, it may change.
    fn durability(&self) -> Durability;

    /// Housekeeping: drops what is over. Call it about once a minute; may block for some milliseconds.
    fn tend(&self);

    /// Sizes and counters, one for each bound.
    fn stats(&self) -> Stats;
}
