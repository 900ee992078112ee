//! The MCP wire: bytes to meaning and back, for both protocol eras.
//!
//! Pure: no IO, no clock, no runtime. Messages are never re-serialised; what the gateway must know is noted as
//! byte ranges of the text ([`Span`]), and what it must change is replaced range by range ([`splice`]), so
//! that everything else passes through exactly as it was sent.
//!
//! `decode` reads what clients send (distrustful, every rule of the grammar), `skim` and `scan` what servers
//! send (light, whole or as it flows), `sse` frames event streams, `modern` is the ladder of header checks.

pub mod codes;
pub mod era;
pub mod events;
pub mod headers;
pub mod meta;
pub mod modern;
pub mod scan;
pub mod sse;
pub mod write;

mod canonical;
mod decode;
mod documents;
mod escape;
mod json;
mod judge;
mod keys;
mod member;
mod message;
mod method;
mod number;
mod prose;
mod skim;
mod skip;
mod span;
mod splice;
mod swar;
#[cfg(test)]
mod testing;

pub use canonical::{canonical, canonical_params};
pub use decode::{BATCH_MAX, decode};
pub use documents::{Documents, documents};
pub use era::Era;
pub use json::DEPTH_MAX;
pub use judge::ID_MAX;
pub use message::{Decoded, Id, Kind, Malformed, Message, Meta, MethodName, Params, Shape};
pub use method::{Method, NameSource};
pub use number::NUMBER_MAX;
pub use prose::is_prose;
pub use skim::{Skim, SkimError, SkimKind, skim};
pub use span::{Span, TEXT_MAX, Text};
pub use splice::{insert_member, splice};
