//! RELIABILITY B.6 and 3: servers that answer badly. Each tool of the stub is one way to do so; the call runs at most once,
//! the client is told in its own id, and the next request on the same pooled connection gets its own answer.
//!
//! Left out: I122 (cache_lists.rs), I126's namespacing (one server a path). I121 differs: an unknown `resultType` passes
//! unchanged, because extensions may add values and it is the client that knows which (2026-07-28 basic, *ResultType*;
//! docs/adr/2026-11-26-results-pass-as-servers-write-them.md).

use crate::table::{Ask, Bench, Row, Want, error, row, served, status};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Reply, Seen};
use serde_json::{Value, json};
use std::cell::Cell;

const UNUSABLE: i64 = -31007;
const UNKNOWN: i64 = -31001;
const FINE: i64 = 0;

type Tool = fn(&Seen) -> Reply;

/// A tool of the stub, and the codes that a legacy and a modern client are told.
struct Case(&'static str, Tool, [i64; 2]);

fn result(seen: &Seen) -> Value {
    response(seen.id(), "fine")
}

fn response(id: &Value, text: &str) -> Value {
    let content = json!([{"type": "text", "text": text}]);
    json!({"jsonrpc": "2.0", "id": id, "result": {"resultType": "complete", "content": content}})
}

fn note() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}})
}

/// Answers whose content is wrong.
const CONTENTS: &[Case] = &[
    Case("login page", |_| Reply::login_page(), [UNUSABLE; 2]),
    Case("plain text", |_| Reply::text(200, "text/plain", "ok"), [UNUSABLE; 2]),
    Case("no content type", |_| Reply::status(200), [UNUSABLE; 2]),
    Case("empty JSON", |_| Reply::text(200, "application/json", ""), [UNUSABLE; 2]),
    Case("a number", |_| Reply::text(200, "application/json", "1"), [UNUSABLE; 2]),
    Case("a batch", |seen| Reply::json(&json!([result(seen)])), [UNUSABLE; 2]),
    Case("an empty object", |_| Reply::json(&json!({})), [UNUSABLE; 2]),
    Case("a wrong id", |_| Reply::json(&response(&json!(8), "x")), [UNUSABLE; 2]),
    Case("the id as text", |_| Reply::json(&response(&json!("7"), "x")), [UNUSABLE; 2]),
    Case("no id", |_| Reply::json(&json!({"jsonrpc": "2.0", "result": {}})), [UNUSABLE; 2]),
    Case("only a notification", |_| Reply::json(&note()), [UNUSABLE; 2]),
    Case(
        "cut JSON",
        |_| Reply::text(200, "application/json", "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{"),
        [UNUSABLE; 2],
    ),
    Case(
        "text behind it",
        |seen| Reply::text(200, "application/json", &format!("{}x", result(seen))),
        [FINE, UNUSABLE],
    ),
    Case("gzip", |seen| Reply::json(&result(seen)).header("content-encoding", "gzip"), [UNUSABLE; 2]),
    Case("deep", |seen| deep(seen, 500), [FINE; 2]),
    Case("too deep", |seen| deep(seen, 10_000), [UNUSABLE; 2]),
    Case("open brackets", |_| Reply::text(200, "application/json", &"[".repeat(1 << 20)), [UNUSABLE; 2]),
    // The specification wants one JSON object; legacy servers that say more in lines are met (RELIABILITY 3.11).
    Case("JSON lines", |seen| Reply::json_lines(&[note(), result(seen)]), [FINE, UNUSABLE]),
    Case("202", |_| Reply::accepted(), [UNUSABLE; 2]),
    Case("204", |_| Reply::status(204), [UNUSABLE; 2]),
    Case("a redirect", |_| Reply::redirect(302, "http://169.254.169.254/latest"), [UNUSABLE; 2]),
    Case("a move to another host", |_| Reply::redirect(307, "http://169.254.169.254/mcp/"), [UNUSABLE; 2]),
    Case("500 in HTML", |_| Reply::text(500, "text/html", "<p>no"), [UNUSABLE; 2]),
    Case("a tool's error", |seen| Reply::tool_error(seen, "no"), [FINE; 2]),
    Case("an unknown resultType", |seen| Reply::result(seen, json!({"resultType": "new"})), [FINE; 2]),
    Case("no resultType", |seen| Reply::result(seen, json!({"content": []})), [FINE; 2]),
];

