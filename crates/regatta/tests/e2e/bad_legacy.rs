//! RELIABILITY B.5: legacy sessions used badly; threats T3, T4, T6, T7 as far as one user shows them.
//!
//! Left out: I101 and the other user's side of T5, T7 (need `[auth]`), I119 (no answer crosses the eras here). I98 and I115
//! reach the server, because a server without sessions may serve what has none: 400 is its word.

use crate::table::{Ask, Bench, Row, TOKEN, error, row, served, status};
use regatta_testkit::eventually;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

const INVALID: i64 = -32600;
const PARAMS: i64 = -32602;
const NO_SESSION: i64 = -32001;

async fn bench() -> Bench {
    Bench::start("").await
}

/// A request of any method in this session.
fn request(session: &str, method: &str, params: Value) -> Ask {
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    Ask::legacy(session).body(body.to_string())
}

fn initialize(session: &str, version: Value) -> Ask {
    let info = json!({"name": "a", "version": "1"});
    request(
        session,
        "initialize",
        json!({"protocolVersion": version, "capabilities": {}, "clientInfo": info}),
    )
}

/// GET or DELETE in this session.
fn bodiless(session: &str, method: &str) -> Ask {
    Ask::legacy(session).line(&format!("{method} /mcp HTTP/1.1")).body("").without("Content-Type")
}

fn tokens(session: &str) -> Vec<Row> {
    let gone = || error(&[404], NO_SESSION);
    let mut rows =
        vec![row("I98 no session", Ask::legacy("").without("Mcp-Session-Id"), status(&[400]).reaching(1))];
    let flipped = {
        let middle = session.len() / 2;
        let other = if session.as_bytes()[middle] == b'A' { "B" } else { "A" };
        format!("{}{other}{}", &session[..middle], &session[middle + 1..])
    };
    let long = "A".repeat(10_000);
    let tokens = [
        ("garbage", "garbage"),
        ("nothing", ""),
        ("the stub's own id", "stub-1"),
        ("one letter changed", &flipped),
        ("cut", &session[..session.len() - 1]),
        ("longer", &format!("{session}A")),
        ("padded", &format!("{session}=")),
        ("10 kB", &long),
        ("not ASCII", "sëssion"),
        ("a path", "../../etc/passwd"),
    ];
    for (what, token) in tokens {
        rows.push(row(&format!("I99 {what}, POST"), Ask::legacy(token), gone()));
        for method in ["GET", "DELETE"] {
            rows.push(row(&format!("I99 {what}, {method}"), bodiless(token, method), gone()));
        }
    }
    rows.push(row(
        "I100 two sessions",
        Ask::legacy(session).add("Mcp-Session-Id", "other"),
        error(&[400], INVALID),
    ));
    for method in ["GET", "DELETE"] {
        let two = bodiless(session, method).add("Mcp-Session-Id", session);
        rows.push(row(&format!("I100 two sessions, {method}"), two, error(&[400], INVALID)));
    }
    rows
}

fn beginnings(session: &str) -> Vec<Row> {
    let opened = || served().with("mcp-session-id: ");
    let mut rows = vec![
        row("I102 with a stale session", initialize("stale", json!("2025-11-25")), opened()),
        row(
            "I103 an unknown version",
            initialize("", json!("1900-01-01")).without("Mcp-Session-Id"),
            opened(),
        ),
        row("I104 no version", initialize("", Value::Null).without("Mcp-Session-Id"), error(&[400], PARAMS)),
        row(
            "I104 a version of another type",
            initialize("", json!(1)).without("Mcp-Session-Id"),
            error(&[400], PARAMS),
        ),
        row("I105 inside a session", initialize(session, json!("2025-11-25")), error(&[400], INVALID)),
    ];
    for version in ["garbage", "", "1900-01-01", "2024-11-05", "2025-11-25, 2025-11-25", "\u{1}"] {
        let want = if version == "\u{1}" { status(&[400]) } else { error(&[400], INVALID) };
        rows.push(row(
            &format!("I107 {version:?}"),
            Ask::legacy(session).set("MCP-Protocol-Version", version),
            want,
        ));
    }
    rows.push(row("I108 no version header", Ask::legacy(session).without("MCP-Protocol-Version"), served()));
    rows
}

