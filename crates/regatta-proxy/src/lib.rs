//! The data plane of the gateway.

pub mod listener;
