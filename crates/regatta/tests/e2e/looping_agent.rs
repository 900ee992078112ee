//! docs/looping-agent.md is runnable as written: its config, and its commands one after the other, in a shell.

use crate::REGATTA;
use regatta_testkit::process::free_port;
use regatta_testkit::{Process, eventually};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PAGE: &str = include_str!("../../../../docs/looping-agent.md");

/// The blocks of a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    PAGE.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// A block with ports that nobody else has.
fn with_ports(block: &str, ports: &[(&str, u16)]) -> String {
    ports.iter().fold(block.to_owned(), |text, (written, free)| {
        let text = text.replace(&format!("127.0.0.1:{written}"), &format!("127.0.0.1:{free}"));
        text.replace(&format!("--port {written}"), &format!("--port {free}"))
    })
}

/// Runs a block in a folder where `regatta` is this binary.
fn shell(block: &str, directory: &Path, ports: &[(&str, u16)]) -> Command {
    let text = with_ports(block, ports);
    let mut command = Command::new("sh");
    let path = Path::new(REGATTA).parent().expect("a folder").display().to_string();
    let path = format!("{path}:{}", std::env::var("PATH").unwrap_or_default());
    // One program in a block is the shell itself, so that it can be ended.
    let exec = if text.lines().count() == 1 && text.starts_with("regatta ") { "exec " } else { "" };
    command.arg("-ec").arg(format!("{exec}{text}")).current_dir(directory).env("PATH", path);
    command.env("XDG_STATE_HOME", directory);
    command
}

async fn said(block: &str, directory: &Path, ports: &[(&str, u16)]) -> String {
    let mut process = Process::spawn(&mut shell(block, directory, ports));
    let status = process.exit_within(Duration::from_secs(60)).await;
    assert!(status.success(), "{block}\n{:?}\n{:?}", process.stdout(), process.stderr());
    process.stdout().join("\n")
}

#[tokio::test]
async fn the_guide_runs_as_written() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let folder = directory.path();
    let ports = [("3001", free_port()), ("8080", free_port()), ("9901", free_port())];
    let [demo, check, serve, looping, other, metrics] = blocks("sh")[..] else { panic!("six commands") };
    let [config] = blocks("toml")[..] else { panic!("one config") };
    std::fs::write(folder.join("regatta.toml"), with_ports(config, &ports)).expect("written");

    let _demo = Process::spawn(&mut shell(demo, folder, &ports));
    let explained = said(check, folder, &ports).await;
    assert_eq!(explained.trim(), blocks("text")[0].trim());
    let _gateway = Process::spawn(&mut shell(serve, folder, &ports));
    let is_served = async || {
        let mut process = Process::spawn(&mut shell(other, folder, &ports));
        let status = process.exit_within(Duration::from_secs(20)).await;
        (status.success() && process.stdout().join("").contains("hello")).then_some(())
    };
    eventually("the gateway serves", Duration::from_secs(40), is_served).await;

    let told = said(looping, folder, &ports).await.to_ascii_lowercase();
    for line in blocks("text")[1].lines() {
        let (line, _) = line.split_once("retryafterms").unwrap_or((line, ""));
        let line = line.to_ascii_lowercase();
        let words: Vec<&str> = line.split(['{', '}', ',']).filter(|word| word.len() > 3).collect();
        for word in words {
            assert!(told.contains(word.trim()) || word.contains("retryafterms"), "{word:?} in:\n{told}");
        }
    }
    assert!(said(other, folder, &ports).await.contains("hello"));
    let counted = said(metrics, folder, &ports).await;
    assert!(counted.contains("regatta_limit_refused_total{rule=\"each-caller\"} 1"), "{counted}");
}