fn messages(session: &str) -> Vec<Row> {
    let message = |value: Value| Ask::legacy(session).body(value.to_string());
    let answer = || message(json!({"jsonrpc": "2.0", "id": "nobody's", "result": {}}));
    let mut rows = vec![
        row("I109 an unknown method", request(session, "x/y", json!({})), error(&[200], -32601).reaching(1)),
        row("I110 ping", request(session, "ping", json!({})), served().with("\"result\":{}")),
        row("I112 an answer to nothing", answer(), status(&[202])),
        row("I112 the same again", answer(), status(&[202])),
        row(
            "I112 an answer with a number",
            message(json!({"jsonrpc": "2.0", "id": 1, "result": {}})),
            status(&[202]),
        ),
        row(
            "I112 an error without an id",
            message(json!({"jsonrpc": "2.0", "error": {"code": 1, "message": "x"}})),
            status(&[202]),
        ),
        row("I114 GET without Accept", bodiless(session, "GET").without("Accept"), error(&[406], INVALID)),
        row(
            "I114 GET for JSON",
            bodiless(session, "GET").set("Accept", "application/json"),
            error(&[406], INVALID),
        ),
        row(
            "I115 GET without a session",
            bodiless("", "GET").without("Mcp-Session-Id"),
            status(&[400]).reaching(1),
        ),
        row(
            "I115 DELETE without a session",
            bodiless("", "DELETE").without("Mcp-Session-Id"),
            error(&[400], INVALID),
        ),
    ];
    for id in [json!("unknown"), json!(7), json!(0), Value::Null, json!({})] {
        let params = json!({"requestId": id});
        let cancel =
            message(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}));
        rows.push(row(&format!("I113 a cancellation of {id}"), cancel, status(&[202]).reaching(1)));
    }
    for cursor in ["x", "0", "\u{e9}", &"A".repeat(2_000)] {
        let resume = bodiless(session, "GET").add("Last-Event-ID", cursor);
        rows.push(row(&format!("I117 {cursor:.20}"), resume, error(&[400], INVALID)));
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judges_session_tokens_before_anything_else() {
    let mut bench = bench().await;
    let session = bench.session.id.clone();
    for rows in [tokens(&session), beginnings(&session), messages(&session)] {
        bench.run(rows).await;
    }
    bench.finish().await;
}

/// I105, I106, I118: the life of a session, and what is left of it after its end.
#[tokio::test]
async fn ends_a_session_once() {
    let bench = bench().await;
    let client = bench.gateway.client().header("authorization", TOKEN);
    let opening = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"},
    }});
    let early = client.post(&[], &opening).await.expect("an answer").header("mcp-session-id").to_owned();
    assert_eq!(bench.ask(&Ask::legacy(&early).bytes()).await.status, 200, "I106 before `initialized`");
    let session = client.initialize().await.expect("a session");
    assert_eq!(session.end().await.expect("an answer"), 200, "I118");
    assert_eq!(session.end().await.expect("an answer"), 404, "I118 the second time");
    let calls = bench.stub.seen_rpc("tools/call").len();
    assert_eq!(bench.ask(&Ask::legacy(&session.id).bytes()).await.status, 404, "I99 ended");
    assert_eq!(bench.stub.seen_rpc("tools/call").len(), calls, "nothing reached the stub");
    let again = client.post(&[("mcp-session-id", &session.id)], &opening).await.expect("an answer");
    assert_eq!(again.status, 200, "I102 with an ended session");
    assert_ne!(again.header("mcp-session-id"), session.id, "T4 no id of the client's choice");
    bench.finish().await;
}

/// T3, T6: tokens are never the same twice, share nothing but their seal's own head, and read as nothing.
#[tokio::test]
async fn gives_out_tokens_that_cannot_be_guessed() {
    let bench = bench().await;
    let client = bench.gateway.client();
    let mut tokens = HashSet::new();
    for _ in 0..200 {
        let session = client.initialize().await.expect("a session");
        // Format byte and key fingerprint (five bytes) stand in front of every token.
        assert!(tokens.insert(session.id[8..24].to_owned()), "the same nonce twice");
        assert!(!session.id.contains("stub") && session.id.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    bench.finish().await;
}

/// I111: the same id twice at the same time; each caller gets its own answer.
#[tokio::test]
async fn never_swaps_answers_of_the_same_id() {
    let base = answers::dual();
    let slow = move |seen: &regatta_testkit::Seen| {
        let reply = base(seen);
        if seen.op() == "slow" { reply.after(Duration::from_millis(300)) } else { reply }
    };
    let bench = Bench::over(slow, Plan::default()).await;
    let ask = |op: &str| {
        let params = json!({"name": "work", "arguments": {"op": op}});
        request(&bench.session.id, "tools/call", params).bytes()
    };
    let (slow, fast) = (ask("slow"), ask("fast"));
    let (slow, fast) = tokio::join!(bench.ask(&slow), bench.ask(&fast));
    for (answer, op) in [(slow, "slow"), (fast, "fast")] {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains(&format!("\\\"op\\\":\\\"{op}\\\"")), "{text}");
    }
    bench.finish().await;
}

/// I116, I117: a second standing stream is refused and the first one lives on; event ids belong to their session.
#[tokio::test]
async fn keeps_streams_to_their_session() {
    let bench = bench().await;
    let client = bench.gateway.client().header("authorization", TOKEN);
    let (session, other) =
        (client.initialize().await.expect("one"), client.initialize().await.expect("another"));
    let mut events = session.listen().await.expect("a stream").events();
    assert_eq!(session.listen().await.expect("an answer").status, 409, "I116");
    eventually("the stub holds the stream", Duration::from_secs(10), async || {
        (bench.stub.live_count() > 0).then_some(())
    })
    .await;
    let note =
        json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}});
    bench.stub.say(&note);
    let event = events.until("notifications/message").await.expect("the first stream lives");
    let id = event.id.expect("an event id");
    for (who, id) in [(&other, id.as_str()), (&session, &id[..id.len() - 1]), (&other, "x")] {
        assert_eq!(who.resume(id).await.expect("an answer").status, 400, "I117");
    }
    bench.finish().await;
}
