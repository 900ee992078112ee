//! `subscriptions/listen` over several replicas: the body that merges them, and what they agreed to.

pub(crate) mod agreed;
pub(crate) mod body;
