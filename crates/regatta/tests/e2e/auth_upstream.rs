//! What servers see: never a client's token (RELIABILITY T10), the gateway's own credential, and who calls, signed.

use crate::REGATTA;
use aws_lc_rs::hmac;
use http::Method;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Issuer, Reply, Result, Seen, Stub, eventually};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// Everything of a request, as text.
fn whole(seen: &Arc<Seen>) -> String {
    format!("{} {} {:?} {}", seen.method, seen.path, seen.headers, String::from_utf8_lossy(&seen.body))
}

#[tokio::test]
async fn no_byte_of_a_clients_token_reaches_a_server_or_is_written_anywhere() -> Result<()> {
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::dual()).await);
    let on = "log_filter = \"trace\"";
    let secret = "identity_headers = true\nidentity_secret = \"canary-identity-secret-0123456789\"";
    let plan = Plan::over([stub.url()])
        .on_server("credentials = { bearer = \"canary-upstream-credential\" }")
        .tables(&issuer.tables(secret))
        .on_gateway(on);
    let mut gateway = Gateway::start(REGATTA, plan).await;
    let token = issuer.sign(&issuer.token("alice").claim("canary", "claim"));
    let client = gateway.client().header("authorization", &format!("Bearer {token}"));
    let session = client.initialize().await?;
    session.call("work", json!({})).await?.result()?;
    let standing = session.listen().await?;
    client.modern().call("work", json!({})).await?.result()?;
    let listening = client.modern().listen(json!({"toolsListChanged": true})).await?;
    drop((standing, listening));
    session.end().await?;
    client.send(Method::GET, &[], "").await?;
    let parts: Vec<&str> = token.split('.').collect();
    for seen in stub.seen() {
        let said = whole(&seen);
        assert!(!parts.iter().any(|part| said.contains(part)), "{said}");
        if !seen.header("user-agent").starts_with("regatta-probe") {
            assert_eq!(seen.headers_named("authorization"), ["Bearer canary-upstream-credential"], "{said}");
        }
    }
    let written = gateway.all_it_said().await;
    assert!(!written.contains("canary"), "{:?}", written.lines().find(|line| line.contains("canary")));
    assert!(!parts.iter().any(|part| written.contains(part)));
    Ok(())
}

#[tokio::test]
async fn a_server_learns_who_calls_in_headers_that_only_the_gateway_can_make() -> Result<()> {
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::modern()).await);
    let secret = "0123456789abcdef0123456789abcdef";
    let more = format!("claims = [\"tenant\"]\nidentity_headers = true\nidentity_secret = \"{secret}\"");
    let plan = Plan::over([stub.url()]).tables(&issuer.tables(&more));
    let gateway = Gateway::start(REGATTA, plan).await;
    let token = issuer.token("al ice").claim("scope", "b a").claim("tenant", "t1");
    let forged = [("x-regatta-principal", "sub=root"), ("x-regatta-scopes", "all"), ("x-regatta-admin", "1")];
    let mut client = gateway.client().header("authorization", &issuer.bearer_of(&token));
    for (name, value) in forged {
        client = client.header(name, value);
    }
    client.modern().call("work", json!({})).await?.result()?;
    let seen = stub.wait_for("tools/call", 1).await;
    let issuer_text = issuer.url().replace(':', "%3A").replace('/', "%2F");
    let who = format!("iss={issuer_text}&sub=al%20ice");
    assert_eq!(seen.headers_named("x-regatta-principal"), [who.as_str()]);
    assert_eq!(seen.headers_named("x-regatta-scopes"), ["a b"]);
    assert_eq!(seen.headers_named("x-regatta-claims"), ["tenant=t1"]);
    assert_eq!(seen.header("x-regatta-admin"), "");
    let (at, tag) = seen.header("x-regatta-signature").split_once(",v1=").expect("a signature");
    let at = at.trim_start_matches("t=");
    let text = format!("v1\n{at}\ndemo\n{who}\na b\ntenant=t1");
    let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    let expected: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(tag, expected);
    Ok(())
}

#[tokio::test]
async fn a_credential_in_a_file_is_read_again_when_it_changes() -> Result<()> {
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("credential");
    std::fs::write(&file, "first\n").expect("written");
    let stub = Stub::start(answers::modern()).await;
    let line = format!("credentials = {{ bearer_file = {file:?}, header = \"X-Shop-Key\" }}");
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).on_server(&line)).await;
    let modern = gateway.client().header("x-shop-key", "mine").modern();
    modern.call("work", json!({})).await?.result()?;
    assert_eq!(stub.wait_for("tools/call", 1).await.headers_named("x-shop-key"), ["first"]);
    let shown = async |wanted: &[&str]| {
        modern.call("work", json!({})).await.ok()?.result().ok()?;
        let last = stub.seen_rpc("tools/call").pop()?;
        (last.headers_named("x-shop-key") == wanted).then_some(())
    };
    std::fs::write(&file, "second").expect("written");
    eventually("the second is shown", SOON, async || shown(&["second"]).await).await;
    std::fs::remove_file(&file).expect("removed");
    eventually("nothing is shown, and never the client's", SOON, async || shown(&[]).await).await;
    Ok(())
}

#[tokio::test]
async fn a_server_that_does_not_take_the_gateways_credential_is_no_fault_of_the_client() -> Result<()> {
    let issuer = Issuer::start().await;
    let stub = Stub::start(|_| Reply::status(401).header("www-authenticate", "Bearer realm=\"inner\"")).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).tables(&issuer.tables(""))).await;
    let client = gateway.client().header("authorization", &issuer.bearer("alice"));
    let answer = client.modern().request("tools/call", json!({"name": "work", "arguments": {}})).await?;
    assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (503, ""));
    let said = answer.json().await?;
    assert_eq!((&said["error"]["code"], &said["error"]["data"]["executed"]), (&json!(-31004), &json!("no")));
    Ok(())
}

#[tokio::test]
async fn a_credential_in_a_variable_goes_to_its_own_server_only() -> Result<()> {
    let (issuer, shop, bank) =
        (Issuer::start().await, Stub::start(answers::dual()).await, Stub::start(answers::dual()).await);
    let plan = Plan::default()
        .server(
            "shop",
            [shop.url()],
            "path = \"/shop\"\ncredentials = { bearer_env = \"REGATTA_TEST_SHOP\" }",
        )
        .server("bank", [bank.url()], "path = \"/bank\"")
        .environment("REGATTA_TEST_SHOP", "for-the-shop")
        .tables(&issuer.tables(""));
    let gateway = Gateway::start(REGATTA, plan).await;
    for (path, stub, shown) in [("/shop", &shop, "Bearer for-the-shop"), ("/bank", &bank, "")] {
        let client = regatta_testkit::Client::new(&gateway.url().replace("/mcp", path));
        let client = client.header("authorization", &issuer.bearer("alice"));
        client.modern().call("work", json!({"op": "credential"})).await?.result()?;
        let calls = stub.seen_rpc("tools/call");
        assert_eq!(
            calls.iter().map(|seen| seen.header("authorization")).collect::<Vec<_>>(),
            [shown],
            "{path}"
        );
    }
    Ok(())
}
