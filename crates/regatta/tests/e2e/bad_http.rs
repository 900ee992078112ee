//! RELIABILITY B.2 (and B.0): bad HTTP, one table over one gateway and one stub; threats T1, T2, T10, T15, T20.
//!
//! Left out here: I4 beyond the origin (browser tests belong to the cors part), I29–I32 (tokens are judged by a later
//! `[auth]`; until then `Authorization` only has to stand once). I7's `localhost:80@evil` is 400, not 403: user info makes
//! `Host` an invalid field, and for that RFC 9112 3.2 demands 400.

use crate::table::{Ask, Bench, Row, TOKEN, both, error, row, served, status};
use regatta_testkit::client::{RawConnection, address_of};
use serde_json::json;
use std::time::Duration;

const INVALID: i64 = -32600;
const UNREADABLE: i64 = -32700;
const BODY_MAX: usize = 4 << 20;

/// The short times are for I33.
async fn bench() -> Bench {
    Bench::start("header_timeout = \"1s\"\nbody_timeout = \"1s\"").await
}

fn targets(session: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for verb in ["GET", "DELETE"] {
        let ask = Ask::modern().line(&format!("{verb} /mcp HTTP/1.1")).body("");
        rows.push(row("I1–I2 the era has POST only", ask, error(&[405], INVALID).with("allow: POST\r\n")));
    }
    for line in ["PUT /mcp", "PATCH /mcp", "TRACE /mcp", "OPTIONS /mcp", "post /mcp", "HEAD /mcp"] {
        let want = status(&[405]).with("allow: POST, GET, DELETE\r\n");
        rows.extend(both(session, "I3 another method", |ask| ask.line(&format!("{line} HTTP/1.1")), &want));
    }
    let connect = Ask::modern().line("CONNECT localhost:80 HTTP/1.1").body("");
    rows.push(row("I3 CONNECT", connect, status(&[405]).with("allow: ")));
    let preflight = |origin| Ask::modern().line("OPTIONS /mcp HTTP/1.1").add("Origin", origin).body("");
    let allowed = status(&[204]).with("access-control-allow-origin: http://localhost:5173\r\n");
    rows.push(row("I4 preflight of an allowed origin", preflight("http://localhost:5173"), allowed));
    let asks = preflight("http://localhost:5173")
        .add("Access-Control-Request-Headers", "mcp-param-tenant, x y, traceparent");
    let told = status(&[204]).with("last-event-id, mcp-param-tenant, traceparent\r\n");
    rows.push(row("I4 preflight that names headers", asks, told));
    let elsewhere = preflight("http://localhost:5173").line("OPTIONS /mcpx HTTP/1.1");
    rows.push(row("I4 preflight of a path that is not there", elsewhere, status(&[404])));
    let foreign = preflight("http://localhost:5173").set("Host", "evil.example");
    rows.push(row("I4 preflight under a foreign name", foreign, status(&[403])));
    rows.push(row("I4 preflight of a foreign one", preflight("http://evil.example"), status(&[403])));
    for path in ["/mcpx", "/mcp/../admin", "//mcp", "/mcp%2f", "/", "/metrics", "/mc"] {
        let change = |ask: Ask| ask.line(&format!("POST {path} HTTP/1.1"));
        rows.extend(both(session, &format!("I5 {path}"), change, &status(&[404]).with("content-length: 0")));
    }
    rows
}

fn hosts(session: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: &str, change: &dyn Fn(Ask) -> Ask, want| {
        rows.extend(both(session, name, change, &want));
    };
    add("I6 no Host", &|ask| ask.without("Host"), error(&[400], INVALID));
    add("I6 two Hosts", &|ask| ask.add("Host", "localhost"), error(&[400], INVALID));
    for host in ["local host", "", "localhost:80@evil", "localhost:x"] {
        add(&format!("I6–I7 Host {host:?}"), &|ask| ask.set("Host", host), error(&[400], INVALID));
    }
    for host in ["evil.example", "evil.example.", "EVIL.example:80", "localhost.evil.com", "10.0.0.1"] {
        add(&format!("I7 Host {host:?}"), &|ask| ask.set("Host", host), error(&[403], INVALID));
    }
    let absolute = |ask: Ask| ask.line("POST http://evil.example/mcp HTTP/1.1");
    add("I7 the absolute form's authority counts", &absolute, error(&[403], INVALID));
    for origin in
        ["http://evil.example", "null", "http://localhost.evil.com", "http://127.0.0.1.evil.com", ""]
    {
        add(&format!("I8 Origin {origin:?}"), &|ask| ask.add("Origin", origin), error(&[403], INVALID));
    }
    let two = |ask: Ask| ask.add("Origin", "http://localhost").add("Origin", "http://evil.example");
    add("I8 two Origins", &two, error(&[403], INVALID));
    let simple = |ask: Ask| ask.add("Origin", "http://evil.example").set("Content-Type", "text/plain");
    add("T2 cross-site POST of a browser", &simple, error(&[403], INVALID));
    add("I9 no Origin", &|ask| ask, served());
    rows
}

