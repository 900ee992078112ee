//! The admin listener over a socket: statuses, hosts, methods, bodies.

use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Panel, Phase, Readiness, serve};

async fn panel() -> (Arc<Readiness>, std::net::SocketAddr) {
    let ready = Arc::new(Readiness::default());
    let panel = Panel {
        ready: ready.clone(),
        metrics: Box::new(|| "# EOF\n".to_owned()),
        status: Box::new(|| json!({ "replicas": [] })),
        degraded: Box::new(|| vec!["no replica of shop is healthy".to_owned()]),
        cache: Box::new(|| json!({ "rules": [] })),
        purge: Box::new(|asked| {
            Box::pin(async move {
                match asked.server.as_str() {
                    "shop" => Ok(()),
                    _ => Err("no server has this name".to_owned()),
                }
            })
        }),
        hosts: vec!["gateway.example".to_owned()],
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Arc::new(panel)));
    (ready, address)
}

async fn ask(address: std::net::SocketAddr, line: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

#[tokio::test]
async fn ready_follows_the_life_of_the_gateway_and_health_does_not() {
    let (ready, address) = panel().await;
    let host = "Host: localhost:9901\r\n";
    for (phase, status) in [(Phase::Starting, 503), (Phase::Serving, 200), (Phase::Draining, 503)] {
        ready.enter(phase);
        assert_eq!(ask(address, "GET /ready", host).await.0, status, "{phase:?}");
        assert_eq!(ask(address, "GET /health", host).await, (200, "ok\n".to_owned()));
    }
}

#[tokio::test]
async fn a_degraded_gateway_is_ready_and_says_why() {
    let (ready, address) = panel().await;
    ready.enter(Phase::Serving);
    let (status, body) = ask(address, "GET /ready", "Host: 127.0.0.1\r\n").await;
    assert_eq!(status, 200);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let reasons = json!(["no replica of shop is healthy"]);
    assert_eq!(body, json!({ "ready": true, "phase": "serving", "degraded": true, "reasons": reasons }));
}

#[tokio::test]
async fn a_page_cannot_reach_it_under_a_name_of_its_own() {
    let (_ready, address) = panel().await;
    for (line, host, status) in [
        ("GET /health", "Host: evil.example:9901\r\n", 403),
        ("GET /health", "", 403),
        ("GET /health", "Host: localhost\r\nHost: localhost\r\n", 403),
        ("GET http://evil.example/health", "Host: localhost\r\n", 403),
        ("GET /health", "Host: [::1]:9901\r\n", 200),
        ("GET /health", "Host: 10.0.0.7:9901\r\n", 200),
        ("GET /health", "Host: Gateway.Example:9901\r\n", 200),
    ] {
        assert_eq!(ask(address, line, host).await.0, status, "{line} {host}");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let (_ready, address) = panel().await;
    let host = "Host: localhost\r\n";
    for (line, status) in [
        ("GET /", 404),
        ("GET /healthz", 404),
        ("GET /health/", 404),
        ("POST /health", 405),
        ("DELETE /status", 405),
        ("HEAD /metrics", 200),
        ("GET /status", 200),
    ] {
        assert_eq!(ask(address, line, host).await.0, status, "{line}");
    }
}

#[tokio::test]
async fn purges_are_taken_as_json_and_never_from_a_page() {
    let (_ready, address) = panel().await;
    let post = async |headers: &str, body: &str| {
        let length = body.len();
        let headers = format!("Host: localhost\r\n{headers}Content-Length: {length}\r\n");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("POST /cache/purge HTTP/1.1\r\n{headers}Connection: close\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).unwrap()
    };
    const JSON: &str = "Content-Type: application/json\r\n";
    assert_eq!(post(JSON, r#"{"server":"shop"}"#).await, 200);
    assert_eq!(post(JSON, r#"{"server":"bank"}"#).await, 400);
    assert_eq!(post(JSON, "{").await, 400);
    assert_eq!(post("Content-Type: text/plain\r\n", r#"{"server":"shop"}"#).await, 415);
    let page = format!("{JSON}Origin: http://evil.example\r\n");
    assert_eq!(post(&page, r#"{"server":"shop"}"#).await, 415);
    assert_eq!(ask(address, "GET /cache/purge", "Host: localhost\r\n").await.0, 405);
    assert_eq!(ask(address, "GET /cache", "Host: localhost\r\n").await.0, 200);
}
