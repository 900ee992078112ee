//! After clients that vanish in every state, everything is given back: places, streams, connections, descriptors.

use crate::REGATTA;
use crate::fleet::{demos, urls};
use regatta_testkit::gateway::Plan;
use regatta_testkit::{Gateway, Result, eventually};
use serde_json::json;
use std::time::Duration;

const GAUGES: [&str; 6] = [
    "regatta_inflight",
    "regatta_queued",
    "regatta_parked",
    "regatta_streams",
    "regatta_detached",
    "regatta_connections",
];

/// One client that begins everything and leaves in the middle of it.
async fn vanish(gateway: &Gateway) -> Result<()> {
    let client = gateway.client();
    let session = client.initialize().await?;
    let standing = session.listen().await?;
    let listen = client.modern().listen(json!({"toolsListChanged": true})).await?;
    let sleeps = session.call_with_progress("sleep", json!({"ms": 300}), json!("t")).await?;
    let params = json!({"name": "sleep", "arguments": {"ms": 60_000}});
    let modern = client.modern().with_meta("progressToken", json!("t")).request("tools/call", params).await?;
    let waits = tokio::spawn({
        let (session, modern) = (session.clone(), client.modern());
        async move {
            let sleep = json!({"ms": 300});
            tokio::join!(session.call("sleep", sleep.clone()), modern.call("sleep", sleep))
        }
    });
    gateway.metric_reaches("regatta_inflight", 3.0).await;
    waits.abort();
    drop((standing, listen, sleeps, modern));
    Ok(())
}

#[tokio::test]
async fn everything_is_given_back() -> Result<()> {
    let demos = demos(2, &[]).await;
    let plan = Plan::over(urls(&demos)).on_gateway("resume_window = \"200ms\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    vanish(&gateway).await?;
    let at_rest = async |what: &str| {
        eventually(what, Duration::from_secs(9), async || {
            for gauge in GAUGES {
                let value = gateway.metric(gauge).await.unwrap_or_else(|| panic!("no metric {gauge}"));
                if value != 0.0 {
                    return None;
                }
            }
            Some(gateway.process.fd_count())
        })
        .await
    };
    let before = at_rest("all is given back after one client").await;
    for _ in 0..10 {
        vanish(&gateway).await?;
    }
    let after = at_rest("all is given back after ten more").await;
    // Kept connections to replicas come and go.
    assert!(after <= before + 24, "{before} descriptors, then {after}");
    assert_eq!(gateway.metric("regatta_listener_panics_total").await, Some(0.0));
    Ok(())
}