fn types(session: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: &str, change: &dyn Fn(Ask) -> Ask, want| {
        rows.extend(both(session, name, change, &want));
    };
    add("I10 no Content-Type", &|ask| ask.without("Content-Type"), error(&[415], INVALID));
    let form = "application/x-www-form-urlencoded";
    for media in ["text/plain", "application/jsonp", form, "multipart/form-data; boundary=x", "application/*"]
    {
        add(&format!("I10 {media}"), &|ask| ask.set("Content-Type", media), error(&[415], INVALID));
    }
    let two = |ask: Ask| ask.add("Content-Type", "text/plain");
    add("I10 two Content-Types", &two, error(&[415, 400], INVALID));
    let shouted = |ask: Ask| ask.set("Content-Type", "APPLICATION/JSON; charset=UTF-8");
    add("I11 any case", &shouted, served());
    let wide = |ask: Ask| ask.set("Content-Type", "application/json; charset=utf-16");
    add("I12 utf-16", &wide, error(&[415], INVALID));
    for coding in ["gzip", "br", "gzip, gzip", "x"] {
        let change = |ask: Ask| ask.add("Content-Encoding", coding).body([0x1f, 0x8b, 8, 0]);
        add(&format!("I13 {coding}"), &change, error(&[415], INVALID));
    }
    add("I14 no Accept", &|ask| ask.without("Accept"), error(&[406], INVALID));
    for accept in [
        "application/json",
        "text/event-stream",
        "application/jsonx, text/event-streamx",
        "application/json;q=0, text/event-stream",
        "x/y;a=\"application/json, text/event-stream\"",
    ] {
        add(&format!("I14–I15 {accept}"), &|ask| ask.set("Accept", accept), error(&[406], INVALID));
    }
    // The specification says nothing; ours is a stable yes.
    add("I16 */*", &|ask| ask.set("Accept", "*/*"), served());
    rows
}

fn framing(session: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: &str, change: &dyn Fn(Ask) -> Ask, want| {
        rows.extend(both(session, name, change, &want));
    };
    for length in ["+7", "-1", "7, 8", "99999999999999999999", "0x7", ""] {
        let change = |ask: Ask| ask.framed("Content-Length", length, "{\"a\":1}");
        add(&format!("I21 Content-Length {length:?}"), &change, status(&[400]).closing());
    }
    let two = |ask: Ask| ask.add("Content-Length", "7").framed("Content-Length", "8", "{\"a\":1}x");
    add("I21 two lengths", &two, status(&[400]).closing());
    let smuggled = |ask: Ask| {
        let (length, inner) = (ask.length(), ask.clone().add("X-Smuggled", "yes").bytes());
        let ask = ask.chunked().add("Content-Length", length.to_string());
        let outer = [ask.bytes(), inner].concat();
        let at = outer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        ask.body(&outer[at..])
    };
    add("I22 length and chunks", &smuggled, served().closing());
    for coding in ["xchunked", "chunked, identity", "gzip, chunked", "gzip", "chunked, chunked"] {
        let change = |ask: Ask| ask.framed("Transfer-Encoding", coding, "2\r\n{}\r\n0\r\n\r\n");
        add(&format!("I23 {coding}"), &change, status(&[400, 501]).closing());
    }
    let twice = |ask: Ask| ask.add("Transfer-Encoding", "chunked").chunked();
    add("I23 two codings", &twice, status(&[400, 501]).closing());
    let old = |ask: Ask| ask.line("POST /mcp HTTP/1.0").chunked();
    add("I23 with HTTP/1.0", &old, status(&[400]).closing());
    let chunks =
        ["x\r\n{}\r\n", "0x2\r\n{}\r\n", "11111111111111111\r\n{}\r\n", "2;a\n{}\r\n", "2\r\n{}xx\r\n"];
    for body in chunks {
        let body = format!("{body}0\r\n\r\n");
        let change = |ask: Ask| ask.framed("Transfer-Encoding", "chunked", &body);
        add(&format!("I24 {body:?}"), &change, status(&[400, 0]).closing());
    }
    let trailer = |ask: Ask| {
        let whole = ask.chunked();
        let length = whole.length() - 2;
        let bytes = whole.bytes();
        let body = &bytes[bytes.len() - length - 2..bytes.len() - 2];
        let body = [body, b"Content-Length: 3\r\nAuthorization: evil\r\n\r\n"].concat();
        whole.body(body)
    };
    add("B.0 trailers are never merged", &trailer, served());
    add("I19 empty body", &|ask| ask.body(""), error(&[400], UNREADABLE));
    rows
}

