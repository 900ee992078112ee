//! The config changes while requests flow: replicas come and go, nothing fails, a bad file changes nothing.

use crate::REGATTA;
use crate::fleet::{demos, home, is_resumed, urls, visited};
use regatta_testkit::gateway::Plan;
use regatta_testkit::process::Demo;
use regatta_testkit::{Gateway, Result, eventually};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(8);

fn plan(demos: &[Demo]) -> Plan {
    Plan::over(urls(demos)).on_server("balance = \"round-robin\"")
}

/// Clients that call without a pause; what went wrong comes with the end.
struct Load {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn begin(gateway: &Gateway) -> Load {
        let (over, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = || {
            let (modern, over, calls) = (gateway.client().modern(), over.clone(), calls.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let outcome = modern.call("echo", json!({"text": "x"})).await;
                    calls.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = outcome.and_then(|outcome| outcome.result()) {
                        failed.push(error.to_string());
                    }
                }
                failed
            })
        };
        let clients = (0..2).map(|_| client()).collect();
        Load { over, calls, clients }
    }

    async fn end(self) {
        let enough = async || (self.calls.load(Ordering::Relaxed) > 100).then_some(());
        eventually("enough calls to say anything", SOON, enough).await;
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            assert_eq!(client.await.expect("a client"), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn replicas_come_with_sighup_and_go_with_a_changed_file_and_no_request_fails() -> Result<()> {
    let demos = demos(2, &[]).await;
    let mut gateway = Gateway::start(REGATTA, plan(&demos[..1])).await;
    let modern = gateway.client().modern();
    let session = gateway.client().initialize().await?;
    assert_eq!(home(&demos, &session).await?, 0);
    let load = Load::begin(&gateway);

    gateway.rewrite(plan(&demos));
    gateway.process.hang_up();
    eventually("the new replica serves", SOON, async || {
        (visited(&demos, &modern).await.ok()? == 1).then_some(())
    })
    .await;
    assert_eq!(home(&demos, &session).await?, 0, "a session stays where it is");

    gateway.rewrite(plan(&demos[1..]));
    let mut moved = None;
    eventually("the session left the replica that left", SOON, async || {
        let outcome = session.call("whoami", json!({})).await.ok()?;
        outcome.result().ok()?;
        let is_moved = is_resumed(&outcome);
        moved = Some(outcome);
        is_moved.then_some(())
    })
    .await;
    assert_eq!(home(&demos, &session).await?, 1);
    for _ in 0..6 {
        assert_eq!(visited(&demos, &modern).await?, 1, "the removed replica gets nothing");
    }
    load.end().await;
    assert_eq!(gateway.metric("regatta_config_reload_failed_total").await, Some(0.0));
    Ok(())
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_counted() -> Result<()> {
    let demos = demos(1, &[]).await;
    let gateway = Gateway::start(REGATTA, plan(&demos)).await;
    let load = Load::begin(&gateway);
    let failed = "regatta_config_reload_failed_total";
    for (count, bad) in [(1.0, "[gateway"), (2.0, "[[server]]\nreplicas = [\"ftp://nowhere\"]\n")] {
        gateway.write_config(bad);
        gateway.process.hang_up();
        gateway.metric_reaches(failed, count).await;
    }
    gateway.client().modern().call("whoami", json!({})).await?.result()?;
    assert_eq!(gateway.admin("/ready").await.map(|(status, _)| status), Some(200));
    load.end().await;
    assert!(gateway.log().contains("regatta.toml"), "the log names the file:\n{}", gateway.log());
    Ok(())
}
