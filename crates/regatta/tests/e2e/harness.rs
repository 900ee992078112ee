//! The gateway harness writes configs that the binary takes.

use crate::REGATTA;
use regatta_testkit::Process;
use regatta_testkit::gateway::Plan;
use std::process::Command;
use std::time::Duration;

#[tokio::test]
async fn the_config_of_the_harness_passes_check() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("regatta.toml");
    let plan = Plan::over(["http://127.0.0.1:1/mcp"])
        .on_server("balance = \"round-robin\"\nsession_state = \"memory\"")
        .on_gateway("inflight_max = 10");
    std::fs::write(&file, plan.toml(8080, 9901, &directory.path().join("state"))).expect("written");
    let mut check = Process::spawn(Command::new(REGATTA).arg("check").arg("--config").arg(&file));
    let status = check.exit_within(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}: {:?}", check.stderr());
}