/// Answers whose HTTP is wrong.
const FRAMINGS: &[Case] = &[
    Case("hang up", |_| Reply::hang_up(), [UNKNOWN; 2]),
    Case("reset", |_| Reply::reset(), [UNKNOWN; 2]),
    Case("no HTTP", |_| Reply::raw("SSH-2.0-OpenSSH_9.0\r\n"), [UNKNOWN; 2]),
    Case("a status of letters", |_| Reply::raw("HTTP/1.1 OK\r\n\r\n"), [UNKNOWN; 2]),
    Case("half a head", |_| Reply::raw("HTTP/1.1 200 OK\r\ncontent-ty"), [UNKNOWN; 2]),
    Case(
        "101",
        |_| Reply::raw("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
        [UNKNOWN; 2],
    ),
    Case(
        "two lengths",
        |_| Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}x"),
        [UNKNOWN; 2],
    ),
    Case(
        "many headers",
        |_| (0..200).fold(Reply::status(200), |reply, _| reply.header("x", "1")),
        [UNKNOWN; 2],
    ),
    Case("a long head", |_| Reply::status(200).header("x", &"1".repeat(100_000)), [UNKNOWN; 2]),
    Case(
        "longer than its body",
        |seen| Reply::json(&result(seen)).header("content-length", "5000").close(),
        [UNKNOWN; 2],
    ),
    Case(
        "shorter than its body",
        |seen| Reply::json(&result(seen)).header("content-length", "20"),
        [UNUSABLE; 2],
    ),
    Case("a second answer behind it", poisoned, [FINE; 2]),
    Case(
        "a bad chunk",
        |_| {
            Reply::raw(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}",
            )
        },
        [UNKNOWN; 2],
    ),
    Case("cut in the middle", |seen| Reply::json(&result(seen)).cut_after(20), [UNKNOWN; 2]),
    Case("reset in the middle", |seen| Reply::json(&result(seen)).reset_after(20), [UNKNOWN; 2]),
    Case(
        "early hints first",
        |seen| Reply::raw(format!("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{}", old(seen))),
        [FINE; 2],
    ),
    Case("HTTP/1.0 to its end", |seen| Reply::raw(old(seen)), [FINE; 2]),
];

/// Event streams that are wrong.
const EVENTS: &[Case] = &[
    Case("no response", |_| Reply::sse().event(&note()), [UNKNOWN; 2]),
    Case("nothing at all", |_| Reply::sse(), [UNKNOWN; 2]),
    Case("another's response", |_| Reply::sse().event(&response(&json!(8), "x")), [UNKNOWN; 2]),
    Case("cut event", |seen| Reply::sse().event(&result(seen)).cut_after(60), [UNKNOWN; 2]),
    Case("no JSON", |_| Reply::sse().body("data: hello\n\n"), [UNUSABLE; 2]),
    Case("a huge event", |_| Reply::sse().huge_event(200 << 10), [UNUSABLE; 2]),
    Case("a line without end", |_| Reply::sse().body("data: x".repeat(40_000)).hold(), [UNUSABLE; 2]),
    Case(
        "an id without end",
        |_| Reply::sse().body(format!("id: {}", "x".repeat(200 << 10))).hold(),
        [UNUSABLE; 2],
    ),
    Case(
        "events in HTML",
        |seen| Reply::sse().header("content-encoding", "br").event(&result(seen)),
        [UNUSABLE; 2],
    ),
    Case("odd lines", odd_lines, [FINE; 2]),
    Case("twice", |seen| Reply::sse().event(&result(seen)).event(&response(seen.id(), "second")), [FINE; 2]),
    Case("said and held", |seen| Reply::sse().event(&result(seen)).hold(), [FINE; 2]),
];

fn deep(seen: &Seen, depth: usize) -> Reply {
    let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    Reply::text(200, "application/json", &result(seen).to_string().replace("\"fine\"", &nested))
}

/// A whole answer in HTTP/1.0, ended by the end of its connection.
fn old(seen: &Seen) -> String {
    format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{}", result(seen))
}

/// Response splitting by a server: a second answer for whoever uses the connection next (T20).
fn poisoned(seen: &Seen) -> Reply {
    let length = result(seen).to_string().len().to_string();
    let evil = response(&json!(1), "evil").to_string();
    let second = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{evil}",
        evil.len()
    );
    Reply::json(&result(seen)).header("content-length", &length).body(second)
}

/// I125: what WHATWG allows and nobody expects.
fn odd_lines(seen: &Seen) -> Reply {
    let text = result(seen).to_string();
    let (first, second) = text.split_once(',').unwrap_or_default();
    let lines = format!(
        "\u{feff}: hello\r\rid: a\0b\rretry: 0\r\ndata: {}\r\n\r\nretry: 99999999999\ndata\n\nfoo: bar\nevent:message\ndata:{first},\rdata:{second}\n\n",
        note()
    );
    Reply::sse().body(lines)
}

