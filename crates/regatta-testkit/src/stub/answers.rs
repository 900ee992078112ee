//! Well-behaved answers to start from: a test changes one of them and leaves the rest.
//!
//! Tool results carry `{op, principal, session}` as text, so that an answer that went to the wrong asker shows (V4).

use super::{Reply, Seen};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// Result of `initialize`.
pub fn initialize_result(version: &str) -> Value {
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}, "logging": {}},
        "serverInfo": {"name": "stub", "version": "1"},
    })
}

/// Result of `server/discover`.
pub fn discover_result() -> Value {
    json!({
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {"listChanged": true}},
        "ttlMs": 0,
        "cacheScope": "public",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "stub", "version": "1"}},
    })
}

/// One tool, `work(op)`.
pub fn tools() -> Value {
    let schema = json!({"type": "object", "properties": {"op": {"type": "string"}}});
    json!([{"name": "work", "description": "Notes its op in the journal", "inputSchema": schema}])
}

/// What a tool says: who asked for what.
pub fn echo(seen: &Seen) -> Value {
    let text = json!({
        "op": seen.op(),
        "principal": seen.header("authorization"),
        "session": seen.header("mcp-session-id"),
    });
    json!([{"type": "text", "text": text.to_string()}])
}

/// A legacy server with sessions: 400 without one, 404 for one it does not know, GET holds, DELETE ends.
pub fn legacy() -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let known = Mutex::new(HashSet::<String>::new());
    move |seen| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.rpc() == "initialize" {
            let id = format!("stub-{:x}-{}", std::process::id(), SESSIONS.fetch_add(1, Ordering::Relaxed));
            known.insert(id.clone());
            return legacy_request(seen).header("mcp-session-id", &id);
        }
        let session = seen.header("mcp-session-id");
        if session.is_empty() {
            return Reply::text(400, "text/plain", "no session");
        }
        if !known.contains(session) {
            return Reply::text(404, "text/plain", "unknown session");
        }
        match seen.method.as_str() {
            "GET" => Reply::sse().comment("open").live(),
            "DELETE" => {
                known.remove(session);
                Reply::status(200)
            }
            _ => legacy_request(seen),
        }
    }
}

/// A legacy server that gives no session id and knows neither GET nor DELETE.
pub fn sessionless() -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    |seen| {
        if seen.method == "POST" { legacy_request(seen) } else { Reply::status(405).header("allow", "POST") }
    }
}

fn legacy_request(seen: &Seen) -> Reply {
    if seen.id().is_null() || seen.rpc().is_empty() {
        return Reply::accepted();
    }
    let result = match seen.rpc() {
        "initialize" => {
            let asked = seen.json["params"]["protocolVersion"].as_str().unwrap_or_default();
            let known = ["2025-11-25", "2025-06-18", "2025-03-26"];
            initialize_result(if known.contains(&asked) { asked } else { known[0] })
        }
        "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => json!({}),
        "tools/list" => json!({"tools": tools()}),
        "tools/call" => json!({"content": echo(seen)}),
        _ => return Reply::error(seen, -32601, "unknown method"),
    };
    Reply::result(seen, result)
}

/// A modern server: discover, one tool, a live listen stream.
pub fn modern() -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    |seen| {
        if seen.method != "POST" {
            return Reply::status(405).header("allow", "POST");
        }
        if seen.id().is_null() {
            return Reply::accepted();
        }
        let result = match seen.rpc() {
            "server/discover" => discover_result(),
            "tools/list" => {
                json!({"resultType": "complete", "tools": tools(), "ttlMs": 0, "cacheScope": "public"})
            }
            "tools/call" => json!({"resultType": "complete", "content": echo(seen)}),
            "subscriptions/listen" => return listen(seen),
            _ => {
                let error = json!({"code": -32601, "message": "unknown method"});
                let body = json!({"jsonrpc": "2.0", "id": seen.id(), "error": error});
                return Reply::text(404, "application/json", &body.to_string());
            }
        };
        Reply::result(seen, result)
    }
}

/// Both, decided by the body.
pub fn dual() -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let (legacy, modern) = (legacy(), modern());
    move |seen| if seen.is_modern() { modern(seen) } else { legacy(seen) }
}

/// The acknowledgement of everything asked for, then whatever the test says (M-SUB).
pub fn listen(seen: &Seen) -> Reply {
    let params = json!({
        "_meta": {"io.modelcontextprotocol/subscriptionId": seen.id()},
        "notifications": seen.json["params"]["notifications"],
    });
    let method = "notifications/subscriptions/acknowledged";
    Reply::sse().event(&json!({"jsonrpc": "2.0", "method": method, "params": params})).live()
}
