//! The journal of calls: a tool declared `once` is never run twice for one call, whoever repeats it and wherever.
//!
//! A call is named by who sends it, its tool and arguments, and a key: `_meta["io.regatta/idempotencyKey"]`, or the header
//! `Idempotency-Key`, or the name that a gateway gives it, or the session with the request's id. The first to come runs it, to its end, whatever becomes of its
//! connection, and keeps the result; who comes later gets the result, waits for it, or is told that the outcome is unknown.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use regatta_mcp::codes;
use regatta_store::{Begun, CallName, Holds, Run, Store, StoreError};
use rmcp::ServerHandler;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::answers::{Answer, Reached, fault, json, not_run, unknown};
use crate::caller::Caller;
use crate::legacy::Stay;
use crate::serve::{self, Peek, Shared};

/// How long a run is believed in without a sign of it, and how often it gives one.
const LEASE: Duration = Duration::from_secs(3);
const SIGN_EVERY: Duration = Duration::from_millis(750);
/// How often a call that waits for another's result looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Attempts to keep a result, and the pause between two.
const KEEP_ATTEMPTS: usize = 4;
const KEEP_PAUSE: Duration = Duration::from_millis(300);
/// Where a client says which key a call has.
const META_KEY: &str = "io.regatta/idempotencyKey";
/// Where a request says which version it is of, and the first whose `_meta` the transport checks.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const FIRST_CHECKED: &str = "2026-07-28";
/// What a gateway calls a call, whom it tells callers apart by, and that it sent the call before.
const GATEWAYS_NAME: &str = "x-regatta-call";
const GATEWAYS_CONTEXT: &str = "x-regatta-context";
const GATEWAYS_REPEAT: &str = "x-regatta-repeat";
const BROKEN: &str = "the handler broke off";

/// Which tools may run how often for one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tools {
    pub(crate) once: BTreeSet<String>,
}

/// What the journal did.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) kept: AtomicU64,
    pub(crate) joined: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// A request that is on its way.
pub(crate) struct Request {
    pub(crate) caller: Caller,
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) peek: Peek,
}

/// What of a call's params names it.
#[derive(Deserialize)]
struct Params {
    name: String,
    arguments: Option<Box<RawValue>>,
    #[serde(rename = "_meta")]
    meta: Option<serde_json::Map<String, Value>>,
}

/// The name of a request's call, if it is one of a tool that may run once only.
pub(crate) fn name<H: ServerHandler>(
    shared: &Shared<H>,
    caller: Caller,
    parts: &Parts,
    peek: &Peek,
) -> Option<CallName> {
    let is_call = parts.method == Method::POST && peek.method == "tools/call" && !peek.id.is_null();
    if !is_call || shared.tools.once.is_empty() {
        return None;
    }
    let params: Params = serde_json::from_slice(peek.params.as_ref()?).ok()?;
    if !shared.tools.once.contains(&params.name) {
        return None;
    }
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    // Whatever a client gives for a key is one: to overlook it would run the call twice in silence.
    let told = params.meta.as_ref().and_then(|meta| meta.get(META_KEY)).filter(|key| !key.is_null());
    let told = told.map(|key| key.as_str().map_or_else(|| key.to_string(), str::to_owned));
    let told = told.as_deref().or_else(|| header("idempotency-key"));
    let key = match (told, header(GATEWAYS_NAME), header(serve::SESSION)) {
        (Some(key), _, _) => format!("key {key}"),
        // The same at each attempt of any gateway, also if the session had to be opened anew for it.
        (None, Some(name), _) => format!("call {name}"),
        // An id is used once in a session (2025-11-25 basic, *Requests*).
        (None, None, Some(session)) => format!("session {session} {}", peek.id),
        (None, None, None) => return None,
    };
    // Whom a gateway tells apart, though all show the gateway's own credential here.
    let context = header(GATEWAYS_CONTEXT).unwrap_or_default();
    // Equal arguments may be spelled in another way by the process that sends them again.
    let arguments = params.arguments.as_ref().map(|arguments| arguments.get().as_bytes());
    let arguments = arguments.map(|raw| regatta_mcp::canonical(raw).unwrap_or_else(|| raw.to_vec()));
    let arguments = arguments.unwrap_or_default();
    let parts = [shared.sessions.server.as_str(), context, &key, &params.name].map(str::as_bytes);
    let [server, context, key, tool] = parts;
    Some(CallName(regatta_seal::digest32(&[b"call", &caller.0, server, context, key, tool, &arguments])))
}

