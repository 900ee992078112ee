//! The data plane: from a client's connection to a replica's, and back.
//!
//! `pipeline.rs` is the page to read first. One folder a stage, in the order of a request: accept, identify, admit,
//! decode, limit, bind, cache, route, forward, encode; beside them what several stages share. It obeys the Snapshot that it
//! is handed (`Gateway::apply`) and never imports the control plane; nothing but metrics goes up.

mod accept;
mod access;
mod admit;
mod alarm;
mod bind;
mod budgets;
mod busy_poll;
mod cache;
mod callers;
mod clock;
mod content;
mod cors;
mod decode;
mod door;
mod encode;
mod event_id;
mod fault;
mod forward;
mod gate;
mod gateway;
mod handles;
mod handover;
mod headers;
mod identify;
mod limit;
mod listen;
pub mod listener;
mod metrics;
mod nap;
mod outward;
pub mod peers;
mod pending;
mod pipeline;
mod principal;
mod quotas;
mod realm;
mod reply;
mod results;
mod route;
mod session;
mod slots;
mod streams;
mod tcp;
mod tool_news;
mod upkeep;
pub mod upstream;
mod view;
mod within;

pub use busy_poll::busy_poll;
pub use gateway::{AskKeys, Gateway, Parts};
pub use metrics::Metrics;
pub use pipeline::serve;
pub use pipeline::tend::{leave, tend};
pub use principal::principal_digest;
pub use reply::{Cut, ReplyBody};
pub use results::{CacheStats, Unpurged};
