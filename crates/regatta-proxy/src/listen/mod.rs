//! `subscriptions/listen` over several replicas: what they agreed to, the legs that clients share, and the body that a
//! client reads.

pub(crate) mod agreed;
pub(crate) mod body;
pub(crate) mod lists;
pub(crate) mod shared;
pub(crate) mod tasks;