/// Answers a call that may run once only. Whoever drops it stops waiting, no more.
pub(crate) async fn answer<H: ServerHandler>(
    shared: Arc<Shared<H>>,
    call: CallName,
    request: Request,
    stay: Stay,
    deadline: Instant,
) -> Answer {
    let (id, counts) = (request.peek.id.clone(), &shared.journal);
    let run = Run(regatta_seal::random16());
    let life = shared.settings.journal_life();
    let mut waited = false;
    loop {
        match shared.sessions.store.begin_call(&call, run, LEASE, life).await {
            Ok(Begun::Yours) => break,
            Ok(Begun::Running) => {
                if !std::mem::replace(&mut waited, true) {
                    counts.joined.fetch_add(1, Relaxed);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(Begun::Lost) => {
                counts.unknown.fetch_add(1, Relaxed);
                return unknown(&id, "the node that ran this call was lost; it is not run again");
            }
            Ok(Begun::Done(kept)) => {
                counts.kept.fetch_add(1, Relaxed);
                return repeat(&id, &kept);
            }
            // The first time it may have been run.
            Err(_) if request.parts.headers.contains_key(GATEWAYS_REPEAT) => {
                counts.unknown.fetch_add(1, Relaxed);
                return unknown(&id, "the journal cannot be asked now");
            }
            Err(why) => return refused(&id, &why),
        }
    }
    let running = tokio::spawn(to_its_end(shared.clone(), call, run, request, stay, deadline));
    match running.await {
        Ok(answer) => answer,
        Err(_) => unknown(&id, BROKEN),
    }
}

async fn to_its_end<H: ServerHandler>(
    shared: Arc<Shared<H>>,
    call: CallName,
    run: Run,
    request: Request,
    stay: Stay,
    deadline: Instant,
) -> Answer {
    let Request { caller, parts, body, peek } = request;
    let (id, is_checked) = (peek.id.clone(), is_checked(&peek));
    let store = shared.sessions.store.clone();
    // To the end of the run's last write.
    let place = stay.place.clone();
    let signs = Signs::give(store.clone(), call, run);
    let answered = tokio::time::timeout_at(deadline, async {
        let (head, body) = serve::route(&shared, caller, (parts, body), peek, stay).await.into_parts();
        let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes);
        (head, body)
    });
    let answered = answered.await;
    drop(signs);
    let Ok((head, body)) = answered else {
        // It was begun and not ended: that is what the journal says from now on.
        return unknown(&id, "the handler took longer than request_timeout");
    };
    let kept = match end(&head, &body, is_checked) {
        End::Told(result) => keep(&*store, &call, run, result, shared.settings.journal_life()).await,
        End::NotBegun => store.forget_call(&call, run).await.map(|()| Holds::Yes),
        // Taken back by its client, who waits for no response.
        End::Broken if body.is_empty() => return http::Response::from_parts(head, Full::new(body).boxed()),
        End::Broken => return unknown(&id, BROKEN),
    };
    if !matches!(kept, Ok(Holds::Yes)) {
        shared.journal.lost.fetch_add(1, Relaxed);
        tracing::warn!(
            ?kept,
            "the result of a call could not be kept; a repeat will be told that it is unknown"
        );
    }
    drop(place);
    http::Response::from_parts(head, Full::new(body).boxed())
}

/// Signs that a run lives; they end when this is dropped, by a panic too: for as long as they come, repeats wait.
struct Signs(tokio::task::JoinHandle<()>);

impl Signs {
    fn give(store: Arc<dyn Store>, call: CallName, run: Run) -> Signs {
        Signs(tokio::spawn(async move {
            loop {
                tokio::time::sleep(SIGN_EVERY).await;
                if let Err(why) = store.hold_call(&call, run, LEASE).await {
                    tracing::debug!(%why, "a sign of a running call was lost");
                }
            }
        }))
    }
}

impl Drop for Signs {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What an answer says of the run that it ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The handler gave this result or error.
    Told(Bytes),
    /// The call was refused before the handler was reached: nothing was done.
    NotBegun,
    /// The handler ended without an answer: what it did is unknown.
    Broken,
}

fn end(head: &http::response::Parts, body: &[u8], is_checked: bool) -> End {
    match head.extensions.get() {
        Some(Reached::Nothing) => return End::NotBegun,
        Some(Reached::NoAnswer) => return End::Broken,
        None => {}
    }
    match outcome(head.status, body) {
        Some(Outcome { code: Some(code), .. })
            if head.status == StatusCode::BAD_REQUEST && is_of_the_transport(code, is_checked) =>
        {
            End::NotBegun
        }
        Some(outcome) => End::Told(outcome.kept),
        None if head.status.is_client_error() => End::NotBegun,
        None => End::Broken,
    }
}

/// Whether an error that comes with 400 is one of the transport, which looks at a request before its handler does. A
/// handler's own errors come with 200, or with 404, or, where the client lacks a capability, with 400.
fn is_of_the_transport(code: i64, is_checked: bool) -> bool {
    match i32::try_from(code) {
        Ok(codes::INVALID_REQUEST | codes::HEADER_MISMATCH | codes::UNSUPPORTED_PROTOCOL_VERSION) => true,
        Ok(codes::INVALID_PARAMS) => is_checked,
        Ok(_) | Err(_) => false,
    }
}

/// Whether the request's `_meta` is checked before the handler is reached (2026-07-28 basic, *_meta*).
fn is_checked(peek: &Peek) -> bool {
    let params = peek.params.as_ref().and_then(|params| serde_json::from_slice::<Params>(params).ok());
    let version = params.and_then(|params| params.meta?.get(META_VERSION)?.as_str().map(str::to_owned));
    version.is_some_and(|version| version.as_str() >= FIRST_CHECKED)
}

async fn keep(
    store: &dyn Store,
    call: &CallName,
    run: Run,
    result: Bytes,
    life: Duration,
) -> Result<Holds, StoreError> {
    let mut last = Ok(Holds::No);
    for _ in 0..KEEP_ATTEMPTS {
        last = match store.end_call(call, run, result.clone(), life).await {
            // What it is worth to know: that it was run.
            Err(StoreError::TooLarge(_)) => store.end_call(call, run, Bytes::new(), life).await,
            kept => kept,
        };
        match &last {
            Err(StoreError::Away(_)) => tokio::time::sleep(KEEP_PAUSE).await,
            _ => return last,
        }
    }
    last
}

/// A response as it is kept.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    kept: Bytes,
    /// The code of an error.
    code: Option<i64>,
}

