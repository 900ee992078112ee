//! Where clients learn whose tokens are taken (RFC 9728): our document with `[auth]`, the server's own without.

use crate::REGATTA;
use http::Method;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Client, Gateway, Issuer, Reply, Result, Stub};
use serde_json::{Value, json};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

fn at(gateway: &Gateway, path: &str) -> Client {
    Client::new(&gateway.url().replace("/mcp", path))
}

async fn document(gateway: &Gateway, path: &str) -> Result<Value> {
    let answer = at(gateway, path).send(Method::GET, &[("accept", "application/json")], "").await?;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"), "{path}");
    answer.json().await
}

#[tokio::test]
async fn the_gateways_document_names_issuers_scopes_and_the_configured_resource() -> Result<()> {
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::modern()).await);
    let more = "resource = \"https://mcp.example/public\"\nrequired_scopes = [\"use\"]";
    let scope = "[[auth.scope]]\ntool = \"x\"\nscopes = [\"write\", \"use\"]";
    let plan = Plan::over([stub.url()]).tables(&(issuer.tables(more) + scope));
    let gateway = Gateway::start(REGATTA, plan).await;
    for path in [WELL_KNOWN, &format!("{WELL_KNOWN}/mcp"), &format!("{WELL_KNOWN}/public")] {
        let expected = json!({
            "resource": "https://mcp.example/public",
            "authorization_servers": [issuer.url()],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["use", "write"],
        });
        assert_eq!(document(&gateway, path).await?, expected, "{path}");
    }
    let other = at(&gateway, &format!("{WELL_KNOWN}/other")).send(Method::GET, &[], "").await?;
    assert_eq!(other.status, 404);
    let posted = at(&gateway, WELL_KNOWN).send(Method::POST, &[], "{}").await?;
    assert_eq!((posted.status.as_u16(), posted.header("allow")), (405, "GET"));
    let foreign = at(&gateway, WELL_KNOWN).send(Method::GET, &[("host", "evil.example")], "").await?;
    assert_eq!(foreign.status, 403);
    let refused = gateway.client().send(Method::POST, &[], "{}").await?;
    let url = "resource_metadata=\"https://mcp.example/.well-known/oauth-protected-resource/public\"";
    assert!(refused.header("www-authenticate").contains(url), "{:?}", refused.headers);
    Ok(())
}

/// A server that checks for itself and names itself as it sees itself.
async fn guarded() -> Stub {
    let base = answers::dual();
    Stub::start(move |seen| {
        let origin = format!("http://{}", seen.header("host"));
        match (seen.path.as_str(), seen.header("authorization")) {
            ("/.well-known/oauth-protected-resource/mcp", _) => Reply::json(&json!({
                "resource": format!("{origin}/mcp"), "authorization_servers": ["https://login.example"], "x": [1],
            })),
            (_, "Bearer good") => base(seen),
            (_, _) => {
                let challenge = format!(
                    "Bearer error=\"invalid_token\", scope=\"a b\", resource_metadata=\"{origin}{WELL_KNOWN}/mcp\""
                );
                Reply::text(401, "application/json", "{\"error\":\"theirs\"}").header("www-authenticate", &challenge)
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_servers_401_comes_back_as_it_is_but_leads_to_metadata_at_our_address() -> Result<()> {
    let stub = guarded().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let ours = gateway.url().trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
    let client = gateway.client();
    let call = json!({"name": "work", "arguments": {}});
    let modern = client.modern().request("tools/call", call).await?;
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let legacy = client.post(&[], &initialize).await?;
    let listen = client.modern().listen(json!({"toolsListChanged": true})).await?;
    for answer in [modern, legacy, listen] {
        let expected = format!(
            "Bearer error=\"invalid_token\", scope=\"a b\", resource_metadata=\"http://{ours}{WELL_KNOWN}/mcp\""
        );
        assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, expected.as_str()));
        assert_eq!(answer.bytes().await?, "{\"error\":\"theirs\"}");
    }
    let told = document(&gateway, &format!("{WELL_KNOWN}/mcp")).await?;
    let expected = json!({
        "resource": format!("http://{ours}/mcp"), "authorization_servers": ["https://login.example"], "x": [1],
    });
    assert_eq!(told, expected, "theirs, but about the address that was asked");
    let session = client.header("authorization", "Bearer good").initialize().await?;
    session.call("work", json!({})).await?.result()?;
    assert_eq!(stub.wait_for("tools/call", 2).await.header("authorization"), "Bearer good", "transparent");
    let stranger = gateway.client().header("authorization", "Bearer bad");
    let headers = [("mcp-session-id", session.id.as_str()), ("mcp-protocol-version", "2025-11-25")];
    let refused = stranger.send(Method::DELETE, &headers, "").await?;
    let at_our_address = format!("resource_metadata=\"http://{ours}{WELL_KNOWN}/mcp\"");
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").ends_with(&at_our_address), "{:?}", refused.headers);
    Ok(())
}

#[tokio::test]
async fn a_server_without_metadata_has_none_here_either() -> Result<()> {
    let stub = Stub::start(answers::modern()).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let answer = at(&gateway, &format!("{WELL_KNOWN}/mcp")).send(Method::GET, &[], "").await?;
    assert_eq!(answer.status, 404);
    Ok(())
}
