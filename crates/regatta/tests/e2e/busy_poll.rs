//! `busy_poll_max`: a thread that looks for work serves as any other, and sleeps when none has come for a while.

use crate::REGATTA;
use crate::fleet::{demos, urls};
use regatta_testkit::gateway::Plan;
use regatta_testkit::{Gateway, Result};
use serde_json::json;
use std::time::Duration;

/// Time on a processor so far, in ticks of 10 ms: `utime` and `stime` of proc_pid_stat(5).
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the gateway runs");
    let (_, fields) = stat.rsplit_once(") ").expect("the name ends");
    fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[tokio::test]
async fn a_polling_gateway_serves_and_sleeps_when_nobody_asks() -> Result<()> {
    let demos = demos(2, &[]).await;
    let plan = Plan::over(urls(&demos)).on_gateway("busy_poll_max = \"50ms\"\nworker_threads = 1");
    let gateway = Gateway::start(REGATTA, plan).await;
    let (session, modern) = (gateway.client().initialize().await?, gateway.client().modern());
    for round in 0..20 {
        let sum = json!({"a": round, "b": 1});
        for outcome in [session.call("add", sum.clone()).await?, modern.call("add", sum).await?] {
            assert!(outcome.result()?.to_string().contains(&format!("{}", round + 1)));
        }
        // Longer than it polls now and then: it must be woken again.
        tokio::time::sleep(Duration::from_millis(round % 4 * 25)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = ticks(gateway.process.pid());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = ticks(gateway.process.pid()) - before;
    assert!(used < 60, "{used} of 200 ticks while nobody asked");
    Ok(())
}
