//! A client's address behind proxies: the right-most hop that none of them vouches for, or what a PROXY header says
//! (RELIABILITY T25). Seen here by the quota of new sessions, which without a credential goes by address.

use crate::REGATTA;
use regatta_testkit::client::{RawConnection, address_of};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Result, Stub};
use serde_json::json;

const ONE_A_MINUTE: &str = "initialize_per_minute_max = 1\n";

async fn start(lines: &str) -> (Stub, Gateway) {
    let stub = Stub::start(answers::legacy()).await;
    let plan = Plan::over([stub.url()]).on_gateway(&[ONE_A_MINUTE, lines].concat());
    let gateway = Gateway::start(REGATTA, plan).await;
    (stub, gateway)
}

/// `initialize` with these headers behind this preface: its status, 0 if the connection was closed.
async fn opens(gateway: &Gateway, preface: &[u8], headers: &str) -> u16 {
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).to_string();
    let text = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = RawConnection::open(address_of(&gateway.url())).await.expect("it accepts");
    let _ = connection.write(&[preface, text.as_bytes()].concat()).await;
    connection.read_answer().await.status
}

#[tokio::test]
async fn without_trusted_proxies_nobodys_word_about_an_address_counts() -> Result<()> {
    let (_stub, gateway) = start("").await;
    assert_eq!(opens(&gateway, b"", "X-Forwarded-For: 1.1.1.1\r\n").await, 200);
    assert_eq!(opens(&gateway, b"", "X-Forwarded-For: 2.2.2.2\r\nForwarded: for=3.3.3.3\r\n").await, 429);
    Ok(())
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_quota_and_cannot_shift_it() -> Result<()> {
    let (_stub, gateway) = start("trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]").await;
    for (name, value, status) in [
        ("one client", "203.0.113.1", 200),
        ("the same", "203.0.113.1", 429),
        ("the same, with an invented hop before it", "9.9.9.9, 203.0.113.1", 429),
        ("the same, through two proxies", "8.8.8.8, 203.0.113.1, 10.0.0.7", 429),
        ("another", "203.0.113.2", 200),
        ("one of a /64", "2001:db8:1:2::1", 200),
        ("its neighbour in the /64", "2001:db8:1:2:ffff::2", 429),
        ("one of the next /64", "2001:db8:1:3::1", 200),
    ] {
        let header = format!("X-Forwarded-For: {value}\r\n");
        assert_eq!(opens(&gateway, b"", &header).await, status, "{name}");
    }
    let forged = "Forwarded: for=7.7.7.7\r\nX-Forwarded-For: 203.0.113.2\r\n";
    assert_eq!(opens(&gateway, b"", forged).await, 429, "the header that the proxies do not write");
    Ok(())
}

/// A PROXY header of version 2 for a client at this IPv4 address.
fn preface(client: [u8; 4]) -> Vec<u8> {
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"[..], &client, &[127, 0, 0, 1], &[1, 1, 2, 2]].concat()
}

#[tokio::test]
async fn a_proxy_header_names_the_client_and_a_trusted_proxy_must_write_it() -> Result<()> {
    let (_stub, gateway) = start("trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true").await;
    assert_eq!(opens(&gateway, &preface([203, 0, 113, 1]), "").await, 200);
    assert_eq!(opens(&gateway, &preface([203, 0, 113, 1]), "X-Forwarded-For: 1.1.1.1\r\n").await, 429);
    assert_eq!(opens(&gateway, &preface([203, 0, 113, 2]), "").await, 200);
    assert_eq!(opens(&gateway, b"", "").await, 0, "none where there must be one");
    assert_eq!(gateway.metric("regatta_listener_handshake_errors_total").await, Some(1.0));
    Ok(())
}

#[tokio::test]
async fn a_proxy_header_from_somebody_else_is_no_http() -> Result<()> {
    let (_stub, gateway) = start("trusted_proxies = [\"10.0.0.0/8\"]\nproxy_protocol = true").await;
    assert_eq!(opens(&gateway, &preface([203, 0, 113, 1]), "").await, 400);
    assert_eq!(opens(&gateway, b"", "").await, 200, "others speak for themselves");
    Ok(())
}
