//! Common and specialised tools: `where` is on every node, `shard_1` to `shard_3` each on a third of them, `render` where the
//! label `gpu=yes` is, `price` is kept for a minute. Start it three times with `REGATTA_NODE_NODE_ID=jobs-0` to `jobs-2`.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use regatta_node::{Node, On, Shared};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

struct Jobs;

/// How often `price` was worked out.
static WORKED_OUT: AtomicU64 = AtomicU64::new(0);

const TOOLS: [&str; 6] = ["price", "render", "shard_1", "shard_2", "shard_3", "where"];

impl ServerHandler for Jobs {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let any = JsonObject::from_iter([("type".to_owned(), "object".into())]);
        let tools = TOOLS.map(|name| Tool::new(name, "says where it ran", any.clone()));
        Ok(ListToolsResult::with_all_items(tools.to_vec()))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if !TOOLS.contains(&&*call.name) {
            return Err(ErrorData::invalid_params(format!("no tool {}", call.name), None));
        }
        let said = if call.name == "price" {
            (WORKED_OUT.fetch_add(1, Relaxed) + 1).to_string()
        } else {
            std::env::var("REGATTA_NODE_NODE_ID").unwrap_or_default()
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(said)]).into())
    }
}

fn main() -> Result<(), regatta_node::NotStarted> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    Node::named("jobs")
        .tool_on("shard_1", On::shard(1, 3))
        .tool_on("shard_2", On::shard(2, 3))
        .tool_on("shard_3", On::shard(3, 3))
        .tool_on("render", On::label("gpu", "yes"))
        .cached("price", Duration::from_secs(60), Shared::Public)
        .run(|| Jobs)
}
