//! Listening sockets: bound with socket2, accepted from in turn.
//!
//! A failing accept never spins: want of file descriptors or memory backs off from 50 ms to 1 s and is logged at most
//! once a second (RELIABILITY F21); a connection that died in the backlog is skipped.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// Connections that the kernel may hold for us; capped by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Bound sockets that clients connect to.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    /// The socket that is asked first, so that a busy one cannot starve the others.
    turn: usize,
    back_off: Duration,
    logged: Option<Instant>,
}

impl Listener {
    /// Binds all of `addresses`; port 0 lets the kernel choose. Needs a tokio runtime with IO.
    ///
    /// # Errors
    /// The first address that cannot be bound; its text is in the error.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<Listener> {
        // `[::]` alone takes IPv4 as well; next to an IPv4 address it must not, or the two collide.
        let only_v6 = addresses.iter().any(SocketAddr::is_ipv4);
        let sockets = addresses.iter().map(|address| {
            bind_one(*address, only_v6)
                .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
        });
        Ok(Listener {
            sockets: sockets.collect::<io::Result<_>>()?,
            turn: 0,
            back_off: BACK_OFF_MIN,
            logged: None,
        })
    }

    /// The addresses that were bound, in the order given, with the ports that the kernel chose.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// The first bound address.
    ///
    /// # Errors
    /// Nothing is bound, or the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.sockets.first().ok_or(io::ErrorKind::AddrNotAvailable)?.local_addr()
    }

    /// The next connection of any socket. Cancel safe. `failed` is called for each failure that backs off.
    pub(super) async fn accept(&mut self, failed: impl Fn()) -> (TcpStream, SocketAddr) {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(accepted) => {
                    self.back_off = BACK_OFF_MIN;
                    return accepted;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    failed();
                    self.log(&error);
                    let pause = self.back_off;
                    self.back_off = (pause * 2).min(BACK_OFF_MAX);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.sockets.len();
        for offset in 0..count {
            let index = (self.turn + offset) % count;
            if let Poll::Ready(accepted) = self.sockets[index].poll_accept(cx) {
                self.turn = (index + 1) % count;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    fn log(&mut self, error: &io::Error) {
        let now = Instant::now();
        if self.logged.is_none_or(|logged| now - logged >= LOG_EVERY) {
            self.logged = Some(now);
            tracing::warn!(%error, "cannot accept connections, trying again");
        }
    }
}

fn bind_one(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Errors of a connection that ended before it was accepted (accept(2)): the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
