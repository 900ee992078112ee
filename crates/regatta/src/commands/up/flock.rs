//! The children of `up`, demo replicas and further gateways, each watched by a thread that starts it again on the same port.
//!
//! A child ends when its stdin does, so none outlives this process, however it ends. They have a process group of
//! their own: Ctrl-C must reach the gateway first, which then lets their calls finish.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The first wait before a dead child is started again; doubled each time up to the longest.
const AGAIN_FIRST: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// A child that lived this long starts over with the first wait.
const STEADY: Duration = Duration::from_secs(10);

/// Processes that run, and run again.
#[derive(Debug, Default)]
pub struct Flock {
    members: Vec<Member>,
}

/// What the children of a flock are.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Demo replicas.
    Demo,
    /// Gateways over these replicas and this store.
    Gateway {
        /// The replicas' endpoints.
        urls: Vec<String>,
        /// The store's URL.
        store: String,
    },
}

/// One of them.
#[derive(Debug)]
struct Member {
    url: String,
    /// The process now; 0 while there is none.
    pid: Arc<AtomicU32>,
}

impl Flock {
    /// Starts a child on each of these ports; on a free one for 0.
    ///
    /// # Errors
    /// Why the first that failed did not start, for a person.
    pub fn start(kind: &Kind, ports: impl Iterator<Item = u16>) -> Result<Flock, String> {
        let members = ports.map(|port| Member::start(kind, port)).collect::<Result<_, _>>()?;
        Ok(Flock { members })
    }

    /// Their endpoints.
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.url.clone()).collect()
    }

    /// The process behind `url`, if it is one of these and runs.
    pub fn pid(&self, url: &str) -> Option<u32> {
        let member = self.members.iter().find(|member| member.url == url)?;
        Some(member.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }
}

impl Kind {
    /// The arguments of a child on `port`.
    fn arguments(&self, port: &str) -> Vec<String> {
        let fixed = |arguments: &[&str]| arguments.iter().map(|&argument| argument.to_owned()).collect();
        match self {
            Kind::Demo => fixed(&["demo", "--port", port, "--exit-with-stdin"]),
            Kind::Gateway { urls, .. } => {
                let listen = format!("127.0.0.1:{port}");
                let more = ["--admin", "127.0.0.1:0", "--exit-with-stdin"];
                let mut arguments: Vec<String> = fixed(&["up", "--listen", &listen]);
                arguments.extend(more.map(str::to_owned));
                arguments.extend_from_slice(urls);
                arguments
            }
        }
    }

    /// Where a password may be is not for everybody's eyes, as arguments are.
    fn environment(&self) -> Option<(&'static str, &str)> {
        match self {
            Kind::Demo => None,
            Kind::Gateway { store, .. } => Some(("REGATTA_STORE_URL", store)),
        }
    }

    /// What stands before the URL on a child's first line.
    fn greeting(&self) -> &'static str {
        match self {
            Kind::Demo => "listening ",
            Kind::Gateway { .. } => "MCP endpoint: ",
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Kind::Demo => "a demo replica",
            Kind::Gateway { .. } => "a gateway",
        }
    }
}

impl Member {
    fn start(kind: &Kind, port: u16) -> Result<Member, String> {
        let (child, url) = spawn(kind, &port.to_string())?;
        let pid = Arc::new(AtomicU32::new(child.id()));
        let port = url.trim_end_matches("/mcp").rsplit(':').next().unwrap_or_default().to_owned();
        let (watched, kind) = (pid.clone(), kind.clone());
        std::thread::Builder::new()
            .name("flock".into())
            .spawn(move || watch(child, &kind, &port, &watched))
            .map_err(|why| format!("cannot watch a child: {why}"))?;
        Ok(Member { url, pid })
    }
}

/// Starts a child on `port` and waits for its first line.
fn spawn(kind: &Kind, port: &str) -> Result<(Child, String), String> {
    let failed = |why: std::io::Error| format!("cannot start {}: {why}", kind.name());
    let binary = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(binary)
        .args(kind.arguments(port))
        .envs(kind.environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    match line.trim().strip_prefix(kind.greeting()) {
        Some(url) => Ok((child, url.to_owned())),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("{} did not start on port {port}", kind.name()))
        }
    }
}

/// Waits for the end of `child` and starts it again, for as long as this process lives.
fn watch(mut child: Child, kind: &Kind, port: &str, pid: &AtomicU32) {
    let mut pause = AGAIN_FIRST;
    loop {
        let born = Instant::now();
        // Waiting would close its stdin, which is its word to end.
        let stdin = child.stdin.take();
        let _ = child.wait();
        drop(stdin);
        pid.store(0, Ordering::Relaxed);
        if born.elapsed() >= STEADY {
            pause = AGAIN_FIRST;
        }
        child = loop {
            std::thread::sleep(pause);
            pause = (pause * 2).min(AGAIN_MAX);
            if let Ok((child, _)) = spawn(kind, port) {
                break child;
            }
        };
        pid.store(child.id(), Ordering::Relaxed);
    }
}
