//! A raw MCP client that shows everything: status, headers, JSON, every event with its id.
//!
//! It never retries, never resumes and never answers by itself. Connections are kept and used again, because a fresh
//! one per request would hide the races of pooled connections.

mod answer;
mod legacy;
mod modern;
mod raw;

pub use answer::{Answer, Events, Outcome};
pub use legacy::Session;
pub use modern::Modern;
pub use raw::{RawAnswer, RawConnection, raw};

use crate::{Failure, Result, because};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a head, an event or the rest of a body may take before a test is told so.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Idle = Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>;

/// A client of one endpoint. Clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    path: String,
    /// Sent with every request; later ones replace earlier ones of the same name.
    headers: Vec<(HeaderName, HeaderValue)>,
    idle: Idle,
}

/// The socket address of `http://HOST:PORT/…`. Panics when it is no such URL.
pub fn address_of(url: &str) -> SocketAddr {
    let authority = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    let mut addresses = authority.and_then(|authority| authority.to_socket_addrs().ok());
    addresses.as_mut().and_then(Iterator::next).unwrap_or_else(|| panic!("no address in {url:?}"))
}

impl Client {
    /// A client of `http://HOST:PORT/PATH`.
    pub fn new(url: &str) -> Self {
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        Client {
            address: address_of(url),
            path: format!("/{path}"),
            headers: vec![
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (ACCEPT, HeaderValue::from_static("application/json, text/event-stream")),
            ],
            idle: Idle::default(),
        }
    }

    /// The same client with one header more on every request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(header(name, value));
        self
    }

    /// The same endpoint without kept connections.
    pub fn fresh(&self) -> Self {
        Client { idle: Idle::default(), ..self.clone() }
    }

    /// Where it connects.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One request; gives the head as soon as it is there. A header with an empty value is left out.
    pub async fn send(
        &self,
        method: Method,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(&self.path);
        let all = request.headers_mut().expect("method and path are sound");
        all.insert(HOST, HeaderValue::from_str(&self.address.to_string()).expect("an address is printable"));
        for (name, value) in self.headers.iter().cloned().chain(headers.iter().map(|(n, v)| header(n, v))) {
            if value.is_empty() {
                all.remove(name);
            } else {
                all.insert(name, value);
            }
        }
        let request = request.body(Full::new(body.into())).expect("the request is sound");
        tokio::time::timeout(PATIENCE, self.exchange(request))
            .await
            .map_err(because("no head of an answer"))?
    }

    /// As every HTTP client: a kept connection that closed before it took the request does not count.
    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Answer> {
        loop {
            let mut sender = self.connection().await?;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(Answer::new(response, sender, self.idle.clone())),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failure(format!("sending the request: {:?}", failed.into_error()))),
                },
            }
        }
    }

    /// POSTs a JSON message.
    pub async fn post(&self, headers: &[(&str, &str)], message: &Value) -> Result<Answer> {
        self.send(Method::POST, headers, message.to_string()).await
    }

    /// `initialize` and `notifications/initialized` with all client capabilities, newest legacy version.
    pub async fn initialize(&self) -> Result<Session> {
        Session::open(self, "2025-11-25", serde_json::json!({"elicitation": {}, "sampling": {}})).await
    }

    /// Modern requests with all client capabilities.
    pub fn modern(&self) -> Modern {
        Modern::new(self)
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>> {
        while let Some(mut kept) = self.take_idle() {
            if kept.ready().await.is_ok() {
                return Ok(kept);
            }
        }
        let socket = TcpStream::connect(self.address).await.map_err(because("connecting"))?;
        socket.set_nodelay(true).map_err(because("setting TCP_NODELAY"))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(because("starting HTTP"))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

fn header(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name of a test is sound");
    (name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value of a test is sound"))
}

/// A request message.
pub(crate) fn message(id: &Value, method: &str, params: &Value) -> Value {
    serde_json::json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// `Err` for an error response, else the result.
pub(crate) fn result_of(message: &Value) -> Result<Value> {
    match message.get("result") {
        Some(result) => Ok(result.clone()),
        None => Err(Failure(format!("no result but {message}"))),
    }
}
