//! The result cache, as the admin listener shows it and is told to purge it.
//!
//! Counts and names of rules only: never an argument, a result or a caller (RELIABILITY T29).

use regatta_cache::{Purge, call_digest};
use regatta_control::admin::PurgeAsked;
use regatta_mcp::canonical;
use regatta_policy::Glob;
use regatta_proxy::Gateway;
use serde_json::{Value, json};

/// The JSON of `/cache`.
pub fn stats(gateway: &Gateway) -> Value {
    let stats = gateway.cache_stats();
    let rules = stats.rules.iter().map(|(server, tool, tallied)| {
        let found = tallied.hits + tallied.stale + tallied.shared;
        let asked = found + tallied.misses;
        json!({
            "server": server,
            "tool": tool,
            "hits": tallied.hits,
            "stale": tallied.stale,
            "shared": tallied.shared,
            "misses": tallied.misses,
            "passed": tallied.passed,
            "refreshes": tallied.refreshed,
            "hit_percent": if asked == 0 { 0.0 } else { (found as f64 * 1000.0 / asked as f64).round() / 10.0 },
            "refused": tallied.refused,
            "saved_bytes": tallied.saved_bytes,
            "saved_seconds": tallied.saved.as_secs_f64(),
            "bytes": tallied.held_bytes,
        })
    });
    json!({ "bytes": stats.bytes, "results": stats.results, "rules": rules.collect::<Vec<_>>() })
}

/// Does what was asked for, or says why not.
pub async fn purge(gateway: &Gateway, asked: PurgeAsked) -> Result<(), String> {
    let what = match (&asked.tool, &asked.arguments, &asked.principal) {
        (Some(tool), Some(arguments), _) => {
            let arguments = canonical(arguments.as_bytes()).ok_or("arguments are not JSON")?;
            Purge::Call(call_digest(tool, &arguments))
        }
        (Some(tool), None, _) => Purge::of_tools(&Glob::new(tool.clone())),
        (None, _, Some(principal)) => Purge::Principal(*principal),
        (None, _, None) => Purge::Server,
    };
    gateway.purge(&asked.server, &what).await.map_err(|why| why.to_string())
}
