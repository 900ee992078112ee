//! Nobody is there: refused fast and honestly, sessions stay valid, and all goes on when somebody is back.

use crate::REGATTA;
use crate::fleet::{demos, executed, urls};
use regatta_testkit::gateway::Plan;
use regatta_testkit::process::Demo;
use regatta_testkit::{Gateway, Result, eventually};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn all_replicas_are_killed_and_come_back() -> Result<()> {
    let mut demos = demos(2, &[]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let (session, modern) = (gateway.client().initialize().await?, gateway.client().modern());
    let ports = [demos[0].port(), demos[1].port()];
    for demo in &mut demos {
        demo.process.kill();
    }
    for _ in 0..6 {
        let began = Instant::now();
        let refused = modern.call("whoami", json!({})).await?;
        assert_eq!((refused.status.as_u16(), refused.code()), (503, -31004), "{}", refused.message);
        assert_eq!(executed(&refused), "no");
        assert!(refused.headers.contains_key("retry-after"));
        let refused = session.call("whoami", json!({})).await?;
        assert_eq!((refused.status.as_u16(), refused.code()), (200, -31004), "{}", refused.message);
        assert_eq!(executed(&refused), "no");
        assert!(began.elapsed() < Duration::from_secs(1), "refused after {:?}", began.elapsed());
    }
    // Clients end their session, or never listen again, when these are refused (RELIABILITY 3.4, 3.6).
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    assert_eq!(session.post(&changed).await?.status, 202);
    let standing = session.listen().await?;
    assert_eq!(standing.status, 200);
    let (status, ready) = gateway.admin("/ready").await.expect("the admin listener answers");
    assert_eq!(status, 200, "degraded is ready all the same: {ready}");
    for port in ports {
        demos.push(Demo::start_at(REGATTA, port, &[]).await);
    }
    let within = Duration::from_secs(4);
    let modern = async || modern.call("whoami", json!({})).await.ok()?.result().ok();
    eventually("modern calls go on", within, modern).await;
    let legacy = async || session.call("whoami", json!({})).await.ok()?.result().ok();
    eventually("the session goes on", within, legacy).await;
    session
        .request("resources/subscribe", json!({"uri": "demo://clock"}))
        .await?
        .outcome()
        .await?
        .result()?;
    standing.events().until("notifications/resources/updated").await?;
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_starts_before_its_replicas_finds_them() -> Result<()> {
    let port = regatta_testkit::process::free_port();
    let plan = Plan::over([format!("http://127.0.0.1:{port}/mcp")]);
    let gateway = Gateway::start(REGATTA, plan).await;
    let modern = gateway.client().modern();
    assert_eq!(modern.call("whoami", json!({})).await?.code(), -31004);
    let _demo = Demo::start_at(REGATTA, port, &[]).await;
    let served = async || modern.call("whoami", json!({})).await.ok()?.result().ok();
    eventually("it serves", Duration::from_secs(4), served).await;
    let session = async || gateway.client().initialize().await.ok();
    eventually("sessions begin", Duration::from_secs(4), session).await;
    Ok(())
}
