//! The demo server: a small MCP server of both eras, written by hand over hyper.
//!
//! A stand-in for a replica in `regatta up`, in tests and in benchmarks. It keeps everything in its own memory and
//! shares nothing with its siblings, so a session, a counter and a `requestState` belong to one process, as with most
//! real servers. It uses no part of the gateway: what it accepts and refuses is its own reading of the specification.

mod batch;
mod catalogue;
mod endpoint;
mod hub;
mod legacy;
mod modern;
mod seal;
mod session;
mod slow;
mod stream;
mod tools;
mod wire;

use hub::Hub;
use hyper_util::rt::{TokioIo, TokioTimer};
use session::Sessions;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};

/// Which eras a demo server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Eras {
    /// `initialize` and `Mcp-Session-Id` only.
    Legacy,
    /// Per-request `_meta` only.
    Modern,
    /// Both, decided per request.
    Dual,
}

/// How a demo server runs.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Where to listen; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Which eras to speak.
    pub eras: Eras,
    /// End when stdin ends.
    pub exit_with_stdin: bool,
}

/// What all requests of one process share.
pub(crate) struct State {
    eras: Eras,
    port: u16,
    sessions: Sessions,
    hub: Hub,
    seal: seal::Seal,
    /// The modern era's `counter` counts per process.
    calls: AtomicU64,
}

/// Listens, says so on stdout, and serves until SIGTERM, SIGINT or the end of stdin.
pub async fn run(settings: Settings) -> std::io::Result<()> {
    let listener = listen(settings.address)?;
    let address = listener.local_addr()?;
    let state = Arc::new(State {
        eras: settings.eras,
        port: address.port(),
        sessions: Sessions::default(),
        hub: Hub::default(),
        seal: seal::Seal::random(),
        calls: AtomicU64::new(0),
    });
    println!("listening http://{address}/mcp");
    tokio::spawn(hub::tick(state.clone()));
    tokio::select! {
        () = accept(listener, state.clone()) => {}
        () = ended(settings.exit_with_stdin) => {}
    }
    // Listen streams end with their result (M-SUB, Graceful Closure); give the bytes a moment to leave.
    state.hub.close();
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    // `TcpListener::bind` has a backlog of 128, too short for a reconnect storm.
    socket.listen(4096)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // Out of file descriptors: let connections end before trying again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let state = state.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| endpoint::serve(state.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(120))
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

async fn ended(with_stdin: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    if with_stdin {
        // A plain thread, because a blocked read of stdin must not keep the runtime from ending.
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while std::io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
            let _ = tell.send(());
        });
    } else {
        std::mem::forget(tell);
    }
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        let _ = told.await;
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = told => {}
    }
}
