//! Tools and a prompt of the modern era that need input first: the client is asked in a result and calls again (SEP-2322).
use rmcp::ErrorData;
use rmcp::model::{ClientCapabilities, InputResponses};
use serde_json::{Value, json};

use crate::contents::{text, wrong};

/// What a client brought with its call.
pub(crate) struct Brought {
    pub(crate) answers: InputResponses,
    /// The state that came back, if it is one of ours.
    pub(crate) state: Option<Result<String, ErrorData>>,
    pub(crate) can: ClientCapabilities,
}

/// What is said to the client.
pub(crate) enum Said {
    Done(Value),
    /// Questions, and the state that is to come back.
    Ask(Value, Option<&'static str>),
}

fn form(message: &str, field: &str, kind: &str) -> Value {
    let schema = json!({"type": "object", "properties": {field: {"type": kind}}, "required": [field]});
    json!({"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}})
}

fn sample(prompt: &str, tokens: u32) -> Value {
    let message = json!({"role": "user", "content": {"type": "text", "text": prompt}});
    json!({"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": tokens}})
}

fn roots() -> Value {
    json!({"method": "roots/list", "params": {}})
}

impl Brought {
    /// What a person filled in under a key.
    fn filled(&self, key: &str, field: &str) -> Option<&Value> {
        self.answers.get(key)?.get("content")?.get(field)
    }

    /// The step that the state says; none yet, or an error for what was changed on its way.
    fn step(&self) -> Result<Option<&str>, ErrorData> {
        match &self.state {
            None => Ok(None),
            Some(Ok(step)) => Ok(Some(step)),
            Some(Err(why)) => Err(why.clone()),
        }
    }
}

fn ask(key: &str, question: Value) -> Said {
    Said::Ask(json!({key: question}), None)
}

fn name_first(brought: &Brought) -> Said {
    match brought.filled("user_name", "name").and_then(Value::as_str) {
        Some(name) => Said::Done(text(&format!("Hello, {name}!"))),
        None => ask("user_name", form("What is your name?", "name", "string")),
    }
}

fn confirmed(brought: &Brought) -> Result<Said, ErrorData> {
    let step = brought.step()?;
    if step == Some("confirm") && brought.filled("confirm", "ok").is_some() {
        return Ok(Said::Done(text("state-ok")));
    }
    Ok(Said::Ask(json!({"confirm": form("Please confirm", "ok", "boolean")}), Some("confirm")))
}

fn three_at_once(brought: &Brought) -> Result<Said, ErrorData> {
    let all = ["user_name", "greeting", "client_roots"];
    if brought.step()? == Some("three") && all.iter().all(|key| brought.answers.contains_key(*key)) {
        return Ok(Said::Done(text("all three answers came")));
    }
    let questions = json!({
        "user_name": form("What is your name?", "name", "string"),
        "greeting": sample("Generate a greeting", 50),
        "client_roots": roots(),
    });
    Ok(Said::Ask(questions, Some("three")))
}

fn two_rounds(brought: &Brought) -> Result<Said, ErrorData> {
    let color = json!({"step2": form("Step 2: What is your favorite color?", "color", "string")});
    Ok(match brought.step()? {
        Some("second") if brought.answers.contains_key("step2") => Said::Done(text("both rounds are over")),
        Some("second") => Said::Ask(color, Some("second")),
        Some("first") if brought.answers.contains_key("step1") => Said::Ask(color, Some("second")),
        _ => Said::Ask(json!({"step1": form("Step 1: What is your name?", "name", "string")}), Some("first")),
    })
}

fn what_the_client_can(brought: &Brought) -> Said {
    let mut questions = serde_json::Map::new();
    if brought.can.elicitation.is_some() {
        questions.insert("name".to_owned(), form("What is your name?", "name", "string"));
    }
    if brought.can.sampling.is_some() {
        questions.insert("capital".to_owned(), sample("What is the capital of France?", 100));
    }
    if questions.is_empty() || !brought.answers.is_empty() {
        return Said::Done(text("nothing more is asked"));
    }
    Said::Ask(Value::Object(questions), None)
}

/// What a tool says; `None`: it is another kind of tool.
pub(crate) fn of_tool(name: &str, brought: &Brought) -> Result<Option<Said>, ErrorData> {
    let said = match name {
        "test_input_required_result_elicitation" | "test_streaming_elicitation" => name_first(brought),
        "test_input_required_result_sampling" => match brought.answers.get("capital_question") {
            Some(answer) => Said::Done(text(answer["content"]["text"].as_str().unwrap_or_default())),
            None => ask("capital_question", sample("What is the capital of France?", 100)),
        },
        "test_input_required_result_list_roots" => match brought.answers.get("client_roots") {
            Some(answer) => Said::Done(text(&format!("roots: {}", answer["roots"]))),
            None => ask("client_roots", roots()),
        },
        "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => {
            confirmed(brought)?
        }
        "test_input_required_result_multiple_inputs" => three_at_once(brought)?,
        "test_input_required_result_multi_round" => two_rounds(brought)?,
        "test_input_required_result_capabilities" => what_the_client_can(brought),
        _ => return Ok(None),
    };
    Ok(Some(said))
}

/// What the prompt says that needs input.
pub(crate) fn of_prompt(brought: &Brought) -> Result<Said, ErrorData> {
    let Some(context) = brought.answers.get("user_context") else {
        return Ok(ask("user_context", form("What context should the prompt use?", "context", "string")));
    };
    let words = context["content"]["context"].as_str().ok_or_else(|| wrong("no context"))?;
    let message =
        json!({"role": "user", "content": {"type": "text", "text": format!("In the context of {words}")}});
    Ok(Said::Done(json!({"messages": [message]})))
}