fn heads(session: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: &str, change: &dyn Fn(Ask) -> Ask, want| {
        rows.extend(both(session, name, change, &want));
    };
    let many = |ask: Ask| (0..100).fold(ask, |ask, at| ask.add(&format!("X-{at}"), "1"));
    add("I20 more than 100 headers", &many, status(&[431]).closing());
    add("I20 a head of 64 KiB", &|ask| ask.add("X-Long", "x".repeat(64 << 10)), status(&[431]).closing());
    let uri = |ask: Ask| ask.line(&format!("POST /mcp?{} HTTP/1.1", "x".repeat(70_000)));
    add("I20 a URI of 70 kB", &uri, status(&[414, 431]).closing());
    add("I25 a folded line", &|ask| ask.add("X-A", "1\r\n 2"), status(&[400]).closing());
    add("I25 a space before the colon", &|ask| ask.add("X-A ", "1"), status(&[400]).closing());
    add("I25 a bare CR", &|ask| ask.add("X-A", "1\r2"), status(&[400]).closing());
    add("I25 a NUL", &|ask| ask.add("X-A", "1\x002"), status(&[400]).closing());
    add("I25 no name", &|ask| ask.add("", "1"), status(&[400]).closing());
    add("B.0 HTTP/1.2", &|ask| ask.line("POST /mcp HTTP/1.2"), status(&[400]).closing());
    add("I27 h2c", &|ask| ask.add("Connection", "Upgrade").add("Upgrade", "h2c"), served());
    add("I27 websocket", &|ask| ask.add("Connection", "Upgrade").add("Upgrade", "websocket"), served());
    add("I32 two Authorizations", &|ask| ask.add("Authorization", "Bearer b"), error(&[400], INVALID));
    let raw = |name: &str, bytes: &[u8], want| Row { name: name.into(), bytes: bytes.into(), want };
    rows.push(raw(
        "B.0 a TLS hello",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        status(&[400, 0]).closing(),
    ));
    rows.push(raw(
        "B.0 an HTTP/2 preface",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        status(&[400, 0, 505]).closing(),
    ));
    let slow = b"POST /mcp HTTP/1.1\r\nHost: localh";
    rows.push(raw("I33 a head that does not end", slow, status(&[0, 408]).closing()));
    let slow = Ask::modern().framed("Content-Length", "100", "{");
    rows.push(row("I33 a body that does not end", slow, status(&[408]).closing()));
    rows
}

