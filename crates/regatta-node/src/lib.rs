//! A runtime for MCP servers that are written with `rmcp` and scaled out: a session is data, not a task, so that every
//! node serves every request of every session, in any order, with nothing but the session's token and the store.
//!
//! Write a `rmcp::ServerHandler` as for one process, hand it to a [`Node`], and start as many as are needed, behind the
//! gateway or behind any balancer that knows nothing of sessions. The handler is made anew for each request; what it must
//! find again is in the session, in a handle, or in your database:
//!
//! ```no_run
//! use regatta_node::{Node, NotStarted, session_data};
//! use rmcp::model::{
//!     CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities, ServerConfig,
//! };
//! use rmcp::{ErrorData, RoleServer, ServerHandler, service::RequestContext};
//!
//! struct Counter;
//!
//! impl ServerHandler for Counter {
//!     fn get_info(&self) -> ServerConfig {
//!         ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
//!     }
//!
//!     // One more with each call of a session, whichever nodes its calls come to.
//!     async fn call_tool(
//!         &self,
//!         _: CallToolRequestParams,
//!         context: RequestContext<RoleServer>,
//!     ) -> Result<CallToolResponse, ErrorData> {
//!         let wrong = |why: String| ErrorData::internal_error(why, None);
//!         let data = session_data(&context.extensions).ok_or_else(|| wrong("no session".to_owned()))?;
//!         let next = data.update("count", |count: Option<u64>| count.unwrap_or(0) + 1).await;
//!         let next = next.map_err(|why| wrong(why.to_string()))?;
//!         Ok(CallToolResult::success(vec![ContentBlock::text(next.to_string())]).into())
//!     }
//! }
//!
//! fn main() -> Result<(), NotStarted> {
//!     Node::named("counter").once("count").run(|| Counter)
//! }
//! ```
//!
//! | to | see |
//! |---|---|
//! | keep something of a session | [`session_data`], [`Data`] |
//! | keep something for clients without sessions, or let the client carry it | [`handles`], [`Handles`] |
//! | run a tool once for one call | [`Node::once`] |
//! | have a tool on some nodes only | [`Node::tool_on`], [`On`] |
//! | keep results | [`Node::cached`], [`Shared`] |
//! | tell clients what changed | [`announcer`], [`Announcer`] |
//! | share out connections | [`Budget`] |
//! | tune it | [`Settings`] |
//!
//! What holds and what does not yet: docs/node.md. How to get there with a server that was written for one process:
//! docs/from-one-process-to-ten.md.

mod answers;
mod batch;
mod bound;
mod budget;
mod caller;
mod calls;
mod check;
mod clock;
mod connections;
mod data;
mod door;
mod drain;
mod environment;
mod event_id;
mod fleet;
mod given;
mod journal;
mod keeping;
mod leave;
mod legacy;
mod meters;
mod news;
mod node;
mod opened;
mod places;
mod post;
mod pump;
mod questions;
mod registry;
mod resume;
mod sealing;
mod serve;
mod session;
mod settings;
mod shell;
mod special;
mod stall;
mod standing;
mod streams;
mod transport;
mod work;

pub use budget::{Budget, Exhausted, Share, TooSmall, Unit};
pub use data::{Data, DataError, Handles, NAME_MAX, Swap, Version};
pub use given::{announcer, handles, session_data};
pub use keeping::Shared;
pub use news::{Announcer, Change, forward};
pub use node::{Node, NotStarted};
pub use session::{Session, SessionRecord};
pub use settings::{Elsewhere, Secret, SessionBinding, Settings, WhenFull};
pub use special::On;

/// The code of the documents, compiled with the doc tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../docs/from-one-process-to-ten.md")]
    struct Guide;
    #[doc = include_str!("../../../docs/node.md")]
    struct Manual;
}
