//! Servers that answer what is no answer: the client is told so, and what is a server's to say passes unchanged.

use crate::REGATTA;
use crate::fleet::executed;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Result, Stub};
use serde_json::json;

async fn stub() -> Stub {
    let base = answers::dual();
    Stub::start(move |seen| match seen.tool() {
        "broken" => Reply::text(200, "application/json", "{\"jsonrpc\":\"2.0\",\"id\":"),
        "login" => Reply::login_page(),
        "redirect" => Reply::redirect(307, "http://127.0.0.1:1/elsewhere"),
        "foreign" => Reply::json(&json!({"jsonrpc": "2.0", "id": "somebody else's", "result": {}})),
        "array" => Reply::json(&json!([1, 2])),
        "empty" => Reply::text(200, "application/json", ""),
        "foreign event" => Reply::sse()
            .event(&json!({"jsonrpc": "2.0", "id": 987_654, "result": {}}))
            .event_result(seen, json!({"ok": 1})),
        "unanswered" => {
            Reply::sse().event(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}))
        }
        "unauthorized" => Reply::text(401, "application/json", "{\"error\":\"invalid_token\"}")
            .header("www-authenticate", "Bearer error=\"invalid_token\""),
        "limited" => Reply::text(429, "text/plain", "slow down").header("retry-after", "7"),
        _ => base(seen),
    })
    .await
}

#[tokio::test]
async fn what_is_no_answer_is_said_to_be_none() -> Result<()> {
    let stub = stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let (session, modern) = (gateway.client().initialize().await?, gateway.client().modern());
    for tool in ["broken", "login", "redirect", "foreign", "array", "empty"] {
        let arguments = json!({"op": tool});
        for outcome in [session.call(tool, arguments.clone()).await?, modern.call(tool, arguments).await?] {
            assert_eq!(
                (outcome.status.as_u16(), outcome.code()),
                (200, -31007),
                "{tool}: {}",
                outcome.message
            );
            assert_eq!(executed(&outcome), "unknown", "{tool}");
        }
    }
    for outcome in [session.call("unanswered", json!({})).await?, modern.call("unanswered", json!({})).await?]
    {
        assert_eq!((outcome.status.as_u16(), outcome.code()), (200, -31001), "{}", outcome.message);
    }
    session.call("work", json!({})).await?.result()?;
    Ok(())
}

#[tokio::test]
async fn an_answer_to_somebody_else_reaches_nobody() -> Result<()> {
    let stub = stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let (session, modern) = (gateway.client().initialize().await?, gateway.client().modern());
    for outcome in
        [session.call("foreign event", json!({})).await?, modern.call("foreign event", json!({})).await?]
    {
        assert_eq!(outcome.result()?, json!({"ok": 1}));
        assert!(
            outcome.events.iter().all(|event| event.json()["id"] != json!(987_654)),
            "{:?}",
            outcome.events
        );
    }
    assert_eq!(gateway.metric("regatta_dropped_messages_total").await, Some(2.0));
    Ok(())
}

#[tokio::test]
async fn a_servers_own_refusal_passes_unchanged() -> Result<()> {
    let stub = stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    let call = |tool: &str| json!({"name": tool, "arguments": {}});
    for era in ["legacy", "modern"] {
        let ask = async |tool: &str| match era {
            "legacy" => session.request("tools/call", call(tool)).await,
            _ => gateway.client().modern().request("tools/call", call(tool)).await,
        };
        let refused = ask("unauthorized").await?;
        assert_eq!(refused.status, 401, "{era}");
        assert_eq!(refused.header("www-authenticate"), "Bearer error=\"invalid_token\"", "{era}");
        assert_eq!(&refused.bytes().await?[..], b"{\"error\":\"invalid_token\"}", "{era}");
        let limited = ask("limited").await?;
        assert_eq!((limited.status.as_u16(), limited.header("retry-after")), (429, "7"), "{era}");
    }
    session.call("work", json!({})).await?.result()?;
    assert_eq!(gateway.metric("regatta_rehomed_total").await, Some(0.0), "none of it moves a session");
    Ok(())
}
