//! The handler: the same on a node and on `rmcp` alone. On a node its states open at every node and its news reach all.
use regatta_node::{Change, announcer, handles};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, CompleteRequestParams,
    CompleteResult, ErrorCode, GetPromptRequestParams, GetPromptResponse, GetPromptResult, Implementation,
    InputRequiredResult, InputResponses, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
    ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse,
    ReadResourceResult, ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams,
    SubscriptionFilter, UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};

use crate::contents::{list, made, result, text, wrong};
use crate::rounds::{Brought, Said};
use crate::{asking, contents, plain, rounds};

type Context = RequestContext<RoleServer>;

pub(crate) struct Everything;

/// What states are for, so that none opens elsewhere.
const ABOUT: &str = "rounds";

async fn seal(context: &Context, step: &str) -> Result<String, ErrorData> {
    match handles(&context.extensions) {
        Some(handles) => handles.seal_state(ABOUT, &step).map_err(wrong),
        None => Ok(plain::seal(step)),
    }
}

async fn open(context: &Context, state: &str) -> Result<String, ErrorData> {
    let opened = match handles(&context.extensions) {
        Some(handles) => handles.open_state(ABOUT, state).await.map_err(wrong)?,
        None => plain::open(state),
    };
    opened.ok_or_else(|| wrong("requestState is none of this server's, or was changed"))
}

async fn brought(context: &Context, answers: Option<InputResponses>, state: Option<String>) -> Brought {
    let state = match state {
        Some(state) => Some(open(context, &state).await),
        None => None,
    };
    let can = context.client_capabilities().unwrap_or_default();
    Brought { answers: answers.unwrap_or_default(), state, can }
}

async fn asked(
    context: &Context,
    questions: Value,
    state: Option<&str>,
) -> Result<InputRequiredResult, ErrorData> {
    let mut result = json!({"resultType": "input_required", "inputRequests": questions});
    if let Some(step) = state {
        result["requestState"] = seal(context, step).await?.into();
    }
    made(result)
}

async fn tell(context: &Context, change: Change) -> Result<Value, ErrorData> {
    match announcer(&context.extensions) {
        Some(announcer) => announcer.tell(change).await.map_err(wrong)?,
        None => plain::tell(change),
    }
    Ok(text("told"))
}

/// A tool that changes something, or needs what the client may not have.
async fn other_tool(name: &str, context: &Context) -> Result<Value, ErrorData> {
    match name {
        "test_trigger_tool_change" => tell(context, Change::Tools).await,
        "test_trigger_prompt_change" => tell(context, Change::Prompts).await,
        "test_trigger_resource_change" => {
            tell(context, Change::Resource("test://watched-resource".to_owned())).await
        }
        "test_missing_capability" => {
            let needed = ClientCapabilities::builder().enable_sampling().build();
            let can = context.client_capabilities().unwrap_or_default();
            let lacking = || ErrorData::missing_required_client_capability(needed);
            can.sampling.map(|_| text("sampling could be used")).ok_or_else(lacking)
        }
        other => Err(wrong(format!("no tool {other}"))),
    }
}

impl ServerHandler for Everything {
    fn get_info(&self) -> ServerConfig {
        let can = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_logging()
            .enable_completions()
            .build();
        ServerConfig::new(can).with_server_info(Implementation::new("everything", env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        list("tools")
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        if let Some(told) = contents::of_tool(&call.name) {
            return Ok(result::<CallToolResult>(told)?.into());
        }
        let arguments = call.arguments.unwrap_or_default();
        if let Some(told) = asking::call(&call.name, &arguments, &context).await? {
            return Ok(result::<CallToolResult>(told)?.into());
        }
        let brought = brought(&context, call.input_responses, call.request_state).await;
        match rounds::of_tool(&call.name, &brought)? {
            Some(Said::Ask(questions, state)) => Ok(asked(&context, questions, state).await?.into()),
            Some(Said::Done(told)) => Ok(result::<CallToolResult>(told)?.into()),
            None => Ok(result::<CallToolResult>(other_tool(&call.name, &context).await?)?.into()),
        }
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        list("prompts")
    }

    async fn get_prompt(
        &self,
        asked_for: GetPromptRequestParams,
        context: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        let arguments = asked_for.arguments.unwrap_or_default();
        let argument =
            |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(told) = contents::of_prompt(&asked_for.name, argument) {
            return Ok(result::<GetPromptResult>(told)?.into());
        }
        if asked_for.name != "test_input_required_result_prompt" {
            return Err(wrong(format!("no prompt {}", asked_for.name)));
        }
        let brought = brought(&context, asked_for.input_responses, asked_for.request_state).await;
        match rounds::of_prompt(&brought)? {
            Said::Ask(questions, state) => Ok(asked(&context, questions, state).await?.into()),
            Said::Done(told) => Ok(result::<GetPromptResult>(told)?.into()),
        }
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        list("resources")
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        list("resourceTemplates")
    }

    async fn read_resource(
        &self,
        read: ReadResourceRequestParams,
        _: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let told = contents::of_resource(&read.uri);
        // `rmcp` says it with the code of the era (2025-11-25 and 2026-07-28, *Error Handling*).
        let unknown = || {
            let uri = Some(json!({"uri": read.uri}));
            ErrorData::new(ErrorCode::RESOURCE_NOT_FOUND, "Resource not found", uri)
        };
        Ok(result::<ReadResourceResult>(told.ok_or_else(unknown)?)?.into())
    }

    async fn complete(&self, _: CompleteRequestParams, _: Context) -> Result<CompleteResult, ErrorData> {
        result(json!({"completion": {"values": ["paris", "park", "party"], "total": 3, "hasMore": false}}))
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, asked_for: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(asked_for.clone())
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        match announcer(&subscription.request_context().extensions) {
            Some(announcer) => announcer.carry(&subscription).await,
            None => plain::carry(&subscription).await,
        }
        Ok(())
    }
}
