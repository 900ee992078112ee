//! docs/caching.md is a guide that people type in, so its config, its call and its numbers are run as they stand.

use crate::REGATTA;
use crate::cache::command;
use regatta_testkit::process::Demo;
use regatta_testkit::{Gateway, Result};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PAGE: &str = include_str!("../../../../docs/caching.md");

/// The first block of the page in this language.
fn block(language: &str) -> &'static str {
    let start = format!("```{language}\n");
    let (_, rest) = PAGE.split_once(&start).expect("the page has such a block");
    rest.split_once("```").expect("a block has an end").0
}

async fn cache(gateway: &Gateway, arguments: &[&str]) -> String {
    let (well, printed) = command(gateway, arguments).await;
    assert!(well, "{arguments:?}");
    printed
}

#[tokio::test]
async fn the_guide_shows_what_it_says() -> Result<()> {
    let demo = Demo::start(REGATTA, &[]).await;
    // The page's own tables, with the ports of this run.
    let (_, tables) = block("toml").split_once("[[server]]").expect("a server");
    let tables = tables.split_once("[[cache]]").expect("a rule").1;
    let plan = regatta_testkit::gateway::Plan::over([demo.url.clone()]).tables(&format!("[[cache]]{tables}"));
    let gateway = Gateway::start(REGATTA, plan).await;
    let client = gateway.client().modern();
    let call = async || client.call("sleep", json!({"ms": 500})).await;

    let began = Instant::now();
    let first = call().await?;
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert_eq!(first.message["result"]["_meta"]["io.regatta/cache"]["status"], "miss");
    for _ in 1..16 {
        assert_eq!(call().await?.message["result"]["_meta"]["io.regatta/cache"]["status"], "hit");
    }
    let stats: Value = serde_json::from_str(&cache(&gateway, &["stats", "--json"]).await).expect("JSON");
    let rule = &stats["rules"][0];
    assert_eq!((&rule["hits"], &rule["misses"]), (&json!(15), &json!(1)));
    assert!(PAGE.contains("93.8 %") && rule["hit_percent"] == json!(93.8), "{rule}");
    let saved = rule["saved_seconds"].as_f64().unwrap_or_default();
    assert!(PAGE.contains("7.5 saved seconds") && saved >= 7.5, "{saved}");

    cache(&gateway, &["purge", "--server", "demo", "--tool", "sleep"]).await;
    assert_eq!(call().await?.message["result"]["_meta"]["io.regatta/cache"]["status"], "miss");
    Ok(())
}
