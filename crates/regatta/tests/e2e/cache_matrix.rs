//! Who is given whose result: for each pair of calls, whether the second one is executed too, told by the server's own
//! journal. Identities, spellings of arguments, what else comes with a request, and what came back.

use crate::REGATTA;
use crate::cache_fleet::wait_shared;
use crate::peers;
use regatta_testkit::client::{Client, Session};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::{Seen, answers};
use regatta_testkit::{Gateway, Reply, Result, Stub};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The rules under test; `odd` results are those that must not be kept.
const RULES: &str = r#"
[[cache]]
tool = "own"
ttl = "1h"
[[cache]]
tool = "all"
ttl = "1h"
scope = "public"
[[cache]]
tool = "here"
ttl = "1h"
scope = "session"
[[cache]]
tool = "odd-*"
ttl = "1h"
max_bytes = "2KiB"
[[cache]]
tool = "no-*"
ttl = "1h"
negative_ttl = "1h"
"#;

/// One call.
#[derive(Clone, Copy)]
struct Ask {
    tool: &'static str,
    who: Who,
    era: Era,
    /// One header more.
    header: (&'static str, &'static str),
    /// Arguments as they are written, after `op`.
    arguments: &'static str,
    /// Members of `params` as they are written, `_meta` of the era aside.
    params: &'static str,
    /// Members of `_meta` alike.
    meta: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Who {
    Ada,
    Bob,
    Nobody,
}

/// The era, and in which of a caller's sessions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Era {
    Modern,
    Legacy(u8),
    /// A session of an older version.
    Older,
}

/// How often the pair is executed.
const SHARED: usize = 1;
const APART: usize = 2;

const OWN: Ask = Ask {
    tool: "own",
    who: Who::Ada,
    era: Era::Modern,
    header: ("", ""),
    arguments: "",
    params: "",
    meta: r#""io.modelcontextprotocol/clientCapabilities":{}"#,
};
const LEGACY: Ask = Ask { era: Era::Legacy(1), meta: "", ..OWN };
const ALL: Ask = Ask { tool: "all", ..OWN };
const HERE: Ask = Ask { tool: "here", ..LEGACY };

const fn by(ask: Ask, who: Who) -> Ask {
    Ask { who, ..ask }
}
const fn in_session(ask: Ask, session: u8) -> Ask {
    Ask { era: Era::Legacy(session), ..ask }
}
const fn with(ask: Ask, name: &'static str, value: &'static str) -> Ask {
    Ask { header: (name, value), ..ask }
}
const fn of(ask: Ask, tool: &'static str) -> Ask {
    Ask { tool, ..ask }
}
const fn args(arguments: &'static str) -> Ask {
    Ask { arguments, ..OWN }
}
const fn params(ask: Ask, params: &'static str) -> Ask {
    Ask { params, ..ask }
}
const fn meta(meta: &'static str) -> Ask {
    Ask { meta, ..OWN }
}

