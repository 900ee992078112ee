//! `fp`: a TCP proxy in user space that hurts connections as told, switchable while they live.
//!
//! Stands on any edge (client to gateway, gateway to replica). Counts of bytes start when a connection opens and again
//! when the mode changes. Knows no HTTP.

use socket2::SockRef;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Towards the server.
    Up,
    /// Towards the client.
    Down,
}

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// Every chunk waits `by`, more or less `jitter`, in both ways.
    Delay {
        /// The middle.
        by: Duration,
        /// At most this much less or more.
        jitter: Duration,
    },
    /// At most so many bytes a second, in each way.
    Bandwidth(u64),
    /// Connections are accepted; nothing is read.
    Blackhole,
    /// After so many bytes that way, no more go that way.
    StallAfter(Way, u64),
    /// After so many bytes that way, both sides are reset.
    ResetAfter(Way, u64),
    /// After so many bytes that way, that way ends with FIN; the other goes on.
    FinAfter(Way, u64),
    /// The request goes up; at the first byte of the answer the client's side is reset.
    DropReply,
    /// Nobody listens, and what was open is reset.
    Refuse,
    /// Every byte is a write of its own.
    Split,
}

/// A running proxy. Dropping it closes everything.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    open: AtomicUsize,
}

impl FaultProxy {
    /// Listens on a port of the system's choice and passes to `upstream`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = listener.local_addr().expect("a bound socket has an address");
        let (mode, watch) = watch::channel(Mode::Pass);
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(serve(listener, upstream, watch, counts.clone()));
        FaultProxy { address, mode, counts, task }
    }

    /// In front of the server at `url` (`http://HOST:PORT/PATH`).
    pub async fn before(url: &str) -> Self {
        Self::start(crate::client::address_of(url)).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://…/mcp` of the proxy.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Switches, for open connections as well.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Connections accepted so far.
    pub fn opened(&self) -> u64 {
        self.counts.opened.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let listen = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(1024)
    };
    listen().unwrap_or_else(|error: std::io::Error| panic!("cannot listen on {address}: {error}"))
}

