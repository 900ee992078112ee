//! RELIABILITY B.4: routing headers and `_meta` of modern requests, as far as the gateway judges them.
//!
//! Left out: I79, I90, I91, I93, I95 (the server's own checks), I84–I86, I88, I89 (`Mcp-Param` is judged by whoever keys on
//! it: a later issue), I92 and I94 but for tampering (other users need `[auth]`), I96, I97 (tool catalogue, later).

use crate::table::{Ask, Bench, Row, error, meta, row, served, status};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Reply, Seen};
use serde_json::{Value, json};

const MISMATCH: i64 = -32020;
const VERSION: i64 = -32022;
const PARAMS: i64 = -32602;
const NO_METHOD: i64 = -32601;
const KEY: &str = "io.modelcontextprotocol/";

/// A stub of both eras that also knows prompts and resources.
fn stub() -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let base = answers::dual();
    move |seen| match seen.rpc() {
        "resources/read" | "prompts/get" if seen.is_modern() => {
            Reply::result(seen, json!({"resultType": "complete"}))
        }
        _ => base(seen),
    }
}

async fn bench() -> Bench {
    Bench::over(stub(), Plan::default()).await
}

/// A sound request of another method.
fn request(method: &str, params: Value) -> Ask {
    let ask = Ask::modern().set("Mcp-Method", method).without("Mcp-Name");
    ask.edit(|body| {
        body["method"] = json!(method);
        body["params"] = params;
        body["params"]["_meta"] = meta();
    })
}

/// A call of a tool with this name, and a header that says what it likes.
fn named(name: &str, header: &str) -> Ask {
    Ask::modern().edit(|body| body["params"]["name"] = json!(name)).set("Mcp-Name", header)
}

fn headers() -> Vec<Row> {
    let mismatch = || error(&[400], MISMATCH);
    let mut rows = vec![
        row("I56 no version header", Ask::modern().without("MCP-Protocol-Version"), mismatch()),
        row("I57 no Mcp-Method", Ask::modern().without("Mcp-Method"), mismatch()),
        row("I58 no Mcp-Name, tool", Ask::modern().without("Mcp-Name"), mismatch()),
        row("I58 no Mcp-Name, resource", request("resources/read", json!({"uri": "a://b"})), mismatch()),
        row("I58 no Mcp-Name, prompt", request("prompts/get", json!({"name": "a"})), mismatch()),
        row(
            "I58 named",
            request("resources/read", json!({"uri": "a://b"})).add("Mcp-Name", "a://b"),
            served(),
        ),
        row("I59 no Mcp-Name, task", request("tasks/get", json!({"taskId": "a"})), mismatch()),
        row("I59 no Mcp-Name, task input", request("tasks/update", json!({"taskId": "a"})), mismatch()),
        row("I59 no Mcp-Name, task's end", request("tasks/cancel", json!({"taskId": "a"})), mismatch()),
        row("I60 another method", Ask::modern().set("Mcp-Method", "tools/list"), mismatch()),
        row("I61 another case", Ask::modern().set("Mcp-Method", "TOOLS/CALL"), mismatch()),
        row("I63 blanks around", Ask::modern().set("Mcp-Name", "  \t work \t "), served()),
        row("I64 another name", Ask::modern().set("Mcp-Name", "other"), mismatch()),
        row("I64 another case of the name", Ask::modern().set("Mcp-Name", "Work"), mismatch()),
        row("I65 the same name twice", Ask::modern().add("Mcp-Name", "work"), mismatch()),
        row("I65 two names", Ask::modern().add("Mcp-Name", "other"), mismatch()),
        row("I65 a list of names", Ask::modern().set("Mcp-Name", "work, work"), mismatch()),
        row("I65 two methods", Ask::modern().add("Mcp-Method", "tools/call"), mismatch()),
        row("I65 two versions", Ask::modern().add("MCP-Protocol-Version", "2026-07-28"), mismatch()),
        row("I66 an orphan name", request("tools/list", json!({})).add("Mcp-Name", "work"), served()),
        row("I67 raw UTF-8", named("wörk", "wörk"), mismatch()),
        row("I67 not even UTF-8", Ask::modern().set("Mcp-Name", b"w\xffrk"), mismatch()),
        row("I67 UTF-8 in the method", Ask::modern().set("Mcp-Method", "tools/cäll"), mismatch()),
        row(
            "I72 header and _meta differ",
            Ask::modern().set("MCP-Protocol-Version", "2027-01-01"),
            mismatch(),
        ),
        row("I87 an unknown Mcp-Param", Ask::modern().add("Mcp-Param-X", "=?"), served()),
    ];
    let lower =
        ["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"].into_iter().fold(Ask::modern(), |ask, name| {
            let value = if name == "Mcp-Name" {
                "work"
            } else if name == "Mcp-Method" {
                "tools/call"
            } else {
                "2026-07-28"
            };
            ask.without(name).add(&name.to_uppercase(), value)
        });
    rows.push(row("I62 names in any case", lower, served()));
    rows
}