type Pair = (&'static str, Ask, Ask, usize);

#[rustfmt::skip]
const IDENTITIES: &[Pair] = &[
    ("the same caller", OWN, OWN, SHARED),
    ("two callers", OWN, by(OWN, Who::Bob), APART),
    ("a caller and nobody", OWN, by(OWN, Who::Nobody), APART),
    ("nobody twice", by(OWN, Who::Nobody), by(OWN, Who::Nobody), SHARED),
    ("a key beside the token", OWN, with(OWN, "x-api-key", "1"), APART),
    ("two keys", with(OWN, "x-api-key", "1"), with(OWN, "x-api-key", "2"), APART),
    ("one key", with(OWN, "x-api-key", "1"), with(OWN, "x-api-key", "1"), SHARED),
    ("two cookies of nobody", with(by(OWN, Who::Nobody), "cookie", "a=1"), with(by(OWN, Who::Nobody), "cookie", "a=2"), APART),
    ("two languages", with(OWN, "accept-language", "de"), with(OWN, "accept-language", "fr"), APART),
    ("two programs", with(OWN, "user-agent", "a/1"), with(OWN, "user-agent", "b/2"), SHARED),
    ("two traces", with(OWN, "traceparent", "00-1"), with(OWN, "x-request-id", "7"), SHARED),
    ("two eras", LEGACY, OWN, APART),
    ("two sessions of one caller", LEGACY, in_session(LEGACY, 2), SHARED),
    ("sessions of two callers", LEGACY, by(LEGACY, Who::Bob), APART),
    ("two versions", LEGACY, Ask { era: Era::Older, ..LEGACY }, APART),
    ("what is for all, two callers", ALL, by(ALL, Who::Bob), SHARED),
    ("what is for all, and nobody", ALL, by(ALL, Who::Nobody), SHARED),
    ("what is for all, two keys", with(ALL, "x-api-key", "1"), with(ALL, "x-api-key", "2"), SHARED),
    ("what is for all, in two eras", of(LEGACY, "all"), ALL, APART),
    ("what is for all, and a header that says another argument", ALL, with(ALL, "mcp-param-region", "eu"), APART),
    ("what is for all, and another tool", ALL, of(OWN, "own"), APART),
    ("one session", HERE, HERE, SHARED),
    ("two sessions where one is the scope", HERE, in_session(HERE, 2), APART),
    ("no session where one is the scope", of(OWN, "here"), of(OWN, "here"), APART),
    ("a tool that no rule names", of(OWN, "work"), of(OWN, "work"), APART),
];

#[rustfmt::skip]
const ARGUMENTS: &[Pair] = &[
    ("order of members", args(r#","a":1,"b":2"#), args(r#","b":2,"a":1"#), SHARED),
    ("blanks", args(r#","a":[1,{"b":2}]"#), args(" , \"a\" : [ 1 ,\t{ \"b\" : 2 } ] "), SHARED),
    ("escapes of a value", args(r#","a":"A/""#), args(r#","a":"\u0041\/""#), SHARED),
    ("escapes of a key", args(r#","a":1"#), args(r#","\u0061":1"#), SHARED),
    ("surrogates", args(",\"a\":\"😀\""), args(r#","a":"\ud83d\ude00""#), SHARED),
    ("order deep inside", args(r#","a":{"x":1,"y":{"p":1,"q":2}}"#), args(r#","a":{"y":{"q":2,"p":1},"x":1}"#), SHARED),
    ("number and text", args(r#","a":1"#), args(r#","a":"1""#), APART),
    ("number and truth", args(r#","a":1"#), args(r#","a":true"#), APART),
    ("whole and fraction", args(r#","a":1"#), args(r#","a":1.0"#), APART),
    ("fraction and exponent", args(r#","a":1.0"#), args(r#","a":1e0"#), APART),
    ("zero and minus zero", args(r#","a":0"#), args(r#","a":-0"#), APART),
    ("beyond a double", args(r#","a":9007199254740993"#), args(r#","a":9007199254740992"#), APART),
    ("null and absent", args(r#","a":null"#), args(""), APART),
    ("null and text", args(r#","a":null"#), args(r#","a":"null""#), APART),
    ("order of a list", args(r#","a":[1,2]"#), args(r#","a":[2,1]"#), APART),
    ("list and single", args(r#","a":[1]"#), args(r#","a":1"#), APART),
    ("case of a key", args(r#","a":1"#), args(r#","A":1"#), APART),
    ("composed and decomposed", args(",\"a\":\"é\""), args(",\"a\":\"e\u{301}\""), APART),
    ("a member that looks like two", args(r#","a":"1,\"b\":2""#), args(r#","a":"1","b":2"#), APART),
    ("prototype as a name", args(r#","__proto__":1"#), args(r#","constructor":1"#), APART),
];

#[rustfmt::skip]
const REQUESTS: &[Pair] = &[
    ("progress tokens", params(LEGACY, r#","_meta":{"progressToken":1}"#), params(LEGACY, r#","_meta":{"progressToken":2}"#), SHARED),
    ("an empty _meta", LEGACY, params(LEGACY, r#","_meta":{}"#), SHARED),
    ("a task asked for", LEGACY, params(LEGACY, r#","task":{"ttl":1000}"#), APART),
    ("a locale in _meta", LEGACY, params(LEGACY, r#","_meta":{"openai/locale":"de"}"#), APART),
    ("a client's name", OWN, meta(r#""io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"x","version":"1"}"#), SHARED),
    ("other capabilities", OWN, meta(r#""io.modelcontextprotocol/clientCapabilities":{"sampling":{}}"#), APART),
    ("an answer to a question", params(OWN, r#","inputResponses":{}"#), params(OWN, r#","inputResponses":{}"#), APART),
];

#[rustfmt::skip]
const RESULTS: &[Pair] = &[
    ("a tool's error", of(OWN, "odd-error"), of(OWN, "odd-error"), APART),
    ("a tool's error, legacy", of(LEGACY, "odd-error"), of(LEGACY, "odd-error"), APART),
    ("a tool's error where those are kept", of(OWN, "no-error"), of(OWN, "no-error"), SHARED),
    ("a JSON-RPC error", of(OWN, "odd-rpc"), of(OWN, "odd-rpc"), APART),
    ("a JSON-RPC error where a tool's errors are kept", of(OWN, "no-rpc"), of(OWN, "no-rpc"), APART),
    ("a question", of(OWN, "odd-input"), of(OWN, "odd-input"), APART),
    ("a kind that nobody knows", of(OWN, "odd-kind"), of(OWN, "odd-kind"), APART),
    ("a task", of(LEGACY, "odd-task"), of(LEGACY, "odd-task"), APART),
    ("too large", of(OWN, "odd-large"), of(OWN, "odd-large"), APART),
    ("too large, legacy", of(LEGACY, "odd-large"), of(LEGACY, "odd-large"), APART),
    ("several messages in JSON", of(LEGACY, "odd-lines"), of(LEGACY, "odd-lines"), APART),
    ("an event", of(OWN, "odd-event"), of(OWN, "odd-event"), SHARED),
    ("an event, legacy", of(LEGACY, "odd-event"), of(LEGACY, "odd-event"), SHARED),
    ("progress before it", of(OWN, "odd-progress"), of(OWN, "odd-progress"), SHARED),
    ("progress before it, legacy", of(LEGACY, "odd-progress"), of(LEGACY, "odd-progress"), SHARED),
    ("an answer that breaks off", of(OWN, "odd-cut"), of(OWN, "odd-cut"), APART),
    ("an event that breaks off", of(OWN, "odd-torn"), of(OWN, "odd-torn"), APART),
    ("an event that breaks off, legacy", of(LEGACY, "odd-torn"), of(LEGACY, "odd-torn"), APART),
    ("with a _meta of its own", of(OWN, "odd-meta"), of(OWN, "odd-meta"), SHARED),
    ("over many lines", of(LEGACY, "odd-blanks"), of(LEGACY, "odd-blanks"), SHARED),
];

fn progress() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}})
}

/// What comes back from the tools that are not plain.
fn odd(seen: &Seen) -> Option<Reply> {
    let text = |text: &str| json!({"resultType": "complete", "content": [{"type": "text", "text": text}]});
    let whole = || json!({"jsonrpc": "2.0", "id": seen.id(), "result": text("x")});
    Some(match seen.tool() {
        "odd-error" | "no-error" => Reply::tool_error(seen, "no"),
        "odd-rpc" | "no-rpc" => Reply::error(seen, -32603, "no"),
        "odd-input" => Reply::input_required(seen, json!({}), "state"),
        "odd-kind" => Reply::result(seen, json!({"resultType": "novel"})),
        "odd-task" => Reply::result(seen, json!({"task": {"taskId": "7", "status": "working"}})),
        "odd-large" => Reply::result(seen, text(&"x".repeat(4096))),
        "odd-lines" => Reply::json_lines(&[progress(), whole()]),
        "odd-event" => Reply::sse().event(&whole()),
        "odd-progress" => Reply::sse().event(&progress()).event(&whole()),
        "odd-torn" => Reply::sse().event(&progress()).event(&whole()).cut_after(140),
        "odd-cut" => Reply::json(&whole()).cut_after(20),
        "odd-meta" => Reply::result(seen, json!({"_meta": {"a": 1}, "content": []})),
        "odd-blanks" => Reply::text(200, "application/json", &format!("\n {:#} \n", whole())),
        _ => return None,
    })
}

/// The callers' sessions, opened as they are needed, and where each turn of a pair goes.
struct Callers {
    clients: [Client; 2],
    sessions: HashMap<(Who, Era), Session>,
}

impl Callers {
    fn client(&self, who: Who, turn: usize) -> Client {
        let client = self.clients[turn].clone();
        match who {
            Who::Ada => client.header("authorization", "Bearer ada"),
            Who::Bob => client.header("authorization", "Bearer bob"),
            Who::Nobody => client,
        }
    }

    async fn session(&mut self, who: Who, era: Era) -> Result<Session> {
        if let Some(session) = self.sessions.get(&(who, era)) {
            return Ok(session.clone());
        }
        let version = if era == Era::Older { "2025-06-18" } else { "2025-11-25" };
        let session = Session::open(&self.client(who, 0), version, json!({})).await?;
        self.sessions.insert((who, era), session.clone());
        Ok(session)
    }

    async fn call(&mut self, ask: &Ask, op: &str, turn: usize) -> Result<Value> {
        const VERSION: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#;
        let meta = match ask.era {
            Era::Modern => format!(",{VERSION}{}}}", ask.meta),
            Era::Legacy(_) | Era::Older => String::new(),
        };
        let Ask { tool, arguments, params, .. } = ask;
        let params = format!(r#"{{"name":"{tool}","arguments":{{"op":"{op}"{arguments}}}{params}{meta}}}"#);
        let id = 100 + turn;
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#);
        let session = match ask.era {
            Era::Modern => None,
            era @ (Era::Legacy(_) | Era::Older) => Some(self.session(ask.who, era).await?),
        };
        let mut headers = match &session {
            Some(session) => {
                vec![("mcp-session-id", session.id.as_str()), ("mcp-protocol-version", &session.version)]
            }
            None => {
                vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", tool)]
            }
        };
        headers.extend(Some(ask.header).filter(|(name, _)| !name.is_empty()));
        let answer = self.client(ask.who, turn).send(http::Method::POST, &headers, body).await?;
        if answer.is_sse() {
            return Ok(answer.outcome().await?.message);
        }
        // A server may say several things in JSON, one after the other; the response is the last.
        let text = answer.bytes().await?;
        let all = serde_json::Deserializer::from_slice(&text).into_iter();
        Ok(all.map_while(std::result::Result::ok).last().unwrap_or_default())
    }
}

/// Asks each pair, its first call at the first client, and says which were executed otherwise than their rows say.
async fn wrong_pairs(clients: [Client; 2], stub: &Stub) -> Result<Vec<String>> {
    let mut callers = Callers { clients, sessions: HashMap::new() };
    let mut wrong = Vec::new();
    let pairs = [IDENTITIES, ARGUMENTS, REQUESTS, RESULTS].concat();
    for (number, (what, one, other, expected)) in pairs.iter().enumerate() {
        let op = format!("op-{number}");
        for (turn, ask) in [one, other].into_iter().enumerate() {
            let outcome = callers.call(ask, &op, turn).await?;
            if outcome["id"] != json!(100 + turn) {
                wrong.push(format!("{what}: call {turn} was answered with {outcome}"));
            }
        }
        let executed = stub.journal().executions(&op);
        if executed != *expected {
            wrong.push(format!("{what}: executed {executed} times, not {expected}"));
        }
    }
    Ok(wrong)
}

async fn odd_stub() -> Stub {
    let base = answers::dual();
    Stub::start(move |seen| odd(seen).unwrap_or_else(|| base(seen))).await
}

#[tokio::test]
async fn each_pair_is_executed_as_often_as_its_row_says() -> Result<()> {
    let stub = odd_stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).tables(RULES)).await;
    let wrong = wrong_pairs([gateway.client(), gateway.client()], &stub).await?;
    assert!(wrong.is_empty(), "{} pairs:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn each_pair_over_two_gateways_on_one_store_is_executed_as_often_too() -> Result<()> {
    let stub = odd_stub().await;
    let pair = peers::Pair::start(Plan::over([stub.url()]).tables(RULES)).await;
    wait_shared(&pair.one, &pair.two, &stub).await;
    let wrong = wrong_pairs([pair.one.client(), pair.two.client()], &stub).await?;
    assert!(wrong.is_empty(), "{} pairs:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
