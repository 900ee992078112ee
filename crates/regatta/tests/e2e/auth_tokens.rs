//! Tokens and keys that are good, and every row of bad ones (RELIABILITY I28–I33, T11): refused by the book, nothing
//! forwarded, the same process still well.

use crate::REGATTA;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regatta_testkit::client::{RawAnswer, RawConnection, address_of};
use regatta_testkit::gateway::Plan;
use regatta_testkit::issuer::{Token, now_s};
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Issuer, Result, Stub};
use serde_json::{Value, json};

const METADATA: &str = "resource_metadata=\"https://mcp.example/.well-known/oauth-protected-resource/mcp\"";
const RULES: &str = r#"
resource = "https://mcp.example"
required_scopes = ["use"]
"#;
const MORE: &str = r#"
[[auth.scope]]
tool = "delete_*"
scopes = ["write", "admin"]
[[auth.api_key]]
name = "ci"
sha256 = "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"
scopes = ["use"]
"#;
/// Its SHA-256 stands above.
const API_KEY: &str = "hi";

async fn start(more: &str) -> (Issuer, Stub, Gateway) {
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::dual()).await);
    let tables = issuer.tables(&[RULES, more].concat()) + MORE;
    let plan = Plan::over([stub.url()]).tables(&tables).on_gateway("log_filter = \"debug\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    (issuer, stub, gateway)
}

fn call(tool: &str) -> String {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"name": tool, "arguments": {}, "_meta": meta});
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string()
}

/// One modern call with these lines for headers, as bytes.
async fn ask(gateway: &Gateway, target: &str, tool: &str, lines: &[String]) -> RawAnswer {
    let body = call(tool);
    let mut text = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: {tool}\r\nContent-Length: {}\r\n",
        body.len()
    );
    lines.iter().for_each(|line| text += &format!("{line}\r\n"));
    let mut connection = RawConnection::open(address_of(&gateway.url())).await.expect("it accepts");
    let _ = connection.write(format!("{text}\r\n{body}").as_bytes()).await;
    connection.read_answer().await
}

fn authorization(value: &str) -> Vec<String> {
    vec![format!("Authorization: {value}")]
}

fn challenge(told: &RawAnswer) -> &str {
    let line = told.head.lines().find(|line| line.to_ascii_lowercase().starts_with("www-authenticate:"));
    line.unwrap_or_default()
}

#[tokio::test]
async fn good_tokens_and_keys_are_let_in_and_go_no_further() -> Result<()> {
    let (issuer, stub, gateway) = start("").await;
    let sound = issuer.token("alice").claim("scope", "use read");
    for (name, lines) in [
        ("a token", authorization(&issuer.bearer_of(&sound))),
        ("the scheme in other letters", authorization(&issuer.bearer_of(&sound).replace("Bearer", "bEARER"))),
        (
            "scopes as a list",
            authorization(
                &issuer.bearer_of(&sound.clone().claim("scope", Value::Null).claim("scp", json!(["use"]))),
            ),
        ),
        (
            "one of several audiences",
            authorization(&issuer.bearer_of(&sound.clone().claim("aud", json!(["x", Issuer::AUDIENCE])))),
        ),
        (
            "expired within the leeway",
            authorization(&issuer.bearer_of(&sound.clone().claim("exp", now_s() - 5))),
        ),
        ("an API key", authorization(&format!("Bearer {API_KEY}"))),
        ("an API key in its own header", vec![format!("X-Api-Key: {API_KEY}")]),
    ] {
        let told = ask(&gateway, "/mcp", "work", &lines).await;
        assert_eq!(told.status, 200, "{name}: {} {}", told.head, String::from_utf8_lossy(&told.body));
    }
    for seen in stub.seen_rpc("tools/call") {
        let shown = [seen.header("authorization"), seen.header("x-api-key")];
        assert_eq!(shown, ["", ""], "the client's credential stays here");
    }
    Ok(())
}

/// What must come back: statuses, and what the challenge says.
type Want = (&'static [u16], &'static str);
const UNPROVEN: Want = (&[401], "error=\"invalid_token\"");
const NO_TOKEN: Want = (&[401], "scope=\"use\"");
const MALFORMED: Want = (&[400], "error=\"invalid_request\"");

