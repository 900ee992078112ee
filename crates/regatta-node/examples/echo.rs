//! One tool, `echo`, on a node; `--plain PORT` serves the same handler with `rmcp` alone and one thread: what a node costs is
//! measured against it (bench/figures/node.py).
use std::convert::Infallible;
use std::sync::Arc;

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

struct Echo;

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = call.arguments.unwrap_or_default().remove("text").unwrap_or_default();
        Ok(CallToolResult::success(vec![ContentBlock::text(text.as_str().unwrap_or_default())]).into())
    }
}

async fn plain(port: &str) -> Result<(), String> {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.map_err(|why| why.to_string())?;
    let config = StreamableHttpServerConfig::default().with_json_response(true);
    let service = StreamableHttpService::new(|| Ok(Echo), Arc::new(LocalSessionManager::default()), config);
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

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ["--plain", port] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        return Node::named("echo").run(|| Echo);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|why| why.to_string())?;
    runtime.block_on(async {
        tokio::select! {
            ended = plain(port) => ended,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}