/// The members of a response beside its id, without the first brace: of a JSON body, or of the last event of a stream.
/// Before them the status, if it is not 200.
fn outcome(status: StatusCode, body: &[u8]) -> Option<Outcome> {
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Code {
        code: i64,
    }
    let text = std::str::from_utf8(body).ok()?;
    let text = text.lines().rev().find_map(|line| line.strip_prefix("data:")).unwrap_or(text);
    let response: Response<'_> = serde_json::from_str(text).ok()?;
    let told = match (response.result, response.error) {
        (Some(result), _) => format!("\"result\":{}}}", result.get()),
        (None, Some(error)) => format!("\"error\":{}}}", error.get()),
        (None, None) => return None,
    };
    let code = response.error.and_then(|error| serde_json::from_str::<Code>(error.get()).ok());
    let before = if status == StatusCode::OK { String::new() } else { status.as_u16().to_string() };
    Some(Outcome { kept: Bytes::from(before + &told), code: code.map(|error| error.code) })
}

/// A kept result, under the id of who asks now.
fn repeat(id: &Value, kept: &[u8]) -> Answer {
    if kept.is_empty() {
        let why = "this call was run before, and its result was too large to be kept";
        return fault(StatusCode::OK, id, codes::OUTCOME_UNKNOWN, why);
    }
    let (status, kept) = kept.split_at(kept.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},");
    json(StatusCode::from_bytes(status).unwrap_or(StatusCode::OK), [head.as_bytes(), kept].concat())
}

