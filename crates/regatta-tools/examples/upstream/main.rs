//! The upstream of the figures: an MCP server of both eras that costs as little as possible, so that it is never what is measured.
//!
//! It answers `tools/call` of `echo` (JSON), `echo_sse` (one event) and `events` (a stream of progress), accepts any session unless
//! `--strict`, and can write each executed operation to a journal before it answers. Not a server for anyone's use: `regatta demo` is.

mod answers;
mod request;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use answers::Reply;
use clap::Parser;
use request::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};

#[derive(Parser)]
struct Typed {
    /// Address to listen on; port 0 takes a free one, which is printed
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Answer 404 to sessions that this process did not begin
    #[arg(long)]
    strict: bool,
    /// Append each executed operation to this file before it is answered
    #[arg(long)]
    journal: Option<PathBuf>,
    /// Write behind each operation in the journal when it began, in microseconds since 1970
    #[arg(long)]
    timed: bool,
    /// Milliseconds that each call takes
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Calls that run at once; more of them wait in line here. 0: all
    #[arg(long, default_value_t = 0)]
    workers: usize,
}

/// What all connections share.
pub struct Shared {
    strict: bool,
    timed: bool,
    delay: Duration,
    workers: Option<Semaphore>,
    journal: RefCell<Option<File>>,
    sessions: RefCell<HashSet<String>>,
    begun: Cell<u64>,
}

impl Shared {
    /// The id of a new session.
    pub fn begin_session(&self) -> String {
        self.begun.set(self.begun.get() + 1);
        let id = format!("{:08x}-bench-session-{:012x}", std::process::id(), self.begun.get());
        if self.strict {
            self.sessions.borrow_mut().insert(id.clone());
        }
        id
    }

    /// Whether a message in this session is refused.
    pub fn refuses(&self, session: Option<&str>) -> bool {
        self.strict && session.is_some_and(|id| !self.sessions.borrow().contains(id))
    }

    /// Notes that the operation that `text` names runs now.
    pub fn execute(&self, text: &str) -> io::Result<()> {
        let mut journal = self.journal.borrow_mut();
        let Some(journal) = journal.as_mut() else { return Ok(()) };
        let operation = text.trim_matches('"').split(' ').next().unwrap_or_default();
        let line = match self.timed {
            true => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                format!("{operation} {}\n", now.as_micros())
            }
            false => format!("{operation}\n"),
        };
        journal.write_all(line.as_bytes())
    }
}

fn main() -> io::Result<()> {
    let typed = Typed::parse();
    let journal = typed
        .journal
        .as_ref()
        .map(|path| File::options().create(true).append(true).open(path))
        .transpose()?;
    let shared = Rc::new(Shared {
        strict: typed.strict,
        timed: typed.timed,
        delay: Duration::from_millis(typed.delay_ms),
        workers: (typed.workers > 0).then(|| Semaphore::new(typed.workers)),
        journal: RefCell::new(journal),
        sessions: RefCell::default(),
        begun: Cell::new(0),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(accept(typed.listen, shared)))
}

async fn accept(address: SocketAddr, shared: Rc<Shared>) -> io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener: TcpListener = socket.listen(4096)?;
    println!("{}", listener.local_addr()?);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Rc::clone(&shared);
                spawn_local(async move {
                    // A peer that goes away in the middle is nothing that a bench upstream needs to tell.
                    let _ = serve(stream, &shared).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::with_capacity(4096);
    loop {
        let Some((request, length)) = request::read(&bytes)? else {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            continue;
        };
        match answer(&request, shared).await? {
            Reply::Whole(answer) => stream.write_all(&answer).await?,
            Reply::Standing(start) => return stand(stream, &start).await,
            Reply::Events { start, token, id, order } => {
                stream.write_all(&start).await?;
                for number in 1..=order.count {
                    if order.every_us > 0 {
                        tokio::time::sleep(Duration::from_micros(order.every_us)).await;
                    }
                    stream.write_all(&answers::progress(&token, number, order.bytes)).await?;
                }
                stream.write_all(&answers::last_event(&id)).await?;
            }
        }
        bytes.drain(..length);
    }
}

async fn answer(request: &Request<'_>, shared: &Shared) -> io::Result<Reply> {
    if !shared.delay.is_zero() && request.is_call() {
        let _worker = match &shared.workers {
            Some(workers) => workers.acquire().await.ok(),
            None => None,
        };
        tokio::time::sleep(shared.delay).await;
    }
    answers::answer(request, shared)
}

/// Holds a standing stream until the peer closes it.
async fn stand(mut stream: TcpStream, start: &[u8]) -> io::Result<()> {
    stream.write_all(start).await?;
    let mut byte = [0u8; 1];
    stream.read(&mut byte).await.map(drop)
}
