//! The demo replicas of `up`: child processes, each watched by a thread that starts it again on the same port.
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

/// Demo replicas that run, and run again.
#[derive(Debug, Default)]
pub struct Flock {
    members: Vec<Member>,
}

/// One of them.
#[derive(Debug)]
struct Member {
    url: String,
    /// The process now; 0 while there is none.
    pid: Arc<AtomicU32>,
}

impl Flock {
    /// Starts `count` demo replicas on free ports.
    ///
    /// # Errors
    /// Why the first that failed did not start, for a person.
    pub fn start(count: usize) -> Result<Flock, String> {
        let members = (0..count).map(|_| Member::start()).collect::<Result<_, _>>()?;
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

impl Member {
    fn start() -> Result<Member, String> {
        let (child, url) = spawn("0")?;
        let pid = Arc::new(AtomicU32::new(child.id()));
        let port = url.trim_end_matches("/mcp").rsplit(':').next().unwrap_or_default().to_owned();
        let watched = pid.clone();
        std::thread::Builder::new()
            .name("demo".into())
            .spawn(move || watch(child, &port, &watched))
            .map_err(|why| format!("cannot watch a demo replica: {why}"))?;
        Ok(Member { url, pid })
    }
}

/// Starts a demo on `port` and waits for its first line.
fn spawn(port: &str) -> Result<(Child, String), String> {
    let failed = |why: std::io::Error| format!("cannot start a demo replica: {why}");
    let binary = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(binary)
        .args(["demo", "--port", port, "--exit-with-stdin"])
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
    match line.trim().strip_prefix("listening ") {
        Some(url) => Ok((child, url.to_owned())),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("a demo replica did not start on port {port}"))
        }
    }
}

/// Waits for the end of `child` and starts it again, for as long as this process lives.
fn watch(mut child: Child, port: &str, pid: &AtomicU32) {
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
            if let Ok((child, _)) = spawn(port) {
                break child;
            }
        };
        pid.store(child.id(), Ordering::Relaxed);
    }
}
