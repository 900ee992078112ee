//! One request as the stub received it, and what became of it.

use bytes::Bytes;
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A request.
#[derive(Debug)]
pub struct Seen {
    /// Counts the stub's connections from 1.
    pub connection: u64,
    /// As sent, for example `POST`.
    pub method: String,
    /// As sent, with the query.
    pub path: String,
    /// Names in lower case, in order, doubles kept.
    pub headers: Vec<(String, String)>,
    /// Without its framing.
    pub body: Bytes,
    /// The body as JSON, or `Null`.
    pub json: Value,
    /// When it was complete.
    pub at: Instant,
    pub(crate) fate: Mutex<Fate>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// When the last byte of the reply was written.
    pub answered: Option<Instant>,
    /// When the other side closed before the reply was complete.
    pub left: Option<Instant>,
}

impl Seen {
    /// The first header of this name (lower case), or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// All headers of this name.
    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The JSON-RPC method, or "".
    pub fn rpc(&self) -> &str {
        self.json["method"].as_str().unwrap_or_default()
    }

    /// The JSON-RPC id, or `Null`.
    pub fn id(&self) -> &Value {
        &self.json["id"]
    }

    /// `params.name`, or "".
    pub fn tool(&self) -> &str {
        self.json["params"]["name"].as_str().unwrap_or_default()
    }

    /// `params.arguments`, or `Null`.
    pub fn arguments(&self) -> &Value {
        &self.json["params"]["arguments"]
    }

    /// The id under which the journal keeps an execution: `arguments.op`, else the JSON-RPC id as text.
    pub fn op(&self) -> String {
        match self.arguments()["op"].as_str() {
            Some(op) => op.to_owned(),
            None => self.id().to_string(),
        }
    }

    /// Whether it speaks the modern era.
    pub fn is_modern(&self) -> bool {
        self.json["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_string()
    }

    /// Whether it is the answer to our request with this id.
    pub fn is_response_to(&self, id: &Value) -> bool {
        self.json.get("method").is_none() && self.id() == id && !id.is_null()
    }

    /// What became of it so far.
    pub fn fate(&self) -> Fate {
        *self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
