//! The registry of one process: whoever shares it can register; nobody else can reach it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::expiring::Expiring;
use super::{Embedded, ready};
use crate::{Beat, BoxFuture, NodeFields, Nodes, Registry, StoreError};

impl Embedded {
    fn registered(&self) -> MutexGuard<'_, Expiring<String, NodeFields>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, node: &str, fields: NodeFields, ttl: Duration) -> Result<(), StoreError> {
        if !self.bounds.registry.admit(node, &fields) {
            self.counters.refused_nodes.fetch_add(1, Relaxed);
            return Err(StoreError::TooLarge("a node's id and fields"));
        }
        self.registered().put(node.to_owned(), fields, ttl, Instant::now()).map_err(|_| {
            self.counters.refused_nodes.fetch_add(1, Relaxed);
            StoreError::Full("nodes")
        })
    }

    fn renew(&self, node: &str, fields: NodeFields, ttl: Duration) -> Result<Beat, StoreError> {
        let mut nodes = self.registered();
        let Some(held) = nodes.renew(node, ttl, Instant::now()) else { return Ok(Beat::Unknown) };
        let mut next = held.clone();
        next.extend(fields);
        if !self.bounds.registry.admit(node, &next) {
            self.counters.refused_nodes.fetch_add(1, Relaxed);
            return Err(StoreError::TooLarge("a node's id and fields"));
        }
        *held = next;
        Ok(Beat::Kept)
    }
}

impl Registry for Embedded {
    fn nodes(&self) -> BoxFuture<'_, Result<Nodes, StoreError>> {
        let nodes = self.registered();
        let live = nodes.live(Instant::now()).map(|(id, fields)| (id.clone(), fields.clone()));
        ready(Ok(Nodes { nodes: live.collect(), left_out: 0 }))
    }

    fn register(
        &self,
        node: &str,
        fields: NodeFields,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.enter(node, fields, ttl))
    }

    fn beat(&self, node: &str, fields: NodeFields, ttl: Duration) -> BoxFuture<'_, Result<Beat, StoreError>> {
        ready(self.renew(node, fields, ttl))
    }

    fn leave(&self, node: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        self.registered().remove(node);
        ready(Ok(()))
    }
}
