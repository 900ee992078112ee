//! What stands round every handler: tools that are not on this node are unknown here, results are kept where a rule says so,
//! and every call of a tool is timed.

#![expect(deprecated, reason = "clients of the legacy era set log levels and subscribe to resources")]

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CancelledNotificationParam,
    ClientJsonRpcMessage, ClientRequest, CompleteRequestParams, CompleteResult, CustomNotification,
    CustomRequest, CustomResult, DiscoverResult, ErrorData, GetPromptRequestParams, GetPromptResponse,
    GetSkillRequestParams, GetSkillResult, GetTaskParams, GetTaskResult, InitializeRequestParams,
    InitializeResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListSkillsResult,
    ListToolsRequest, ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion,
    ReadResourceDirectoryRequestParams, ReadResourceDirectoryResult, ReadResourceRequestParams,
    ReadResourceResponse, RequestId, ServerConfig, ServerJsonRpcMessage, ServerResult, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{NotificationContext, RequestContext, RoleServer, SubscriptionContext, serve_directly};
use rmcp::transport::OneshotTransport;

use crate::keeping::Keeping;
use crate::meters::Meters;
use crate::special::Placed;

/// Tools that a node reports.
const TOOLS_MAX: usize = 1024;

/// What a node knows of its tools.
#[derive(Default)]
pub(crate) struct Toolbox {
    /// Those that are on some nodes only.
    pub(crate) placed: Placed,
    pub(crate) keeping: Keeping,
    pub(crate) meters: Meters,
}

impl Toolbox {
    /// What `/metrics` tells of them, in the text format of Prometheus.
    pub(crate) fn write(&self, out: &mut String) {
        self.meters.write(out);
        for (tool, told) in self.keeping.tallies() {
            for (name, count) in [("hits", told.hits), ("misses", told.misses), ("passed", told.passed)] {
                // Writing into a text never fails.
                let _ = writeln!(out, "regatta_node_cache_{name}_total{{tool=\"{tool}\"}} {count}");
            }
        }
    }
}

/// A handler with what stands round it.
pub(crate) struct Shell<H> {
    handler: H,
    toolbox: Arc<Toolbox>,
}

impl<H: ServerHandler> Shell<H> {
    pub(crate) fn new(handler: H, toolbox: Arc<Toolbox>) -> Shell<H> {
        Shell { handler, toolbox }
    }
}

/// Methods that go to the handler as they are. A method that `rmcp` adds must be added here, or handlers are not asked.
macro_rules! to_the_handler {
    ($($name:ident($params:ty, $context:ty) -> $result:ty;)*) => {$(
        fn $name(
            &self,
            params: $params,
            context: $context,
        ) -> impl Future<Output = $result> + Send + '_ {
            self.handler.$name(params, context)
        }
    )*};
}

type Context = RequestContext<RoleServer>;
type Heard = NotificationContext<RoleServer>;
type Said<T> = Result<T, ErrorData>;

impl<H: ServerHandler> ServerHandler for Shell<H> {
    to_the_handler! {
        initialize(InitializeRequestParams, Context) -> Said<InitializeResult>;
        complete(CompleteRequestParams, Context) -> Said<CompleteResult>;
        set_level(SetLevelRequestParams, Context) -> Said<()>;
        get_prompt(GetPromptRequestParams, Context) -> Said<GetPromptResponse>;
        list_prompts(Option<PaginatedRequestParams>, Context) -> Said<ListPromptsResult>;
        list_resources(Option<PaginatedRequestParams>, Context) -> Said<ListResourcesResult>;
        list_resource_templates(Option<PaginatedRequestParams>, Context) -> Said<ListResourceTemplatesResult>;
        read_resource(ReadResourceRequestParams, Context) -> Said<ReadResourceResponse>;
        subscribe(SubscribeRequestParams, Context) -> Said<()>;
        unsubscribe(UnsubscribeRequestParams, Context) -> Said<()>;
        on_custom_request(CustomRequest, Context) -> Said<CustomResult>;
        get_task(GetTaskParams, Context) -> Said<GetTaskResult>;
        update_task(UpdateTaskParams, Context) -> Said<()>;
        cancel_task(CancelTaskParams, Context) -> Said<()>;
        list_skills(Option<PaginatedRequestParams>, Context) -> Said<ListSkillsResult>;
        get_skill(GetSkillRequestParams, Context) -> Said<GetSkillResult>;
        read_resource_directory(ReadResourceDirectoryRequestParams, Context) -> Said<ReadResourceDirectoryResult>;
        on_cancelled(CancelledNotificationParam, Heard) -> ();
        on_progress(ProgressNotificationParam, Heard) -> ();
        on_custom_notification(CustomNotification, Heard) -> ();
    }

