//! The registry: nodes that announce themselves, in an open schema that any language can write (DESIGN 6).
//!
//! Strings in, strings out; what they mean, and whether a node is alive, is judged by the control plane on its own
//! clock. Bounded in nodes, fields and bytes, because anybody who can write the store can write here.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{BoxFuture, StoreError};

/// The fields of a node, as it wrote them.
pub type NodeFields = BTreeMap<String, String>;

/// All nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// By node id.
    pub nodes: BTreeMap<String, NodeFields>,
    /// Nodes that were left out because of a bound: too many, or one with an unusable id, too many or too large fields.
    pub left_out: u64,
}

/// What a heartbeat found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The node is registered; its lease begins anew.
    Kept,
    /// It is not, or no longer: register it again, with all its fields.
    Unknown,
}

/// Bounds of the registry.
#[derive(Clone, Copy, Debug)]
pub struct RegistryBounds {
    /// Nodes; more are left out.
    pub nodes_max: usize,
    /// Fields of a node; one with more is left out.
    pub fields_max: usize,
    /// Bytes of a node's id and all its fields; one with more is left out.
    pub node_bytes_max: usize,
}

impl Default for RegistryBounds {
    fn default() -> Self {
        RegistryBounds { nodes_max: 1000, fields_max: 64, node_bytes_max: 256 << 10 }
    }
}

impl RegistryBounds {
    /// Whether a node keeps to the bounds.
    pub(crate) fn admit(&self, id: &str, fields: &NodeFields) -> bool {
        let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        let id_fits = !id.is_empty() && id.len() <= NODE_ID_MAX;
        id_fits && fields.len() <= self.fields_max && id.len() + bytes <= self.node_bytes_max
    }
}

/// Bytes of a node's id.
pub const NODE_ID_MAX: usize = 256;

/// The registry.
pub trait Registry {
    /// All nodes whose lease runs.
    fn nodes(&self) -> BoxFuture<'_, Result<Nodes, StoreError>>;

    /// Registers a node, or replaces all its fields, for `ttl`.
    fn register(
        &self,
        node: &str,
        fields: NodeFields,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// A heartbeat: sets these fields and leaves the others, for `ttl` from now.
    fn beat(&self, node: &str, fields: NodeFields, ttl: Duration) -> BoxFuture<'_, Result<Beat, StoreError>>;

    /// Takes a node off the registry.
    fn leave(&self, node: &str) -> BoxFuture<'_, Result<(), StoreError>>;
}
