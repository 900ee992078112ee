//! What reading one message costs: `cost <case> <times>` does one thing that often, so that an instruction counter
//! can be put around it; `cost hostile` times bodies that were made to be slow.
//!
//! valgrind --tool=callgrind target/release/examples/cost call 10000

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use regatta_mcp::sse::Framer;
use regatta_mcp::{Decoded, decode, headers, modern, skim};

const CALL: &str = r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"get_weather","arguments":{"location":"Seattle, WA","days":3,"units":"metric"},"_meta":{"progressToken":"f3c2a9d1-5b7e"},"x":[1,2,3.5]}}"#;
const MODERN: &str = r#"{"jsonrpc":"2.0","id":42,"method":"tools/call","params":{"name":"get_weather","arguments":{"location":"Seattle, WA"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"ExampleClient","version":"1.0.0"},"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}}}}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":42,"result":{"content":[{"type":"text","text":"Partly cloudy, 17 degrees, wind from the west at 12 km/h; rain is expected towards the evening."}],"isError":false}}"#;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let case = arguments.get(1).map_or("hostile", String::as_str);
    let times: u32 = arguments.get(2).and_then(|times| times.parse().ok()).unwrap_or(1);
    match case {
        "call" => repeat(times, || drop(black_box(decode(black_box(CALL.as_bytes()))))),
        "modern" => modern_call(times),
        "skim" => repeat(times, || drop(black_box(skim(black_box(RESULT.as_bytes()))))),
        "skim10k" => {
            let parts: Vec<String> = (0..60)
                .map(|number| format!(r#"{{"type":"text","n":{number},"text":"{}"}}"#, "word ".repeat(25)))
                .collect();
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{}]}}}}"#, parts.join(","));
            eprintln!("{} bytes", text.len());
            repeat(times, || drop(black_box(skim(black_box(text.as_bytes())))));
        }
        "sse" => events(times),
        _ => hostile(),
    }
}

fn repeat(times: u32, mut work: impl FnMut()) {
    for _ in 0..times {
        work();
    }
}

fn modern_call(times: u32) {
    let mut lines = HeaderMap::new();
    lines.insert(headers::MCP_PROTOCOL_VERSION, HeaderValue::from_static("2026-07-28"));
    lines.insert(headers::MCP_METHOD, HeaderValue::from_static("tools/call"));
    lines.insert(headers::MCP_NAME, HeaderValue::from_static("get_weather"));
    repeat(times, || {
        let Ok(Decoded::One(message)) = decode(black_box(MODERN.as_bytes())) else { return };
        drop(black_box(modern::check(&message, MODERN.as_bytes(), &lines)));
    });
}

fn events(times: u32) {
    let chunk = Bytes::from(format!("id: 17\nevent: message\ndata: {RESULT}\n\n"));
    let mut framer = Framer::new(1 << 24);
    repeat(times, || {
        framer.push(chunk.clone());
        while let Ok(Some(event)) = framer.next() {
            black_box(event);
        }
    });
}

fn hostile() {
    let size = 4 << 20;
    let fill = |unit: &str| unit.repeat(size / unit.len());
    let request =
        |value: String| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":{value}}}}}"#);
    let keys: Vec<String> = (0..size / 11).map(|number| format!("\"{number:06}\":0")).collect();
    let few: Vec<String> = (0..size / 114)
        .map(|_| format!("{{{}}}", (0..16).map(|key| format!("\"{key:x}\":0")).collect::<Vec<_>>().join(",")))
        .collect();
    let cases = [
        ("open brackets", fill("[")),
        ("open brackets in params", request(fill("["))),
        ("one long number", request(fill("1"))),
        ("zeros", request(format!("[{}0]", fill("0,")))),
        ("1e308s", request(format!("[{}0]", fill("1e308,")))),
        ("empty strings", request(format!("[{}0]", fill("\"\",")))),
        ("escapes", request(format!("\"{}\"", fill("\\n")))),
        ("surrogate pairs", request(format!("\"{}\"", fill("\\ud83d\\ude00")))),
        ("one long string", request(format!("\"{}\"", fill("x")))),
        ("two-byte letters", request(format!("\"{}\"", fill("é")))),
        ("blanks", request(format!("{}0", fill(" ")))),
        ("objects of 16 keys", request(format!("[{}]", few.join(",")))),
        ("one object of 381,000 keys", request(format!("{{{}}}", keys.join(",")))),
    ];
    for (name, body) in cases {
        let took = (0..5).map(|_| {
            let start = Instant::now();
            drop(black_box(decode(body.as_bytes())));
            start.elapsed()
        });
        println!(
            "{name:28} {:>9} bytes {:>8.2} ms",
            body.len(),
            took.min().unwrap_or_default().as_secs_f64() * 1e3
        );
    }
}
