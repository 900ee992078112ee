//! The smallest node: one tool, `echo`. `REGATTA_NODE_STORE_URL=redis://127.0.0.1:6379` makes it one of many.
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities, ServerConfig,
};
use rmcp::{ErrorData, RoleServer, ServerHandler, service::RequestContext};

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

fn main() -> Result<(), regatta_node::NotStarted> {
    regatta_node::Node::named("echo").run(|| Echo)
}
