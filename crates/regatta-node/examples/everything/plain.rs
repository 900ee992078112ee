//! The same handler on `rmcp` alone, in one process: what a node is compared with.
use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::BuildHasher as _;
use std::sync::{Arc, LazyLock};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use regatta_node::{Change, forward};
use rmcp::service::SubscriptionContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use crate::handler::Everything;

/// A key of this process; good enough for a reference.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
static CHANGES: LazyLock<broadcast::Sender<Change>> = LazyLock::new(|| broadcast::channel(64).0);

pub(crate) fn seal(step: &str) -> String {
    format!("{step}.{:016x}", KEY.hash_one(step))
}

pub(crate) fn open(state: &str) -> Option<String> {
    let (step, _) = state.rsplit_once('.')?;
    (seal(step) == state).then(|| step.to_owned())
}

pub(crate) fn tell(change: Change) {
    // Nobody listens: nobody is to be told.
    let _ = CHANGES.send(change);
}

pub(crate) async fn carry(subscription: &SubscriptionContext) {
    let mut changes = CHANGES.subscribe();
    loop {
        tokio::select! {
            () = subscription.cancelled() => return,
            change = changes.recv() => match change {
                Ok(change) => forward(subscription.sink(), &change).await,
                Err(_) => return,
            },
        }
    }
}

#[tokio::main]
pub(crate) async fn serve(port: &str) -> Result<(), String> {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.map_err(|why| why.to_string())?;
    let mut config = StreamableHttpServerConfig::default();
    config.allowed_origins = ["localhost", "127.0.0.1"].map(|host| format!("http://{host}:*")).to_vec();
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(|| Ok(Everything), sessions, config);
    loop {
        let (socket, _) = listener.accept().await.map_err(|why| why.to_string())?;
        let service = service.clone();
        let answer = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.handle(request).await) }
        });
        tokio::spawn(async move {
            let serving =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), answer);
            // How a connection ends is the client's business.
            let _ = serving.await;
        });
    }
}
