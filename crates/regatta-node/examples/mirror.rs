//! A node that shows what it knows of its caller's session, wherever that began: `client`, `level`, `progress`, `slow`.
#![expect(deprecated, reason = "legacy clients set a log level still")]

use std::time::Duration;

use regatta_node::{Node, Session};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ProgressNotificationParam,
    ServerCapabilities, ServerConfig, SetLevelRequestParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

struct Mirror;

impl ServerHandler for Mirror {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_logging().build())
    }

    async fn set_level(
        &self,
        _: SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        // The node keeps it with the session.
        Ok(())
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let session = context.extensions.get::<Session>();
        let text = match &*call.name {
            "client" => context.client_info().map(|client| client.name).unwrap_or_default(),
            "level" => session.and_then(|session| session.record.level.clone()).unwrap_or_default(),
            "progress" => progress(&context).await?,
            "slow" => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                String::new()
            }
            other => return Err(ErrorData::invalid_params(format!("no tool {other}"), None)),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

async fn progress(context: &RequestContext<RoleServer>) -> Result<String, ErrorData> {
    if let Some(token) = context.meta.get_progress_token() {
        let half = ProgressNotificationParam::new(token, 0.5);
        let told = context.peer.notify_progress(half).await;
        told.map_err(|why| ErrorData::internal_error(why.to_string(), None))?;
    }
    Ok("done".to_owned())
}

fn main() -> Result<(), regatta_node::NotStarted> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    Node::named("mirror").version(env!("CARGO_PKG_VERSION")).run(|| Mirror)
}
