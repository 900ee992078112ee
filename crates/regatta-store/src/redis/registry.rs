//! The registry in Redis: a set of ids, a hash a node (DESIGN 6). Others write here too, in other languages.
//!
//! A member of the set without a hash is a node whose lease is over; whoever notices takes it off.

use std::time::Duration;

use redis::Value;

use super::line::Repeat;
use super::routes::Call;
use super::sessions::unreadable;
use super::{Inner, Redis, scripts};
use crate::{Beat, BoxFuture, NODE_ID_MAX, NodeFields, Nodes, Registry, StoreError};

impl Inner {
    async fn all_nodes(&self) -> Result<Nodes, StoreError> {
        let bounds = self.limits.registry;
        let most = bounds.nodes_max.to_string();
        let answer = self.routes.run(&scripts::NODES, &self.names.nodes(), &[most.as_bytes()]).await?;
        let Value::Array(ids) = answer else { return Err(unreadable()) };
        let mut ids = ids.into_iter();
        let Some(Value::Int(number)) = ids.next() else { return Err(unreadable()) };
        let ids: Vec<String> = ids.filter_map(usable_id).collect();
        let mut nodes =
            Nodes { left_out: number.unsigned_abs().saturating_sub(ids.len() as u64), ..Nodes::default() };
        let limits = [bounds.fields_max.to_string(), bounds.node_bytes_max.to_string()];
        let limits = limits.map(String::into_bytes).to_vec();
        let call = |id: &String| Call { key: self.names.node(id), args: limits.clone() };
        let calls: Vec<Call> = ids.iter().map(call).collect();
        let answers = self.routes.run_all(&scripts::NODE, &calls).await;
        let mut over = Vec::new();
        for (id, answer) in ids.into_iter().zip(answers) {
            match redis::from_redis_value::<NodeFields>(answer?) {
                Ok(fields) if fields.is_empty() => over.push(id),
                Ok(fields) => {
                    nodes.nodes.insert(id, fields);
                }
                Err(_) => nodes.left_out += 1,
            }
        }
        self.take_off(&over).await;
        Ok(nodes)
    }

    /// Takes nodes off the set whose hash is gone.
    async fn take_off(&self, over: &[String]) {
        if over.is_empty() {
            return;
        }
        let key = self.names.nodes();
        let mut cmd = redis::cmd("SREM");
        cmd.arg(&key).arg(over);
        // A node that came back meanwhile enters itself again with its next heartbeat. An error is tried again.
        let _ = self.routes.ask(&key, &cmd, Repeat::Harmless).await;
    }

    async fn enter(&self, node: &str) -> Result<(), StoreError> {
        let key = self.names.nodes();
        let mut cmd = redis::cmd("SADD");
        cmd.arg(&key).arg(node);
        self.routes.ask(&key, &cmd, Repeat::Harmless).await.map(|_| ())
    }

    fn admit(&self, node: &str, fields: &NodeFields) -> Result<(), StoreError> {
        if self.limits.registry.admit(node, fields) {
            return Ok(());
        }
        self.means.counters.refused_nodes.one();
        Err(StoreError::TooLarge("a node's id and fields"))
    }
}

fn usable_id(value: Value) -> Option<String> {
    match value {
        Value::BulkString(id) if (1..=NODE_ID_MAX).contains(&id.len()) => String::from_utf8(id).ok(),
        _ => None,
    }
}

fn args<'a>(ttl: &'a str, fields: &'a NodeFields) -> Vec<&'a [u8]> {
    let fields = fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    std::iter::once(ttl.as_bytes()).chain(fields).collect()
}

impl Registry for Redis {
    fn nodes(&self) -> BoxFuture<'_, Result<Nodes, StoreError>> {
        Box::pin(self.inner.all_nodes())
    }

    fn register(
        &self,
        node: &str,
        fields: NodeFields,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let node = node.to_owned();
        Box::pin(async move {
            self.inner.admit(&node, &fields)?;
            let ttl = ttl.as_millis().max(1).to_string();
            let key = self.inner.names.node(&node);
            self.inner.routes.run(&scripts::REGISTER, &key, &args(&ttl, &fields)).await?;
            self.inner.enter(&node).await
        })
    }

    fn beat(&self, node: &str, fields: NodeFields, ttl: Duration) -> BoxFuture<'_, Result<Beat, StoreError>> {
        let node = node.to_owned();
        Box::pin(async move {
            self.inner.admit(&node, &fields)?;
            let ttl = ttl.as_millis().max(1).to_string();
            let key = self.inner.names.node(&node);
            match self.inner.routes.run(&scripts::BEAT, &key, &args(&ttl, &fields)).await? {
                Value::Int(1) => self.inner.enter(&node).await.map(|()| Beat::Kept),
                _ => Ok(Beat::Unknown),
            }
        })
    }

    fn leave(&self, node: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        let node = node.to_owned();
        Box::pin(async move {
            let key = self.inner.names.node(&node);
            let mut cmd = redis::cmd("DEL");
            cmd.arg(&key);
            self.inner.routes.ask(&key, &cmd, Repeat::Harmless).await?;
            let key = self.inner.names.nodes();
            let mut cmd = redis::cmd("SREM");
            cmd.arg(&key).arg(&node);
            self.inner.routes.ask(&key, &cmd, Repeat::Harmless).await.map(|_| ())
        })
    }
}