fn sentinels() -> Vec<Row> {
    let mismatch = || error(&[400], MISMATCH);
    let mut rows = vec![
        row("I68 encoded", named("work", "=?base64?d29yaw==?="), served()),
        row("I68 encoded UTF-8", named("wörk", "=?base64?d8O2cms=?="), served()),
        row(
            "I71 a tool of that name, encoded",
            named("=?base64?x?=", "=?base64?PT9iYXNlNjQ/eD89?="),
            served(),
        ),
        row("I71 a tool of that name, plain", named("=?base64?x?=", "=?base64?x?="), mismatch()),
        row(
            "I126 a tool with a line end in its name",
            named("a\r\nX: 1", "=?base64?YQ0KWDogMQ==?="),
            served(),
        ),
        row("I69 not UTF-8 inside", named("work", "=?base64?/w==?="), mismatch()),
    ];
    for header in ["=?base64?!!!?=", "=?base64?d29yaw?=", "=?base64?d29yaw=?=", "=?base64??="] {
        rows.push(row(&format!("I69 {header}"), named("work", header), mismatch()));
    }
    for header in ["=?BASE64?d29yaw==?=", "=?base64?d29yaw==", "=?utf-8?b?d29yaw==?="] {
        rows.push(row(&format!("I70 {header} is taken as it is"), named("work", header), mismatch()));
    }
    rows
}

fn versions() -> Vec<Row> {
    let both = |version: &str| {
        let ask = Ask::modern().set("MCP-Protocol-Version", version);
        ask.edit(|body| body["params"]["_meta"][format!("{KEY}protocolVersion")] = json!(version))
    };
    let unsupported = || error(&[400], VERSION).with("\"supported\":[\"2026-07-28\"]");
    vec![
        row("I73 1900-01-01", both("1900-01-01"), unsupported().with("\"requested\":\"1900-01-01\"")),
        row("I73 a version to come", both("2027-01-01"), unsupported()),
        row("I73 a legacy version in _meta", both("2025-11-25"), unsupported()),
        row("I74 2026-7-28", both("2026-7-28"), unsupported()),
        row("I74 10 kB", both(&"9".repeat(10_000)), unsupported()),
        row(
            "I74 blanks around the header",
            Ask::modern().set("MCP-Protocol-Version", " 2026-07-28 "),
            served(),
        ),
    ]
}

