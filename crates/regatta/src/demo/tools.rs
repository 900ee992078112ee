//! `tools/call`: quick tools are answered here, the others become a `Slow` that each era carries out in its way.
//!
//! Wrong arguments are a result with `isError`, an unknown tool is −32602 (M-TOOLS, Error Handling).

use super::State;
use super::slow::{LEVELS, Slow};
use super::wire::{Fault, INVALID_PARAMS, Params, Text, quote};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::atomic::{AtomicU64, Ordering};

const SLEEP_MAX_MS: u64 = 600_000;

/// What a call came to.
pub enum Outcome {
    /// The members of a result, without braces.
    Done(String),
    Slow(Slow),
}

#[derive(Deserialize)]
struct Arguments<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    a: Option<f64>,
    b: Option<f64>,
    ms: Option<u64>,
    #[serde(borrow)]
    question: Option<Text<'a>>,
    #[serde(borrow)]
    prompt: Option<Text<'a>>,
    #[serde(borrow)]
    level: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
}

/// Runs a quick tool or says what a slow one is to do. `counter` is the one that `counter()` counts with.
pub fn call(state: &State, counter: &AtomicU64, params: &Params<'_>) -> Result<Outcome, Fault> {
    let Some(name) = params.name.as_ref().map(Text::as_str) else {
        return Err(Fault::new(INVALID_PARAMS, "params.name is missing"));
    };
    let raw = params.arguments.map_or("{}", RawValue::get);
    let Ok(arguments) = serde_json::from_str::<Arguments<'_>>(raw) else {
        return Ok(failed("the arguments do not fit the input schema"));
    };
    let known = match name {
        "echo" => arguments.text.map(|given| text(given.as_str())),
        "add" => arguments.a.zip(arguments.b).map(|(a, b)| text(&(a + b).to_string())),
        "whoami" => Some(whoami(state)),
        "counter" => Some(count(counter)),
        "toggle_tool" => arguments.name.map(|name| toggle(state, name.as_str())),
        "sleep" => arguments.ms.filter(|ms| *ms <= SLEEP_MAX_MS).map(|ms| Outcome::Slow(Slow::Sleep { ms })),
        "ask" => arguments.question.map(|given| Outcome::Slow(Slow::Ask { question: given.0.into_owned() })),
        "sample" => {
            arguments.prompt.map(|given| Outcome::Slow(Slow::Sample { prompt: given.0.into_owned() }))
        }
        "log" => arguments.text.zip(arguments.level).and_then(|(text, level)| log(&text, &level)),
        _ if state.hub.has_extra(name) => Some(text(&format!("{name} was added by toggle_tool"))),
        _ => return Err(Fault::new(INVALID_PARAMS, format!("unknown tool: {name}"))),
    };
    Ok(known.unwrap_or_else(|| failed("the arguments do not fit the input schema")))
}

fn log(text: &Text<'_>, level: &Text<'_>) -> Option<Outcome> {
    let level = LEVELS.iter().position(|known| *known == level.as_str())?;
    Some(Outcome::Slow(Slow::Log { level, text: text.as_str().to_owned() }))
}

fn whoami(state: &State) -> Outcome {
    let me = format!(r#"{{"pid":{},"port":{}}}"#, std::process::id(), state.port);
    Outcome::Done(format!(r#"{},"structuredContent":{me}"#, text_members(&me)))
}

fn count(counter: &AtomicU64) -> Outcome {
    let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
    Outcome::Done(format!(r#"{},"structuredContent":{{"count":{count}}}"#, text_members(&count.to_string())))
}

fn toggle(state: &State, name: &str) -> Outcome {
    match state.hub.toggle(name) {
        Some(true) => text(&format!("{name} added")),
        Some(false) => text(&format!("{name} removed")),
        None => failed("no such name can be added"),
    }
}

fn text(text: &str) -> Outcome {
    Outcome::Done(text_members(text))
}

fn failed(why: &str) -> Outcome {
    Outcome::Done(error_members(why))
}

/// The members of a result with one text.
pub fn text_members(text: &str) -> String {
    format!(r#""content":[{{"type":"text","text":{}}}]"#, quote(text))
}

/// The members of a result that says that the tool failed.
pub fn error_members(why: &str) -> String {
    format!(r#"{},"isError":true"#, text_members(why))
}
