//! What strangers send and what servers say of themselves are no orders (RELIABILITY T12, T13, T18, T19).

use crate::REGATTA;
use crate::fleet::{executed, executions, receiver};
use http::Method;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Client, Gateway, Issuer, Process, Reply, Result, Stub};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

/// The processes whose parent is `pid`.
fn children(pid: u32) -> Vec<String> {
    let all = std::fs::read_dir("/proc").expect("procfs");
    let stats = all.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    // `pid (name) state parent …`, and a name may hold blanks and brackets.
    let parent = |stat: &String| stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok();
    stats.filter(|stat| parent(stat) == Some(pid)).collect()
}

/// A server whose tools claim to be as harmless as can be, and of which `hang` never answers.
async fn boaster() -> Stub {
    let base = answers::dual();
    Stub::start(move |seen| match (seen.rpc(), seen.tool()) {
        ("tools/list", _) => {
            let claims = json!({"readOnlyHint": true, "idempotentHint": true, "destructiveHint": false});
            let tool = |name| json!({"name": name, "inputSchema": {"type": "object"}, "annotations": claims});
            let result = json!({
                "resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public", "tools": [tool("hang"), tool("work")],
            });
            Reply::result(seen, result)
        }
        (_, "hang") => Reply::hang(),
        _ => base(seen),
    })
    .await
}

#[tokio::test]
async fn what_a_tool_says_of_itself_makes_it_neither_repeated_nor_kept() -> Result<()> {
    let stubs = [boaster().await, boaster().await];
    let gateway = Gateway::start(REGATTA, Plan::over(stubs.iter().map(Stub::url))).await;
    let modern = gateway.client().modern();
    let list = modern.request("tools/list", json!({})).await?.outcome().await?.result()?;
    assert_eq!(
        list["tools"][0]["annotations"]["readOnlyHint"], true,
        "the client is told, and decides for itself"
    );
    for _ in 0..3 {
        modern.call("work", json!({"op": "same"})).await?.result()?;
    }
    assert_eq!(executions(&stubs, "same"), 3, "no rule of the operator keeps it");
    let call = tokio::spawn(async move { modern.call("hang", json!({"op": "lost"})).await });
    let at = receiver(&stubs, "lost").await;
    stubs[1 - at].behave(answers::dual());
    stubs[at].die().await;
    let outcome = call.await.expect("the call's task")?;
    assert_eq!(outcome.code(), -31001, "{}", outcome.message);
    assert_eq!(executed(&outcome), "unknown");
    assert_eq!(executions(&stubs, "lost"), 1, "no rule of the operator repeats it");
    Ok(())
}

#[tokio::test]
async fn a_server_with_a_tool_of_anothers_name_gets_none_of_its_calls() -> Result<()> {
    let [bank, evil] = [Stub::start(answers::dual()).await, Stub::start(answers::dual()).await];
    let plan = Plan::over([bank.url()]).server("evil", [evil.url()], "path = \"/evil\"\n");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    let (modern, there) = (gateway.client().modern(), Client::new(&gateway.url().replace("/mcp", "/evil")));
    for _ in 0..20 {
        modern.call("work", json!({"op": "pay"})).await?.result()?;
        session.call("work", json!({"op": "pay"})).await?.result()?;
        there.modern().call("work", json!({"op": "other"})).await?.result()?;
    }
    let counts = |stub: &Stub| (stub.journal().executions("pay"), stub.journal().executions("other"));
    assert_eq!((counts(&bank), counts(&evil)), ((40, 0), (0, 20)));
    // Nor does a session of the one mean anything to the other.
    let strayed = session.through(&there).call("work", json!({"op": "pay"})).await?;
    assert_eq!((strayed.status.as_u16(), evil.journal().executions("pay")), (404, 0));
    Ok(())
}

#[tokio::test]
async fn no_request_and_no_endpoint_of_the_config_starts_a_process() -> Result<()> {
    let stub = Stub::start(answers::dual()).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let canary = gateway.config().with_file_name("canary");
    let command = format!("touch {}", canary.display());
    let body = json!({
        "command": "sh", "args": ["-c", command], "url": format!("stdio:{command}"), "replicas": [format!("stdio:{command}")],
        "jsonrpc": "2.0", "id": 1, "method": "servers/test", "params": {"command": "sh", "args": ["-c", command]},
    })
    .to_string();
    let json = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    let admin = format!("http://{}", gateway.admin_address());
    let front = gateway.url().replace("/mcp", "");
    let paths = [
        "/",
        "/mcp",
        "/config",
        "/api/config",
        "/api/servers",
        "/servers/test",
        "/exec",
        "/reload",
        "/cache/purge",
    ];
    for base in [&admin, &front] {
        for path in paths {
            for method in [Method::POST, Method::PUT, Method::PATCH] {
                let answer =
                    Client::new(&format!("{base}{path}")).send(method.clone(), &json, body.clone()).await?;
                let status = answer.status.as_u16();
                assert!((400..500).contains(&status), "{method} {base}{path}: {status}");
            }
        }
    }
    assert_eq!(children(gateway.process.pid()), [""; 0]);
    assert!(!canary.exists());
    let config = canary.with_file_name("stdio.toml");
    for endpoint in [
        format!("stdio:{command}"),
        format!("stdio://{command}"),
        "exec:///bin/sh".into(),
        "file:///bin/sh".into(),
    ] {
        std::fs::write(&config, format!("[[server]]\nreplicas = [{endpoint:?}]\n")).expect("written");
        let mut check = Process::spawn(Command::new(REGATTA).arg("check").arg("--config").arg(&config));
        assert_eq!(check.exit_within(Duration::from_secs(20)).await.code(), Some(2), "{endpoint}");
    }
    assert!(!canary.exists());
    Ok(())
}

#[tokio::test]
async fn the_gateway_is_no_authorization_server_for_anybody_to_be_deputy_of() -> Result<()> {
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::dual()).await);
    let plan = Plan::over([stub.url()]).tables(&issuer.tables("resource = \"https://mcp.example\""));
    let gateway = Gateway::start(REGATTA, plan).await;
    let base = gateway.url().replace("/mcp", "");
    let query = "?response_type=code&client_id=a&redirect_uri=https://evil.example/&state=s&code=c";
    for path in [
        "/authorize",
        "/oauth/authorize",
        "/token",
        "/oauth/token",
        "/register",
        "/callback",
        "/oauth/callback",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
    ] {
        for method in [Method::GET, Method::POST] {
            let answer = Client::new(&format!("{base}{path}{query}")).send(method, &[], "").await?;
            assert_eq!((answer.status.as_u16(), answer.header("location")), (404, ""), "{path}");
        }
    }
    assert_eq!(stub.seen_rpc("tools/call").len(), 0);
    Ok(())
}
