//! What the tools, resources and prompts say, as JSON of the wire.
use rmcp::ErrorData;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A red pixel.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
/// A header without a sample.
const WAV: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA==";

/// Tools, resources, templates and prompts.
const CATALOGUE: &str = include_str!("catalogue.json");

pub(crate) fn wrong(why: impl ToString) -> ErrorData {
    ErrorData::invalid_params(why.to_string(), None)
}

/// A value of the wire as `rmcp` has it.
pub(crate) fn made<T: DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|why| ErrorData::internal_error(why.to_string(), None))
}

/// A whole result; `rmcp` takes `resultType` out again for clients that do not know it.
pub(crate) fn result<T: DeserializeOwned>(mut value: Value) -> Result<T, ErrorData> {
    value["resultType"] = "complete".into();
    made(value)
}

/// The list under `name`.
pub(crate) fn list<T: DeserializeOwned>(name: &str) -> Result<T, ErrorData> {
    let all: Value = serde_json::from_str(CATALOGUE).map_err(wrong)?;
    result(json!({name: all[name]}))
}

pub(crate) fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn picture() -> Value {
    json!({"type": "image", "data": PNG, "mimeType": "image/png"})
}

fn inside(uri: &str, kind: &str, text: &str) -> Value {
    json!({"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": text}})
}

/// What a tool says that needs nothing; `None`: it is another kind of tool.
pub(crate) fn of_tool(name: &str) -> Option<Value> {
    let content = match name {
        "test_simple_text" => {
            json!([{"type": "text", "text": "This is a simple text response for testing."}])
        }
        "json_schema_2020_12_tool" => json!([{"type": "text", "text": "taken"}]),
        "test_image_content" => json!([picture()]),
        "test_audio_content" => json!([{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]),
        "test_embedded_resource" => {
            json!([inside("test://embedded-resource", "text/plain", "This is an embedded resource content.")])
        }
        "test_multiple_content_types" => json!([
            {"type": "text", "text": "Multiple content types test:"},
            picture(),
            inside("test://mixed-content-resource", "application/json", r#"{"test":"data","value":123}"#),
        ]),
        "test_error_handling" => {
            let why =
                [json!({"type": "text", "text": "This tool intentionally returns an error for testing"})];
            return Some(json!({"isError": true, "content": why}));
        }
        _ => return None,
    };
    Some(json!({"content": content}))
}

/// What is in a resource.
pub(crate) fn of_resource(uri: &str) -> Option<Value> {
    let one = match uri {
        "test://static-text" => {
            json!({"uri": uri, "mimeType": "text/plain", "text": "This is the content of the static text resource."})
        }
        "test://static-binary" => json!({"uri": uri, "mimeType": "image/png", "blob": PNG}),
        "test://watched-resource" => json!({"uri": uri, "mimeType": "text/plain", "text": "watched"}),
        _ => {
            let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
            let data = json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
            json!({"uri": uri, "mimeType": "application/json", "text": data.to_string()})
        }
    };
    Some(json!({"contents": [one]}))
}

/// What a prompt says that needs no input.
pub(crate) fn of_prompt(name: &str, argument: impl Fn(&str) -> String) -> Option<Value> {
    let said = |content: Value| json!({"role": "user", "content": content});
    let words = |text: &str| said(json!({"type": "text", "text": text}));
    let messages = match name {
        "test_simple_prompt" => vec![words("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => {
            let (first, second) = (argument("arg1"), argument("arg2"));
            vec![words(&format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]
        }
        "test_prompt_with_embedded_resource" => vec![
            said(inside(&argument("resourceUri"), "text/plain", "Embedded resource content for testing.")),
            words("Please process the embedded resource above."),
        ],
        "test_prompt_with_image" => vec![said(picture()), words("Please analyze the image above.")],
        _ => return None,
    };
    Some(json!({"messages": messages}))
}
