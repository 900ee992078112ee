//! The config: what an operator writes (`raw`), what it means (`checked`), and what is wrong with it (`complaint`).
//!
//! It never talks to a replica and never reads a key; `control.rs` turns a [`Config`] into snapshots.

mod auth;
mod cache;
mod checked;
mod complaint;
mod credentials;
pub mod endpoint;
mod gateway;
mod header;
mod limit;
mod nearest;
mod raw;
pub mod registry;
mod server;
mod store;
#[cfg(test)]
mod tests;
mod units;

pub use auth::{Auth, IDENTITY_SECRET_MIN, SecretPlace};
pub use checked::{Config, check, load};
pub use complaint::{Complaint, Complaints, Place};
pub use credentials::{CredentialPlan, is_visible};
pub use gateway::{LogFormat, Process, TlsFiles};
pub use raw::Env;
pub use store::Store;
