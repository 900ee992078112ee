//! Rules for how much a caller may ask for: what is beyond them reaches no server, and everybody is told how they stand.

use crate::REGATTA;
use crate::fleet::{demos, executed, urls};
use regatta_testkit::client::{Outcome, Session};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Process, Result, Stub, eventually};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

/// A gateway over a dual-era stub with these `[[limit]]`.
async fn limited(rules: &str) -> (Stub, Gateway) {
    let stub = Stub::start(answers::dual()).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).tables(rules)).await;
    (stub, gateway)
}

fn header<'a>(outcome: &'a Outcome, name: &str) -> &'a str {
    outcome.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

fn is_limited(outcome: &Outcome, status: u16) {
    assert_eq!((outcome.status.as_u16(), outcome.code()), (status, -31003), "{}", outcome.message);
    assert_eq!(executed(outcome), "no");
    let seconds: u64 = header(outcome, "retry-after").parse().expect("Retry-After in seconds");
    let ms = outcome.message["error"]["data"]["retryAfterMs"].as_u64().expect("retryAfterMs");
    assert!((seconds - 1) * 1000 < ms && ms <= seconds * 1000, "{seconds} s, {ms} ms");
    assert_eq!(header(outcome, "x-ratelimit-remaining"), "0");
}

async fn call(session: &Session, tool: &str) -> Result<Outcome> {
    session.call(tool, json!({"op": tool})).await
}

#[tokio::test]
async fn a_caller_beyond_its_quota_is_told_so_and_reaches_no_server() -> Result<()> {
    let (stub, gateway) = limited("[[limit]]\nname = \"three\"\nallow = 3\nwithin = \"1h\"").await;
    let session = gateway.client().initialize().await?;
    for left in ["2", "1", "0"] {
        let outcome = call(&session, "work").await?;
        assert_eq!(outcome.status, 200);
        let told = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit-policy"]
            .map(|name| header(&outcome, name));
        assert_eq!(told, ["3", left, "3600", "\"three\";q=3;w=3600"]);
        assert_eq!(header(&outcome, "ratelimit"), format!("\"three\";r={left};t=3600"));
    }
    is_limited(&call(&session, "work").await?, 429);
    is_limited(&gateway.client().modern().call("work", json!({"op": "work"})).await?, 429);
    assert_eq!(stub.seen_rpc("tools/call").len(), 3);
    assert_eq!(gateway.metric("regatta_limit_refused_total{rule=\"three\"}").await, Some(2.0));
    assert_eq!(gateway.metric("regatta_limit_granted_total{rule=\"three\"}").await, Some(3.0));

    let other = gateway.client().header("authorization", "Bearer somebody-else").initialize().await?;
    assert_eq!(header(&call(&other, "work").await?, "x-ratelimit-remaining"), "2", "each has its own");
    Ok(())
}

#[tokio::test]
async fn handshakes_pings_notifications_and_discovery_use_nothing_up() -> Result<()> {
    let (_stub, gateway) = limited("[[limit]]\nallow = 1\nwithin = \"1h\"").await;
    let (session, modern) = (gateway.client().initialize().await?, gateway.client().modern());
    for _ in 0..3 {
        gateway.client().initialize().await?;
        session.request("ping", json!({})).await?.outcome().await?.result()?;
        assert_eq!(session.notify("notifications/cancelled", json!({"requestId": 9})).await?.status, 202);
        modern.request("server/discover", json!({})).await?.outcome().await?.result()?;
    }
    assert_eq!(header(&call(&session, "work").await?, "x-ratelimit-remaining"), "0");
    is_limited(&call(&session, "work").await?, 429);
    session.request("ping", json!({})).await?.outcome().await?.result()?;
    modern.request("server/discover", json!({})).await?.outcome().await?.result()?;
    assert!(session.end().await?.is_success());
    Ok(())
}

