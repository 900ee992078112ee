//! A master, two replicas and three sentinels, with short times so that a failover takes seconds.

use super::{READY_WITHIN, Server};
use crate::process::free_port;
use crate::{Process, eventually};
use std::process::Command;
use tempfile::TempDir;

/// The name of the master.
pub const MASTER: &str = "main";

/// Three servers under three sentinels.
#[derive(Debug)]
pub struct Sentinels {
    /// The servers; the first was the master at first.
    pub servers: Vec<Server>,
    sentinels: Vec<(Process, u16)>,
    _directory: TempDir,
}

impl Sentinels {
    /// Starts them all and waits until the sentinels know each other and the replicas.
    pub async fn start() -> Self {
        let master = Server::start(&["--repl-diskless-sync-delay", "0"]).await;
        let port = master.port().to_string();
        let mut servers = vec![master];
        for _ in 0..2 {
            let more = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
            servers.push(Server::start(&more).await);
        }
        let directory = TempDir::new().expect("a temporary directory can be made");
        let sentinels = (0..3).map(|number| sentinel(&directory, number, servers[0].port())).collect();
        let all = Sentinels { servers, sentinels, _directory: directory };
        eventually("the sentinels know all", READY_WITHIN, async || all.is_complete().then_some(())).await;
        all
    }

    fn is_complete(&self) -> bool {
        let synced = self.servers[1..]
            .iter()
            .all(|replica| replica.info("master_link_status").as_deref() == Some("up"));
        let known = self.sentinels.iter().all(|(_, port)| {
            let said = ask(*port, &["SENTINEL", "MASTER", MASTER]);
            let lines: Vec<&str> = said.lines().collect();
            let value =
                |name| lines.iter().position(|line| *line == name).and_then(|at| lines.get(at + 1).copied());
            (value("num-slaves"), value("num-other-sentinels")) == (Some("2"), Some("2"))
        });
        synced && known
    }

    /// `redis+sentinel://…/main`.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/{MASTER}", hosts.join(","))
    }

    /// What the first sentinel answers.
    pub fn say(&self, command: &[&str]) -> String {
        ask(self.sentinels[0].1, command)
    }

    /// SIGSTOP for all sentinels: they say nothing, and keep their connections.
    pub fn stop(&self) {
        self.sentinels.iter().for_each(|(process, _)| process.stop());
    }

    /// SIGCONT for all sentinels.
    pub fn go_on(&self) {
        self.sentinels.iter().for_each(|(process, _)| process.go_on());
    }

    /// What each sentinel answers.
    pub fn say_to_all(&self, command: &[&str]) -> Vec<String> {
        self.sentinels.iter().map(|(_, port)| ask(*port, command)).collect()
    }

    /// The server that calls itself master and that the sentinels name.
    pub fn master(&self) -> Option<usize> {
        let said = self.say(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        let port: u16 = said.lines().nth(1)?.parse().ok()?;
        let at = self.servers.iter().position(|server| server.port() == port)?;
        (self.servers[at].info("role").as_deref() == Some("master")).then_some(at)
    }
}

fn sentinel(directory: &TempDir, number: usize, master: u16) -> (Process, u16) {
    let port = free_port();
    let file = directory.path().join(format!("sentinel-{number}.conf"));
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {dir:?}\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 5000\n\
         sentinel parallel-syncs {MASTER} 2\n",
        dir = directory.path(),
    );
    std::fs::write(&file, text).expect("a file can be written");
    (Process::spawn(Command::new("redis-server").arg(file).arg("--sentinel")), port)
}

fn ask(port: u16, command: &[&str]) -> String {
    let mut cli = Command::new("redis-cli");
    let output = cli.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(command).output();
    let output = output.unwrap_or_else(|error| panic!("{} ({error})", super::MISSING));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
