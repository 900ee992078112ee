//! Modern requests (2026-07-28): headers and `_meta` made from the message.

use super::{Answer, Client, Outcome, message};
use crate::Result;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const VERSION: &str = "2026-07-28";

/// How modern requests are made. Clones share connections and ids.
#[derive(Clone, Debug)]
pub struct Modern {
    client: Client,
    /// Put into `_meta` of every request; change at will.
    pub meta: Value,
    next: Arc<AtomicU64>,
}

impl Modern {
    pub(super) fn new(client: &Client) -> Self {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientInfo": {"name": "regatta-testkit", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "sampling": {}},
        });
        Modern { client: client.clone(), meta, next: Arc::new(AtomicU64::new(1)) }
    }

    /// One member of `_meta` more, for example `progressToken`.
    pub fn with_meta(mut self, key: &str, value: Value) -> Self {
        self.meta[key] = value;
        self
    }

    /// An id that has not been used.
    pub fn fresh_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The message with `_meta` filled in, and its headers.
    pub fn build(&self, id: &Value, method: &str, mut params: Value) -> (Vec<(&'static str, String)>, Value) {
        params["_meta"] = self.meta.clone();
        let name = match method {
            "resources/read" => &params["uri"],
            "tasks/get" | "tasks/update" | "tasks/cancel" => &params["taskId"],
            _ => &params["name"],
        };
        let mut headers =
            vec![("mcp-protocol-version", VERSION.to_owned()), ("mcp-method", method.to_owned())];
        if let Some(name) = name.as_str() {
            headers.push(("mcp-name", name.to_owned()));
        }
        (headers, message(id, method, &params))
    }

    /// One request with a fresh id; the head of its answer.
    pub async fn request(&self, method: &str, params: Value) -> Result<Answer> {
        self.request_as(&json!(self.fresh_id()), method, params).await
    }

    /// One request with an id of the caller's choice.
    pub async fn request_as(&self, id: &Value, method: &str, params: Value) -> Result<Answer> {
        let (headers, message) = self.build(id, method, params);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.client.post(&headers, &message).await
    }

    /// `tools/call`, read to its response.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Outcome> {
        self.request("tools/call", json!({"name": tool, "arguments": arguments})).await?.outcome().await
    }

    /// The retry after `input_required`: the same call with its state and the answers (M-MRTR).
    pub async fn retry(
        &self,
        tool: &str,
        arguments: Value,
        asked: &Value,
        responses: Value,
    ) -> Result<Outcome> {
        let mut params = json!({"name": tool, "arguments": arguments, "inputResponses": responses});
        if let Some(state) = asked.get("requestState") {
            params["requestState"] = state.clone();
        }
        self.request("tools/call", params).await?.outcome().await
    }

    /// `subscriptions/listen` with this filter.
    pub async fn listen(&self, notifications: Value) -> Result<Answer> {
        self.request("subscriptions/listen", json!({"notifications": notifications})).await
    }
}
