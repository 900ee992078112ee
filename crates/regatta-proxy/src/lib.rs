//! The data plane of the gateway.

pub mod listener;
mod tcp;
pub mod upstream;