async fn serve(
    first: TcpListener,
    upstream: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    counts: Arc<Counts>,
) {
    let address = first.local_addr().expect("a bound socket has an address");
    let mut listener = Some(first);
    let mut connections = JoinSet::new();
    loop {
        let refuse = *mode.borrow_and_update() == Mode::Refuse;
        match (refuse, &listener) {
            (true, Some(_)) => listener = None,
            (false, None) => listener = Some(listen(address)),
            _ => {}
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            accepted = accepted => if let Ok((client, _)) = accepted {
                counts.opened.fetch_add(1, Ordering::Relaxed);
                connections.spawn(connection(client, upstream, mode.clone(), counts.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(
    mut client: TcpStream,
    upstream: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    counts: Arc<Counts>,
) {
    counts.open.fetch_add(1, Ordering::Relaxed);
    let _open = Open(counts);
    while *mode.borrow_and_update() == Mode::Blackhole {
        if mode.changed().await.is_err() {
            return;
        }
    }
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        reset(&client);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let outcome = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let up = Pump { way: Way::Up, from: client_read, to: server_write, mode: mode.clone(), count: 0 };
        let down = Pump { way: Way::Down, from: server_read, to: client_write, mode, count: 0 };
        tokio::try_join!(up.run(), down.run())
    };
    if outcome.is_err() {
        reset(&client);
        reset(&server);
    }
}

/// With a linger of zero the close sends RST.
pub(crate) fn reset(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

struct Reset;

struct Pump<'a> {
    way: Way,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    mode: watch::Receiver<Mode>,
    count: u64,
}

impl Pump<'_> {
    async fn run(mut self) -> Result<(), Reset> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let mode = *self.mode.borrow_and_update();
            if mode == Mode::Refuse {
                return Err(Reset);
            }
            if self.must_not_read(mode) {
                self.changed().await?;
                continue;
            }
            let room = self.room(mode, buffer.len());
            let read = tokio::select! {
                read = self.from.read(&mut buffer[..room]) => read.map_err(|_| Reset)?,
                changed = self.mode.changed() => {
                    changed.map_err(|_| Reset)?;
                    self.count = 0;
                    continue;
                }
            };
            if read == 0 {
                let _ = self.to.shutdown().await;
                return Ok(());
            }
            if !self.forward(mode, &buffer[..read]).await? {
                return Ok(());
            }
        }
    }

    fn must_not_read(&self, mode: Mode) -> bool {
        match mode {
            Mode::Blackhole => true,
            Mode::StallAfter(way, after) => way == self.way && after <= self.count,
            _ => false,
        }
    }

    /// What a stall holds back stays unread, so that it is not lost when the stall ends.
    fn room(&self, mode: Mode, size: usize) -> usize {
        match mode {
            Mode::StallAfter(way, after) if way == self.way => {
                usize::try_from(after.saturating_sub(self.count)).map_or(size, |left| left.min(size))
            }
            _ => size,
        }
    }

    async fn changed(&mut self) -> Result<(), Reset> {
        self.count = 0;
        self.mode.changed().await.map_err(|_| Reset)
    }

    /// Whether this way goes on.
    async fn forward(&mut self, mode: Mode, bytes: &[u8]) -> Result<bool, Reset> {
        match mode {
            Mode::DropReply if self.way == Way::Down => Err(Reset),
            Mode::ResetAfter(way, after) if way == self.way => {
                if self.write_until(after, bytes).await? {
                    Err(Reset)
                } else {
                    Ok(true)
                }
            }
            Mode::FinAfter(way, after) if way == self.way => {
                if !self.write_until(after, bytes).await? {
                    return Ok(true);
                }
                let _ = self.to.shutdown().await;
                Ok(false)
            }
            Mode::Delay { by, jitter } => {
                tokio::time::sleep(jittered(by, jitter)).await;
                self.write(bytes).await.map(|()| true)
            }
            Mode::Bandwidth(rate) => {
                for part in bytes.chunks(usize::try_from(rate / 50).unwrap_or(usize::MAX).max(1)) {
                    let wait = Duration::from_secs_f64(part.len() as f64 / rate.max(1) as f64);
                    tokio::time::sleep(wait).await;
                    self.write(part).await?;
                }
                Ok(true)
            }
            Mode::Split => {
                for byte in bytes {
                    self.write(std::slice::from_ref(byte)).await?;
                }
                Ok(true)
            }
            _ => self.write(bytes).await.map(|()| true),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Reset> {
        self.count += bytes.len() as u64;
        self.to.write_all(bytes).await.map_err(|_| Reset)
    }

    /// Writes what the limit lets through; says whether the limit is reached.
    async fn write_until(&mut self, limit: u64, bytes: &[u8]) -> Result<bool, Reset> {
        let left = usize::try_from(limit.saturating_sub(self.count)).unwrap_or(usize::MAX);
        self.write(&bytes[..bytes.len().min(left)]).await?;
        Ok(limit <= self.count)
    }
}

/// Repeatable: a fixed walk, not dice.
fn jittered(by: Duration, jitter: Duration) -> Duration {
    static STEP: AtomicU64 = AtomicU64::new(1);
    let step = STEP.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let share = (step >> 40) as f64 / f64::from(1 << 24);
    (by + jitter.mul_f64(2.0 * share)).saturating_sub(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    const SOON: Duration = Duration::from_secs(10);

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn say(socket: &mut TcpStream, text: &str) -> std::io::Result<String> {
        socket.write_all(text.as_bytes()).await?;
        let mut buffer = vec![0; text.len()];
        socket.read_exact(&mut buffer).await?;
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }

    #[tokio::test]
    async fn passes_stalls_and_goes_on_without_loss() {
        let proxy = FaultProxy::start(echo().await).await;
        let mut socket = TcpStream::connect(proxy.address()).await.expect("connects");
        assert_eq!(say(&mut socket, "hello").await.expect("passes"), "hello");
        proxy.set(Mode::StallAfter(Way::Down, 2));
        socket.write_all(b"world").await.expect("goes up");
        let mut two = [0; 2];
        socket.read_exact(&mut two).await.expect("two bytes come");
        let rest = tokio::time::timeout(Duration::from_millis(50), socket.read_u8()).await;
        assert!(rest.is_err(), "the third byte stays");
        proxy.set(Mode::Split);
        let mut three = [0; 3];
        socket.read_exact(&mut three).await.expect("the rest comes");
        assert_eq!(&three, b"rld");
    }

    #[tokio::test]
    async fn resets_after_so_many_bytes() {
        let proxy = FaultProxy::start(echo().await).await;
        proxy.set(Mode::ResetAfter(Way::Down, 3));
        let mut socket = TcpStream::connect(proxy.address()).await.expect("connects");
        socket.write_all(b"hello").await.expect("goes up");
        let mut all = Vec::new();
        let error = socket.read_to_end(&mut all).await.expect_err("is reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn refuses_and_listens_again_on_the_same_port() {
        let proxy = FaultProxy::start(echo().await).await;
        let mut socket = TcpStream::connect(proxy.address()).await.expect("connects");
        assert!(say(&mut socket, "x").await.is_ok());
        proxy.set(Mode::Refuse);
        eventually("nobody listens", SOON, async || TcpStream::connect(proxy.address()).await.err()).await;
        assert!(say(&mut socket, "x").await.is_err(), "open connections are cut");
        proxy.set(Mode::Pass);
        let again = async || TcpStream::connect(proxy.address()).await.ok();
        let mut socket = eventually("it listens again", SOON, again).await;
        assert_eq!(say(&mut socket, "y").await.expect("passes"), "y");
    }

    #[tokio::test]
    async fn a_blackhole_takes_connections_and_says_nothing_until_it_ends() {
        let proxy = FaultProxy::start(echo().await).await;
        proxy.set(Mode::Blackhole);
        let mut socket = TcpStream::connect(proxy.address()).await.expect("connects");
        let nothing = tokio::time::timeout(Duration::from_millis(50), say(&mut socket, "x")).await;
        assert!(nothing.is_err());
        proxy.set(Mode::Pass);
        assert_eq!(socket.read_u8().await.expect("goes on"), b'x');
    }

    #[tokio::test]
    async fn delays_and_ends_one_way_only() {
        let proxy = FaultProxy::start(echo().await).await;
        let by = Duration::from_millis(30);
        proxy.set(Mode::Delay { by, jitter: Duration::from_millis(5) });
        let mut socket = TcpStream::connect(proxy.address()).await.expect("connects");
        let start = std::time::Instant::now();
        assert_eq!(say(&mut socket, "x").await.expect("passes"), "x");
        assert!(Duration::from_millis(50) <= start.elapsed(), "once up and once down");
        proxy.set(Mode::FinAfter(Way::Down, 2));
        socket.write_all(b"hello").await.expect("goes up");
        let mut all = String::new();
        socket.read_to_string(&mut all).await.expect("ends in order");
        assert_eq!(all, "he");
    }
}