    fn ping(&self, context: Context) -> impl Future<Output = Said<()>> + Send + '_ {
        self.handler.ping(context)
    }

    fn discover(&self, context: Context) -> impl Future<Output = Said<DiscoverResult>> + Send + '_ {
        self.handler.discover(context)
    }

    fn listen(&self, context: SubscriptionContext) -> impl Future<Output = Said<()>> + Send + '_ {
        self.handler.listen(context)
    }

    fn on_initialized(&self, context: Heard) -> impl Future<Output = ()> + Send + '_ {
        self.handler.on_initialized(context)
    }

    fn on_roots_list_changed(&self, context: Heard) -> impl Future<Output = ()> + Send + '_ {
        self.handler.on_roots_list_changed(context)
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        self.handler.accepted_subscription_filter(requested)
    }

    fn get_info(&self) -> ServerConfig {
        self.handler.get_info()
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.handler.supported_protocol_versions()
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.handler.get_tool(name).filter(|_| self.toolbox.placed.lists(name))
    }

    async fn list_tools(
        &self,
        page: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Said<ListToolsResult> {
        let mut list = self.handler.list_tools(page, context).await?;
        list.tools.retain(|tool| self.toolbox.placed.lists(&tool.name));
        Ok(list)
    }

    async fn call_tool(&self, call: CallToolRequestParams, context: Context) -> Said<CallToolResponse> {
        let tool = call.name.clone();
        if !self.toolbox.placed.serves(&tool) {
            return Err(ErrorData::invalid_params(format!("Unknown tool: {tool}"), None));
        }
        let begun = Instant::now();
        let result = match self.toolbox.keeping.rule(&tool) {
            Some(rule) => self.toolbox.keeping.call(rule, &self.handler, call, context).await,
            None => self.handler.call_tool(call, context).await,
        };
        self.toolbox.meters.note(&tool, begun.elapsed(), result.is_ok());
        result
    }
}

/// The names of all tools that a handler lists to nobody in particular.
///
/// # Errors
/// What the handler said instead, for a person.
pub(crate) async fn inventory<H: ServerHandler>(make: impl Fn() -> Shell<H>) -> Result<Vec<String>, String> {
    let (mut names, mut cursor) = (Vec::new(), None);
    loop {
        let page = cursor.take().map(|cursor| PaginatedRequestParams::default().with_cursor(Some(cursor)));
        let request = ListToolsRequest { params: page, ..ListToolsRequest::default() };
        let request =
            ClientJsonRpcMessage::request(ClientRequest::ListToolsRequest(request), RequestId::Number(0));
        let (transport, mut messages) = OneshotTransport::<RoleServer>::new(request);
        let service = serve_directly(make(), transport, None);
        let said = loop {
            match messages.recv().await {
                Some(ServerJsonRpcMessage::Notification(_) | ServerJsonRpcMessage::Request(_)) => {}
                said => break said,
            }
        };
        drop(service);
        let list = match said {
            Some(ServerJsonRpcMessage::Response(response)) => match response.result {
                ServerResult::ListToolsResult(list) => list,
                _ => return Err("tools/list was answered with something else".to_owned()),
            },
            Some(ServerJsonRpcMessage::Error(error)) => return Err(error.error.message.into_owned()),
            _ => return Err("tools/list was not answered".to_owned()),
        };
        names.extend(list.tools.into_iter().map(|tool| tool.name.into_owned()));
        if names.len() > TOOLS_MAX {
            return Err(format!("there are more than {TOOLS_MAX} tools"));
        }
        cursor = list.next_cursor;
        if cursor.is_none() {
            return Ok(names);
        }
    }
}
