//! `regatta.example.toml` and docs/config.md are what people copy from, so they must fit the code.

use crate::REGATTA;
use regatta_testkit::Process;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const EXAMPLE: &str = include_str!("../../../../regatta.example.toml");
const PAGE: &str = include_str!("../../../../docs/config.md");

async fn passes_check(file: &Path) {
    let mut check = Process::spawn(Command::new(REGATTA).arg("check").arg("--config").arg(file));
    let status = check.exit_within(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}: {:?}", check.stderr());
}

/// `key = value`, also behind `# `.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (key, _) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")?;
    key.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        .then_some((key, line))
}

#[tokio::test]
async fn the_example_passes_check_also_with_every_key_written() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let uncommented = |line: &'static str| match setting(line) {
        Some(_) => line.trim_start_matches("# "),
        // A table that is there for those who want it.
        None if line.starts_with("# [") => line.trim_start_matches("# "),
        None => line,
    };
    let whole: Vec<&str> = EXAMPLE.lines().map(uncommented).collect();
    for (name, text) in [("as-it-is.toml", EXAMPLE.to_owned()), ("whole.toml", whole.join("\n"))] {
        let file = directory.path().join(name);
        std::fs::write(&file, text).expect("written");
        passes_check(&file).await;
    }
}

#[test]
fn the_page_of_the_config_names_every_key_of_the_example_and_no_other() {
    let mut written: Vec<&str> = EXAMPLE.lines().filter_map(setting).map(|(key, _)| key).collect();
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let mut told: Vec<&str> = rows.map(|(key, _)| key).collect();
    written.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, written, "left: docs/config.md, right: regatta.example.toml");
}
