//! A session is its principal's: a refreshed token goes on in it, another's finds nothing, and neither do its streams,
//! event ids, tasks and handles (RELIABILITY T5, T7, T9, I101).

use crate::REGATTA;
use crate::fleet::{demos, urls};
use regatta_testkit::client::{Answer, Session};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Client, Gateway, Issuer, Reply, Result, Stub};
use serde_json::{Value, json};

/// All that a client sees of an answer, without what changes from one to the next.
async fn seen(answer: Answer) -> Result<(u16, Vec<(String, String)>, String)> {
    let status = answer.status.as_u16();
    let headers = answer.headers.iter().filter(|(name, _)| *name != "date");
    let headers = headers.map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect();
    Ok((status, headers, String::from_utf8_lossy(&answer.bytes().await?).into_owned()))
}

async fn over(stub: &Stub, issuer: &Issuer, more: &str) -> Gateway {
    Gateway::start(REGATTA, Plan::over([stub.url()]).tables(&issuer.tables(more))).await
}

fn as_of(gateway: &Gateway, bearer: &str) -> Client {
    gateway.client().header("authorization", bearer)
}

#[tokio::test]
async fn a_refreshed_token_goes_on_in_the_session_and_anothers_finds_nothing() -> Result<()> {
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::legacy()).await);
    let gateway = over(&stub, &issuer, "").await;
    let session = as_of(&gateway, &issuer.bearer("alice")).initialize().await?;
    session.call("work", json!({"op": "first"})).await?.result()?;
    let refreshed = session.through(&as_of(&gateway, &issuer.bearer("alice")));
    refreshed.call("work", json!({"op": "second"})).await?.result()?;

    let (mallory, unknown) =
        (as_of(&gateway, &issuer.bearer("mallory")), "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw");
    let stolen = session.through(&mallory);
    let mut never_was: Session = stolen.clone();
    unknown.clone_into(&mut never_was.id);
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let before = stub.seen().len();
    let told = seen(stolen.post(&ping).await?).await?;
    assert_eq!(told.0, 404);
    assert_eq!(told, seen(never_was.post(&ping).await?).await?, "not a byte tells them apart");
    assert_eq!(seen(stolen.listen().await?).await?, seen(never_was.listen().await?).await?);
    assert_eq!(stolen.end().await?, 404);
    let reached = stub.seen().len() - before;
    let probes =
        stub.seen().iter().skip(before).filter(|seen| seen.header("user-agent").contains("probe")).count();
    assert_eq!(reached, probes, "nothing of it was forwarded");
    let alone = session.through(&gateway.client());
    assert_eq!(alone.post(&ping).await?.status, 401, "an id alone is worth nothing");
    refreshed.call("work", json!({"op": "third"})).await?.result()?;
    Ok(())
}

#[tokio::test]
async fn sessions_of_before_end_when_auth_comes_on_and_clients_start_over() -> Result<()> {
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::legacy()).await);
    let mut gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    session.call("work", json!({"op": "open"})).await?.result()?;
    gateway.rewrite(Plan::over([stub.url()]).tables(&issuer.tables("anonymous = \"allow\"")));
    gateway.metric_reaches("regatta_config_reloads_total", 1.0).await;
    let alice = as_of(&gateway, &issuer.bearer("alice"));
    let status = async || {
        let answer = session.request("ping", json!({})).await.ok()?;
        (answer.status == 404).then_some(())
    };
    regatta_testkit::eventually("the session ends", std::time::Duration::from_secs(10), status).await;
    assert_eq!(session.through(&alice).request("ping", json!({})).await?.status, 404);
    let nobodys = gateway.client().initialize().await?;
    nobodys.call("work", json!({"op": "anonymous"})).await?.result()?;
    assert_eq!(nobodys.through(&alice).request("ping", json!({})).await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn a_cut_stream_is_resumed_with_a_refreshed_token_and_by_nobody_else() -> Result<()> {
    let (issuer, demos) = (Issuer::start().await, demos(1, &["--eras", "legacy"]).await);
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos)).tables(&issuer.tables(""))).await;
    let session = as_of(&gateway, &issuer.bearer("alice")).initialize().await?;
    let mallory = as_of(&gateway, &issuer.bearer("mallory")).initialize().await?;
    let mut events = session.call_with_progress("sleep", json!({"ms": 1_000}), json!("p")).await?.events();
    let id = events.until("notifications/progress").await?.id.expect("an id");
    drop(events);
    assert_eq!(mallory.resume(&id).await?.status, 400, "not of this session");
    assert_eq!(session.through(&mallory.client).resume(&id).await?.status, 404, "no such session");
    let resumed = session.through(&as_of(&gateway, &issuer.bearer("alice"))).resume(&id).await?;
    assert_eq!(resumed.status, 200);
    resumed.outcome().await?.result()?;
    Ok(())
}

