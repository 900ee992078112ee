//! RELIABILITY B.3: bad JSON and bad JSON-RPC, judged before the era counts; nothing malformed reaches a server.
//!
//! Times are bounds for a debug binary on a busy machine; the figures of a release build are in `bench/`.

use crate::table::{Ask, Bench, Row, both, error, meta, row, served, status};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Reply, Seen};
use serde_json::json;
use std::time::{Duration, Instant};

const UNREADABLE: i64 = -32700;
const INVALID: i64 = -32600;
const PARAMS: i64 = -32602;
const BODY_MAX: usize = 4 << 20;
/// For one row that is all work for the parser.
const SLOW_MAX: Duration = Duration::from_millis(500);

/// A stub that answers `ping` and `tools/call` under the id as it was written, which no `Value` would keep.
fn exact() -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let base = answers::dual();
    move |seen| {
        let text = String::from_utf8_lossy(&seen.body);
        let id = text.split_once("\"id\":").and_then(|(_, rest)| rest.split_once(",\"method\""));
        match (seen.rpc(), id) {
            ("ping" | "tools/call", Some((id, _))) => {
                let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}");
                Reply::text(200, "application/json", &body)
            }
            _ => base(seen),
        }
    }
}

async fn bench() -> Bench {
    Bench::over(exact(), Plan::default()).await
}

/// A legacy `ping` whose id is any text.
fn ping(id: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}")
}

/// What is no JSON, or not the same JSON for every parser.
fn no_json() -> Vec<(&'static str, Vec<u8>, i64)> {
    let utf16: Vec<u8> = ping("1").encode_utf16().flat_map(u16::to_be_bytes).collect();
    let nested = |depth| ping(&format!("{}{}", "[".repeat(depth), "]".repeat(depth))).into_bytes();
    let with = |more: &str| ping("1").replace('}', &format!(",{more}}}")).into_bytes();
    vec![
        ("I34 an open brace", b"{".into(), UNREADABLE),
        ("I34 a trailing comma", b"{\"a\":1,}".into(), UNREADABLE),
        ("I34 text behind it", [ping("1").as_bytes(), b" x"].concat(), UNREADABLE),
        ("I34 two documents", ping("1").repeat(2).into_bytes(), UNREADABLE),
        ("I34 single quotes", b"{'jsonrpc':'2.0'}".into(), UNREADABLE),
        ("I34 NaN", with("\"a\":NaN"), UNREADABLE),
        ("I34 a comment", with("\"a\":1/**/"), UNREADABLE),
        ("I34 a raw control character", with("\"a\":\"\x01\""), UNREADABLE),
        ("I35 not UTF-8", with("\"a\":\"").into_iter().chain(*b"\xff").collect(), UNREADABLE),
        ("I35 an overlong form", [b"{\"a\":\"", &b"\xc0\xaf"[..], b"\"}"].concat(), UNREADABLE),
        ("I35 a surrogate in UTF-8", [b"{\"a\":\"", &b"\xed\xa0\x80"[..], b"\"}"].concat(), UNREADABLE),
        ("I35 UTF-16", utf16, UNREADABLE),
        ("I35 a lone surrogate", with("\"a\":\"\\ud800\""), UNREADABLE),
        ("I36 a BOM", [b"\xef\xbb\xbf", ping("1").as_bytes()].concat(), UNREADABLE),
        ("I37 129 deep", nested(128), UNREADABLE),
        ("I37 100,000 deep", nested(100_000), UNREADABLE),
        ("I37 a million open brackets", vec![b'['; 1_000_000], UNREADABLE),
        ("I37 a million open objects", "{\"a\":".repeat(700_000).into_bytes(), UNREADABLE),
        ("I38 1e400", with("\"a\":1e400"), UNREADABLE),
        ("I38 a number of 100,000 digits", with(&format!("\"a\":{}", "9".repeat(100_000))), UNREADABLE),
        ("I38 leading zero", with("\"a\":01"), UNREADABLE),
    ]
}

