//! A gateway as a process: a config in a directory of its own, free ports, and waiting until it is ready.
//!
//! The binary is handed in, because only the tests of the binary's crate know where it is
//! (`env!("CARGO_BIN_EXE_regatta")`).

use crate::process::free_port;
use crate::{Client, Process, eventually};
use http::Method;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long a gateway may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// One `[[server]]`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// URLs of its replicas.
    pub replicas: Vec<String>,
    /// Further lines of its table, as TOML.
    pub more: String,
}

/// What to put into the config.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    servers: Vec<Server>,
    gateway: String,
    tables: String,
    environment: Vec<(String, String)>,
}

impl Plan {
    /// One server named `demo` over these replicas.
    pub fn over<I: IntoIterator<Item = S>, S: Into<String>>(replicas: I) -> Self {
        Plan::default().server("demo", replicas, "")
    }

    /// One server more; `more` are lines of its table.
    pub fn server<I: IntoIterator<Item = S>, S: Into<String>>(
        mut self,
        name: &str,
        replicas: I,
        more: &str,
    ) -> Self {
        let replicas = replicas.into_iter().map(Into::into).collect();
        self.servers.push(Server { name: name.to_owned(), replicas, more: more.to_owned() });
        self
    }

    /// Lines for the table of the last server.
    pub fn on_server(mut self, lines: &str) -> Self {
        if let Some(server) = self.servers.last_mut() {
            let _ = writeln!(server.more, "{lines}");
        }
        self
    }

    /// Lines for `[gateway]`.
    pub fn on_gateway(mut self, lines: &str) -> Self {
        let _ = writeln!(self.gateway, "{lines}");
        self
    }

    /// Further tables.
    pub fn tables(mut self, toml: &str) -> Self {
        let _ = writeln!(self.tables, "{toml}");
        self
    }

    /// An environment variable of the process.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The whole file.
    pub fn toml(&self, listen: u16, admin: u16, state: &Path) -> String {
        let mut text = format!(
            "[gateway]\nlisten = \"127.0.0.1:{listen}\"\nadmin = \"127.0.0.1:{admin}\"\nstate_dir = {state:?}\n{}",
            self.gateway
        );
        for server in &self.servers {
            let _ = write!(
                text,
                "\n[[server]]\nname = {:?}\nreplicas = {:?}\n{}",
                server.name, server.replicas, server.more
            );
        }
        text + "\n" + &self.tables
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// The process, to kill, stop or signal.
    pub process: Process,
    binary: String,
    plan: Plan,
    directory: TempDir,
    listen: u16,
    admin: u16,
}

impl Gateway {
    /// Starts `binary serve` over the plan and waits for `/ready`.
    pub async fn start(binary: &str, plan: Plan) -> Self {
        let gateway = Self::launch(binary, plan);
        gateway.wait_ready().await;
        gateway
    }

    /// The same without waiting.
    pub fn launch(binary: &str, plan: Plan) -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let (listen, admin) = (free_port(), free_port());
        let text = plan.toml(listen, admin, &directory.path().join("state"));
        std::fs::write(directory.path().join("regatta.toml"), text).expect("the config can be written");
        let process = Self::spawn(binary, &plan, directory.path());
        Gateway { process, binary: binary.to_owned(), plan, directory, listen, admin }
    }

    fn spawn(binary: &str, plan: &Plan, directory: &Path) -> Process {
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(directory.join("regatta.toml"));
        command.current_dir(directory);
        Process::spawn(command.envs(plan.environment.iter().map(|(name, value)| (name, value))))
    }

    /// Waits for `/ready` 200. Panics with the log when it does not come.
    pub async fn wait_ready(&self) {
        let end = tokio::time::Instant::now() + READY_WITHIN;
        while self.admin("/ready").await.is_none_or(|(status, _)| status != 200) {
            assert!(tokio::time::Instant::now() < end, "the gateway is not ready; log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// kill -9, then the same config, ports and state directory again.
    pub async fn restart_after_kill(&mut self) {
        self.process.kill();
        self.process = Self::spawn(&self.binary, &self.plan, self.directory.path());
        self.wait_ready().await;
    }

    /// Writes the config anew with another plan; the process is told nothing.
    pub fn rewrite(&mut self, plan: Plan) {
        self.plan = plan;
        let text = self.plan.toml(self.listen, self.admin, &self.directory.path().join("state"));
        self.write_config(&text);
    }

    /// Writes any text as the config.
    pub fn write_config(&self, text: &str) {
        std::fs::write(self.config(), text).expect("the config can be written");
    }

    /// The config's path.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("regatta.toml")
    }

    /// The endpoint for clients.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.listen)
    }

    /// Where the admin listener is: `127.0.0.1:PORT`.
    pub fn admin_address(&self) -> String {
        format!("127.0.0.1:{}", self.admin)
    }

    /// A client of this gateway.
    pub fn client(&self) -> Client {
        Client::new(&self.url())
    }

    /// GET on the admin listener: status and body; `None` when nobody answers.
    pub async fn admin(&self, path: &str) -> Option<(u16, String)> {
        let client = Client::new(&format!("http://127.0.0.1:{}{path}", self.admin));
        let answer = client.send(Method::GET, &[("accept", "*/*")], "").await.ok()?;
        let status = answer.status.as_u16();
        let body = answer.bytes().await.ok()?;
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// The sum of all series of a metric; `None` when there is none. `name` may end with labels in braces,
    /// which must then all be there.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.admin("/metrics").await?;
        sum(&text, name)
    }

    /// Waits until a metric has at least this value.
    pub async fn metric_reaches(&self, name: &str, least: f64) -> f64 {
        let what = format!("{name} reaches {least}");
        eventually(&what, Duration::from_secs(20), async || {
            self.metric(name).await.filter(|value| least <= *value)
        })
        .await
    }

    /// Everything it wrote, stdout and stderr.
    pub fn log(&self) -> String {
        [self.process.stdout(), self.process.stderr()].concat().join("\n")
    }

    /// Its log and the pages of its admin listener, and then, killed, all of its log.
    pub async fn all_it_said(&mut self) -> String {
        let mut said = self.log();
        for page in ["/metrics", "/status", "/ready", "/health"] {
            said += &self.admin(page).await.expect("the admin listener answers").1;
        }
        self.process.kill();
        said + &self.log()
    }
}

/// Adds up the series of one metric in the Prometheus text format.
fn sum(text: &str, name: &str) -> Option<f64> {
    let (name, labels) = name.split_once('{').unwrap_or((name, ""));
    let wanted: Vec<_> = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
    let values = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?,
            None if rest.starts_with(' ') => ("", rest),
            None => return None,
        };
        let fits = wanted.iter().all(|label| labels.contains(label));
        fits.then(|| value.split_whitespace().next()?.parse::<f64>().ok()).flatten()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_the_series_that_fit() {
        let text = "# HELP x y\nx_total{a=\"1\",b=\"2\"} 3\nx_total{a=\"2\",b=\"2\"} 4\nx_totals 9\ny 1.5\n";
        assert_eq!(sum(text, "x_total"), Some(7.0));
        assert_eq!(sum(text, "x_total{a=\"2\"}"), Some(4.0));
        assert_eq!(sum(text, "y"), Some(1.5));
        assert_eq!(sum(text, "z"), None);
    }
}
