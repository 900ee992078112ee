//! A node that shows what it knows of its caller's session, wherever that began: `client`, `level`; and with tools that take
//! their time: `progress`, `steps`, `slow`, and `stuck`, which holds a thread.
#![expect(deprecated, reason = "legacy clients set a log level still")]

use std::time::Duration;

use regatta_node::{Node, Session};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject,
    ProgressNotificationParam, ServerCapabilities, ServerConfig, SetLevelRequestParams,
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
            "steps" => steps(&call.arguments.unwrap_or_default(), &context).await?,
            "slow" => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                String::new()
            }
            "stuck" => {
                let held = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(3600)));
                held.await.map_err(internal)?;
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
        context.peer.notify_progress(half).await.map_err(internal)?;
    }
    Ok("done".to_owned())
}

/// Tells of `number` steps, each with `bytes` of text and `pause_ms` after it.
async fn steps(arguments: &JsonObject, context: &RequestContext<RoleServer>) -> Result<String, ErrorData> {
    let number = |name| arguments.get(name).and_then(|number| number.as_u64()).unwrap_or_default();
    let text = "x".repeat(usize::try_from(number("bytes")).map_err(internal)?);
    for step in 1..=number("number") {
        if let Some(token) = context.meta.get_progress_token() {
            let told = ProgressNotificationParam::new(token, step as f64).with_message(text.clone());
            context.peer.notify_progress(told).await.map_err(internal)?;
        }
        tokio::time::sleep(Duration::from_millis(number("pause_ms"))).await;
    }
    Ok("done".to_owned())
}

fn internal(why: impl ToString) -> ErrorData {
    ErrorData::internal_error(why.to_string(), None)
}

fn main() -> Result<(), regatta_node::NotStarted> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    Node::named("mirror").version(env!("CARGO_PKG_VERSION")).run(|| Mirror)
}
