//! A legacy session: the requests a client of 2025-03-26 to 2025-11-25 makes, each with its own id.

use super::{Answer, Client, Outcome, message};
use crate::{Failure, Result};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A session after its handshake. Clones are the same session.
#[derive(Clone, Debug)]
pub struct Session {
    /// The client without session headers.
    pub client: Client,
    /// `Mcp-Session-Id`, or "" when the server gave none.
    pub id: String,
    /// The version that was agreed.
    pub version: String,
    /// The result of `initialize`.
    pub server: Value,
    next: Arc<AtomicU64>,
}

impl Session {
    /// `initialize` and `notifications/initialized`.
    pub async fn open(client: &Client, version: &str, capabilities: Value) -> Result<Self> {
        let params = json!({
            "protocolVersion": version,
            "capabilities": capabilities,
            "clientInfo": {"name": "regatta-testkit", "version": "1"},
        });
        let answer = client.post(&[], &message(&json!(0), "initialize", &params)).await?;
        let id = answer.header("mcp-session-id").to_owned();
        let outcome = answer.outcome().await?;
        let server = outcome.result()?;
        let version = server["protocolVersion"].as_str().unwrap_or(version).to_owned();
        let session =
            Session { client: client.clone(), id, version, server, next: Arc::new(AtomicU64::new(1)) };
        let answer = session.notify("notifications/initialized", json!({})).await?;
        match answer.status {
            StatusCode::ACCEPTED => answer.bytes().await.map(|_| session),
            status => Err(Failure(format!("notifications/initialized was answered with {status}"))),
        }
    }

    /// The same session through another client (another gateway, another path).
    pub fn through(&self, client: &Client) -> Self {
        Session { client: client.clone(), ..self.clone() }
    }

    fn headers(&self) -> [(&str, &str); 2] {
        [("mcp-session-id", &self.id), ("mcp-protocol-version", &self.version)]
    }

    /// An id that this session has not used.
    pub fn fresh_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// POSTs any message with the session's headers.
    pub async fn post(&self, message: &Value) -> Result<Answer> {
        self.client.post(&self.headers(), message).await
    }

    /// One request with a fresh id; the head of its answer.
    pub async fn request(&self, method: &str, params: Value) -> Result<Answer> {
        self.post(&message(&json!(self.fresh_id()), method, &params)).await
    }

    /// `tools/call`, read to its response.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Outcome> {
        self.request("tools/call", json!({"name": tool, "arguments": arguments})).await?.outcome().await
    }

    /// `tools/call` with a progress token; the head of its answer.
    pub async fn call_with_progress(&self, tool: &str, arguments: Value, token: Value) -> Result<Answer> {
        let params = json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": token}});
        self.request("tools/call", params).await
    }

    /// One notification.
    pub async fn notify(&self, method: &str, params: Value) -> Result<Answer> {
        self.post(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await
    }

    /// Answers a request of the server.
    pub async fn answer(&self, id: &Value, result: Value) -> Result<Answer> {
        self.post(&json!({"jsonrpc": "2.0", "id": id, "result": result})).await
    }

    /// GET: the standing stream.
    pub async fn listen(&self) -> Result<Answer> {
        self.client.send(Method::GET, &self.headers(), "").await
    }

    /// GET with `Last-Event-ID`.
    pub async fn resume(&self, last_event_id: &str) -> Result<Answer> {
        let [session, version] = self.headers();
        self.client.send(Method::GET, &[session, version, ("last-event-id", last_event_id)], "").await
    }

    /// DELETE.
    pub async fn end(&self) -> Result<StatusCode> {
        let answer = self.client.send(Method::DELETE, &self.headers(), "").await?;
        let status = answer.status;
        answer.bytes().await.map(|_| status)
    }
}