fn sizes(session: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let announced = |ask: Ask| {
        ask.framed("Content-Length", &(BODY_MAX + 1).to_string(), "").add("Expect", "100-continue")
    };
    rows.extend(both(session, "I17 too long by its own word", announced, &error(&[413], INVALID).closing()));
    let sent = |ask: Ask| {
        let chunk = format!("{BODY_MAX:x}\r\n{}\r\n1\r\nx\r\n", " ".repeat(BODY_MAX));
        ask.framed("Transfer-Encoding", "chunked", chunk)
    };
    rows.extend(both(session, "I17 too long in chunks", sent, &error(&[413], INVALID).closing()));
    let whole = |ask: Ask| {
        let ask = ask.edit(|body| body["params"]["arguments"]["fill"] = json!(""));
        let fill = "x".repeat(BODY_MAX - ask.length());
        ask.edit(|body| body["params"]["arguments"]["fill"] = json!(fill))
    };
    rows.extend(both(session, "I18 exactly the most", whole, &served()));
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_bad_targets_hosts_and_types() {
    let mut bench = bench().await;
    let session = bench.session.id.clone();
    for rows in [targets(&session), hosts(&session), types(&session)] {
        bench.run(rows).await;
    }
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_bad_framing_heads_and_sizes() {
    let mut bench = bench().await;
    let session = bench.session.id.clone();
    for rows in [framing(&session), heads(&session), sizes(&session)] {
        bench.run(rows).await;
    }
    assert!(bench.strangers().iter().all(|seen| seen.header("x-smuggled").is_empty()), "I22: smuggled");
    assert!(
        bench.strangers().iter().all(|seen| seen.header("authorization") == TOKEN),
        "a trailer was merged"
    );
    bench.finish().await;
}

/// I26, T15, T20: what is for one hop, or only ours to say, never reaches a server; what proves identity always does.
#[tokio::test]
async fn sends_up_its_own_set_of_headers() {
    let bench = bench().await;
    let own = [("Connection", "Mcp-Session-Id, Authorization, X-Hop"), ("X-Hop", "1"), ("TE", "trailers")];
    let own = own.into_iter().chain([("Upgrade", "h2c"), ("HTTP2-Settings", "AAA"), ("Keep-Alive", "x")]);
    let forged =
        [("X-Forwarded-For", "9.9.9.9"), ("Forwarded", "for=9.9.9.9"), ("X-Regatta-Principal", "root")];
    let forged =
        forged.into_iter().chain([("Mcp_Name", "evil"), ("Mcp-Param-Region", "eu"), ("Last-Event-ID", "1")]);
    let ask =
        own.chain(forged).fold(Ask::legacy(&bench.session.id), |ask, (name, value)| ask.add(name, value));
    assert_eq!(bench.ask(&ask.chunked().bytes()).await.status, 200);
    let seen = bench.strangers().pop().expect("it was forwarded");
    assert_eq!(seen.header("authorization"), TOKEN);
    assert!(seen.header("mcp-session-id").starts_with("stub-"), "the stub's own session, not our token");
    assert_eq!(seen.header("host"), bench.stub.address().to_string());
    assert_eq!(seen.header("mcp-param-region"), "eu", "unknown Mcp-Param headers pass");
    assert_eq!(seen.headers_named("content-length").len(), 1);
    let never = [
        "connection",
        "x-hop",
        "te",
        "upgrade",
        "http2-settings",
        "keep-alive",
        "transfer-encoding",
        "x-forwarded-for",
        "forwarded",
        "x-regatta-principal",
        "mcp_name",
        "last-event-id",
    ];
    for name in never {
        assert_eq!(seen.headers_named(name), [""; 0], "{name}");
    }
    bench.finish().await;
}

/// I28: one hundred requests at once on one connection.
#[tokio::test]
async fn answers_pipelined_requests_in_order() {
    let bench = bench().await;
    let mut connection = RawConnection::open(address_of(&bench.gateway.url())).await.expect("a connection");
    let asks = (0..100).flat_map(|id| Ask::modern().edit(|body| body["id"] = json!(id)).bytes());
    connection.write(asks.collect::<Vec<_>>()).await.expect("written");
    for id in 0..100 {
        let answer =
            tokio::time::timeout(Duration::from_secs(10), connection.read_answer()).await.expect("in time");
        let message: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((answer.status, &message["id"]), (200, &json!(id)));
    }
    assert_eq!(bench.strangers().len(), 100);
    bench.finish().await;
}

/// B.0: a body that is shorter than announced never goes up, and 100-continue is said before it is waited for.
#[tokio::test]
async fn forwards_no_part_of_a_body() {
    let bench = bench().await;
    let whole = Ask::modern();
    let ask = whole.clone().framed("Content-Length", &(whole.length() + 1).to_string(), "").bytes();
    let body = whole.bytes()[whole.bytes().len() - whole.length()..].to_vec();
    let mut connection = RawConnection::open(address_of(&bench.gateway.url())).await.expect("a connection");
    connection.write([&ask[..], &body].concat()).await.expect("written");
    connection.half_close().await.expect("half-closed");
    let (answer, closed) = connection.read_rest(Duration::from_secs(5)).await;
    assert!(closed && !answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let waiting =
        whole.clone().add("Expect", "100-continue").framed("Content-Length", &body.len().to_string(), "");
    let mut connection = RawConnection::open(address_of(&bench.gateway.url())).await.expect("a connection");
    connection.write(waiting.bytes()).await.expect("written");
    connection.read_until("100 Continue").await.expect("100 Continue");
    connection.write(body).await.expect("written");
    assert_eq!(connection.read_answer().await.status, 200);
    assert_eq!(bench.strangers().len(), 1);
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn does_not_grow_by_bad_requests() {
    let bench = bench().await;
    let session = bench.session.id.clone();
    let sample = [
        Ask::modern().set("Host", "evil.example"),
        Ask::legacy(&session).body("{\"a\":1,\"a\":2}"),
        Ask::modern().set("Mcp-Name", "other"),
        Ask::legacy("no such session"),
        Ask::modern().framed("Transfer-Encoding", "chunked", "x\r\n{}\r\n0\r\n\r\n"),
    ];
    bench.stays_small(&sample.map(|ask| ask.bytes())).await;
    assert_eq!(bench.strangers().len(), 0);
    assert_eq!(bench.normal().await, Ok(()));
    bench.finish().await;
}
