//! The admin listener: `/health`, `/ready`, `/metrics`, `/status`, `/cache`. Read only but for purges, and never an id of
//! a session, a token or an argument (RELIABILITY T29).
//!
//! It gets its facts as closures, so it knows neither plane. Every request must name a host that cannot be a page's
//! own name bound to this address (T1).

mod cache;
mod ready;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use cache::PurgeAsked;
pub use ready::{Phase, Readiness};

/// Connections at one time; more wait in the backlog.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take for its headers, and an idle connection may stay.
const HEADER_MAX: Duration = Duration::from_secs(10);
/// How long a connection may stay in all.
const CONNECTION_MAX: Duration = Duration::from_secs(300);

/// What the admin listener shows.
pub struct Panel {
    /// Readiness.
    pub ready: Arc<Readiness>,
    /// The text of `/metrics`.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// The JSON of `/status`.
    pub status: Box<dyn Fn() -> Value + Send + Sync>,
    /// What is degraded right now besides what `ready` was told.
    pub degraded: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// The JSON of `/cache`.
    pub cache: Box<dyn Fn() -> Value + Send + Sync>,
    /// Makes kept results old; else says what is wrong with the wish.
    pub purge: Box<dyn Fn(PurgeAsked) -> Purging + Send + Sync>,
    /// Host names, besides loopback names and addresses, under which it may be reached; `*` for any.
    pub hosts: Vec<String>,
}

/// A purge under way, or what is wrong with it.
pub type Purging = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

impl std::fmt::Debug for Panel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Panel")
            .field("ready", &self.ready)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, panel: Arc<Panel>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(why) => {
                tracing::warn!(%why, "the admin listener cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let panel = Arc::clone(&panel);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let panel = Arc::clone(&panel);
                async move { Ok::<_, std::convert::Infallible>(answer(&panel, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // A client that breaks off is its own affair.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
        });
    }
}

async fn answer(panel: &Panel, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    if !host_is_ours(panel, request.headers(), authority) {
        return text(StatusCode::FORBIDDEN, "this host name is not in gateway.allowed_hosts\n");
    }
    let path = request.uri().path();
    let (allowed, methods): (&[Method], _) = match path {
        "/health" | "/ready" | "/metrics" | "/status" | "/cache" => {
            (&[Method::GET, Method::HEAD], "GET, HEAD")
        }
        "/cache/purge" => (&[Method::POST], "POST"),
        _ => {
            return text(
                StatusCode::NOT_FOUND,
                "here are /health, /ready, /metrics, /status, /cache and /cache/purge\n",
            );
        }
    };
    if !allowed.contains(request.method()) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "not by this method\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        return refused;
    }
    match path {
        "/health" => text(StatusCode::OK, "ok\n"),
        "/ready" => {
            let (ready, body) = panel.ready.answer(&(panel.degraded)());
            json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
        }
        "/metrics" => {
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            with_kind(StatusCode::OK, kind, (panel.metrics)().into())
        }
        "/cache" => json(StatusCode::OK, &(panel.cache)()),
        "/cache/purge" => cache::purge(panel, request).await,
        _ => json(StatusCode::OK, &(panel.status)()),
    }
}

/// A page of another origin can make a browser ask here under a name of its own, but not under an address.
fn host_is_ours(panel: &Panel, headers: &HeaderMap, authority: Option<&str>) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let allowed = |host: &str| {
        let name = without_port(host).to_ascii_lowercase();
        name == "localhost"
            || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
            || panel.hosts.iter().any(|known| *known == "*" || *known == name)
    };
    host.to_str().is_ok_and(allowed) && authority.is_none_or(allowed)
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    with_kind(
        status,
        HeaderValue::from_static("text/plain; charset=utf-8"),
        Bytes::from_static(body.as_bytes()),
    )
}

fn json(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let kind = HeaderValue::from_static("application/json");
    with_kind(status, kind, format!("{body:#}\n").into())
}

fn with_kind(status: StatusCode, kind: HeaderValue, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
