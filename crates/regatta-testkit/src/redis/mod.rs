//! Real Redis servers: standalone (with TLS too), a master with replicas and sentinels, a cluster.
//!
//! Each is a process on a free port with a directory of its own, killed when its handle is gone. Without `redis-server`
//! a test fails and says what to install; nothing is skipped.

mod cluster;
pub mod sentinels;

pub use cluster::Cluster;
pub use sentinels::Sentinels;

use crate::Process;
use crate::process::free_port;
use crate::tls::TlsFiles;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long a server may take to start, or a group of them to come together.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// One `redis-server`.
#[derive(Debug)]
pub struct Server {
    /// The process, to kill, stop or continue.
    pub process: Process,
    port: u16,
    arguments: Vec<String>,
    directory: TempDir,
    tls: Option<TlsFiles>,
}

impl Server {
    /// Starts a server without persistence, with `more` arguments (`--maxmemory`, `1mb`, …).
    pub async fn start(more: &[&str]) -> Self {
        Self::launch(free_port(), more, None).await
    }

    /// Starts a server that speaks only TLS.
    pub async fn start_tls(more: &[&str]) -> Self {
        Self::launch(free_port(), more, Some(TlsFiles::new())).await
    }

    pub(crate) async fn launch(port: u16, more: &[&str], tls: Option<TlsFiles>) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let mut arguments: Vec<String> =
            ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--enable-debug-command", "local"]
                .map(str::to_owned)
                .to_vec();
        match &tls {
            None => arguments.extend(["--port".to_owned(), port.to_string()]),
            Some(tls) => arguments.extend(tls.arguments(port)),
        }
        arguments.extend(more.iter().map(|more| (*more).to_owned()));
        let process = spawn(&arguments, directory.path());
        let mut server = Server { process, port, arguments, directory, tls };
        server.wait_ready().await;
        server
    }

    async fn wait_ready(&mut self) {
        self.process.line_with("Ready to accept connections", READY_WITHIN).await;
    }

    /// The same arguments and port again, after a kill: it comes back empty.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.arguments, self.directory.path());
        self.wait_ready().await;
    }

    /// Puts it to sleep: it hears everything, and does it when it wakes.
    pub fn stop(&self) {
        self.process.stop();
    }

    /// Wakes it.
    pub fn go_on(&self) {
        self.process.go_on();
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `redis://127.0.0.1:PORT`, or `rediss://`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{}", self.address())
    }

    /// The certificate that clients must trust.
    pub fn trusted_pem(&self) -> Option<String> {
        self.tls.as_ref().map(TlsFiles::trusted_pem)
    }

    /// What the server answers to a command, as `redis-cli` prints it; errors are text too.
    pub fn say(&self, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some(tls) = &self.tls {
            cli.arg("--tls").arg("--cacert").arg(tls.trusted_file());
        }
        let output = cli.args(command).output().unwrap_or_else(|error| panic!("{MISSING} ({error})"));
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).trim_end().to_owned()
    }

    /// One line of `INFO`: the number or word after `name:`.
    pub fn info(&self, name: &str) -> Option<String> {
        let text = self.say(&["INFO", "everything"]);
        let line = text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        line.map(str::to_owned)
    }

    /// Connections of clients now, but for this question's.
    pub fn clients(&self) -> usize {
        let all = self.say(&["CLIENT", "LIST", "TYPE", "NORMAL"]).lines().count();
        all.saturating_sub(1)
            + self.say(&["CLIENT", "LIST", "TYPE", "PUBSUB"]).lines().filter(|line| !line.is_empty()).count()
    }

    /// Calls of each command so far (`INFO commandstats`), by name in lower case.
    pub fn calls(&self) -> std::collections::BTreeMap<String, u64> {
        let text = self.say(&["INFO", "commandstats"]);
        let read = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        text.lines().filter_map(read).collect()
    }
}

const MISSING: &str = "redis is not installed\nhint: on Debian: apt-get install redis-server redis-sentinel";

fn spawn(arguments: &[String], directory: &Path) -> Process {
    let there = Command::new("redis-server").arg("--version").output();
    assert!(there.is_ok_and(|version| version.status.success()), "{MISSING}");
    Process::spawn(Command::new("redis-server").args(arguments).current_dir(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_answers_and_comes_back_empty() {
        let mut server = Server::start(&[]).await;
        assert_eq!(server.say(&["SET", "a", "1"]), "OK");
        assert_eq!(server.info("role").as_deref(), Some("master"));
        assert!(server.calls()["set"] == 1);
        server.restart().await;
        assert_eq!(server.say(&["EXISTS", "a"]), "0");
    }
}