fn rows(issuer: &Issuer) -> Vec<(&'static str, Vec<String>, Want)> {
    let sound = || issuer.token("alice").claim("scope", "use");
    let signed = |token: Token| authorization(&issuer.bearer_of(&token));
    let claim = |name: &str, value: Value| signed(sound().claim(name, value));
    let good = issuer.sign(&sound());
    let (content, signature) = good.rsplit_once('.').expect("a token");
    let confused = sound().header("alg", "HS256").unsigned();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &issuer.public_key()), confused.as_bytes());
    let unsigned = sound().header("alg", "none").unsigned();
    let bearer = |text: String| authorization(&format!("Bearer {text}"));
    vec![
        ("I30 no token", Vec::new(), NO_TOKEN),
        ("another scheme", authorization("Basic YTpi"), NO_TOKEN),
        ("I32 Bearer and nothing", authorization("Bearer"), MALFORMED),
        ("I32 Bearer and a blank", authorization("Bearer "), MALFORMED),
        ("I32 two words", authorization("Bearer a b"), MALFORMED),
        ("I32 raw bytes", authorization("Bearer \u{e9}"), MALFORMED),
        ("I32 two headers", [bearer(good.clone()), bearer(good.clone())].concat(), (&[400], "")),
        ("token and key", [bearer(good.clone()), vec!["X-Api-Key: hi".into()]].concat(), MALFORMED),
        ("I32 40 kB", bearer("a".repeat(40_000)), UNPROVEN),
        ("I32 100 kB", bearer("a".repeat(100_000)), (&[400, 401, 431], "")),
        ("no JWT", bearer("abc".into()), UNPROVEN),
        ("a wrong API key", vec!["X-Api-Key: ho".into()], UNPROVEN),
        ("I32 alg none", bearer(format!("{unsigned}.")), UNPROVEN),
        ("alg none with a signature", bearer(format!("{unsigned}.{signature}")), UNPROVEN),
        (
            "T11 HMAC with the public key",
            bearer(format!("{confused}.{}", URL_SAFE_NO_PAD.encode(tag))),
            UNPROVEN,
        ),
        ("T11 RSA named with a curve's key", signed(sound().header("alg", "RS256")), UNPROVEN),
        ("T11 kid traversal", signed(sound().header("kid", "../../../../dev/null")), UNPROVEN),
        ("kid as a query", signed(sound().header("kid", "k1' OR '1'='1")), UNPROVEN),
        ("crit", signed(sound().header("crit", json!(["exp"]))), UNPROVEN),
        (
            "a key set of its own",
            signed(sound().header("jku", "http://127.0.0.1:1/").header("kid", "x")),
            UNPROVEN,
        ),
        (
            "I30 signature changed",
            bearer(format!("{content}.{}", signature.chars().rev().collect::<String>())),
            UNPROVEN,
        ),
        (
            "claims changed",
            bearer(format!("{}.{signature}", sound().claim("sub", "root").unsigned())),
            UNPROVEN,
        ),
        ("no signature", bearer(format!("{content}.")), UNPROVEN),
        ("padded", bearer(format!("{good}=")), UNPROVEN),
        ("I30 expired", claim("exp", json!(now_s() - 31)), UNPROVEN),
        ("no expiry", claim("exp", Value::Null), UNPROVEN),
        ("not yet valid", claim("nbf", json!(now_s() + 120)), UNPROVEN),
        ("I30 foreign audience", claim("aud", json!("http://regatta.test/other")), UNPROVEN),
        ("no audience", claim("aud", Value::Null), UNPROVEN),
        ("foreign issuer", claim("iss", json!("http://127.0.0.1:1")), UNPROVEN),
        ("no subject", claim("sub", Value::Null), UNPROVEN),
        ("I31 no scope", claim("scope", Value::Null), (&[403], "error=\"insufficient_scope\"")),
    ]
}

