//! The legacy era: `initialize`, sessions, the standing stream, resume, questions on the stream of a call.
//!
//! Errors of a method ride on HTTP 200; 404 means "no such session" and nothing else (L-TR, Session Management).
//! A call that notifies runs in a task of its own: a lost connection cancels nothing.

use super::State;
use super::catalogue::{self, CAPABILITIES, INSTRUCTIONS, SERVER_INFO};
use super::endpoint::{
    Body, PROTOCOL_VERSION, SESSION_ID, accepted, accepts, events, failed, json, plain, text,
};
use super::hub::CLOCK;
use super::session::{Agreed, Session};
use super::slow::{self, LEVELS, Question, Slow};
use super::stream::{Guard, Stream};
use super::tools::{self, Outcome, error_members};
use super::wire::{self, Fault, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Message, Params, Text};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Newest first.
const VERSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

/// One POST.
pub async fn post(state: Arc<State>, headers: &HeaderMap, message: Message<'_>) -> Response<Body> {
    if let Message::Request { id, method, params } = &message
        && method.as_str() == "initialize"
    {
        return match check_version(headers) {
            Ok(()) => initialize(&state, id, params),
            Err(refusal) => refusal.into(),
        };
    }
    let session = match session(&state, headers) {
        Ok(session) => session,
        Err(refusal) => return refusal.into(),
    };
    match message {
        Message::Response { id, result } => session.answer(id, result.map(RawValue::get)),
        Message::Notification { method, params } => notified(&session, method.as_str(), &params),
        Message::Request { id, method, params } => {
            return match answer(&state, &session, method.as_str(), &params) {
                Ok(Answered::Done(members)) => json(StatusCode::OK, wire::result(id, &members)),
                Ok(Answered::Slow(slow)) => carry_out(&session, id, slow, &params).await,
                Err(fault) => failed(StatusCode::OK, Some(id), &fault),
            };
        }
    }
    accepted()
}

/// The session that the headers name, their version checked as well.
pub fn session(state: &State, headers: &HeaderMap) -> Result<Arc<Session>, Refused> {
    check_version(headers).and_then(|()| find(state, headers)).map(|(_, session)| session)
}

/// Takes a notification; those that say nothing here are ignored.
pub fn notified(session: &Session, method: &str, params: &Params<'_>) {
    if let ("notifications/cancelled", Some(id)) = (method, params.request_id) {
        session.cancel(id.get());
    }
}

/// A refusal before any method is looked at.
pub struct Refused(StatusCode, &'static str);

impl From<Refused> for Response<Body> {
    fn from(Refused(status, why): Refused) -> Self {
        failed(status, None, &Fault::new(INVALID_REQUEST, why))
    }
}

fn check_version(headers: &HeaderMap) -> Result<(), Refused> {
    match headers.get(PROTOCOL_VERSION) {
        Some(given) if !given.to_str().is_ok_and(|given| VERSIONS.contains(&given)) => {
            Err(Refused(StatusCode::BAD_REQUEST, "unsupported MCP-Protocol-Version"))
        }
        _ => Ok(()),
    }
}

fn find<'h>(state: &State, headers: &'h HeaderMap) -> Result<(&'h str, Arc<Session>), Refused> {
    if !headers.contains_key(SESSION_ID) {
        return Err(Refused(StatusCode::BAD_REQUEST, "Mcp-Session-Id is missing"));
    }
    let id = text(headers, &SESSION_ID).unwrap_or_default();
    let session = state.sessions.get(id);
    session.map(|session| (id, session)).ok_or(Refused(StatusCode::NOT_FOUND, "session not found"))
}

fn initialize(state: &State, id: &str, params: &Params<'_>) -> Response<Body> {
    let Some(asked) = params.protocol_version.as_ref().map(Text::as_str) else {
        let fault = Fault::new(INVALID_PARAMS, "params.protocolVersion is missing");
        return failed(StatusCode::OK, Some(id), &fault);
    };
    // A version that is not known is answered with the newest that is (L-LIFE, Version Negotiation).
    let version = VERSIONS.into_iter().find(|known| *known == asked).unwrap_or(VERSIONS[0]);
    let capabilities = params.capabilities.as_ref();
    let agreed = Agreed {
        version,
        elicitation: capabilities.is_some_and(|given| given.elicitation.is_some()),
        sampling: capabilities.is_some_and(|given| given.sampling.is_some()),
    };
    let session = state.sessions.open(state, agreed);
    let members = format!(
        r#""protocolVersion":"{version}","capabilities":{CAPABILITIES},"serverInfo":{SERVER_INFO},"instructions":"{INSTRUCTIONS}""#
    );
    let mut response = json(StatusCode::OK, wire::result(id, &members));
    if let Ok(value) = HeaderValue::from_str(&session) {
        response.headers_mut().insert(SESSION_ID, value);
    }
    response
}

/// What a request came to.
pub enum Answered {
    /// The members of a result, without braces.
    Done(String),
    Slow(Slow),
}

/// Answers one request but for what takes time.
pub fn answer(
    state: &Arc<State>,
    session: &Arc<Session>,
    method: &str,
    params: &Params<'_>,
) -> Result<Answered, Fault> {
    let members = match method {
        "tools/call" => match tools::call(state, &session.counter, params)? {
            Outcome::Done(members) => members,
            Outcome::Slow(slow) => return Ok(Answered::Slow(slow)),
        },
        "ping" => String::new(),
        "tools/list" => catalogue::tools(&state.hub.extra()),
        "resources/list" => catalogue::resources(),
        "resources/templates/list" => r#""resourceTemplates":[]"#.into(),
        "resources/read" => clock_only(params).map(|()| catalogue::clock())?,
        "resources/subscribe" | "resources/unsubscribe" => {
            clock_only(params)?;
            session.standing(state);
            session.clock.store(method == "resources/subscribe", Ordering::Relaxed);
            String::new()
        }
        "logging/setLevel" => set_level(session, params)?,
        _ => return Err(Fault::new(METHOD_NOT_FOUND, format!("unknown method: {method}"))),
    };
    Ok(Answered::Done(members))
}

