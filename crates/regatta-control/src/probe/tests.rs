//! Rounds of probing against small servers of every kind that is met in the wild.

use regatta_policy::snapshot::Eras;
use serde_json::json;
use tokio::net::TcpListener;

use super::client::Client;
use super::round::{Known, Sight};
use crate::config::endpoint;
use crate::stub::{Answer, Asked, Stub, dual, error, legacy, result, with_session};

const FULL: [&str; 3] =
    ["POST /mcp server/discover -", "POST /mcp initialize -", "POST /mcp notifications/initialized s1"];

fn known(stub: &Stub) -> Known {
    Known::new(endpoint::parse(&stub.url()).unwrap())
}

async fn sight(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Sight {
    let stub = Stub::start(script).await;
    let sight = known(&stub).round(&Client::new()).await;
    assert!(stub.asked().iter().all(|line| !line.contains("tools/call")));
    sight
}

#[tokio::test]
async fn a_server_of_both_eras_is_asked_by_discover_and_keeps_no_session() {
    let (stub, client) = (Stub::start(dual).await, Client::new());
    let mut known = known(&stub);
    assert_eq!(known.round(&client).await, Sight::Speaks(Eras::Dual));
    assert_eq!(stub.asked(), [&FULL[..], &["DELETE /mcp DELETE s1"]].concat());
    assert_eq!(known.round(&client).await, Sight::Speaks(Eras::Dual));
    assert_eq!(stub.asked(), ["POST /mcp server/discover -"]);
}

#[tokio::test]
async fn a_legacy_server_is_pinged_in_one_session_that_is_ended_at_last() {
    let (stub, client) = (Stub::start(legacy).await, Client::new());
    let mut known = known(&stub);
    assert_eq!(known.round(&client).await, Sight::Speaks(Eras::Legacy));
    assert_eq!(stub.asked(), FULL);
    assert_eq!(known.round(&client).await, Sight::Speaks(Eras::Legacy));
    assert_eq!(stub.asked(), ["POST /mcp ping s1"]);
    known.close(&client).await;
    assert_eq!(stub.asked(), ["DELETE /mcp DELETE s1"]);
}

#[tokio::test]
async fn a_legacy_server_that_lost_the_session_gets_a_new_handshake_in_the_same_round() {
    let lost = |asked: &Asked| match asked.method.as_str() {
        "ping" => error(404, -32001),
        _ => legacy(asked),
    };
    let (stub, client) = (Stub::start(lost).await, Client::new());
    let mut known = known(&stub);
    known.round(&client).await;
    stub.asked();
    assert_eq!(known.round(&client).await, Sight::Speaks(Eras::Legacy));
    assert_eq!(stub.asked(), [&["POST /mcp ping s1"], &FULL[..]].concat());
}

#[tokio::test]
async fn a_legacy_server_without_sessions_is_pinged_without_one() {
    let plain = |asked: &Asked| match asked.method.as_str() {
        "initialize" => with_session(json!({ "protocolVersion": "2025-03-26" }), None),
        "ping" => result(json!({})),
        "notifications/initialized" => (202, Vec::new(), String::new()),
        _ => error(200, -32601),
    };
    let (stub, client) = (Stub::start(plain).await, Client::new());
    let mut known = known(&stub);
    assert_eq!(known.round(&client).await, Sight::Speaks(Eras::Legacy));
    stub.asked();
    assert_eq!(known.round(&client).await, Sight::Speaks(Eras::Legacy));
    assert_eq!(stub.asked(), ["POST /mcp ping -"]);
}

#[tokio::test]
async fn a_modern_server_is_told_from_a_legacy_one() {
    let modern = |asked: &Asked| match asked.method.as_str() {
        "server/discover" => dual(asked),
        _ => error(400, -32022),
    };
    assert_eq!(sight(modern).await, Sight::Speaks(Eras::Modern));
}

#[tokio::test]
async fn a_redirect_is_followed_on_the_same_host_only() {
    let slash = |asked: &Asked| match asked.path.as_str() {
        "/mcp/" => dual(asked),
        _ => (307, vec![("location", "/mcp/".to_owned())], String::new()),
    };
    let (stub, client) = (Stub::start(slash).await, Client::new());
    let mut known = known(&stub);
    assert_eq!(known.round(&client).await, Sight::Speaks(Eras::Dual));
    assert_eq!(known.path(), "/mcp/");

    let canary = Stub::start(dual).await;
    let elsewhere = canary.url();
    let away = move |_: &Asked| (307, vec![("location", elsewhere.clone())], String::new());
    assert!(matches!(sight(away).await, Sight::Alien(why) if why.contains("another host")));
    assert!(canary.asked().is_empty());
}

#[tokio::test]
async fn a_web_page_is_not_health() {
    let page =
        |_: &Asked| (200, vec![("content-type", "text/html".to_owned())], "<html>hello</html>".to_owned());
    assert!(matches!(sight(page).await, Sight::Alien(why) if why.starts_with("speaks no MCP")));
}

#[tokio::test]
async fn a_server_that_asks_for_credentials_is_alive_and_gets_no_initialize() {
    let guarded = |_: &Asked| (401, vec![("www-authenticate", "Bearer".to_owned())], String::new());
    let (stub, client) = (Stub::start(guarded).await, Client::new());
    assert_eq!(known(&stub).round(&client).await, Sight::Speaks(Eras::Unknown));
    assert_eq!(stub.asked(), ["POST /mcp server/discover -"]);
    let page = |_: &Asked| (403, vec![("content-type", "text/html".to_owned())], "no".to_owned());
    assert!(matches!(sight(page).await, Sight::Alien(_)));
}

#[tokio::test]
async fn a_server_error_on_discover_does_not_make_a_server_legacy() {
    let shaky = |asked: &Asked| match asked.method.as_str() {
        "server/discover" => (503, Vec::new(), String::new()),
        _ => legacy(asked),
    };
    let (stub, client) = (Stub::start(shaky).await, Client::new());
    let mut known = known(&stub);
    for _ in 0..2 {
        assert_eq!(known.round(&client).await, Sight::Speaks(Eras::Unknown));
        assert_eq!(stub.asked(), [&FULL[..], &["DELETE /mcp DELETE s1"]].concat());
    }
    assert!(matches!(sight(|_| (500, Vec::new(), String::new())).await, Sight::Alien(_)));
    assert_eq!(sight(|_| (429, Vec::new(), String::new())).await, Sight::Busy);
}

#[tokio::test]
async fn an_answer_as_events_is_understood() {
    let sse = |asked: &Asked| {
        let (status, _, body) = dual(asked);
        let kind = vec![("content-type", "text/event-stream".to_owned())];
        (status, kind, format!("id: 1\ndata: \n\ndata: {body}\n\n"))
    };
    assert!(matches!(sight(sse).await, Sight::Speaks(_)));
}

#[tokio::test]
async fn nobody_there_and_nobody_answering_are_mute() {
    let gone = Stub::start(dual).await;
    let mut refused = known(&gone);
    drop(gone);
    // The port is free once the stub's task has ended.
    tokio::task::yield_now().await;
    let mut seen = refused.round(&Client::new()).await;
    while matches!(seen, Sight::Speaks(_)) {
        seen = refused.round(&Client::new()).await;
    }
    assert!(matches!(seen, Sight::Mute(why) if why.starts_with("cannot connect")));

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", silent.local_addr().unwrap());
    let mut known = Known::new(endpoint::parse(&url).unwrap());
    assert!(
        matches!(known.round(&Client::new()).await, Sight::Mute(why) if why.starts_with("no answer within"))
    );
}
