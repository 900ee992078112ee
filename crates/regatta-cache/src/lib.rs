//! The result cache: what a server answered once, given again to those who could have got the same.
//!
//! Three ideas, each in a file: results are kept by bytes under a key that holds all they depend on (`key`, `kept`),
//! of many who ask for the same thing at once only one asks the server (`flight`), and what was kept is made old in
//! one step, never by a scan (`purges`). `cache` joins them; `fleet` shares all three with other processes. It decides nothing: `regatta_policy::cache` says what may
//! be kept; and it knows neither HTTP nor planes, so that nodes can use it as the gateway does.

mod cache;
mod fleet;
mod flight;
mod form;
mod kept;
mod key;
mod purges;
mod stored;
mod tally;

pub use cache::{About, Audience, Joined, Lead, Looked, OnShelf, ResultCache};
pub use fleet::{
    Away, BoxFuture, Claimed, FOLLOW_EVERY, Fleet, Holder, Interest, OverStore, PurgeLog, Rings, Shelf,
    Sought, Stored, seek,
};
pub use flight::{Landing, Patience, Waiter};
pub use form::{Form, Status, hint, outcome};
pub use kept::Kept;
pub use key::{Fields, Key, LocalKey, ScopeValue, call_digest};
pub use purges::{Purge, Purges};
pub use tally::{Tallied, Tally};