#[tokio::test]
async fn tasks_and_states_of_another_are_nobodys() -> Result<()> {
    let issuer = Issuer::start().await;
    let base = answers::modern();
    let stub = Stub::start(move |seen| match (seen.rpc(), seen.tool()) {
        ("tools/call", "task") => {
            let task = json!({"taskId": "t-1", "status": "working", "ttl": null});
            Reply::result(seen, json!({"resultType": "task", "task": task}))
        }
        ("tools/call", "ask") if seen.json["params"]["requestState"].is_null() => {
            let schema = json!({"type": "object", "properties": {}});
            let params = json!({"message": "?", "requestedSchema": schema});
            Reply::input_required(
                seen,
                json!({"a": {"method": "elicitation/create", "params": params}}),
                "s-1",
            )
        }
        ("tasks/get", _) => {
            let task = &seen.json["params"]["taskId"];
            Reply::result(
                seen,
                json!({"resultType": "complete", "taskId": task, "status": "working", "ttl": null}),
            )
        }
        _ => base(seen),
    })
    .await;
    let gateway = over(&stub, &issuer, "").await;
    let modern = |subject: &str| as_of(&gateway, &issuer.bearer(subject)).modern();
    let task = modern("alice").call("task", json!({})).await?.result()?["task"]["taskId"].clone();
    assert!(task.is_string());
    let asked = async |subject: &str| -> Result<Value> {
        modern(subject).request("tasks/get", json!({"taskId": task})).await?.outcome().await?;
        let seen = stub.seen_rpc("tasks/get");
        Ok(seen.last().map(|seen| seen.json["params"]["taskId"].clone()).unwrap_or_default())
    };
    assert_eq!(asked("alice").await?, "t-1", "also with another token of hers");
    assert_ne!(asked("mallory").await?, "t-1", "an id that no server ever made");

    let asked = modern("alice").call("ask", json!({})).await?.result()?;
    let answer = json!({"a": {"action": "accept", "content": {}}});
    let calls = stub.seen_rpc("tools/call").len();
    let stolen = modern("mallory").retry("ask", json!({}), &asked, answer.clone()).await?;
    assert_eq!((stolen.code(), stub.seen_rpc("tools/call").len()), (-32602, calls));
    modern("alice").retry("ask", json!({}), &asked, answer).await?.result()?;
    assert_eq!(
        stub.seen_rpc("tools/call").last().map(|seen| seen.json["params"]["requestState"].clone()),
        Some(json!("s-1"))
    );
    Ok(())
}

#[tokio::test]
async fn one_subject_of_two_issuers_is_two_principals() -> Result<()> {
    let (one, two, stub) = (Issuer::start().await, Issuer::start().await, Stub::start(answers::dual()).await);
    let second = format!("[[auth.issuer]]\nurl = \"{}\"\n", two.url());
    let rule = "[[limit]]\nallow = 2\nwithin = \"1h\"\n";
    let tables = [one.tables(""), second, rule.to_owned()].concat();
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).tables(&tables)).await;
    let [alice, namesake] = [&one, &two].map(|issuer| as_of(&gateway, &issuer.bearer("alice")));
    let session = alice.initialize().await?;
    session.call("work", json!({"op": "hers"})).await?.result()?;
    assert_eq!(session.through(&namesake).request("ping", json!({})).await?.status, 404);
    let modern = namesake.modern();
    for wanted in [200, 200, 429] {
        assert_eq!(modern.call("work", json!({"op": "the namesake's"})).await?.status, wanted);
    }
    session.call("work", json!({"op": "hers again"})).await?.result()?;
    // A token that names one issuer and is signed by the other.
    let crossed = two.token("alice").claim("iss", one.url());
    let crossed = as_of(&gateway, &two.bearer_of(&crossed));
    assert_eq!(crossed.modern().call("work", json!({})).await?.status, 401);
    Ok(())
}
