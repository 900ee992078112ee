//! The tools that take time or talk to the client: `sleep`, `ask`, `sample`, `log`.
//!
//! What they say is the same in both eras and is made here; how it travels is up to `legacy.rs` and `modern.rs`.

use super::stream::Stream;
use super::tools::{error_members, text_members};
use super::wire::{notification, quote};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;

/// Log levels, lowest first (RFC 5424, 6.2.1).
pub const LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A call that is not answered at once.
#[derive(Clone, Debug)]
pub enum Slow {
    Sleep {
        ms: u64,
    },
    Ask {
        question: String,
    },
    Sample {
        prompt: String,
    },
    /// `level` is an index into `LEVELS`.
    Log {
        level: usize,
        text: String,
    },
}

/// A question to the client: one request with method and params members.
pub struct Question {
    pub method: &'static str,
    pub members: String,
}

/// Waits; with a progress token it reports on `stream` every 100 ms. Gives the members of the result.
pub async fn sleep(ms: u64, progress: Option<(&str, &Stream)>) -> String {
    let (start, whole) = (Instant::now(), Duration::from_millis(ms));
    if let Some((token, stream)) = progress {
        let mut step = PROGRESS_EVERY;
        while step < whole {
            tokio::time::sleep_until(start + step).await;
            stream.push(&notification(
                "notifications/progress",
                &format!(r#""progressToken":{token},"progress":{},"total":{ms}"#, step.as_millis()),
            ));
            step += PROGRESS_EVERY;
        }
    }
    tokio::time::sleep_until(start + whole).await;
    text_members(&format!("slept {ms} ms"))
}

/// `notifications/message`.
pub fn log_message(level: usize, text: &str) -> String {
    let level = LEVELS.get(level).copied().unwrap_or("info");
    let members = format!(r#""level":"{level}","logger":"demo","data":{}"#, quote(text));
    notification("notifications/message", &members)
}

/// `elicitation/create` for one text field named `answer`.
pub fn elicitation(question: &str) -> Question {
    let schema = r#"{"type":"object","properties":{"answer":{"type":"string"}},"required":["answer"]}"#;
    let members = format!(r#""message":{},"requestedSchema":{schema}"#, quote(question));
    Question { method: "elicitation/create", members }
}

/// `sampling/createMessage` with one message.
pub fn sampling(prompt: &str) -> Question {
    let message = format!(r#"{{"role":"user","content":{{"type":"text","text":{}}}}}"#, quote(prompt));
    Question {
        method: "sampling/createMessage",
        members: format!(r#""messages":[{message}],"maxTokens":100"#),
    }
}

#[derive(Deserialize)]
struct Elicited {
    action: String,
    #[serde(default)]
    content: Option<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    answer: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Sampled {
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    One(Block),
    Many(Vec<Block>),
}

#[derive(Deserialize)]
struct Block {
    #[serde(default)]
    text: String,
}

/// The result of `ask` from the raw ElicitResult.
pub fn elicited(raw: &str) -> String {
    match serde_json::from_str::<Elicited>(raw) {
        Ok(Elicited { action, content: Some(Answer { answer: Some(answer) }) }) if action == "accept" => {
            let answer = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
            text_members(&format!("answer: {answer}"))
        }
        Ok(elicited) => text_members(&format!("no answer: {}", elicited.action)),
        Err(_) => error_members("the client's answer is no ElicitResult"),
    }
}

/// The result of `sample` from the raw CreateMessageResult.
pub fn sampled(raw: &str) -> String {
    match serde_json::from_str::<Sampled>(raw).map(|sampled| sampled.content) {
        Ok(Content::One(block)) => text_members(&format!("model: {}", block.text)),
        Ok(Content::Many(blocks)) => {
            let texts: Vec<_> = blocks.iter().map(|block| block.text.as_str()).collect();
            text_members(&format!("model: {}", texts.join("\n")))
        }
        Err(_) => error_members("the client's answer is no CreateMessageResult"),
    }
}
