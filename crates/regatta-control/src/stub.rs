//! A small MCP server for the tests of this crate: answers from a script, and keeps a journal of what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request as the stub saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `METHOD /path jsonrpc-method session`, the session `-` if there was none.
    pub line: String,
    /// The JSON-RPC method, or the HTTP method where there is none.
    pub method: String,
    /// The path.
    pub path: String,
    /// The `Host` header.
    pub host: String,
    /// The session header.
    pub session: Option<String>,
}

/// What the stub answers: status, headers, body.
pub type Answer = (u16, Vec<(&'static str, String)>, String);

/// A running stub; ends when dropped.
pub struct Stub {
    /// Its port.
    pub port: u16,
    journal: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stub {
    /// Answers as `script` says.
    pub async fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let journal: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (script, kept) = (Arc::new(script), journal.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (script, journal) = (script.clone(), kept.clone());
                let service = service_fn(move |request| {
                    let (script, journal) = (script.clone(), journal.clone());
                    async move {
                        let asked = read(request).await;
                        journal.lock().unwrap().push(asked.clone());
                        Ok::<_, Infallible>(response(script(&asked)))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Stub { port, journal, task }
    }

    /// Its endpoint.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    /// What it was asked since the last look.
    pub fn asked(&self) -> Vec<String> {
        self.journal.lock().unwrap().drain(..).map(|asked| asked.line).collect()
    }
}

/// A JSON-RPC result.
pub fn result(result: Value) -> Answer {
    with_session(result, None)
}

/// The same with a session id.
pub fn with_session(result: Value, session: Option<&str>) -> Answer {
    let mut headers = vec![("content-type", "application/json".to_owned())];
    headers.extend(session.map(|id| ("mcp-session-id", id.to_owned())));
    (200, headers, json!({ "jsonrpc": "2.0", "id": "regatta-probe", "result": result }).to_string())
}

/// A JSON-RPC error.
pub fn error(status: u16, code: i64) -> Answer {
    let body = json!({ "jsonrpc": "2.0", "id": "regatta-probe", "error": { "code": code, "message": "no" } });
    (status, vec![("content-type", "application/json".to_owned())], body.to_string())
}

/// A server of both eras.
pub fn dual(asked: &Asked) -> Answer {
    match asked.method.as_str() {
        "server/discover" => result(json!({ "supportedVersions": ["2026-07-28"], "capabilities": {} })),
        _ => legacy(asked),
    }
}

/// A server of the legacy era with sessions.
pub fn legacy(asked: &Asked) -> Answer {
    match (asked.method.as_str(), asked.session.as_deref()) {
        ("initialize", _) => {
            with_session(json!({ "protocolVersion": "2025-11-25", "capabilities": {} }), Some("s1"))
        }
        ("notifications/initialized" | "DELETE", Some("s1")) => (202, Vec::new(), String::new()),
        ("ping", Some("s1")) => result(json!({})),
        (_, None) => error(400, -32000),
        _ => error(404, -32001),
    }
}

async fn read(request: Request<Incoming>) -> Asked {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let message: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let method = message["method"].as_str().map_or_else(|| head.method.to_string(), str::to_owned);
    let session = head.headers.get("mcp-session-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let path = head.uri.path().to_owned();
    let line = format!("{} {path} {method} {}", head.method, session.as_deref().unwrap_or("-"));
    let host = head.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    Asked { line, method, path, host, session }
}

fn response((status, headers, body): Answer) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Full::new(body.into())).unwrap()
}