/// All tools above, by name; else both eras as they should be.
fn stub() -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let base = answers::dual();
    move |seen| match [CONTENTS, FRAMINGS, EVENTS].into_iter().flatten().find(|case| case.0 == seen.tool()) {
        Some(case) => (case.1)(seen),
        None => base(seen),
    }
}

fn rows(session: &str, cases: &'static [Case]) -> Vec<Row> {
    let mut rows = Vec::new();
    for Case(name, _, codes) in cases {
        let named = |ask: Ask| ask.edit(|body| body["params"]["name"] = json!(name));
        let asks = [named(Ask::legacy(session)), named(Ask::modern()).set("Mcp-Name", name)];
        for (era, (ask, code)) in ["legacy", "modern"].into_iter().zip(asks.into_iter().zip(*codes)) {
            let want = match code {
                FINE => served(),
                code => error(&[200], code).with("\"id\":7").reaching(1),
            };
            rows.push(row(&format!("{name} ({era})"), ask, want));
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_what_became_of_a_bad_answer() {
    let mut bench = Bench::over(stub(), Plan::default().on_gateway("event_max = \"64KiB\"")).await;
    let session = bench.session.id.clone();
    for cases in [CONTENTS, FRAMINGS, EVENTS] {
        bench.run(rows(&session, cases)).await;
    }
    bench.finish().await;
}

/// I120, I123: of what a stream says, only what concerns this client reaches it, and the response ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drops_what_is_for_nobody() {
    let base = answers::dual();
    let talkative = move |seen: &Seen| match seen.tool() {
        "talk" => Reply::sse()
            .event(&response(&json!(4711), "another's"))
            .event(&json!({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {}}))
            .event(&note())
            .event(&result(seen))
            .event(&response(seen.id(), "second")),
        _ => base(seen),
    };
    let bench = Bench::over(talkative, Plan::default()).await;
    let modern = bench.session.client.modern().call("talk", json!({})).await.expect("an answer");
    let methods: Vec<_> = modern.events.iter().map(|event| event.method().to_owned()).collect();
    assert_eq!(methods, ["notifications/message", ""], "a modern server asks nothing on a stream");
    assert_eq!(modern.text(), "fine");
    let legacy = bench.session.call("talk", json!({})).await.expect("an answer");
    let methods: Vec<_> = legacy.events.iter().map(|event| event.method().to_owned()).collect();
    let said = methods.iter().filter(|method| !method.is_empty()).collect::<Vec<_>>();
    assert_eq!(said, ["sampling/createMessage", "notifications/message"]);
    assert_eq!(legacy.text(), "fine");
    let dropped = bench.gateway.metric("regatta_dropped_messages_total").await;
    assert_eq!(dropped, Some(3.0), "two for the modern client, one for the legacy one");
    bench.finish().await;
}

/// I124: comments without end keep nobody else waiting, and the call ends with `request_max`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_endless_comments() {
    let base = answers::dual();
    let noisy = move |seen: &Seen| match seen.tool() {
        "noise" => Reply::sse().endless_comments(),
        _ => base(seen),
    };
    let bench = Bench::over(noisy, Plan::default()).await;
    let before = bench.gateway.process.rss();
    let named = |ask: Ask| ask.edit(|body| body["params"]["name"] = json!("noise"));
    let (legacy, modern) =
        (named(Ask::legacy(&bench.session.id)), named(Ask::modern()).set("Mcp-Name", "noise"));
    let (legacy, modern) = (legacy.bytes(), modern.bytes());
    // Without a pause for as long as the others take.
    let done = Cell::new(false);
    let noise = async |bytes: &[u8]| {
        while !done.get() {
            let answer = bench.ask(bytes).await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(text.contains(&UNKNOWN.to_string()), "{} {text:.300}", answer.status);
        }
    };
    let others = async {
        for _ in 0..5 {
            bench.normal().await.expect("others are served");
        }
        done.set(true);
    };
    tokio::join!(noise(&legacy), noise(&modern), others);
    let grown = bench.gateway.process.rss().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    bench.finish().await;
}

/// I127: what is a server's own business stays there; I125: the reconnection time that a client gets is a sane one.
#[tokio::test]
async fn keeps_a_servers_own_headers() {
    let base = answers::dual();
    let leaky = move |seen: &Seen| {
        let reply = if seen.tool() == "odd lines" { odd_lines(seen) } else { base(seen) };
        let own = [
            ("set-cookie", "a=b"),
            ("server", "uvicorn"),
            ("x-powered-by", "x"),
            ("keep-alive", "timeout=5"),
        ];
        let own = own.into_iter().chain([
            ("access-control-allow-origin", "*"),
            ("x-regatta-a", "1"),
            ("x-own", "1"),
        ]);
        own.fold(reply, |reply, (name, value)| reply.header(name, value))
    };
    let bench = Bench::over(leaky, Plan::default()).await;
    let odd = |ask: Ask| ask.edit(|body| body["params"]["name"] = json!("odd lines"));
    let asks = [
        Ask::legacy(&bench.session.id),
        Ask::modern(),
        odd(Ask::legacy(&bench.session.id)),
        odd(Ask::modern()).set("Mcp-Name", "odd lines"),
    ];
    for ask in asks {
        let answer = bench.ask(&ask.bytes()).await;
        assert_eq!(answer.status, 200);
        let head = answer.head.to_ascii_lowercase();
        for name in [
            "set-cookie",
            "server:",
            "x-powered-by",
            "keep-alive",
            "access-control",
            "x-regatta",
            "mcp-session-id",
        ] {
            assert!(!head.contains(name), "{name} in {head}");
        }
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!body.contains("retry: 0") && !body.contains("99999999999"), "{body}");
    }
    bench.finish().await;
}

