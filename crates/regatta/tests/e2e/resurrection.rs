//! What ended stays ended when the store fails over just then, and a key that was withdrawn opens nothing again
//! (RELIABILITY T33, SESSIONS 8).

use crate::REGATTA;
use crate::failover_load::COMMITTED_BEFORE;
use crate::peers::{SOON, on_store};
use regatta_testkit::client::Session;
use regatta_testkit::gateway::Plan;
use regatta_testkit::redis::{Sentinels, sentinels};
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Issuer, Result, Stub, eventually};
use serde_json::json;
use std::time::Duration;

const WITH_KEY: &str = r#"
[[auth.api_key]]
name = "ci"
sha256 = "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"
"#;
/// Its SHA-256 stands above.
const BEARER: &str = "Bearer hi";

async fn started(plan: Plan) -> Gateway {
    let gateway = Gateway::start(REGATTA, plan).await;
    linked(&gateway).await;
    gateway
}

async fn linked(gateway: &Gateway) {
    eventually("the store is linked", SOON * 2, async || {
        let (status, text) = gateway.admin("/ready").await?;
        (status == 200 && text.contains("\"degraded\": false")).then_some(())
    })
    .await;
}

/// What a request in each of these sessions is answered with at `gateway`.
async fn asked(gateway: &Gateway, sessions: &[Session]) -> Result<Vec<u16>> {
    let client = gateway.client().header("authorization", BEARER);
    let mut told = Vec::new();
    for session in sessions {
        told.push(session.through(&client).request("ping", json!({})).await?.status.as_u16());
    }
    Ok(told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_ended_as_the_store_failed_over_stay_ended_and_a_withdrawn_key_opens_none() -> Result<()>
{
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::legacy()).await);
    let store = Sentinels::start().await;
    store.say_to_all(&["SENTINEL", "SET", sentinels::MASTER, "failover-timeout", "2000"]);
    let plan =
        |keys: &str| on_store(Plan::over([stub.url()]).tables(&(issuer.tables("") + keys)), &store.url());
    let (mut one, mut two) = (started(plan(WITH_KEY)).await, started(plan(WITH_KEY)).await);
    let mut sessions = Vec::new();
    for gateway in [&one, &two].into_iter().cycle().take(24) {
        sessions.push(gateway.client().header("authorization", BEARER).initialize().await?);
    }
    let alive = sessions.split_off(16);
    let (early, late) = sessions.split_at(8);
    for session in early {
        assert!(session.end().await?.is_success());
    }
    tokio::time::sleep(COMMITTED_BEFORE + Duration::from_millis(500)).await;

    let before = store.master().expect("a master");
    assert_eq!(store.say(&["SENTINEL", "FAILOVER", sentinels::MASTER]), "OK");
    let mut ended = Vec::new();
    for session in late {
        // One that is refused has not ended, and says so.
        match session.end().await?.as_u16() {
            200..=299 => ended.push(session.clone()),
            status => assert_eq!(status, 503),
        }
    }
    eventually("another master", SOON * 2, async || store.master().filter(|at| *at != before)).await;
    for gateway in [&one, &two] {
        linked(gateway).await;
        assert_eq!(asked(gateway, early).await?, [404; 8]);
        assert!(
            asked(gateway, &ended).await?.iter().all(|status| *status == 404),
            "the gateways heard of it"
        );
        assert_eq!(asked(gateway, &alive).await?, [200; 8]);
    }
    let mut three = started(plan(WITH_KEY)).await;
    assert_eq!(asked(&three, early).await?, [404; 8], "committed long before");
    let lost = asked(&three, &ended).await?.iter().filter(|status| **status != 404).count();
    println!("{} ended during the failover, {lost} of them unknown to a new gateway", ended.len());
    assert_eq!(lost, 0, "what the old master took alone is written again");
    assert_eq!(asked(&three, &alive).await?, [200; 8]);

    for gateway in [&mut one, &mut two, &mut three] {
        gateway.rewrite(plan(""));
        gateway.metric_reaches("regatta_config_reloads_total", 1.0).await;
        eventually("the key is withdrawn", SOON, async || {
            (asked(gateway, &alive).await.ok()? == [401; 8]).then_some(())
        })
        .await;
        assert_eq!(asked(gateway, early).await?, [401; 8]);
    }
    Ok(())
}
