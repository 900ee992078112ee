//! `regatta up` as a person meets it: one word, a session, a replica killed in the middle, and on it goes.

use crate::REGATTA;
use regatta_testkit::{Client, Process, Result, eventually};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

async fn up(state: &std::path::Path, more: &[&str]) -> (Process, String) {
    let mut command = Command::new(REGATTA);
    command.args(["up", "--listen", "127.0.0.1:0", "--state-dir"]).arg(state).args(more);
    let mut process = Process::spawn(&mut command);
    let line = process.line_with("MCP endpoint: ", SOON).await;
    (process, line.trim_start_matches("MCP endpoint: ").to_owned())
}

fn kill(pid: u64) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
    assert!(killed.success());
}

fn runs(pid: u64) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_session_goes_on_when_its_replica_is_killed_and_the_replica_comes_back() -> Result<()> {
    let state = tempfile::TempDir::new().expect("a directory");
    let (mut process, url) = up(state.path(), &["--replicas", "2"]).await;
    let session = Client::new(&url).initialize().await?;
    let who = session.call("whoami", json!({})).await?.result()?;
    let pid = who["structuredContent"]["pid"].as_u64().expect("a pid");
    let port = who["structuredContent"]["port"].as_u64().expect("a port");
    kill(pid);
    // A call that is written while the kernel is still at it would rightly be told "outcome unknown".
    eventually("the replica is dead", SOON, async || (!runs(pid)).then_some(())).await;
    let after = session.call("whoami", json!({})).await?.result()?;
    assert_ne!(after["structuredContent"]["pid"], pid);
    assert_eq!(after["_meta"]["io.regatta/sessionResumed"], true);

    let back = eventually("the replica is back on its port under another pid", SOON, async || {
        let lines = process.stderr();
        let line = lines.iter().rev().find(|line| line.contains(&format!(":{port}/mcp  healthy")))?;
        let now = line.split_once("pid ")?.1.split(' ').next()?.parse::<u64>().ok()?;
        (now != pid).then_some(now)
    })
    .await;
    assert!(runs(back));
    process.terminate();
    assert_eq!(process.exit_within(SOON).await.code(), Some(0));
    eventually("the demo replicas ended with it", SOON, async || (!runs(back)).then_some(())).await;
    Ok(())
}

#[tokio::test]
async fn the_client_config_it_prints_is_json_that_names_the_endpoint() {
    let state = tempfile::TempDir::new().expect("a directory");
    let (mut process, url) = up(state.path(), &["--replicas", "1"]).await;
    process.line_with("curl -si ", SOON).await;
    let lines = process.stdout();
    let from = lines.iter().position(|line| line == "{").expect("an opening brace");
    let to = lines.iter().position(|line| line == "}").expect("a closing brace");
    let config: Value = serde_json::from_str(&lines[from..=to].join("\n")).expect("JSON");
    assert_eq!(config["mcpServers"]["regatta"], json!({ "type": "http", "url": url }));
}

#[tokio::test]
async fn no_demo_replica_outlives_a_killed_gateway() -> Result<()> {
    let state = tempfile::TempDir::new().expect("a directory");
    let (mut process, url) = up(state.path(), &["--replicas", "1"]).await;
    let session = Client::new(&url).initialize().await?;
    let who = session.call("whoami", json!({})).await?.result()?;
    let pid = who["structuredContent"]["pid"].as_u64().expect("a pid");
    process.kill();
    eventually("the replica ended with its stdin", SOON, async || (!runs(pid)).then_some(())).await;
    Ok(())
}

#[tokio::test]
async fn two_gateways_over_one_store_are_shown_and_either_may_be_killed() -> Result<()> {
    let redis = regatta_testkit::redis::Server::start(&[]).await;
    let state = tempfile::TempDir::new().expect("a directory");
    let more = ["--replicas", "2", "--gateways", "2", "--store", &redis.url()];
    let (mut process, url) = up(state.path(), &more).await;
    let line = process.line_with("and at: ", SOON).await;
    let other = line.trim_start_matches("and at: ").to_owned();
    let session = Client::new(&url).initialize().await?;
    assert_eq!(session.call("counter", json!({})).await?.text(), "1");
    let there = session.through(&Client::new(&other));
    assert_eq!(there.call("counter", json!({})).await?.text(), "2");
    let line = process.line_with(&format!("{other}  gateway      pid "), SOON).await;
    let pid: u64 = line.split_once("pid ").and_then(|(_, pid)| pid.trim().parse().ok()).expect("a pid");
    kill(pid);
    assert_eq!(session.call("counter", json!({})).await?.text(), "3");
    let back = eventually("the other gateway is back", SOON * 2, async || {
        there.call("counter", json!({})).await.ok()
    })
    .await;
    assert_eq!(back.text(), "4");
    Ok(())
}

#[tokio::test]
async fn several_gateways_without_a_store_are_refused_with_a_hint() {
    let mut process = Process::spawn(Command::new(REGATTA).args(["up", "--gateways", "2"]));
    assert_eq!(process.exit_within(SOON).await.code(), Some(2));
    assert!(process.stderr().iter().any(|line| line.contains("hint: ") && line.contains("--store")));
}