/// What is JSON and no message, or not one message only.
fn no_message() -> Vec<(&'static str, Vec<u8>, i64)> {
    let with = |more: &str| ping("1").replace('}', &format!(",{more}}}")).into_bytes();
    let call = |params: &str| {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{params}}}").into_bytes()
    };
    vec![
        ("I40 a number", b"1".into(), INVALID),
        ("I40 a string", b"\"x\"".into(), INVALID),
        ("I40 null", b"null".into(), INVALID),
        ("I40 true", b"true".into(), INVALID),
        ("I40 an empty array", b"[]".into(), INVALID),
        ("I40 an array of numbers", b"[1,2]".into(), INVALID),
        ("I41 a batch", format!("[{},{}]", ping("1"), ping("2")).into_bytes(), INVALID),
        ("I42 no jsonrpc", b"{\"id\":1,\"method\":\"ping\"}".into(), INVALID),
        ("I42 jsonrpc 1.0", ping("1").replace("2.0", "1.0").into_bytes(), INVALID),
        ("I42 jsonrpc as a number", ping("1").replace("\"2.0\"", "2.0").into_bytes(), INVALID),
        ("I43 id null", ping("null").into_bytes(), INVALID),
        ("I44 id true", ping("true").into_bytes(), INVALID),
        ("I44 id {}", ping("{}").into_bytes(), INVALID),
        ("I44 id []", ping("[]").into_bytes(), INVALID),
        ("I44 id 1.5", ping("1.5").into_bytes(), INVALID),
        ("I44 id 1e3", ping("1e3").into_bytes(), INVALID),
        ("I46 an id of 1 MiB", ping(&format!("\"{}\"", "x".repeat(1 << 20))).into_bytes(), INVALID),
        ("I47 only the exact key counts", ping("1").replace("method", "Method").into_bytes(), INVALID),
        ("I48 method twice", with("\"method\":\"tools/list\""), UNREADABLE),
        ("I48 id twice", with("\"id\":2"), UNREADABLE),
        ("I48 params.name twice", call("{\"name\":\"a\",\"name\":\"b\"}"), UNREADABLE),
        ("I48 an argument twice", call("{\"name\":\"a\",\"arguments\":{\"x\":1,\"x\":2}}"), UNREADABLE),
        ("I48 twice by an escape", call("{\"name\":\"a\",\"na\\u006de\":\"b\"}"), UNREADABLE),
        (
            "I48 twice and deep",
            call("{\"name\":\"a\",\"arguments\":{\"x\":[{\"y\":1,\"y\":1}]}}"),
            UNREADABLE,
        ),
        ("I50 method as a number", ping("1").replace("\"ping\"", "5").into_bytes(), INVALID),
        ("I50 an empty method", ping("1").replace("ping", "").into_bytes(), INVALID),
        ("I51 params as an array", call("[1]"), PARAMS),
        ("I51 params as a string", call("\"x\""), PARAMS),
        ("I51 params null", call("null"), PARAMS),
        ("I52 method and result", with("\"result\":{}"), INVALID),
        ("I52 neither", b"{\"jsonrpc\":\"2.0\",\"id\":1}".into(), INVALID),
        (
            "I52 result and error",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{},\"error\":{}}".into(),
            INVALID,
        ),
    ]
}