fn refused(id: &Value, why: &StoreError) -> Answer {
    let (code, why) = match why {
        StoreError::Away(_) => (codes::STORE_UNAVAILABLE, "the journal cannot be asked now: nothing was run"),
        StoreError::Full(_) | StoreError::TooLarge(_) => {
            (codes::OVERLOADED, "the journal is full: nothing was run")
        }
    };
    not_run(StatusCode::OK, id, code, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_found_in_json_and_in_the_last_event() {
        let told = |body: &[u8]| outcome(StatusCode::OK, body).map(|outcome| outcome.kept);
        let json = told(br#"{"jsonrpc":"2.0","id":1,"result":{"a":1.0}}"#).unwrap();
        assert_eq!(&json[..], br#""result":{"a":1.0}}"#);
        let events =
            b"data: {\"method\":\"notifications/progress\"}\n\ndata: {\"id\":1,\"error\":{\"code\":1}}\n\n";
        assert_eq!(&told(events).unwrap()[..], br#""error":{"code":1}}"#);
        assert_eq!(told(b"no such session\n"), None);
        assert_eq!(told(b"{}"), None);
    }

    fn ended(status: StatusCode, reached: Option<Reached>, body: &[u8], is_checked: bool) -> End {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = status;
        if let Some(reached) = reached {
            head.extensions.insert(reached);
        }
        end(&head, body, is_checked)
    }

    #[test]
    fn a_call_is_forgotten_only_if_its_handler_was_not_reached() {
        let error = |code: i32| format!(r#"{{"id":1,"error":{{"code":{code}}}}}"#);
        let told = |status, code| ended(status, None, error(code).as_bytes(), true);
        for code in [codes::INVALID_REQUEST, codes::HEADER_MISMATCH, codes::INVALID_PARAMS] {
            assert_eq!(told(StatusCode::BAD_REQUEST, code), End::NotBegun, "{code}");
            assert!(matches!(told(StatusCode::OK, code), End::Told(_)), "{code}");
        }
        let lacking = told(StatusCode::BAD_REQUEST, codes::MISSING_CLIENT_CAPABILITY);
        assert_eq!(lacking, End::Told(Bytes::from(r#"400"error":{"code":-32021}}"#)));
        let unknown = told(StatusCode::NOT_FOUND, codes::METHOD_NOT_FOUND);
        assert_eq!(unknown, End::Told(Bytes::from(r#"404"error":{"code":-32601}}"#)));
        let older = ended(StatusCode::BAD_REQUEST, None, error(codes::INVALID_PARAMS).as_bytes(), false);
        assert!(matches!(older, End::Told(_)), "{older:?}");
        let away = error(codes::STORE_UNAVAILABLE);
        assert_eq!(ended(StatusCode::OK, Some(Reached::Nothing), away.as_bytes(), true), End::NotBegun);
        assert_eq!(ended(StatusCode::FORBIDDEN, None, b"no", true), End::NotBegun);
        for (status, reached) in [(StatusCode::OK, Some(Reached::NoAnswer)), (StatusCode::BAD_GATEWAY, None)]
        {
            assert_eq!(ended(status, reached, b"no answer", true), End::Broken);
        }
    }

    #[tokio::test]
    async fn a_kept_result_is_told_under_the_id_of_who_asks() {
        let answer = repeat(&serde_json::json!("x"), br#""result":{"a":1.0}}"#);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], br#"{"jsonrpc":"2.0","id":"x","result":{"a":1.0}}"#);
        let refused = repeat(&serde_json::json!(2), br#"404"error":{"code":-32601}}"#);
        assert_eq!(refused.status(), StatusCode::NOT_FOUND);
        let body = refused.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], br#"{"jsonrpc":"2.0","id":2,"error":{"code":-32601}}"#);
    }

    struct Nobody;

    impl ServerHandler for Nobody {}

    async fn shared(factory: serve::Factory<Nobody>) -> Arc<Shared<Nobody>> {
        let settings = crate::settings::Settings::default();
        let store = crate::node::open(&settings).unwrap();
        let sealing = crate::sealing::Sealing::learn(&*store, crate::sealing::Company::Alone).await.unwrap();
        let (sealing, data_life) = (Arc::new(sealing), Duration::from_secs(60));
        let (server, opened) = ("shop".to_owned(), crate::opened::Opened::new());
        let sessions = crate::session::Sessions { store, sealing, server, data_life, opened };
        let sessions = Arc::new(sessions);
        let toolbox = Arc::new(crate::shell::Toolbox::default());
        let places = crate::places::Places::new(1, 0, settings.when_full);
        Arc::new(Shared {
            transport: serve::transport(&settings, factory.clone(), toolbox.clone()),
            toolbox,
            callers: crate::caller::Callers::of(&settings, &sessions.server),
            fleet: Arc::new(crate::fleet::Fleet::new(&sessions, &settings)),
            sessions,
            places: Arc::new(places),
            ready: true.into(),
            answered: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            tools: Tools { once: ["order".to_owned()].into() },
            journal: Counts::default(),
            settings,
            factory,
        })
    }

    /// A modern call under a key.
    fn order() -> Request {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"order","_meta":
            {"io.regatta/idempotencyKey":"a","io.modelcontextprotocol/protocolVersion":"2026-07-28",
             "io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},
             "io.modelcontextprotocol/clientCapabilities":{}}}}"#;
        let head = http::Request::post("/mcp")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", "order");
        let (parts, ()) = head.body(()).unwrap().into_parts();
        let body = Bytes::from(body);
        Request { caller: Caller([0; 16]), parts, peek: Peek::at(&body), body }
    }

    async fn told(shared: &Arc<Shared<Nobody>>) -> Value {
        let request = order();
        let call = name(shared, request.caller, &request.parts, &request.peek).unwrap();
        let place = Arc::new(shared.places.try_take().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        let clock = Arc::new(crate::clock::Clock::new(deadline, shared.fleet.patience));
        let answer = answer(shared.clone(), call, request, Stay { place, clock }, deadline).await;
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_handler_that_panics_leaves_a_call_of_which_nothing_is_known_and_nobody_waits_for_it() {
        let made = Arc::new(AtomicU64::new(0));
        let seen = made.clone();
        let factory: serve::Factory<Nobody> = Arc::new(move || {
            assert!(seen.fetch_add(1, Relaxed) > 0, "the first one breaks");
            Nobody
        });
        let shared = shared(factory).await;
        for _ in 0..2 {
            assert_eq!(told(&shared).await["error"]["code"], codes::OUTCOME_UNKNOWN);
        }
        assert_eq!(made.load(Relaxed), 1, "it is not run again");
    }

    #[tokio::test]
    async fn a_handlers_error_is_told_again_with_its_status() {
        let made = Arc::new(AtomicU64::new(0));
        let seen = made.clone();
        let factory: serve::Factory<Nobody> = Arc::new(move || {
            seen.fetch_add(1, Relaxed);
            Nobody
        });
        let shared = shared(factory).await;
        let first = told(&shared).await;
        assert_eq!((first["error"]["code"].as_i64(), made.load(Relaxed)), (Some(-32601), 1), "{first}");
        assert_eq!((told(&shared).await, made.load(Relaxed)), (first, 1), "it is not run again");
    }
}
