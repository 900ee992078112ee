//! One tool, `echo`, on a node, which answers after `ECHO_DELAY_MS`; `--sessions PORT` and `--stateless PORT` serve the same
//! handler with `rmcp` alone and one thread, with its sessions and without: what a node costs is measured against both
//! (bench/figures/node.py), and what it does when it is full by itself (node_queue.py).
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use regatta_node::Node;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use tokio::net::TcpListener;

struct Echo {
    delay: Duration,
}

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let text = call.arguments.unwrap_or_default().remove("text").unwrap_or_default();
        Ok(CallToolResult::success(vec![ContentBlock::text(text.as_str().unwrap_or_default())]).into())
    }
}

/// `rmcp` alone. With sessions it keeps a task for each, and answers a legacy call with a stream; without, in JSON.
async fn plain(port: &str, has_sessions: HasSessions) -> Result<(), String> {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.map_err(|why| why.to_string())?;
    let config = StreamableHttpServerConfig::default().with_json_response(true);
    let config = config.with_legacy_session_mode(matches!(has_sessions, HasSessions::Yes));
    let service = StreamableHttpService::new(
        || Ok(Echo { delay: Duration::ZERO }),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    loop {
        let (socket, _) = listener.accept().await.map_err(|why| why.to_string())?;
        // As a node does.
        let _ = socket.set_nodelay(true);
        let service = service.clone();
        let answer = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.handle(request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new());
        tokio::spawn(builder.serve_connection(TokioIo::new(socket), answer));
    }
}

#[derive(Clone, Copy)]
enum HasSessions {
    Yes,
    No,
}

fn main() -> Result<(), regatta_node::NotStarted> {
    // What the node says at its start; nothing of rmcp's, which would count as work.
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter("off,regatta_node=info").init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (port, has_sessions) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--sessions", port] => (port, HasSessions::Yes),
        ["--stateless", port] => (port, HasSessions::No),
        _ => {
            let delay = std::env::var("ECHO_DELAY_MS").ok().and_then(|ms| ms.parse().ok()).unwrap_or(0);
            return Node::named("echo").run(move || Echo { delay: Duration::from_millis(delay) });
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|why| why.to_string())?;
    runtime.block_on(async {
        tokio::select! {
            ended = plain(port, has_sessions) => Ok(ended?),
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}