/// I130: a tool's own errors say nothing against its replica.
#[tokio::test]
async fn never_ejects_for_the_errors_of_tools() {
    let base = answers::dual();
    let failing = move |seen: &Seen| match seen.tool() {
        "fail" => Reply::tool_error(seen, "no"),
        _ => base(seen),
    };
    let bench = Bench::over(failing, Plan::default()).await;
    for _ in 0..100 {
        let outcome = bench.session.call("fail", json!({})).await.expect("an answer");
        assert_eq!(outcome.message["result"]["isError"], true);
    }
    let (_, status) = bench.gateway.admin("/status").await.expect("a status");
    assert!(!status.contains("\"ejected\":true"), "{status}");
    bench.finish().await;
}

/// Notifications: whatever a server says to one, no client is told a JSON-RPC error for it.
#[tokio::test]
async fn takes_a_bare_200_for_a_notification() {
    let base = answers::dual();
    let bench = Bench::over(
        move |seen| match seen.rpc() {
            "notifications/x" => Reply::status(200),
            _ => base(seen),
        },
        Plan::default(),
    );
    let mut bench = bench.await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/x"}).to_string();
    let ask = Ask::legacy(&bench.session.id).body(note);
    bench
        .run([row(
            "a notification",
            ask,
            Want { contains: "content-length: 0", ..status(&[200]).reaching(1) },
        )])
        .await;
    bench.finish().await;
}

/// Bad answers to `initialize`, by the name of the client that asks; never a session out of one of them.
const HANDSHAKES: &[Case] = &[
    Case("a login page", |_| Reply::login_page(), [UNUSABLE; 2]),
    Case("another's id", |seen| shaken(&json!(8), seen), [UNUSABLE; 2]),
    Case("the id as text", |seen| shaken(&json!("7"), seen), [UNUSABLE; 2]),
    Case("only a notification", |_| Reply::json(&note()), [UNUSABLE; 2]),
    Case("a question", |_| Reply::json(&json!({"jsonrpc": "2.0", "id": 7, "method": "ping"})), [UNUSABLE; 2]),
    Case("two documents", |seen| Reply::json_lines(&[result(seen), result(seen)]), [UNUSABLE; 2]),
    Case("202", |_| Reply::accepted(), [UNUSABLE; 2]),
    Case("events without an end", |_| Reply::sse().event(&note()), [UNUSABLE; 2]),
    Case("another's event", |_| Reply::sse().event(&response(&json!(8), "x")), [UNUSABLE; 2]),
    Case(
        "an unknown version",
        |seen| Reply::result(seen, answers::initialize_result("1900-01-01")),
        [UNUSABLE; 2],
    ),
    Case("no version", |seen| Reply::result(seen, json!({})), [UNUSABLE; 2]),
    Case("two megabytes", |seen| Reply::result(seen, json!({"x": "x".repeat(2 << 20)})), [UNUSABLE; 2]),
    Case("an error", |seen| Reply::error(seen, -32603, "no"), [-32603; 2]),
];