#[tokio::test]
async fn bad_credentials_are_refused_by_the_book_and_nothing_is_forwarded() -> Result<()> {
    let (issuer, stub, gateway) = start("").await;
    let normal = authorization(&issuer.bearer_of(&issuer.token("bob").claim("scope", "use")));
    let mut failures = Vec::new();
    let calls = || stub.seen_rpc("tools/call").len();
    for (name, lines, (statuses, says)) in rows(&issuer) {
        let before = calls();
        let told = ask(&gateway, "/mcp", "work", &lines).await;
        let body: Value = serde_json::from_slice(&told.body).unwrap_or_default();
        let challenge = challenge(&told);
        let names_us = says.is_empty() || (challenge.contains(METADATA) && challenge.contains(says));
        let is_json_rpc = told.status == 431 || (body["jsonrpc"] == "2.0" && body["error"]["code"] == -32600);
        if !statuses.contains(&told.status) || !names_us || !is_json_rpc || calls() != before {
            failures.push(format!("{name}: {} {challenge} {body}", told.status));
        }
        let told = ask(&gateway, "/mcp", "work", &normal).await;
        if told.status != 200 {
            failures.push(format!("a normal request after {name}: {}", told.status));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(gateway.metric("regatta_unauthorized_total").await >= Some(30.0));
    Ok(())
}

#[tokio::test]
async fn a_token_in_the_query_is_refused_and_not_written_down() -> Result<()> {
    let (issuer, stub, gateway) = start("").await;
    let token = issuer.sign(&issuer.token("alice").claim("scope", "use"));
    let in_query = ask(&gateway, &format!("/mcp?access_token={token}"), "work", &[]).await;
    assert_eq!((in_query.status, stub.seen_rpc("tools/call").len()), (401, 0), "{}", in_query.head);
    assert!(challenge(&in_query).contains(METADATA));
    let both = authorization(&format!("Bearer {token}"));
    let both = ask(&gateway, &format!("/mcp?acces%73_token={token}"), "work", &both).await;
    assert_eq!((both.status, stub.seen_rpc("tools/call").len()), (400, 0));
    let mut written = gateway.log();
    for page in ["/metrics", "/status", "/ready"] {
        written += &gateway.admin(page).await.expect("the admin listener answers").1;
    }
    assert!(!written.contains(&token[..40]) && !written.contains(token.rsplit('.').next().unwrap_or("-")));
    Ok(())
}

#[tokio::test]
async fn a_call_without_its_scopes_is_told_all_of_them_at_once() -> Result<()> {
    let (issuer, stub, gateway) = start("").await;
    let with = |scopes: &str| authorization(&issuer.bearer_of(&issuer.token("alice").claim("scope", scopes)));
    let told = ask(&gateway, "/mcp", "delete_all", &with("use write")).await;
    assert_eq!((told.status, stub.seen_rpc("tools/call").len()), (403, 0));
    let challenge = challenge(&told);
    for part in ["error=\"insufficient_scope\"", "scope=\"use write admin\"", METADATA] {
        assert!(challenge.contains(part), "{part} in {challenge}");
    }
    let body: Value = serde_json::from_slice(&told.body).expect("JSON");
    assert_eq!((&body["id"], &body["error"]["data"]["executed"]), (&json!(7), &json!("no")));
    assert_eq!(ask(&gateway, "/mcp", "delete_all", &with("use write admin")).await.status, 200);
    assert_eq!(ask(&gateway, "/mcp", "work", &with("use")).await.status, 200);
    Ok(())
}

#[tokio::test]
async fn the_path_is_judged_before_the_credential_and_the_method_after_it() -> Result<()> {
    let (issuer, _stub, gateway) = start("").await;
    assert_eq!(ask(&gateway, "/other", "work", &[]).await.status, 404);
    let client = gateway.client();
    assert_eq!(client.send(http::Method::PUT, &[], "").await?.status, 401);
    assert_eq!(client.send(http::Method::POST, &[("content-type", "text/plain")], "").await?.status, 401);
    let bearer = issuer.bearer_of(&issuer.token("alice").claim("scope", "use"));
    let client = client.header("authorization", &bearer);
    assert_eq!(client.send(http::Method::PUT, &[], "").await?.status, 405);
    assert_eq!(client.send(http::Method::POST, &[("content-type", "text/plain")], "").await?.status, 415);
    Ok(())
}

#[tokio::test]
async fn nobody_may_call_where_that_is_allowed_but_not_what_needs_a_scope() -> Result<()> {
    let (_issuer, stub, gateway) = start("anonymous = \"allow\"").await;
    assert_eq!(ask(&gateway, "/mcp", "work", &[]).await.status, 200);
    let told = ask(&gateway, "/mcp", "delete_all", &[]).await;
    assert_eq!((told.status, stub.seen_rpc("tools/call").len()), (401, 1));
    assert!(challenge(&told).contains("scope=\"use write admin\""), "{}", told.head);
    assert_eq!(ask(&gateway, "/mcp", "work", &authorization("Bearer wrong")).await.status, 401);
    Ok(())
}
