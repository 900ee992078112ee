//! Connections: taken as long as the node's door is open, and closed in order when it leaves.
//!
//! HTTP/1.1 only, one task a connection; knows no MCP.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::ServerHandler;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bound::BUFFER_MAX;
use crate::drain::{Phase, phase_reached};
use crate::serve::{self, Shared};
use crate::stall::Unstalled;

/// How long a connection that is taken while the node drains may be silent: it is there for one request.
const LATE_SILENCE_MAX: Duration = Duration::from_secs(1);

/// The connections of a node.
pub(crate) struct Connections {
    free: Arc<Semaphore>,
    max: u32,
}

impl Connections {
    pub(crate) fn new(max: usize) -> Connections {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        Connections { free: Arc::new(Semaphore::new(max as usize)), max }
    }

    /// Takes connections until the phase is [`Phase::Closed`].
    pub(crate) async fn accept<H: ServerHandler>(&self, listener: TcpListener, shared: Arc<Shared<H>>) {
        let mut phases = shared.fleet.drain.phases();
        let mut closed = pin!(phase_reached(&mut phases, Phase::Closed));
        loop {
            let accepted = async {
                let permit = self.free.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                () = &mut closed => break,
            };
            match accepted {
                (Ok(permit), Ok((socket, _))) => _ = tokio::spawn(serve_one(socket, shared.clone(), permit)),
                (Err(_), _) => return,
                // Out of descriptors, most likely: some will be given back.
                (_, Err(why)) => {
                    tracing::warn!(%why, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        if let Err(why) = self.take_the_rest(listener, &shared) {
            tracing::warn!(%why, "connections that waited to be accepted are reset");
        }
    }

    /// Who has connected already is served: closing the listener would reset them. The system is asked itself, since the
    /// runtime may not have looked yet.
    fn take_the_rest<H: ServerHandler>(
        &self,
        listener: TcpListener,
        shared: &Arc<Shared<H>>,
    ) -> std::io::Result<()> {
        let listener = listener.into_std()?;
        loop {
            let Ok(permit) = self.free.clone().try_acquire_owned() else { return Ok(()) };
            match listener.accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(true)?;
                    tokio::spawn(serve_one(TcpStream::from_std(socket)?, shared.clone(), permit));
                }
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why),
            }
        }
    }

    /// Returns when none is open, and nobody takes any.
    pub(crate) async fn all_closed(&self) {
        let _ = self.free.acquire_many(self.max).await;
    }

    /// Those that are open.
    pub(crate) fn number(&self) -> usize {
        self.max as usize - self.free.available_permits()
    }
}

async fn serve_one<H: ServerHandler>(
    socket: TcpStream,
    shared: Arc<Shared<H>>,
    _permit: OwnedSemaphorePermit,
) {
    let _ = socket.set_nodelay(true);
    let mut phases = shared.fleet.drain.phases();
    let silence = Duration::from_secs(shared.settings.keep_alive_s.max(1));
    let (keep_alive, silence) = match shared.fleet.drain.phase() {
        Phase::Serving | Phase::Notice => (shared.settings.keep_alive_s > 0, silence),
        Phase::Draining | Phase::Closed | Phase::LastWords | Phase::Over => (false, LATE_SILENCE_MAX),
    };
    let patience = Duration::from_secs(shared.settings.write_timeout_s);
    let socket = Unstalled::new(socket, patience, shared.stalled.clone());
    let service = service_fn(move |request| serve::answer(shared.clone(), request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        .header_read_timeout(silence)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let mut served = pin!(served);
    tokio::select! {
        // How a connection ends is the client's business.
        _ = served.as_mut() => return,
        // Idle ones are kept until nobody knows this node any more: who uses one meanwhile is answered, not reset.
        () = phase_reached(&mut phases, Phase::Over) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}