#[tokio::test]
async fn a_request_refused_by_one_rule_uses_up_none_of_the_others() -> Result<()> {
    let rules = "[[limit]]\nname = \"all\"\nallow = 10\nwithin = \"1h\"\ncost = { search_all = 4 }\n\
                 [[limit]]\nname = \"search\"\nallow = 1\nwithin = \"1h\"\ntool = \"search_*\"\nanswer = \"json-rpc\"";
    let (_stub, gateway) = limited(rules).await;
    let session = gateway.client().initialize().await?;
    let outcome = call(&session, "search_all").await?;
    assert_eq!(header(&outcome, "ratelimit"), "\"all\";r=6;t=3600, \"search\";r=0;t=3600");
    assert_eq!(header(&outcome, "x-ratelimit-limit"), "1", "the tightest is told");
    for _ in 0..3 {
        // 200, because the rule that refuses says `answer = "json-rpc"`.
        is_limited(&call(&session, "search_products").await?, 200);
    }
    assert_eq!(header(&call(&session, "get_product").await?, "ratelimit"), "\"all\";r=5;t=3600");
    Ok(())
}

#[tokio::test]
async fn a_breach_blocks_the_caller_for_its_time() -> Result<()> {
    let (_stub, gateway) = limited("[[limit]]\nallow = 2\nwithin = \"100ms\"\nblock = \"1h\"").await;
    let session = gateway.client().initialize().await?;
    // Together, so that they fall into one window however slow the machine is.
    let breach = async || {
        let call = || call(&session, "work");
        let (one, two, three) = tokio::join!(call(), call(), call());
        [one, two, three].into_iter().filter_map(Result::ok).find(|outcome| outcome.status == 429)
    };
    is_limited(&eventually("a breach", Duration::from_secs(20), breach).await, 429);
    // The window of 100 ms passes; the block does not.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let blocked = call(&session, "work").await?;
    is_limited(&blocked, 429);
    assert_eq!(header(&blocked, "x-ratelimit-reset"), "3600");
    let other = gateway.client().header("authorization", "Bearer somebody-else").initialize().await?;
    call(&other, "work").await?.result()?;
    Ok(())
}

#[tokio::test]
async fn who_has_no_credential_never_uses_up_what_others_have() -> Result<()> {
    let rules = "[[limit]]\nname = \"known\"\nallow = 1\nwithin = \"1h\"\nauthenticated = true\n\
                 [[limit]]\nname = \"unknown\"\nper = \"ip\"\nallow = 2\nwithin = \"1h\"\nauthenticated = false";
    let (_stub, gateway) = limited(rules).await;
    let anonymous = gateway.client().initialize().await?;
    assert_eq!(header(&call(&anonymous, "work").await?, "ratelimit"), "\"unknown\";r=1;t=3600");
    call(&gateway.client().initialize().await?, "work").await?.result()?;
    is_limited(&call(&anonymous, "work").await?, 429);
    let known = gateway.client().header("authorization", "Bearer known").initialize().await?;
    assert_eq!(header(&call(&known, "work").await?, "ratelimit"), "\"known\";r=0;t=3600");
    is_limited(&call(&known, "work").await?, 429);
    Ok(())
}

#[tokio::test]
async fn each_session_tool_and_header_counts_by_itself_where_a_rule_says_so() -> Result<()> {
    let rules = "[[limit]]\nname = \"s\"\nper = [\"session\", \"tool\"]\nallow = 1\nwithin = \"1h\"\nserver = \"demo\"\n\
                 [[limit]]\nname = \"h\"\nper = \"header:X-Team\"\nallow = 3\nwithin = \"1h\"";
    let (_stub, gateway) = limited(rules).await;
    let (one, two) = (gateway.client().initialize().await?, gateway.client().initialize().await?);
    call(&one, "a").await?.result()?;
    call(&one, "b").await?.result()?;
    is_limited(&call(&one, "a").await?, 429);
    call(&two, "a").await?.result()?;
    is_limited(&call(&two, "b").await?, 429);
    let team = gateway.client().header("x-team", "red").initialize().await?;
    assert!(header(&call(&team, "a").await?, "ratelimit").contains("\"h\";r=2;"));
    Ok(())
}

