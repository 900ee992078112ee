//! The modern era: every request stands alone (2026-07-28).
//!
//! Checks in the order of RELIABILITY B.1. A closed stream cancels its request; questions to the client are results
//! of type `input_required` (M-MRTR); changes travel on `subscriptions/listen` (M-SUB). Keeps nothing between requests
//! but the counter.

use super::State;
use super::catalogue::{self, CAPABILITIES, INSTRUCTIONS, SERVER_INFO};
use super::endpoint::{Body, PROTOCOL_VERSION, accepted, events, failed, json};
use super::hub::{self, CLOCK, Listener};
use super::slow::{self, LEVELS, Question, Slow};
use super::stream::{Guard, Ids, Stream};
use super::tools::{self, Outcome};
use super::wire::{
    self, Fault, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Message, Meta, Params, Text,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The one version of this era.
pub const VERSION: &str = "2026-07-28";
const HEADER_MISMATCH: i32 = -32020;
const CAPABILITY_MISSING: i32 = -32021;
const VERSION_UNSUPPORTED: i32 = -32022;
/// The key of our one question in `inputRequests`.
const QUESTION: &str = "question";

/// What a request came to.
enum Answer {
    /// The members of a result but `_meta`; `resultType` is added when it is not there.
    Complete(String),
    InputRequired(String),
    Stream(Response<Body>),
}

/// One POST.
pub fn post(state: Arc<State>, headers: &HeaderMap, message: Message<'_>) -> Response<Body> {
    let (id, method, params) = match message {
        Message::Request { id, method, params } => (id, method, params),
        // No core notification travels this way; a stranger's cancellation must do nothing (M-TR).
        Message::Notification { .. } => return accepted(),
        Message::Response { id, .. } => {
            let fault = Fault::new(INVALID_REQUEST, "responses are not taken in this version");
            return failed(StatusCode::BAD_REQUEST, Some(id), &fault);
        }
    };
    let meta = match check(headers, method.as_str(), &params) {
        Ok(meta) => meta,
        Err(fault) => return failed(StatusCode::BAD_REQUEST, Some(id), &fault),
    };
    match request(&state, id, method.as_str(), &params, meta) {
        Ok(Answer::Complete(members)) => json(StatusCode::OK, wire::result(id, &complete(&members))),
        Ok(Answer::InputRequired(members)) => {
            let members = format!(r#""resultType":"input_required",{members},{}"#, meta_member());
            json(StatusCode::OK, wire::result(id, &members))
        }
        Ok(Answer::Stream(response)) => response,
        Err(fault) => {
            let status = match fault.code {
                METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
                CAPABILITY_MISSING => StatusCode::BAD_REQUEST,
                _ => StatusCode::OK,
            };
            failed(status, Some(id), &fault)
        }
    }
}

fn meta_member() -> String {
    format!(r#""_meta":{{"io.modelcontextprotocol/serverInfo":{SERVER_INFO}}}"#)
}

fn complete(members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    format!(r#""resultType":"complete",{members}{comma}{}"#, meta_member())
}

fn check<'p, 'a>(headers: &HeaderMap, method: &str, params: &'p Params<'a>) -> Result<&'p Meta<'a>, Fault> {
    let mismatch = |why: &str| Fault::new(HEADER_MISMATCH, why);
    let single = |name: &str| -> Result<Option<&str>, Fault> {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(mismatch(&format!("{name} is given twice"))),
            (None, None) => Ok(None),
            (Some(value), None) => {
                value.to_str().map(Some).map_err(|_| mismatch(&format!("{name} has invalid characters")))
            }
        }
    };
    let (version, named_method, name) =
        (single(PROTOCOL_VERSION.as_str())?, single("mcp-method")?, single("mcp-name")?);
    let missing = |what: &str| Fault::new(INVALID_PARAMS, format!("params._meta: {what} is missing"));
    if version.is_none() {
        return Err(mismatch("MCP-Protocol-Version is missing"));
    }
    let meta = params.meta.as_ref().ok_or_else(|| missing("it"))?;
    let in_body =
        meta.protocol_version.as_ref().map(Text::as_str).ok_or_else(|| missing("protocolVersion"))?;
    if meta.capabilities.is_none() {
        return Err(missing("clientCapabilities"));
    }
    if version != Some(in_body) {
        return Err(mismatch("MCP-Protocol-Version and the body differ"));
    }
    if named_method != Some(method) {
        return Err(mismatch("Mcp-Method and the body differ"));
    }
    let source = match method {
        "tools/call" | "prompts/get" => Some(params.name.as_ref()),
        "resources/read" => Some(params.uri.as_ref()),
        _ => None,
    };
    if let Some(source) = source
        && name.and_then(plain_name).as_deref() != source.map(Text::as_str)
    {
        return Err(mismatch("Mcp-Name and the body differ"));
    }
    if in_body != VERSION {
        let mut fault = Fault::new(VERSION_UNSUPPORTED, "Unsupported protocol version");
        let requested = wire::quote(in_body);
        fault.data = Some(format!(r#"{{"supported":["{VERSION}"],"requested":{requested}}}"#));
        return Err(fault);
    }
    Ok(meta)
}

/// The name behind the header's Base64 sentinel, if there is one (M-TR, Value Encoding).
fn plain_name(value: &str) -> Option<Cow<'_, str>> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        None => Some(Cow::Borrowed(value)),
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
    }
}

fn request(
    state: &Arc<State>,
    id: &str,
    method: &str,
    params: &Params<'_>,
    meta: &Meta<'_>,
) -> Result<Answer, Fault> {
    const CACHE: &str = r#""ttlMs":0,"cacheScope":"public""#;
    let members = match method {
        "tools/call" => match tools::call(state, &state.calls, params)? {
            Outcome::Done(members) => members,
            Outcome::Slow(slow) => return carry_out(state, id, slow, params, meta),
        },
        "server/discover" => format!(
            r#""supportedVersions":["{VERSION}"],"capabilities":{CAPABILITIES},"instructions":"{INSTRUCTIONS}","ttlMs":60000,"cacheScope":"public""#
        ),
        "tools/list" => format!("{},{CACHE}", catalogue::tools(&state.hub.extra())),
        "resources/list" => format!("{},{CACHE}", catalogue::resources()),
        "resources/templates/list" => format!(r#""resourceTemplates":[],{CACHE}"#),
        "resources/read" => match params.uri.as_ref().map(Text::as_str) {
            Some(CLOCK) => format!("{},{CACHE}", catalogue::clock()),
            Some(uri) => return Err(Fault::no_such_resource(INVALID_PARAMS, uri)),
            None => return Err(Fault::new(INVALID_PARAMS, "params.uri is missing")),
        },
        "subscriptions/listen" => return listen(state, id, params),
        _ => return Err(Fault::new(METHOD_NOT_FOUND, format!("unknown method: {method}"))),
    };
    Ok(Answer::Complete(members))
}

fn carry_out(
    state: &Arc<State>,
    id: &str,
    slow: Slow,
    params: &Params<'_>,
    meta: &Meta<'_>,
) -> Result<Answer, Fault> {
    let wanted = match meta.log_level.as_ref().map(Text::as_str) {
        None => None,
        Some(name) => Some(
            LEVELS
                .iter()
                .position(|known| *known == name)
                .ok_or_else(|| Fault::new(INVALID_PARAMS, "_meta: logLevel is no log level"))?,
        ),
    };
    let capabilities = meta.capabilities.as_ref();
    match slow {
        Slow::Ask { question } => {
            require(capabilities.is_some_and(|given| given.elicitation.is_some()), "elicitation")?;
            ask(state, params, "ask", &question, slow::elicitation(&question), slow::elicited)
        }
        Slow::Sample { prompt } => {
            require(capabilities.is_some_and(|given| given.sampling.is_some()), "sampling")?;
            ask(state, params, "sample", &prompt, slow::sampling(&prompt), slow::sampled)
        }
        Slow::Log { level, text } => {
            let done = tools::text_members("logged");
            if wanted.is_none_or(|wanted| level < wanted) {
                return Ok(Answer::Complete(done));
            }
            let stream = Stream::new(0, Ids::None);
            stream.push(&slow::log_message(level, &text));
            stream.push(&wire::result(id, &complete(&done)));
            stream.finish();
            Ok(reply(&stream, Guard::Nothing))
        }
        Slow::Sleep { ms } => {
            let token = meta.progress_token.map(|token| token.get().to_owned());
            Ok(sleep(id, ms, token))
        }
    }
}

fn require(declared: bool, name: &str) -> Result<(), Fault> {
    if declared {
        return Ok(());
    }
    let mut fault = Fault::new(CAPABILITY_MISSING, format!("this tool needs the {name} capability"));
    fault.data = Some(format!(r#"{{"requiredCapabilities":{{"{name}":{{}}}}}}"#));
    Err(fault)
}

fn reply(stream: &Arc<Stream>, guard: Guard) -> Answer {
    let body = stream.attach(None, guard).map(events);
    let gone =
        || failed(StatusCode::INTERNAL_SERVER_ERROR, None, &Fault::new(-32603, "the stream overflowed"));
    Answer::Stream(body.unwrap_or_else(gone))
}

/// Waits on a stream, also without progress: so a client that goes is noticed.
fn sleep(id: &str, ms: u64, token: Option<String>) -> Answer {
    let stream = Stream::new(0, Ids::None);
    let (task_stream, id) = (stream.clone(), id.to_owned());
    let task = tokio::spawn(async move {
        let progress = token.as_deref().map(|token| (token, &*task_stream));
        let members = slow::sleep(ms, progress).await;
        task_stream.push(&wire::result(&id, &complete(&members)));
        task_stream.finish();
    });
    reply(&stream, Guard::Task(task.abort_handle()))
}

#[derive(Deserialize)]
struct Responses<'a> {
    #[serde(borrow)]
    question: Option<&'a RawValue>,
}

/// First a question with a sealed state, then, with the answer and that state, the result (M-MRTR).
fn ask(
    state: &State,
    params: &Params<'_>,
    tool: &str,
    about: &str,
    question: Question,
    read: fn(&str) -> String,
) -> Result<Answer, Fault> {
    if let Some(given) = &params.request_state {
        if !state.seal.fits(given.as_str(), tool, about) {
            return Err(Fault::new(INVALID_PARAMS, "requestState is not from here, or too old"));
        }
        let responses = params.input_responses.map_or("{}", RawValue::get);
        let responses: Responses<'_> = serde_json::from_str(responses)
            .map_err(|_| Fault::new(INVALID_PARAMS, "inputResponses is not an object"))?;
        if let Some(answer) = responses.question {
            return Ok(Answer::Complete(read(answer.get())));
        }
    }
    let Question { method, members } = question;
    let sealed = state.seal.close(tool, about);
    Ok(Answer::InputRequired(format!(
        r#""inputRequests":{{"{QUESTION}":{{"method":"{method}","params":{{{members}}}}}}},"requestState":"{sealed}""#
    )))
}

/// A stream of changes: first the acknowledgement, then what the filter asks for.
fn listen(state: &Arc<State>, id: &str, params: &Params<'_>) -> Result<Answer, Fault> {
    let Some(filter) = &params.notifications else {
        return Err(Fault::new(INVALID_PARAMS, "params.notifications is missing"));
    };
    let clock = filter.resource_subscriptions.iter().any(|uri| uri == CLOCK);
    let mut honoured = Vec::new();
    if filter.tools_list_changed {
        honoured.push(r#""toolsListChanged":true"#.to_owned());
    }
    if clock {
        honoured.push(format!(r#""resourceSubscriptions":["{CLOCK}"]"#));
    }
    let members = format!(r#""notifications":{{{}}}"#, honoured.join(","));
    let stream = Stream::new(0, Ids::None);
    stream.push(&hub::notice("notifications/subscriptions/acknowledged", &members, Some(id)));
    let key = state.hub.join(Listener {
        stream: stream.clone(),
        tools: filter.tools_list_changed,
        clock: Arc::new(AtomicBool::new(clock)),
        subscription: Some(id.to_owned()),
    });
    Ok(reply(&stream, Guard::Listener(state.clone(), key)))
}
