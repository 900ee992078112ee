//! HTTP/1.1 as we speak it to replicas: one request as bytes, one answer from bytes (RFC 9112).
//!
//! Pure: knows no socket, no clock and no replica; bytes go in as they come, split anywhere, and the same answer comes out.
//! Strict where laxness would let two readers disagree about where an answer ends.

mod body;
mod chunked;
mod head;
mod request;

pub use body::{BodyReader, Step};
pub use head::{AnswerHead, Broken, HeadReader, Lasts, Received};
pub(super) use request::opening;
pub use request::{Outgoing, RequestHead};
