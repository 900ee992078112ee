//! Tools that tell or ask their client something while they run: log lines, progress, samples, elicitations.
use std::time::Duration;

use rmcp::model::{
    CreateMessageRequestParams, ElicitRequest, JsonObject, LoggingLevel, LoggingMessageNotificationParam,
    ProgressNotificationParam, ServerRequest,
};
use rmcp::service::{RequestContext, ServiceError};
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};

use crate::contents::{made, text, wrong};

type Context = RequestContext<RoleServer>;

fn lost(why: ServiceError) -> ErrorData {
    match why {
        ServiceError::McpError(error) => error,
        other => ErrorData::internal_error(other.to_string(), None),
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// A log line, where the client wants one: in the modern era each request says so (2026-07-28, *Logging*).
async fn log(context: &Context, line: &str) -> Result<(), ErrorData> {
    if context.meta.protocol_version().is_some() && context.meta.log_level().is_none() {
        return Ok(());
    }
    let line = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(line));
    context.peer.notify_logging_message(line).await.map_err(lost)
}

async fn progress(context: &Context) -> Result<(), ErrorData> {
    for done in [0.0, 50.0, 100.0] {
        if let Some(token) = context.meta.get_progress_token() {
            let told = ProgressNotificationParam::new(token, done).with_total(100.0);
            context.peer.notify_progress(told).await.map_err(lost)?;
        }
        pause().await;
    }
    Ok(())
}

async fn sample(context: &Context, prompt: &str) -> Result<Value, ErrorData> {
    let asked = json!({"messages": [{"role": "user", "content": {"type": "text", "text": prompt}}], "maxTokens": 100});
    let asked: CreateMessageRequestParams = made(asked)?;
    let answer = context.peer.create_message(asked).await.map_err(lost)?;
    let answer = serde_json::to_value(answer).map_err(wrong)?;
    Ok(text(&format!("LLM response: {}", answer["content"]["text"].as_str().unwrap_or_default())))
}

async fn elicit(context: &Context, lead: &str, message: &str, schema: Value) -> Result<Value, ErrorData> {
    let asked = json!({"mode": "form", "message": message, "requestedSchema": schema});
    let asked: ElicitRequest = made(json!({"method": "elicitation/create", "params": asked}))?;
    let answer = context.peer.send_request(ServerRequest::ElicitRequest(asked)).await.map_err(lost)?;
    let answer = serde_json::to_value(answer).map_err(wrong)?;
    let action = answer["action"].as_str().unwrap_or_default();
    Ok(text(&format!("{lead}: action={action}, content={}", answer["content"])))
}

fn username_and_email() -> Value {
    json!({"type": "object", "required": ["username", "email"], "properties": {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }})
}

fn defaults() -> Value {
    json!({"type": "object", "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": true},
    }})
}

fn enums() -> Value {
    let options = ["option1", "option2", "option3"];
    let titled = |titles: [&str; 3]| {
        let values = ["value1", "value2", "value3"].into_iter().zip(titles);
        values.map(|(value, title)| json!({"const": value, "title": title})).collect::<Vec<_>>()
    };
    json!({"type": "object", "properties": {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled(["First Option", "Second Option", "Third Option"])},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled(["First Choice", "Second Choice", "Third Choice"])}},
    }})
}

/// What a tool says; `None`: it is another kind of tool.
pub(crate) async fn call(
    name: &str,
    arguments: &JsonObject,
    context: &Context,
) -> Result<Option<Value>, ErrorData> {
    let argument = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
    let told = match name {
        "test_tool_with_logging" => {
            for line in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                log(context, line).await?;
                pause().await;
            }
            text("logged")
        }
        "test_logging_tool" => {
            log(context, "a line").await?;
            text("logged where it was wanted")
        }
        "test_tool_with_progress" => {
            progress(context).await?;
            text("done")
        }
        "test_sampling" => sample(context, argument("prompt")).await?,
        "test_elicitation" => {
            elicit(context, "User response", argument("message"), username_and_email()).await?
        }
        "test_elicitation_sep1034_defaults" => {
            elicit(context, "Elicitation completed", "Please check these", defaults()).await?
        }
        "test_elicitation_sep1330_enums" => {
            elicit(context, "Elicitation completed", "Please choose", enums()).await?
        }
        _ => return Ok(None),
    };
    Ok(Some(told))
}