fn clock_only(params: &Params<'_>) -> Result<(), Fault> {
    match params.uri.as_ref().map(Text::as_str) {
        Some(CLOCK) => Ok(()),
        Some(uri) => Err(Fault::no_such_resource(-32002, uri)),
        None => Err(Fault::new(INVALID_PARAMS, "params.uri is missing")),
    }
}

fn set_level(session: &Session, params: &Params<'_>) -> Result<String, Fault> {
    let level =
        params.level.as_ref().and_then(|level| LEVELS.iter().position(|known| *known == level.as_str()));
    let level = level.ok_or_else(|| Fault::new(INVALID_PARAMS, "params.level is no log level"))?;
    session.log_level.store(level, Ordering::Relaxed);
    Ok(String::new())
}

/// A slow call: on a stream if it has something to say on the way, else as JSON when it is done.
async fn carry_out(session: &Arc<Session>, id: &str, slow: Slow, params: &Params<'_>) -> Response<Body> {
    let token = params.meta.as_ref().and_then(|meta| meta.progress_token).map(|token| token.get().to_owned());
    if let (Slow::Sleep { ms }, None) = (&slow, &token) {
        let cancel = session.begin(id);
        let members = tokio::select! {
            members = slow::sleep(*ms, None) => Some(members),
            () = cancel.notified() => None,
        };
        session.end(id);
        return match members {
            Some(members) => json(StatusCode::OK, wire::result(id, &members)),
            None => accepted(),
        };
    }
    let stream = session.open_stream();
    let cancel = session.begin(id);
    let (task_session, task_stream, id) = (session.clone(), stream.clone(), id.to_owned());
    tokio::spawn(async move {
        tokio::select! {
            members = work(&task_session, &task_stream, slow, token) => {
                task_stream.push(&wire::result(&id, &members));
            }
            // A cancelled request gets no response (L-CAN).
            () = cancel.notified() => {}
        }
        task_session.end(&id);
        task_stream.finish();
    });
    let primed = VERSIONS[0] <= session.agreed.version;
    match stream.attach(None, Guard::Nothing) {
        // Clients before 2025-11-25 choke on an event without data.
        Some(body) if primed => events(body.with_head(stream.priming())),
        Some(body) => events(body),
        None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the stream overflowed"),
    }
}

async fn work(session: &Session, stream: &Stream, slow: Slow, token: Option<String>) -> String {
    match slow {
        Slow::Sleep { ms } => slow::sleep(ms, token.as_deref().map(|token| (token, stream))).await,
        Slow::Log { level, text } => {
            if session.log_level.load(Ordering::Relaxed) <= level {
                stream.push(&slow::log_message(level, &text));
            }
            tools::text_members("logged")
        }
        Slow::Ask { question } => {
            let question = slow::elicitation(&question);
            ask(session, stream, session.agreed.elicitation, question, slow::elicited).await
        }
        Slow::Sample { prompt } => {
            ask(session, stream, session.agreed.sampling, slow::sampling(&prompt), slow::sampled).await
        }
    }
}

async fn ask(
    session: &Session,
    stream: &Stream,
    declared: bool,
    question: Question,
    read: fn(&str) -> String,
) -> String {
    if !declared {
        return error_members(&format!("this client does not take {}", question.method));
    }
    match session.ask(stream, question.method, &question.members).await {
        Some(raw) => read(&raw),
        None => error_members("the client gave no answer"),
    }
}

/// GET: the standing stream, or the rest of any stream after `Last-Event-ID`.
pub fn listen(state: &State, headers: &HeaderMap) -> Response<Body> {
    if !accepts(headers, "text/event-stream") {
        return plain(StatusCode::NOT_ACCEPTABLE, "Accept must list text/event-stream");
    }
    let session = match session(state, headers) {
        Ok(session) => session,
        Err(refusal) => return refusal.into(),
    };
    if headers.contains_key("last-event-id") {
        return match resume(&session, headers) {
            Some(response) => response,
            None => plain(StatusCode::BAD_REQUEST, "no stream of this session has that event"),
        };
    }
    let stream = session.standing(state);
    if stream.is_attached() {
        return plain(StatusCode::CONFLICT, "this session has its standing stream already");
    }
    match stream.attach(None, Guard::Nothing) {
        Some(body) => events(body.with_head(": open\n\n".into())),
        None => plain(StatusCode::CONFLICT, "this session has its standing stream already"),
    }
}

fn resume(session: &Session, headers: &HeaderMap) -> Option<Response<Body>> {
    let (stream, after) = headers.get("last-event-id")?.to_str().ok()?.split_once('-')?;
    let stream = session.stream(stream.parse().ok()?)?;
    stream
        .attach(Some(after.parse().ok()?), Guard::Nothing)
        .map(|body| events(body.with_head(": resumed\n\n".into())))
}

/// DELETE: the end of a session.
pub fn end(state: &State, headers: &HeaderMap) -> Response<Body> {
    match check_version(headers).and_then(|()| find(state, headers)) {
        Ok((id, _)) if state.sessions.end(state, id) => {
            let mut response = accepted();
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Ok(_) => plain(StatusCode::NOT_FOUND, "session not found"),
        Err(refusal) => refusal.into(),
    }
}