/// Bodies that are refused whatever the era.
fn refused() -> Vec<(&'static str, Vec<u8>, i64)> {
    [no_json(), no_message()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_what_is_no_json_and_no_message() {
    let mut bench = bench().await;
    let session = bench.session.id.clone();
    for (name, body, code) in refused() {
        for row in both(&session, name, |ask| ask.body(&body), &error(&[400], code)) {
            bench.one(&row).await;
        }
    }
    bench.finish().await;
}

/// Odd, but JSON-RPC: what a server must get as it is.
fn odd(session: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut legacy =
        |name: &str, body: &str, want| rows.push(row(name, Ask::legacy(session).body(body), want));
    for id in
        ["9007199254740993", "123456789012345678901234567890", "-1", "\"1\"", "\"\"", "\"é\\u0000\"", "0"]
    {
        let echoed: &'static str = format!("\"id\":{id},").leak();
        legacy(&format!("I45 id {id} comes back as it is"), &ping(id), served().with(echoed));
    }
    for other in ["\"Method\":\"tools/call\"", "\"METHOD\":1", "\"param\u{17f}\":[]", "\"\u{212a}\":\"x\""] {
        legacy(&format!("I47 {other}"), &ping("1").replace('}', &format!(",{other}}}")), served());
    }
    legacy("I48 the same key in two objects", &call("{\"x\":{\"y\":1},\"y\":{\"y\":2}}"), served());
    legacy("I49 __proto__", &call("{\"__proto__\":{\"a\":1},\"constructor\":1}"), served());
    for method in ["x".repeat(1 << 20), "a\\u0000b".to_owned(), "a\\r\\nX-Evil: 1".to_owned()] {
        let unknown = error(&[200], -32601).reaching(1);
        legacy("I50 an odd method", &ping("1").replace("\"ping\"", &format!("\"{method}\"")), unknown);
    }
    let fill = |item: &str| item.repeat(BODY_MAX / item.len() - 200);
    legacy("I39 two million numbers", &call(&format!("{{\"a\":[{}0]}}", fill("0,"))), served());
    legacy("I39 a million empty strings", &call(&format!("{{\"a\":[{}0]}}", fill("\"\","))), served());
    let keys: String = (0..300_000).map(|key| format!("\"k{key}\":0,")).collect();
    legacy("I39 300,000 keys", &call(&format!("{{{keys}\"z\":0}}")), served());
    rows
}

/// A legacy `tools/call` with any arguments.
fn call(arguments: &str) -> String {
    let params = format!("{{\"name\":\"work\",\"arguments\":{arguments}}}");
    format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{params}}}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_what_is_only_odd() {
    let mut bench = bench().await;
    let session = bench.session.id.clone();
    let before = bench.gateway.process.rss();
    bench.run(odd(&session)).await;
    let grown = bench.gateway.process.rss().saturating_sub(before);
    assert!(grown <= 20 * BODY_MAX as u64, "I39: {grown} bytes more");
    let strange =
        bench.strangers().into_iter().find(|seen| seen.body.windows(9).any(|part| part == b"__proto__"));
    assert_eq!(strange.expect("I49 was forwarded").body, call("{\"__proto__\":{\"a\":1},\"constructor\":1}"));
    assert!(bench.strangers().iter().all(|seen| seen.header("x-evil").is_empty()), "T21");
    assert!(!bench.gateway.log().lines().any(|line| line.starts_with("X-Evil")), "T30");
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_from_each_era_only_what_it_may_send() {
    let mut bench = bench().await;
    let session = bench.session.id.clone();
    let response = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
    let unknown = json!({"jsonrpc": "2.0", "method": "notifications/x", "params": {"_meta": meta()}});
    let cancelled =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
    let modern = |body: &serde_json::Value| Ask::modern().body(body.to_string());
    bench
        .run([
            row("I53 a response in the modern era", modern(&response), error(&[400], INVALID)),
            row("I54 an unknown notification, modern", modern(&unknown), status(&[202])),
            row(
                "I54 an unknown notification, legacy",
                Ask::legacy(&session).body(unknown.to_string().replace("_meta", "x")),
                status(&[202]).reaching(1),
            ),
            row("I55 a cancellation, modern", modern(&cancelled), status(&[202])),
            row(
                "I55 a cancellation, modern by its body",
                Ask::modern().without("MCP-Protocol-Version").body(
                    json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7, "_meta": meta()}})
                        .to_string(),
                ),
                status(&[202]),
            ),
        ])
        .await;
    bench.finish().await;
}

/// I37, I38: the time of one refusal does not grow with the depth or the length of the nonsense.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_deep_and_long_nonsense_at_once() {
    let bench = bench().await;
    for (name, body, _) in
        refused().into_iter().filter(|(name, ..)| name.starts_with("I37") || name.starts_with("I38"))
    {
        let ask = Ask::modern().body(&body).bytes();
        let began = Instant::now();
        assert_eq!(bench.ask(&ask).await.status, 400);
        assert!(began.elapsed() < SLOW_MAX, "{name}: {:?}", began.elapsed());
    }
    bench.finish().await;
}
