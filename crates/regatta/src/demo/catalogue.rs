//! What the demo server offers: tools, the resource, capabilities, its name. Only text.

use super::hub::CLOCK;

/// `serverInfo`, raw JSON.
pub const SERVER_INFO: &str = concat!(
    r#"{"name":"regatta-demo","title":"Regatta demo server","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

/// Server capabilities, raw JSON.
pub const CAPABILITIES: &str =
    r#"{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}}"#;

/// `instructions` of `initialize` and `server/discover`.
pub const INSTRUCTIONS: &str = "A demo server. Call whoami to see which replica answers.";

/// Name, description, properties of the input schema, required names.
const TOOLS: [(&str, &str, &str, &str); 9] = [
    ("echo", "Gives the text back", r#""text":{"type":"string"}"#, r#""text""#),
    ("add", "Adds two numbers", r#""a":{"type":"number"},"b":{"type":"number"}"#, r#""a","b""#),
    (
        "sleep",
        "Waits; reports progress every 100 ms when asked to",
        r#""ms":{"type":"integer","minimum":0,"maximum":600000}"#,
        r#""ms""#,
    ),
    ("whoami", "Says which replica answers", "", ""),
    ("counter", "Counts its calls, per session (legacy) or per process (modern)", "", ""),
    ("ask", "Asks the person at the client a question", r#""question":{"type":"string"}"#, r#""question""#),
    ("sample", "Asks the client's model", r#""prompt":{"type":"string"}"#, r#""prompt""#),
    (
        "log",
        "Sends a log message to the client",
        r#""level":{"type":"string"},"text":{"type":"string"}"#,
        r#""level","text""#,
    ),
    ("toggle_tool", "Adds a tool with this name, or removes it", r#""name":{"type":"string"}"#, r#""name""#),
];

/// Whether the name belongs to a tool that is always there.
pub fn is_built_in(name: &str) -> bool {
    TOOLS.iter().any(|tool| tool.0 == name)
}

/// The members of a `tools/list` result.
pub fn tools(extra: &[String]) -> String {
    let built_in = TOOLS.iter().map(|(name, description, properties, required)| {
        let hints = match *name {
            "echo" | "add" | "whoami" | "sleep" => r#","annotations":{"readOnlyHint":true,"idempotentHint":true}"#,
            _ => "",
        };
        format!(
            r#"{{"name":"{name}","description":"{description}","inputSchema":{{"type":"object","properties":{{{properties}}},"required":[{required}]}}{hints}}}"#
        )
    });
    let extra = extra.iter().map(|name| {
        format!(
            r#"{{"name":"{name}","description":"Added by toggle_tool","inputSchema":{{"type":"object"}}}}"#
        )
    });
    let all: Vec<_> = built_in.chain(extra).collect();
    format!(r#""tools":[{}]"#, all.join(","))
}

/// The members of a `resources/list` result.
pub fn resources() -> String {
    format!(r#""resources":[{{"uri":"{CLOCK}","name":"clock","mimeType":"text/plain"}}]"#)
}

/// The members of a `resources/read` result of the clock.
pub fn clock() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    format!(r#""contents":[{{"uri":"{CLOCK}","mimeType":"text/plain","text":"{seconds}"}}]"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_json() {
        for text in [tools(&["extra".into()]), resources(), clock()] {
            serde_json::from_str::<serde_json::Value>(&format!("{{{text}}}")).expect("JSON");
        }
        for text in [SERVER_INFO, CAPABILITIES] {
            serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        }
    }
}
