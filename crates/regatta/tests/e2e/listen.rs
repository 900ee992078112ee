//! `subscriptions/listen` over several replicas: one subscription for the client, whatever becomes of the legs.

use crate::REGATTA;
use crate::fleet::{demos, urls};
use regatta_testkit::gateway::Plan;
use regatta_testkit::process::Demo;
use regatta_testkit::{Client, Gateway, Result};
use serde_json::json;
use std::time::Duration;

const KEY: &str = "io.modelcontextprotocol/subscriptionId";
const CHANGED: &str = "notifications/tools/list_changed";

/// Changes the tools of one replica, behind the gateway's back.
async fn change(demo: &Demo) -> Result<()> {
    let outcome = Client::new(&demo.url).modern().call("toggle_tool", json!({"name": "extra"})).await?;
    outcome.result().map(|_| ())
}

#[tokio::test]
async fn one_acknowledgement_comes_first_and_a_change_at_any_replica_is_heard() -> Result<()> {
    let demos = demos(3, &["--eras", "modern"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let filter = json!({"toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": ["demo://clock"]});
    let modern = gateway.client().modern();
    let mut events = modern.listen(filter).await?.events();
    let first = events.next().await?.expect("an event").json();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    let honoured = json!({"toolsListChanged": true, "resourceSubscriptions": ["demo://clock"]});
    assert_eq!(first["params"]["notifications"], honoured, "what the replicas honour, not what was asked");
    let id = first["params"]["_meta"][KEY].clone();
    assert!(!id.is_null());
    for demo in &demos {
        change(demo).await?;
        let mut heard = events.next().await?.expect("an event").json();
        while heard["method"] != CHANGED {
            assert_eq!(
                heard["method"], "notifications/resources/updated",
                "nothing else, and no second acknowledgement"
            );
            assert_eq!(heard["params"]["_meta"][KEY], id);
            heard = events.next().await?.expect("an event").json();
        }
        assert_eq!(heard["params"]["_meta"][KEY], id);
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_leg_is_opened_again_and_everything_is_said_once_more() -> Result<()> {
    let mut demos = demos(3, &["--eras", "modern"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let mut events = gateway.client().modern().listen(json!({"toolsListChanged": true})).await?.events();
    events.until("notifications/subscriptions/acknowledged").await?;
    let port = demos[1].port();
    demos[1].process.kill();
    change(&demos[0]).await?;
    events.until(CHANGED).await?;
    let silence = events.next_within(Duration::from_millis(100)).await;
    assert!(silence.is_err(), "one change, one notification: {silence:?}");
    demos[1] = Demo::start_at(REGATTA, port, &["--eras", "modern"]).await;
    events.until(CHANGED).await?;
    for demo in &demos {
        change(demo).await?;
        events.until(CHANGED).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_replica_that_is_away_from_the_beginning_is_listened_to_when_it_comes() -> Result<()> {
    let mut demos = demos(2, &["--eras", "modern"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let port = demos[1].port();
    demos[1].process.kill();
    let mut events = gateway.client().modern().listen(json!({"toolsListChanged": true})).await?.events();
    events.until("notifications/subscriptions/acknowledged").await?;
    demos[1] = Demo::start_at(REGATTA, port, &["--eras", "modern"]).await;
    events.until(CHANGED).await?;
    change(&demos[1]).await?;
    events.until(CHANGED).await?;
    Ok(())
}
