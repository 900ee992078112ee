//! How requests without a session find a replica, and that a session's stay with theirs.

use crate::REGATTA;
use crate::fleet::{demos, home, urls, visited};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Result, Stub};
use serde_json::json;

fn balanced(urls: Vec<String>, balance: &str) -> Plan {
    Plan::over(urls).on_server(&format!("balance = {balance:?}"))
}

#[tokio::test]
async fn round_robin_takes_turns_and_a_session_stays() -> Result<()> {
    let demos = demos(3, &[]).await;
    let gateway = Gateway::start(REGATTA, balanced(urls(&demos), "round-robin")).await;
    let modern = gateway.client().modern();
    let mut visits = [0; 3];
    for _ in 0..30 {
        visits[visited(&demos, &modern).await?] += 1;
    }
    assert_eq!(visits, [10, 10, 10]);
    let mut homes = [0; 3];
    for _ in 0..6 {
        let session = gateway.client().initialize().await?;
        let first = home(&demos, &session).await?;
        for _ in 0..5 {
            assert_eq!(home(&demos, &session).await?, first);
        }
        homes[first] += 1;
    }
    assert_eq!(homes, [2, 2, 2]);
    Ok(())
}

#[tokio::test]
async fn sticky_ip_keeps_an_address_at_one_replica() -> Result<()> {
    let demos = demos(3, &["--eras", "modern"]).await;
    let gateway = Gateway::start(REGATTA, balanced(urls(&demos), "sticky-ip")).await;
    let first = visited(&demos, &gateway.client().modern()).await?;
    for _ in 0..20 {
        assert_eq!(visited(&demos, &gateway.client().modern()).await?, first);
    }
    Ok(())
}

/// One stub that keeps `slow` open, one that is quick.
async fn slow_and_quick() -> [Stub; 2] {
    let base = answers::modern();
    let slow = Stub::start(move |seen| match seen.rpc() {
        "tools/call" => Reply::sse().comment("working").live(),
        _ => base(seen),
    });
    [slow.await, Stub::start(answers::modern()).await]
}

#[tokio::test]
async fn least_connections_and_least_load_avoid_a_replica_that_is_busy() -> Result<()> {
    for balance in ["least-connections", "least-load"] {
        let stubs = slow_and_quick().await;
        let gateway =
            Gateway::start(REGATTA, balanced(stubs.each_ref().map(Stub::url).to_vec(), balance)).await;
        let modern = gateway.client().modern();
        let mut held = Vec::new();
        for _ in 0..40 {
            let answer = modern.request("tools/call", json!({"name": "work", "arguments": {}})).await?;
            if answer.is_sse() {
                held.push(answer);
            } else {
                answer.bytes().await?;
            }
        }
        assert_eq!(held.len(), 1, "{balance}: so many went to the busy replica");
    }
    Ok(())
}

#[tokio::test]
async fn a_dead_replica_gets_nothing_and_takes_part_again_when_it_is_back() -> Result<()> {
    let mut demos = demos(3, &["--eras", "modern"]).await;
    let gateway = Gateway::start(REGATTA, balanced(urls(&demos), "round-robin")).await;
    let modern = gateway.client().modern();
    let port = demos[2].port();
    demos[2].process.kill();
    // Fewer than would have it ejected: then it would be left alone for longer than this test runs.
    for _ in 0..6 {
        assert_ne!(visited(&demos, &modern).await?, 2);
    }
    demos[2] = regatta_testkit::process::Demo::start_at(REGATTA, port, &["--eras", "modern"]).await;
    let back = async || (visited(&demos, &modern).await.ok()? == 2).then_some(());
    regatta_testkit::eventually("it serves again", std::time::Duration::from_secs(9), back).await;
    Ok(())
}

#[tokio::test]
async fn affinity_keeps_equal_requests_together_and_others_apart() -> Result<()> {
    let demos = demos(3, &["--eras", "modern"]).await;
    for affinity in ["principal", "header:x-shop", "argument:text"] {
        let plan = balanced(urls(&demos), "round-robin").on_server(&format!("affinity = {affinity:?}"));
        let gateway = Gateway::start(REGATTA, plan).await;
        let mut homes = std::collections::HashSet::new();
        for key in 0..12 {
            let client = gateway.client().header("x-shop", &format!("shop {key}"));
            let modern = client.header("authorization", &format!("Bearer {key}")).modern();
            let mut visits = std::collections::HashSet::new();
            for _ in 0..4 {
                visits.insert(crate::fleet::who(
                    &demos,
                    &modern.call("whoami", json!({"text": key.to_string()})).await?,
                )?);
            }
            assert_eq!(visits.len(), 1, "{affinity}: {visits:?}");
            homes.extend(visits);
        }
        assert!(homes.len() > 1, "{affinity}: all keys went to one replica");
    }
    Ok(())
}
