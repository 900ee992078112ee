//! How long tools take, as histograms for `/metrics`.
//!
//! A tool has a row once a call of it succeeded; names that clients make up are counted together, as `_other`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Upper bounds of the buckets, in milliseconds; the last bucket has none.
const BOUNDS_MS: [u64; 14] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 60_000];
/// Tools with a row of their own.
const TOOLS_MAX: usize = 256;
const OTHER: &str = "_other";

/// The times of all tools.
#[derive(Default)]
pub(crate) struct Meters {
    tools: RwLock<BTreeMap<String, Arc<Times>>>,
}

#[derive(Default)]
struct Times {
    /// By bucket, each on its own; added up when they are told.
    calls: [AtomicU64; BOUNDS_MS.len() + 1],
    micros: AtomicU64,
}

impl Meters {
    /// Notes a call: `is_known` if the tool answered it.
    pub(crate) fn note(&self, tool: &str, took: Duration, is_known: bool) {
        let times = self.times(tool, is_known);
        let millis = took.as_micros().div_ceil(1000);
        let bucket = BOUNDS_MS.iter().position(|bound| millis <= u128::from(*bound));
        times.calls[bucket.unwrap_or(BOUNDS_MS.len())].fetch_add(1, Relaxed);
        times.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn times(&self, tool: &str, is_known: bool) -> Arc<Times> {
        if let Some(times) = self.tools.read().unwrap_or_else(PoisonError::into_inner).get(tool) {
            return times.clone();
        }
        let mut tools = self.tools.write().unwrap_or_else(PoisonError::into_inner);
        let name = if is_known && tools.len() < TOOLS_MAX { tool } else { OTHER };
        tools.entry(name.to_owned()).or_default().clone()
    }

    /// In the text format of Prometheus.
    pub(crate) fn write(&self, out: &mut String) {
        const NAME: &str = "regatta_node_tool_seconds";
        let tools = self.tools.read().unwrap_or_else(PoisonError::into_inner);
        out.push_str("# TYPE regatta_node_tool_seconds histogram\n");
        for (tool, times) in &*tools {
            let tool = tool.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let mut sum = 0;
            for (at, calls) in times.calls.iter().enumerate() {
                sum += calls.load(Relaxed);
                let bound = BOUNDS_MS.get(at).map_or("+Inf".to_owned(), |bound| seconds(*bound * 1000));
                // Writing into a text never fails.
                let _ = writeln!(out, "{NAME}_bucket{{tool=\"{tool}\",le=\"{bound}\"}} {sum}");
            }
            let micros = seconds(times.micros.load(Relaxed));
            let _ = writeln!(
                out,
                "{NAME}_sum{{tool=\"{tool}\"}} {micros}\n{NAME}_count{{tool=\"{tool}\"}} {sum}"
            );
        }
    }
}

fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_times_of_tools_and_counts_made_up_names_together() {
        let meters = Meters::default();
        meters.note("echo", Duration::from_micros(900), true);
        meters.note("echo", Duration::from_millis(7), true);
        meters.note("echo", Duration::from_secs(90), true);
        for name in ["made", "up", "\"\n"] {
            meters.note(name, Duration::ZERO, false);
        }
        let mut told = String::new();
        meters.write(&mut told);
        for row in [
            "regatta_node_tool_seconds_bucket{tool=\"echo\",le=\"0.001\"} 1\n",
            "regatta_node_tool_seconds_bucket{tool=\"echo\",le=\"0.005\"} 1\n",
            "regatta_node_tool_seconds_bucket{tool=\"echo\",le=\"0.01\"} 2\n",
            "regatta_node_tool_seconds_bucket{tool=\"echo\",le=\"60\"} 2\n",
            "regatta_node_tool_seconds_bucket{tool=\"echo\",le=\"+Inf\"} 3\n",
            "regatta_node_tool_seconds_sum{tool=\"echo\"} 90.0079\n",
            "regatta_node_tool_seconds_count{tool=\"_other\"} 3\n",
        ] {
            assert!(told.contains(row), "{row} in {told}");
        }
    }
}
