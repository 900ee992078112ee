//! Nodes in a real Redis: they join a running gateway, are stopped, wiped out of the registry, and lose it altogether.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use regatta_testkit::gateway::Plan;
use regatta_testkit::process::Demo;
use regatta_testkit::redis::Server;
use regatta_testkit::{Gateway, Result, eventually};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::REGATTA;

const SOON: Duration = Duration::from_secs(20);

/// A demo server, and a heart that beats for it.
struct Node {
    demo: Demo,
    beats: Arc<AtomicBool>,
    heart: JoinHandle<()>,
}

impl Node {
    async fn join(redis: &Arc<Server>, id: &'static str) -> Node {
        let demo = Demo::start(REGATTA, &["--eras", "legacy"]).await;
        let fields: BTreeMap<&str, String> =
            [("status", "running".into()), ("server", "shop".into()), ("url", demo.url.clone())].into();
        let beats = Arc::new(AtomicBool::new(true));
        let (redis, alive) = (redis.clone(), beats.clone());
        let heart = tokio::spawn(async move {
            for heartbeat in 1_u64.. {
                if alive.load(Ordering::Relaxed) {
                    let (redis, fields) = (redis.clone(), fields.clone());
                    let said = tokio::task::spawn_blocking(move || say(&redis, id, &fields, heartbeat));
                    let _ = said.await;
                }
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        });
        Node { demo, beats, heart }
    }

    /// SIGSTOP: it stays, keeps its sockets and its entry, and does nothing.
    fn stop(&self) {
        self.beats.store(false, Ordering::Relaxed);
        self.demo.process.stop();
    }

    fn go_on(&self) {
        self.demo.process.go_on();
        self.beats.store(true, Ordering::Relaxed);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

fn say(redis: &Server, id: &str, fields: &BTreeMap<&str, String>, heartbeat: u64) {
    let (key, heartbeat) = (format!("mcp:node:{id}"), heartbeat.to_string());
    let mut command = vec!["HSET", &key, "lastHeartbeat", &heartbeat];
    command.extend(fields.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    redis.say(&command);
    redis.say(&["EXPIRE", &key, "60"]);
    redis.say(&["SADD", "mcp:nodes", id]);
}

async fn gateway(redis: &Server) -> Gateway {
    let store =
        format!("[store]\nurl = {:?}\nregistry_poll = \"100ms\"\nregistry_lease = \"1200ms\"\n", redis.url());
    let none: [String; 0] = [];
    let plan = Plan::default().server("shop", none, "registry = true\n").tables(&store);
    Gateway::start(REGATTA, plan).await
}

async fn healthy(gateway: &Gateway, count: usize) {
    let what = format!("{count} nodes are healthy");
    eventually(&what, SOON, async || {
        gateway.metric("regatta_replica_serving").await.filter(|sum| *sum == count as f64).map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn a_stopped_node_loses_its_sessions_and_is_taken_back_when_it_wakes() -> Result<()> {
    let redis = Arc::new(Server::start(&[]).await);
    let gateway = gateway(&redis).await;
    let nodes =
        [Node::join(&redis, "n1").await, Node::join(&redis, "n2").await, Node::join(&redis, "n3").await];
    healthy(&gateway, 3).await;
    let session = gateway.client().initialize().await?;
    let who = session.call("whoami", json!({})).await?.text().to_owned();
    let pids = nodes.each_ref().map(|node| node.demo.process.pid().to_string());
    let home = pids.iter().position(|pid| who.contains(pid.as_str())).expect("its pid is in what it says");
    nodes[home].stop();
    let began = tokio::time::Instant::now();
    let moved = eventually("the session goes on elsewhere", SOON, async || {
        let call = session.call("whoami", json!({})).await.ok()?;
        call.result().ok().map(|_| call)
    })
    .await;
    println!(
        "first success {} ms after SIGSTOP, lease 1200 ms, heartbeat 150 ms",
        began.elapsed().as_millis()
    );
    assert!(!moved.text().contains(&pids[home]), "{}", moved.message);
    eventually("its lease is over", SOON, async || gateway.log().contains("a node is gone").then_some(()))
        .await;
    nodes[home].go_on();
    healthy(&gateway, 3).await;
    Ok(())
}

#[tokio::test]
async fn a_wiped_registry_and_a_lost_one_take_no_node_away() -> Result<()> {
    let redis = Arc::new(Server::start(&[]).await);
    let gateway = gateway(&redis).await;
    let nodes = [Node::join(&redis, "n1").await, Node::join(&redis, "n2").await];
    healthy(&gateway, 2).await;
    let session = gateway.client().initialize().await?;
    nodes.iter().for_each(|node| node.beats.store(false, Ordering::Relaxed));
    redis.say(&["FLUSHALL"]);
    gateway.metric_reaches("regatta_registry_glitches_total", 1.0).await;
    for _ in 0..10 {
        session.call("counter", json!({})).await?.result()?;
    }
    nodes.iter().for_each(|node| node.beats.store(true, Ordering::Relaxed));
    eventually("the registry is filled again", SOON, async || {
        (redis.say(&["SCARD", "mcp:nodes"]) == "2").then_some(())
    })
    .await;
    redis.process.stop();
    gateway.metric_reaches("regatta_registry_failed_total", 3.0).await;
    for _ in 0..10 {
        session.call("counter", json!({})).await?.result()?;
    }
    redis.process.go_on();
    assert_eq!(session.call("counter", json!({})).await?.text(), "21", "its session was never moved");
    assert_eq!(gateway.metric("regatta_rehomed_total").await, Some(0.0));
    Ok(())
}
