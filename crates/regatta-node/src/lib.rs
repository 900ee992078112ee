//! A runtime for MCP servers that are written with `rmcp` and scaled out: a session is data, not a task, so that every
//! node serves every request of every session, in any order, with nothing but the session's token and the store.
//!
//! Write a `rmcp::ServerHandler` as for one process, hand it to a [`Node`], and start as many as are needed, behind the
//! gateway or behind any balancer that knows nothing of sessions. What holds and what does not yet: docs/node.md.

mod answers;
mod budget;
mod caller;
mod calls;
mod clock;
mod data;
mod door;
mod event_id;
mod fleet;
mod journal;
mod keeping;
mod legacy;
mod meters;
mod news;
mod node;
mod places;
mod post;
mod questions;
mod registry;
mod resume;
mod sealing;
mod serve;
mod session;
mod settings;
mod shell;
mod special;
mod standing;
mod streams;
mod transport;

pub use budget::{Budget, Exhausted, Share, TooSmall, Unit};
pub use data::{Data, DataError, Handles, NAME_MAX, Swap, Version, handles, session_data};
pub use keeping::Shared;
pub use news::{Announcer, Change, announcer, forward};
pub use node::Node;
pub use session::{Session, SessionRecord};
pub use settings::{Secret, SessionBinding, Settings, WhenFull};
pub use special::On;
