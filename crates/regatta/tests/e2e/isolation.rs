//! Many clients at once, with the same ids: every answer goes to who asked, and no secret goes anywhere else.

use crate::REGATTA;
use crate::fleet::{demos, urls};
use crate::peers::{Pair, SOON};
use regatta_testkit::client::Session;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Issuer, Result, Stub, eventually};
use serde_json::{Value, json};

/// What the stub says about a call: `{op, principal, session}`.
fn said(outcome: &regatta_testkit::client::Outcome) -> Value {
    serde_json::from_str(outcome.text()).unwrap_or_else(|error| panic!("{error} in {}", outcome.message))
}

#[tokio::test]
async fn every_answer_carries_its_askers_op_principal_and_session() -> Result<()> {
    let stubs = [Stub::start(answers::dual()).await, Stub::start(answers::dual()).await];
    let gateway = Gateway::start(REGATTA, Plan::over(stubs.each_ref().map(Stub::url))).await;
    let mut clients = Vec::new();
    for number in 0..12 {
        let principal = format!("Bearer client-{number}");
        let client = gateway.client().header("authorization", &principal);
        clients.push(tokio::spawn(async move {
            let (session, modern) = (client.initialize().await?, client.modern());
            let home = said(&session.call("work", json!({"op": "home"})).await?)["session"].clone();
            for turn in 0..15 {
                let op = format!("{number}/{turn}");
                let expected = json!({"op": op, "principal": principal, "session": home});
                let call = json!({"op": op});
                let (legacy, modern) =
                    tokio::join!(session.call("work", call.clone()), modern.call("work", call));
                assert_eq!(said(&legacy?), expected);
                assert_eq!(said(&modern?), json!({"op": op, "principal": principal, "session": ""}));
            }
            Ok::<_, regatta_testkit::Failure>(home)
        }));
    }
    let mut homes = Vec::new();
    for client in clients {
        homes.push(client.await.expect("a client")?.to_string());
    }
    homes.sort();
    homes.dedup();
    assert_eq!(homes.len(), 12, "each session is one of its own upstream");
    Ok(())
}

#[tokio::test]
async fn what_a_server_says_by_itself_is_heard_on_one_stream_of_its_session() -> Result<()> {
    let demos = demos(2, &["--eras", "legacy"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let (one, two) = (gateway.client().initialize().await?, gateway.client().initialize().await?);
    let (mut heard_by_one, mut heard_by_two) = (one.listen().await?.events(), two.listen().await?.events());
    let clock = json!({"uri": "demo://clock"});
    one.request("resources/subscribe", clock).await?.outcome().await?.result()?;
    heard_by_one.until("notifications/resources/updated").await?;
    for session in [&one, &two] {
        session.call("log", json!({"text": "own", "level": "error"})).await?.result()?;
    }
    let foreign = heard_by_two.next_within(std::time::Duration::from_millis(1300)).await;
    let is_priming = |event: &regatta_testkit::sse::Event| event.json().is_null();
    assert!(foreign.is_err() || matches!(&foreign, Ok(Some(event)) if is_priming(event)), "{foreign:?}");
    Ok(())
}

#[tokio::test]
async fn no_secret_is_written_anywhere() -> Result<()> {
    let demos = demos(2, &["--eras", "dual"]).await;
    let plan = Plan::over(urls(&demos)).on_gateway("log_filter = \"trace\"");
    let mut gateway = Gateway::start(REGATTA, plan).await;
    let client = gateway.client().header("authorization", "Bearer canary-token");
    let session: Session = client.initialize().await?;
    session.call("echo", json!({"text": "canary-argument"})).await?.result()?;
    client.modern().call("echo", json!({"text": "canary-argument"})).await?.result()?;
    session.request("resources/read", json!({"uri": "demo://canary-uri"})).await?.bytes().await?;
    session.request("canary-method", json!({})).await?.bytes().await?;
    client
        .post(&[("mcp-session-id", "canary-session")], &json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}))
        .await?;
    let written = gateway.all_it_said().await;
    assert!(!written.contains("canary"), "{:?}", written.lines().find(|line| line.contains("canary")));
    assert!(!written.contains(&session.id), "{:?}", written.lines().find(|line| line.contains(&session.id)));
    Ok(())
}

/// All that a store holds, as text.
fn held(redis: &regatta_testkit::redis::Server) -> String {
    let mut all = String::new();
    for key in redis.say(&["KEYS", "*"]).lines() {
        let kind = redis.say(&["TYPE", key]);
        let read: &[&str] = match kind.trim() {
            "hash" => &["HGETALL", key],
            "set" => &["SMEMBERS", key],
            "zset" => &["ZRANGE", key, "0", "-1"],
            "list" => &["LRANGE", key, "0", "-1"],
            "stream" => &["XRANGE", key, "-", "+"],
            "string" => &["GET", key],
            kind => panic!("{key} is a {kind}"),
        };
        all += &format!("{key}\n{}\n", redis.say(read));
    }
    all
}

/// RELIABILITY T40.
#[tokio::test]
async fn no_secret_no_argument_and_no_result_is_in_the_store_in_clear() -> Result<()> {
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::dual()).await);
    let tables = issuer.tables("")
        + "[[cache]]\ntool = \"work\"\nttl = \"1h\"\nscope = \"principal\"\n"
        + "[[limit]]\nper = \"principal\"\nallow = 1000\nwithin = \"60s\"\n";
    let pair = Pair::start(Plan::over([stub.url()]).tables(&tables)).await;
    let bearer = issuer.bearer("canary-subject");
    let client = pair.one.client().header("authorization", &bearer);
    let session = client.initialize().await?;
    session.call("work", json!({"op": "canary-argument"})).await?.result()?;
    client.modern().call("work", json!({"op": "canary-argument"})).await?.result()?;
    assert!(session.end().await?.is_success());
    let all = eventually("the result, the limit and the end are in the store", SOON, async || {
        let all = held(&pair.redis);
        ["mcp:tool:", "mcp:rl:", "mcp:ended:"].iter().all(|kind| all.contains(kind)).then_some(all)
    })
    .await;
    let token = bearer.rsplit(' ').next().expect("a token");
    for secret in ["canary", &token[..40], &token[token.len() - 40..], &session.id[..60]] {
        assert!(!all.contains(secret), "{secret}: {:?}", all.lines().find(|line| line.contains(secret)));
    }
    Ok(())
}

#[tokio::test]
async fn a_session_of_one_server_is_unknown_at_another() -> Result<()> {
    let demos = demos(2, &["--eras", "legacy"]).await;
    let plan = Plan::default().server("shop", [demos[0].url.clone()], "path = \"/shop\"").server(
        "bank",
        [demos[1].url.clone()],
        "path = \"/bank\"",
    );
    let gateway = Gateway::start(REGATTA, plan).await;
    let at = |path: &str| regatta_testkit::Client::new(&gateway.url().replace("/mcp", path));
    let (shop, bank) = (at("/shop").initialize().await?, at("/bank").initialize().await?);
    assert_eq!(crate::fleet::home(&demos, &shop).await?, 0);
    assert_eq!(crate::fleet::home(&demos, &bank).await?, 1);
    assert_eq!(shop.through(&at("/bank")).request("ping", json!({})).await?.status, 404);
    assert_eq!(at("/mcp").send(http::Method::GET, &[], "").await?.status, 404, "no server lives there");
    Ok(())
}
