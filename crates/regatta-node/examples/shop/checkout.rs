//! `checkout`: an order that needs an address. A client of the legacy era is asked while the call runs, one of the modern era
//! in a result, and calls again with its answer (2026-07-28 basic/patterns/mrtr). Draft and order are a line each.

use regatta_node::{handles, session_data};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ElicitRequest, JsonObject,
    ProgressNotificationParam, ServerRequest,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{pause, place_order, text, wrong};

type Context = RequestContext<RoleServer>;

/// What its states are about, so that none opens elsewhere.
const ABOUT: &str = "checkout";

fn made<T: DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(wrong)
}

fn question(number: &str) -> Value {
    let schema =
        json!({"type": "object", "properties": {"address": {"type": "string"}}, "required": ["address"]});
    json!({"mode": "form", "message": format!("Where does order {number} go?"), "requestedSchema": schema})
}

async fn progress(context: &Context) -> Result<(), ErrorData> {
    let Some(token) = context.meta.get_progress_token() else { return Ok(()) };
    context.peer.notify_progress(ProgressNotificationParam::new(token, 0.5)).await.map_err(wrong)
}

async fn place(number: &str, arguments: &JsonObject, answer: &Value) -> Result<CallToolResponse, ErrorData> {
    let Some(address) = answer["content"]["address"].as_str() else {
        return Ok(CallToolResult::success(vec![ContentBlock::text("not placed")]).into());
    };
    place_order(number, &[address.to_owned()]).map_err(wrong)?;
    pause(arguments).await;
    let told = format!("order {number} goes to {address}");
    Ok(CallToolResult::success(vec![ContentBlock::text(told)]).into())
}

pub(crate) async fn call(
    request: CallToolRequestParams,
    context: &Context,
) -> Result<CallToolResponse, ErrorData> {
    let arguments = request.arguments.unwrap_or_default();
    let number = text(&arguments, "number")?;
    let handles = handles(&context.extensions).ok_or_else(|| wrong("no node"))?;
    if let Some(state) = request.request_state {
        let drafted: Option<String> = handles.open_state(ABOUT, &state).await.map_err(wrong)?;
        if drafted.as_deref() != Some(number) {
            return Err(wrong("requestState is of no draft of this order"));
        }
        progress(context).await?;
        let answer = request.input_responses.unwrap_or_default().remove("address");
        return place(number, &arguments, &json!(answer)).await;
    }
    place_order(&format!("draft-{number}"), &[]).map_err(wrong)?;
    if session_data(&context.extensions).is_some() {
        progress(context).await?;
        let asked: ElicitRequest = made(json!({"method": "elicitation/create", "params": question(number)}))?;
        let answer = context.peer.send_request(ServerRequest::ElicitRequest(asked)).await.map_err(wrong)?;
        return place(number, &arguments, &serde_json::to_value(answer).map_err(wrong)?).await;
    }
    let asked = json!({"address": {"method": "elicitation/create", "params": question(number)}});
    let state = handles.seal_state(ABOUT, &number).map_err(wrong)?;
    let result = json!({"resultType": "input_required", "inputRequests": asked, "requestState": state});
    Ok(CallToolResponse::InputRequired(made(result)?))
}
