//! Real processes: spawned, listened to, signalled, and gone when the handle is gone.
//!
//! Output is read by two plain threads, so it is never lost and never blocks the child. Linux only (`/proc`).

use crate::eventually;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// Lines kept per process; older ones are dropped.
const LINES_MAX: usize = 100_000;

type Lines = Arc<Mutex<Vec<String>>>;

/// How long a process may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// How long the last lines of a process that ended are waited for.
const LAST_LINES_WAIT: Duration = Duration::from_secs(2);

/// A child process. Dropping it kills it with SIGKILL.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Held open for children that end with their stdin.
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
}

impl Process {
    /// Starts the command with captured stdout and stderr and an open, silent stdin. Panics if it cannot start.
    pub fn spawn(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        Process { stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All lines of stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All lines of stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first line on either output that contains `text`, waiting for it. Panics with the output if none comes.
    pub async fn line_with(&mut self, text: &str, within: Duration) -> String {
        let end = tokio::time::Instant::now() + within;
        loop {
            let mut lines = self.stdout();
            lines.extend(self.stderr());
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let over = self.exited();
            assert!(
                over.is_none() && tokio::time::Instant::now() < end,
                "no line with {text:?} within {within:?} (exit: {over:?}); output:\n{}",
                lines.join("\n")
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends any signal. Panics when the process is gone already.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.rustix_pid(), signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.pid()));
    }

    fn rustix_pid(&self) -> Pid {
        i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a child has a positive process id")
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP: it stays, keeps its sockets, and does nothing.
    ///
    /// Returns once every thread of it has stopped: one that was just waking up may still answer a request.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let end = std::time::Instant::now() + STOP_WAIT;
        while !self.is_stopped() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_stopped(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else { return true };
        // The state stands behind the name, which ends with the last bracket (proc(5)).
        let state = |stat: String| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            matches!(state(stat), None | Some('T'))
        })
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Closes stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for the end. Panics when it does not come in time.
    pub async fn exit_within(&mut self, within: Duration) -> ExitStatus {
        let status = eventually("the process ends", within, async || self.exited()).await;
        // Its last lines may still be on their way; a child that it left behind may hold the pipes open for good.
        let end = tokio::time::Instant::now() + LAST_LINES_WAIT;
        while !self.is_read_out() && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        status
    }

    /// Whether both outputs were read to their ends: their readers have let go of the lines.
    fn is_read_out(&self) -> bool {
        [&self.stdout, &self.stderr].into_iter().all(|lines| Arc::strong_count(lines) == 1)
    }

    /// Resident memory in bytes; 0 when it is gone.
    pub fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Open file descriptors; 0 when it is gone.
    pub fn fd_count(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn collect(from: Option<impl Read + Send + 'static>) -> Lines {
    let lines = Lines::default();
    let kept = lines.clone();
    if let Some(from) = from {
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(std::result::Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == LINES_MAX {
                    kept.remove(0);
                }
                kept.push(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
            }
        });
    }
    lines
}

/// Ports that the kernel never gives away by itself (Linux: 32768 and up), so that none is taken between the look and
/// the bind, or while a process that is to come back is away.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// How many of them one test binary has to itself, while it runs.
const BLOCK: u16 = 1_000;

/// The ports of this test binary: those behind `first`, which is held so that no other binary takes them.
struct Ports {
    first: u16,
    _held: TcpListener,
}

impl Ports {
    /// A block that no other test binary has.
    fn take() -> Self {
        let blocks = u32::from((PORTS.end - PORTS.start) / BLOCK);
        for at in 0..blocks {
            let block = std::process::id().wrapping_add(at) % blocks;
            let first = PORTS.start + u16::try_from(block).unwrap_or(0) * BLOCK;
            if let Ok(held) = TcpListener::bind((Ipv4Addr::LOCALHOST, first)) {
                return Ports { first, _held: held };
            }
        }
        panic!("{blocks} test binaries run already, each with ports of its own");
    }
}

/// A port of 127.0.0.1 that was free just now, and that only this test binary is given; another one at every call.
pub fn free_port() -> u16 {
    static OURS: LazyLock<Ports> = LazyLock::new(Ports::take);
    static CALLS: AtomicU16 = AtomicU16::new(0);
    for _ in 1..BLOCK {
        let port = OURS.first + 1 + CALLS.fetch_add(1, Ordering::Relaxed) % (BLOCK - 1);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port of 127.0.0.1 is free");
}

/// A demo replica as a process of its own.
#[derive(Debug)]
pub struct Demo {
    /// The process, to kill, stop or continue.
    pub process: Process,
    /// `http://127.0.0.1:PORT/mcp`.
    pub url: String,
}

impl Demo {
    /// Starts `binary demo` on a free port with further arguments, and waits until it listens. Not one of the system's
    /// choice: those are lent to outgoing connections too, and then nobody can come back where it was.
    pub async fn start(binary: &str, more: &[&str]) -> Self {
        Self::start_at(binary, free_port(), more).await
    }

    /// The same on a given port, to bring a replica back where it was.
    pub async fn start_at(binary: &str, port: u16, more: &[&str]) -> Self {
        let port = port.to_string();
        let arguments = ["demo", "--port", &port, "--exit-with-stdin"];
        let mut process = Process::spawn(Command::new(binary).args(arguments).args(more));
        let line = process.line_with("listening ", Duration::from_secs(20)).await;
        let url = line.trim_start_matches("listening ").to_owned();
        Demo { process, url }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        crate::client::address_of(&self.url).port()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn gives_each_port_once_and_to_no_other_test_binary() {
        let other = Ports::take();
        let ports: std::collections::HashSet<u16> = (0..100).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 100);
        assert!(ports.iter().all(|port| !(other.first..other.first + BLOCK).contains(port)), "{ports:?}");
    }

    #[tokio::test]
    async fn captures_lines_and_kills() {
        let mut process = Process::spawn(Command::new("sh").args(["-c", "echo one; echo two >&2; cat"]));
        assert_eq!(process.line_with("two", SOON).await, "two");
        assert_eq!(process.line_with("one", SOON).await, "one");
        assert!(process.rss() > 0 && process.fd_count() > 0);
        process.kill();
        assert!(process.exited().is_some());
    }

    #[tokio::test]
    async fn stops_goes_on_and_ends_with_stdin() {
        let mut process = Process::spawn(&mut Command::new("cat"));
        process.stop();
        process.close_stdin();
        assert_eq!(process.exited(), None);
        process.go_on();
        assert!(process.exit_within(SOON).await.success());
    }
}