fn metas() -> Vec<Row> {
    let edited = |edit: &dyn Fn(&mut Value)| Ask::modern().edit(|body| edit(&mut body["params"]["_meta"]));
    let without = |key: &str| {
        let key = format!("{KEY}{key}");
        edited(&|meta| drop(meta.as_object_mut().map(|meta| meta.remove(&key))))
    };
    let bad = || error(&[400], PARAMS);
    let capabilities = format!("{KEY}clientCapabilities");
    let mut rows = vec![
        row("I75 no _meta", edited(&|meta| *meta = Value::Null), bad()),
        row(
            "I75 no params",
            Ask::modern().edit(|body| drop(body.as_object_mut().map(|body| body.remove("params")))),
            bad(),
        ),
        row("I75 no protocolVersion", without("protocolVersion"), bad()),
        row("I75 no clientCapabilities", without("clientCapabilities"), bad()),
        row("I76 no clientInfo", Ask::modern(), served()),
    ];
    for value in [json!("x"), json!([]), json!(1)] {
        rows.push(row("I77 _meta of another type", edited(&|meta| *meta = value.clone()), bad()));
        rows.push(row(
            "I77 capabilities of another type",
            edited(&|meta| meta[&capabilities] = value.clone()),
            bad(),
        ));
        let one = edited(&|meta| meta[&capabilities]["sampling"] = value.clone());
        rows.push(row("I77 one capability of another type", one, bad()));
        let version = edited(&|meta| meta[format!("{KEY}protocolVersion")] = value.clone());
        // A version that is text is an unknown version, not a wrong type.
        let want = if value.is_string() { error(&[400], MISMATCH) } else { bad() };
        rows.push(row("I77 protocolVersion of another type", version, want));
    }
    rows
}

fn eras() -> Vec<Row> {
    let mut rows = Vec::new();
    for method in ["x/y", "ping", "logging/setLevel", "resources/subscribe"] {
        let gone = error(&[404], NO_METHOD).reaching(1);
        rows.push(row(&format!("I78 {method}"), request(method, json!({})), gone));
    }
    for version in ["2026-07-28", "1900-01-01", "2025-11-25"] {
        let initialize = json!({
            "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}},
        });
        let ask = Ask::legacy("")
            .without("Mcp-Session-Id")
            .without("MCP-Protocol-Version")
            .body(initialize.to_string());
        let want = served().with("\"protocolVersion\":\"2025-11-25\"");
        rows.push(row(&format!("I80–I81 initialize with {version}"), ask, want));
    }
    let past = Ask::modern().add("Mcp-Session-Id", "whatever").add("Last-Event-ID", "5");
    rows.push(row("I82–I83 legacy headers mean nothing", past, served()));
    let forged =
        request("tools/call", json!({"name": "work", "requestState": "forged", "inputResponses": {}}));
    rows.push(row("I94 a forged requestState", forged.add("Mcp-Name", "work"), error(&[400], PARAMS)));
    rows.push(row(
        "I94 an empty one",
        request("tools/call", json!({"name": "work", "requestState": ""})).add("Mcp-Name", "work"),
        error(&[400], PARAMS),
    ));
    rows.push(row(
        "I54 a call without an id is nobody's",
        Ask::modern().edit(|body| drop(body.as_object_mut().map(|body| body.remove("id")))),
        status(&[202]),
    ));
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_modern_headers_to_the_body() {
    let mut bench = bench().await;
    for rows in [headers(), sentinels()] {
        bench.run(rows).await;
    }
    let kept = bench.strangers().into_iter().find(|seen| !seen.header("mcp-param-x").is_empty());
    assert_eq!(kept.expect("I87 was forwarded").header("mcp-param-x"), "=?");
    assert!(bench.strangers().iter().all(|seen| seen.header("x").is_empty()), "T21");
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demands_a_whole_meta_of_a_known_version() {
    let mut bench = bench().await;
    for rows in [versions(), metas()] {
        bench.run(rows).await;
    }
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_eras_apart() {
    let mut bench = bench().await;
    bench.run(eras()).await;
    let modern = bench.strangers().into_iter().filter(|seen| seen.is_modern());
    for seen in modern {
        for name in ["mcp-session-id", "last-event-id"] {
            assert_eq!(seen.header(name), "", "I82–I83");
        }
    }
    bench.finish().await;
}