fn shaken(id: &Value, _: &Seen) -> Reply {
    Reply::json(&json!({"jsonrpc": "2.0", "id": id, "result": answers::initialize_result("2025-11-25")}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn makes_no_session_out_of_a_bad_handshake() {
    let base = answers::dual();
    let stub = move |seen: &Seen| {
        let asks = seen.json["params"]["clientInfo"]["name"].as_str().unwrap_or_default();
        match HANDSHAKES.iter().find(|case| case.0 == asks) {
            Some(case) => (case.1)(seen).header("mcp-session-id", "stub-own"),
            None => base(seen),
        }
    };
    let mut bench = Bench::over(stub, Plan::default()).await;
    for Case(name, _, codes) in HANDSHAKES {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": name, "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params});
        let ask = Ask::legacy("").without("Mcp-Session-Id").body(body.to_string());
        bench.one(&row(name, ask.clone(), error(&[200], codes[0]).reaching(1))).await;
        let told = bench.ask(&ask.bytes()).await;
        assert!(!told.head.contains("mcp-session-id"), "{name}: {}", told.head);
    }
    bench.finish().await;
}

/// A standing stream that the server does not open as one: the client is told at once, and the session lives on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_what_became_of_a_bad_stream() {
    let bad: [(u16, i64, Tool); 5] = [
        (200, UNUSABLE, |_| Reply::login_page()),
        (202, 0, |_| Reply::accepted()),
        (200, UNUSABLE, |_| Reply::text(500, "text/html", "<p>no")),
        (200, UNUSABLE, |seen| Reply::json(&result(seen))),
        (405, 0, |_| Reply::status(405)),
    ];
    for (status, code, reply) in bad {
        let base = answers::dual();
        let stub = move |seen: &Seen| if seen.method == "GET" { reply(seen) } else { base(seen) };
        let bench = Bench::over(stub, Plan::default()).await;
        let get = Ask::legacy(&bench.session.id).line("GET /mcp HTTP/1.1").without("Content-Type").body("");
        let told = bench.ask(&get.bytes()).await;
        let message: Value = serde_json::from_slice(&told.body).unwrap_or_default();
        assert_eq!(
            (told.status, message["error"]["code"].as_i64().unwrap_or(0)),
            (status, code),
            "{}",
            told.head
        );
        bench.normal().await.expect("the session lives on");
        bench.finish().await;
    }
}

/// Bad answers to `subscriptions/listen`, by a member of the request.
const LISTENS: &[Case] = &[
    Case("a login page", |_| Reply::login_page(), [UNUSABLE; 2]),
    Case("a redirect", |_| Reply::redirect(302, "http://169.254.169.254/latest"), [UNUSABLE; 2]),
    Case("202", |_| Reply::accepted(), [UNUSABLE; 2]),
    Case("500 in HTML", |_| Reply::text(500, "text/html", "<p>no"), [UNUSABLE; 2]),
    Case("another's id", |_| Reply::json(&response(&json!(8), "x")), [UNUSABLE; 2]),
    Case("an error", |seen| Reply::error(seen, -32601, "no"), [-32601; 2]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_what_became_of_a_bad_listen() {
    let base = answers::dual();
    let stub = move |seen: &Seen| {
        let asks = seen.json["params"]["notifications"]["x"].as_str().unwrap_or_default();
        match LISTENS.iter().find(|case| case.0 == asks) {
            Some(case) => (case.1)(seen),
            None => base(seen),
        }
    };
    let bench = Bench::over(stub, Plan::default()).await;
    for Case(name, _, codes) in LISTENS {
        let ask = Ask::modern().set("Mcp-Method", "subscriptions/listen").without("Mcp-Name").edit(|body| {
            body["method"] = json!("subscriptions/listen");
            body["params"]["notifications"] = json!({"x": name});
        });
        let told = bench.ask(&ask.bytes()).await;
        let message: Value = serde_json::from_slice(&told.body).unwrap_or_default();
        assert_eq!(
            (told.status, &message["error"]["code"]),
            (200, &json!(codes[1])),
            "{name}: {}",
            told.head
        );
        assert!(!told.head.contains("location"), "{name}: {}", told.head);
    }
    bench.normal().await.expect("others are served");
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn does_not_grow_by_bad_answers() {
    let bench = Bench::over(stub(), Plan::default()).await;
    let legacy = || Ask::legacy(&bench.session.id);
    let named = |ask: Ask, name: &str| ask.edit(|body| body["params"]["name"] = json!(name));
    let modern = ["login page", "a wrong id", "cut JSON", "hang up", "no JSON"];
    let modern = modern.map(|name| named(Ask::modern(), name).set("Mcp-Name", name));
    let legacy = ["a wrong id", "longer than its body"].map(|name| named(legacy(), name));
    let sample: Vec<_> = modern.into_iter().chain(legacy).map(|ask| ask.bytes()).collect();
    bench.stays_small(&sample).await;
    assert_eq!(bench.normal().await, Ok(()));
    bench.finish().await;
}