#[tokio::test]
async fn a_reload_keeps_what_was_used_under_a_rule_that_stayed() -> Result<()> {
    let demos = demos(1, &[]).await;
    let plan = |rules: &str| Plan::over(urls(&demos)).tables(rules);
    let rules = "[[limit]]\nname = \"stays\"\nallow = 1000\nwithin = \"1h\"\n[[limit]]\nname = \"goes\"\nper = \"ip\"\nallow = 900\nwithin = \"1h\"";
    let mut gateway = Gateway::start(REGATTA, plan(rules)).await;
    let session = gateway.client().initialize().await?;
    let echo = async || session.call("echo", json!({"text": "x"})).await;
    assert_eq!(header(&echo().await?, "ratelimit"), "\"stays\";r=999;t=3600, \"goes\";r=899;t=3600");
    gateway.rewrite(plan("[[limit]]\nname = \"new-name\"\nallow = 1000\nwithin = \"1h\"\n[[limit]]\nname = \"goes\"\nper = \"ip\"\nallow = 800\nwithin = \"1h\""));
    let renamed =
        async || echo().await.ok().filter(|outcome| header(outcome, "ratelimit").contains("new-name"));
    let outcome = eventually("the reload", Duration::from_secs(20), renamed).await;
    let told: Vec<&str> = header(&outcome, "ratelimit").split(", ").collect();
    let left = |line: &str| -> u32 {
        let number = line.split(";r=").nth(1).and_then(|rest| rest.split(';').next());
        number.and_then(|number| number.parse().ok()).expect("a number")
    };
    assert!(left(told[0]) <= 998, "what was used before counts: {told:?}");
    assert_eq!(left(told[1]), 799, "a rule with another meaning begins anew: {told:?}");
    assert_eq!(gateway.metric("regatta_limit_granted_total{rule=\"stays\"}").await, None);
    Ok(())
}

#[tokio::test]
async fn a_batch_takes_what_its_messages_take_together() -> Result<()> {
    let stub = Stub::start(answers::dual()).await;
    let rules = "[[limit]]\nallow = 3\nwithin = \"1h\"";
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).tables(rules)).await;
    let session = Session::open(&gateway.client(), "2025-03-26", json!({})).await?;
    let message = |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "work", "arguments": {"op": "b"}}});
    let batch = json!([message(1), message(2), {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}]);
    let first = session.post(&batch).await?;
    assert_eq!(first.header("x-ratelimit-remaining"), "1");
    let second = session.post(&batch).await?;
    assert_eq!(second.status, 429, "two more do not fit, so none is forwarded");
    Ok(())
}

#[tokio::test]
async fn check_explains_which_rules_count_a_request() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("regatta.toml");
    let text = "[[server]]\nreplicas = [\"http://127.0.0.1:3001/mcp\"]\n[[limit]]\nallow = 60\n";
    std::fs::write(&file, text).expect("written");
    let explain = async |request: &str| {
        let mut command = Command::new(REGATTA);
        command.arg("check").arg("--config").arg(&file).arg("--explain").arg(request);
        let mut check = Process::spawn(&mut command);
        let status = check.exit_within(Duration::from_secs(20)).await;
        (status.code(), check.stdout().join("\n"), check.stderr().join("\n"))
    };
    let (code, told, _) = explain("tools/call search_products sub=alice ip=192.0.2.7").await;
    assert_eq!(code, Some(0));
    assert!(told.contains("1. limit-1: takes 1 of 60 in 60s"), "{told}");
    let (code, told, wrong) = explain("sub=alice").await;
    assert_eq!((code, told.as_str()), (Some(2), ""));
    assert!(wrong.starts_with("error: --explain: "), "{wrong}");
}

#[tokio::test]
async fn an_even_rate_lets_its_burst_through_and_a_rule_by_method_counts_no_other() -> Result<()> {
    let rules = "[[limit]]\nname = \"even\"\nalgorithm = \"gcra\"\nallow = 1\nwithin = \"1h\"\nburst = 3\ntool = \"work\"\n\
                 [[limit]]\nname = \"reads\"\nmethod = [\"resources/*\"]\nallow = 1\nwithin = \"1h\"";
    let (stub, gateway) = limited(rules).await;
    let session = gateway.client().initialize().await?;
    for _ in 0..3 {
        call(&session, "work").await?.result()?;
    }
    let refused = call(&session, "work").await?;
    is_limited(&refused, 429);
    let seconds: u64 = header(&refused, "retry-after").parse().expect("seconds");
    assert!((3_000..=3_600).contains(&seconds), "one an hour, after the burst: {seconds}");
    call(&session, "other").await?.result()?;
    let read = async || session.request("resources/read", json!({"uri": "x:y"})).await?.outcome().await;
    assert_ne!(read().await?.code(), -31003);
    is_limited(&read().await?, 429);
    call(&session, "other").await?.result()?;
    assert_eq!(stub.seen_rpc("resources/read").len(), 1);
    Ok(())
}
