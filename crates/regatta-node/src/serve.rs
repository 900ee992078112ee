//! Connections and requests: a request takes a place, goes to its era, and gives the place back with its last byte.
//!
//! Modern requests and the legacy handshake go to `rmcp`'s transport without sessions; what has a session token goes to
//! `legacy`. Health and metrics take no place.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use regatta_mcp::codes;
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::answers::{
    Answer, AnswerBody, Apart, Held, Reached, draining, event, events, fault, not_run, plain, reached,
    unknown, unknown_text,
};
use crate::caller::{Caller, Callers};
use crate::clock::Over;
use crate::drain::{Phase, Phases, phase_reached};
use crate::event_id::{self, Ids, Of};
use crate::fleet::Fleet;
use crate::given::Given;
use crate::legacy::{At, Stay};
use crate::places::{NoPlace, Place, Places};
use crate::post::Letter;
use crate::pump::pumped;
use crate::resume::Rest;
use crate::sealing::{Closed, now_s};
use crate::session::{Refused, Session, Sessions};
use crate::settings::Settings;
use crate::shell::{Shell, Toolbox};
use crate::standing::Resumed;
use crate::{batch, door, journal, legacy};

pub(crate) const SESSION: &str = "mcp-session-id";
pub(crate) const DISAGREES: &str = "MCP-Protocol-Version is not the one that was agreed";

/// A place for a stream that stands.
pub(crate) type Room = Arc<tokio::sync::OwnedSemaphorePermit>;

/// Makes a handler for each request.
pub(crate) type Factory<H> = Arc<dyn Fn() -> H + Send + Sync>;

/// What all requests share.
pub(crate) struct Shared<H: ServerHandler> {
    pub(crate) settings: Settings,
    pub(crate) factory: Factory<H>,
    pub(crate) transport: StreamableHttpService<Shell<H>, NeverSessionManager>,
    pub(crate) toolbox: Arc<Toolbox>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) callers: Callers,
    pub(crate) places: Arc<Places>,
    pub(crate) ready: AtomicBool,
    pub(crate) answered: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    /// Connections that were closed because their clients did not read.
    pub(crate) stalled: Arc<AtomicU64>,
    pub(crate) tools: journal::Tools,
    pub(crate) journal: Arc<journal::Counts>,
}

/// What of a message decides where it goes.
#[derive(Default)]
pub(crate) struct Peek {
    pub(crate) id: Value,
    pub(crate) method: String,
    /// As they stand in the body.
    pub(crate) params: Option<Bytes>,
}

impl Peek {
    /// Nothing, where the body is no such message: it is refused further on.
    pub(crate) fn at(body: &Bytes) -> Peek {
        #[derive(Default, Deserialize)]
        struct Seen<'a> {
            #[serde(default)]
            id: Value,
            #[serde(borrow, default)]
            method: Cow<'a, str>,
            #[serde(borrow)]
            params: Option<&'a RawValue>,
        }
        let seen: Seen = serde_json::from_slice(body).unwrap_or_default();
        let params = seen.params.map(|params| body.slice_ref(params.get().as_bytes()));
        Peek { id: seen.id, method: seen.method.into_owned(), params }
    }
}

/// `rmcp`'s transport as it is used here.
pub(crate) fn transport<H: ServerHandler>(
    settings: &Settings,
    factory: Factory<H>,
    toolbox: Arc<Toolbox>,
) -> StreamableHttpService<Shell<H>, NeverSessionManager> {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .disable_allowed_hosts()
        .with_max_request_body_bytes(settings.request_bytes_max);
    StreamableHttpService::new(
        move || Ok(Shell::new(factory(), toolbox.clone())),
        Arc::new(NeverSessionManager::default()),
        config,
    )
}

/// Answers one HTTP request.
pub(crate) async fn answer<H: ServerHandler>(
    shared: Arc<Shared<H>>,
    request: Request<Incoming>,
) -> Result<http::Response<AnswerBody>, Infallible> {
    let mut answer = match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => plain(StatusCode::OK, "ok\n"),
        (&Method::GET, "/ready") if shared.ready.load(Relaxed) => plain(StatusCode::OK, "ready\n"),
        (&Method::GET, "/ready") => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        (&Method::GET, "/metrics") => plain(StatusCode::OK, metrics(&shared)),
        (_, "/mcp") => mcp(shared.clone(), request).await,
        _ => plain(StatusCode::NOT_FOUND, "MCP is at /mcp\n"),
    };
    if !shared.ready.load(Relaxed) {
        // Whoever comes again is to find another node.
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

async fn mcp<H: ServerHandler>(shared: Arc<Shared<H>>, request: Request<Incoming>) -> Answer {
    let (mut parts, body) = request.into_parts();
    if let Err(turned) = door::check(&shared.settings, &parts) {
        return turned.answer();
    }
    let Ok(caller) = shared.callers.caller(&parts.headers, now_s()) else {
        return plain(StatusCode::FORBIDDEN, "the identity headers are not those of a gateway\n");
    };
    let arrived = Instant::now();
    let place = match place(&shared).await {
        Ok(place) => Arc::new(place),
        // The id is in the body, and a body is read in a place only: what waits for one holds no memory.
        Err(why) => return overloaded(&Value::Null, why),
    };
    let deadline = arrived + shared.settings.request_timeout();
    let body = match whole(&shared.settings, body, deadline).await {
        Ok(body) => body,
        Err((status, why)) => return plain(status, why),
    };
    if batch::is_one(&body) && parts.method == Method::POST {
        return batch::answer(shared, caller, (parts, body), place).await;
    }
    let peek = Peek::at(&body);
    let id = peek.id.clone();
    if is_refused(shared.fleet.drain.phase(), &peek) {
        return draining(&id);
    }
    let stands = match room(&shared.fleet, &mut parts, &peek) {
        Ok(stands) => stands,
        Err(why) => return overloaded(&id, why),
    };
    let clock = shared.fleet.clock(deadline);
    let stay = Stay { place: place.clone(), clock: clock.clone(), entry: None };
    let request = journal::Request { caller, parts, body, peek };
    let answer = one(&shared, request, stay, deadline).await;
    if answer.extensions().get::<Apart>().is_some() {
        return answer;
    }
    let last_word = async move { Some(event(&unknown_text(&id, clock.over().await.why()))) };
    answer.map(|body| match stands {
        // It has a place of its own, and stays for as long as its client and its node do.
        Some(room) => Held::new(body, room).until(leaving(shared.fleet.drain.phases())).boxed(),
        // Nothing of it is to come from the handler.
        None if body.size_hint().exact().is_some() => Held::new(body, place).boxed(),
        None => pumped(body, place, last_word),
    })
}

/// Answers one message, or one GET or DELETE, by its deadline.
pub(crate) async fn one<H: ServerHandler>(
    shared: &Arc<Shared<H>>,
    request: journal::Request,
    stay: Stay,
    deadline: Instant,
) -> Answer {
    let id = request.peek.id.clone();
    if let Some(why) = turned_away(&shared.toolbox, &request.peek) {
        return not_run(StatusCode::SERVICE_UNAVAILABLE, &id, codes::NO_REPLICA, &why);
    }
    let over = stay.clock.clone().over();
    let answering = async {
        match journal::name(&shared.tools, &shared.sessions.server, &request) {
            None => {
                let journal::Request { caller, parts, body, peek } = request;
                route(shared, caller, (parts, body), peek, stay).await
            }
            Some(call) => journal::answer(shared.clone(), call, request, stay, deadline).await,
        }
    };
    tokio::select! {
        biased;
        answer = answering => {
            shared.answered.fetch_add(1, Relaxed);
            answer
        }
        over = over => {
            if over == Over::Time {
                shared.timed_out.fetch_add(1, Relaxed);
            }
            unknown(&id, over.why())
        }
    }
}

/// Ends with no word, when the node says its last.
async fn leaving(mut phases: Phases) {
    phase_reached(&mut phases, Phase::LastWords).await;
}

/// A place for what stands; `None`: it does not.
fn room(fleet: &Fleet, parts: &mut Parts, peek: &Peek) -> Result<Option<Room>, &'static str> {
    let is_stream = parts.method == Method::GET;
    if !is_stream && peek.method != "subscriptions/listen" {
        return Ok(None);
    }
    let room = fleet.room.clone().try_acquire_owned().map_err(|_| "every place for streams is taken")?;
    let room: Room = Arc::new(room);
    if is_stream {
        parts.extensions.insert(room.clone());
    }
    Ok(Some(room))
}

/// Whether a node in this phase leaves a message to another one. GET: see `listen`.
fn is_refused(phase: Phase, peek: &Peek) -> bool {
    match phase {
        Phase::Serving | Phase::Notice => false,
        // It would be ended at once.
        Phase::Draining | Phase::Closed => peek.method == "subscriptions/listen",
        // It waited for its place, or its body came slowly.
        Phase::LastWords | Phase::Over => true,
    }
}

/// A place, or why there is none.
async fn place<H: ServerHandler>(shared: &Shared<H>) -> Result<Place, &'static str> {
    shared.places.take_within(shared.settings.queue_wait_max()).await.map_err(|why| match why {
        NoPlace::QueueFull => "every place and the queue are taken",
        NoPlace::NoneInTime => "no place became free in time",
    })
}

/// A request's body, if it is not too large and does not come too slowly.
async fn whole(
    settings: &Settings,
    body: Incoming,
    deadline: Instant,
) -> Result<Bytes, (StatusCode, &'static str)> {
    let body = Limited::new(body, settings.request_bytes_max).collect();
    match tokio::time::timeout_at(deadline, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broken off\n")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body came too slowly\n")),
    }
}

/// Why a call is for another node, where nodes differ and no gateway knows it.
fn turned_away(toolbox: &Toolbox, peek: &Peek) -> Option<String> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
    }
    if !toolbox.placed.turns_away() || peek.method != "tools/call" {
        return None;
    }
    let named: Named<'_> = serde_json::from_slice(peek.params.as_ref()?).ok()?;
    toolbox.placed.turned_away(&named.name)
}

fn overloaded(id: &Value, why: &str) -> Answer {
    not_run(StatusCode::SERVICE_UNAVAILABLE, id, codes::OVERLOADED, why)
}

/// To the era and the session that a request belongs to; the handler finds what is the caller's in the extensions.
pub(crate) async fn route<H: ServerHandler>(
    shared: &Shared<H>,
    caller: Caller,
    (mut parts, body): (Parts, Bytes),
    peek: Peek,
    stay: Stay,
) -> Answer {
    let (sessions, fleet, clock) = (shared.sessions.clone(), shared.fleet.clone(), stay.clock.clone());
    let mut given = Given { sessions, fleet, caller, session: None, clock };
    let token = parts.headers.get(SESSION).cloned();
    let Some(token) = token.as_ref().map(|token| token.to_str().unwrap_or_default()) else {
        parts.extensions.insert(given);
        if peek.method == "initialize" && parts.method == Method::POST {
            return handshake(shared, caller, parts, body, peek).await;
        }
        return through(shared, parts, body).await;
    };
    let session = match shared.sessions.find(caller, token).await {
        Ok(session) => session,
        Err(refused) => return reached(Reached::Nothing, legacy::refusal(&refused, &peek.id)),
    };
    given.session = Some(session.uuid);
    parts.extensions.insert(given);
    match parts.method {
        Method::DELETE => match shared.sessions.end(&session, token).await {
            Ok(()) => plain(StatusCode::NO_CONTENT, ""),
            Err(refused) => legacy::refusal(&refused, &Value::Null),
        },
        Method::POST if !agrees(&parts, session.client.protocol_version.as_str()) => {
            let fault = fault(StatusCode::BAD_REQUEST, &peek.id, codes::INVALID_REQUEST, DISAGREES);
            reached(Reached::Nothing, fault)
        }
        Method::POST => {
            let at = At { sessions: &shared.sessions, fleet: &shared.fleet, caller };
            let handler = Shell::new((shared.factory)(), shared.toolbox.clone());
            legacy::answer(handler, at, session, (parts, body), stay).await
        }
        Method::GET => listen(shared, caller, session, &parts).await,
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "GET, POST or DELETE\n"),
    }
}

/// GET in a session: its standing stream, or the rest of a call's.
async fn listen<H: ServerHandler>(
    shared: &Shared<H>,
    caller: Caller,
    session: Session,
    parts: &Parts,
) -> Answer {
    let Shared { sessions, fleet, .. } = shared;
    let Some(room) = parts.extensions.get::<Room>().cloned() else {
        // A GET has no id.
        return overloaded(&Value::Null, "every place for streams is taken");
    };
    let (phases, last_id) = (fleet.drain.phases(), parts.headers.get("last-event-id"));
    let is_draining = fleet.drain.phase() >= Phase::Draining;
    let mut ids = Ids { sessions: sessions.clone(), caller, session: session.uuid, of: Of::Standing };
    let mut resumed = Resumed::No;
    if let Some(last_id) = last_id {
        let said = event_id::open(sessions, caller, session.uuid, last_id.to_str().unwrap_or_default()).await;
        let said = match said {
            Ok(said) => said,
            Err(Closed::Foreign) => {
                return plain(StatusCode::BAD_REQUEST, "Last-Event-ID is none of this session's\n");
            }
            Err(Closed::StoreAway) => return legacy::refusal(&Refused::StoreAway, &Value::Null),
        };
        if let Some((owner, name, id)) = said.call()
            && (!is_draining || owner == fleet.post.own)
        {
            let (streams, post, patience) = (fleet.streams.clone(), fleet.post.clone(), fleet.patience);
            (ids.of, ids.session) = (said.of.clone(), session.uuid);
            let (id, next) = (id.clone(), said.sequence + 1);
            return apart(
                Rest { streams, post, owner, name, id, ids, next, patience, phases, _room: room }.frames(),
            );
        }
        resumed = Resumed::From(said.sequence);
    }
    if is_draining {
        // A GET has no id.
        return draining(&Value::Null);
    }
    let frames = fleet.standing.attach(&session, ids, phases, room, resumed);
    fleet.post.send(fleet.post.all, Letter::Attached { session: session.uuid }).await;
    apart(frames)
}

fn apart(frames: impl futures_util::Stream<Item = Bytes> + Send + Sync + 'static) -> Answer {
    let mut answer = events(frames);
    answer.extensions_mut().insert(Apart);
    answer
}

/// Absent is allowed: clients of 2025-03-26 do not know the header.
pub(crate) fn agrees(parts: &Parts, agreed: &str) -> bool {
    parts.headers.get("mcp-protocol-version").is_none_or(|version| version.as_bytes() == agreed.as_bytes())
}

async fn through<H: ServerHandler>(shared: &Shared<H>, parts: Parts, body: Bytes) -> Answer {
    shared.transport.handle(Request::from_parts(parts, Full::new(body))).await
}

/// `initialize`: rmcp answers, the session's token is made of the answer.
async fn handshake<H: ServerHandler>(
    shared: &Shared<H>,
    caller: Caller,
    parts: Parts,
    body: Bytes,
    peek: Peek,
) -> Answer {
    let (head, body) = through(shared, parts, body).await.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes);
    let result =
        serde_json::from_slice::<Value>(&body).ok().and_then(|mut said| match said["result"].take() {
            Value::Null => None,
            result => Some(result),
        });
    let mut answer = http::Response::from_parts(head, Full::new(body).boxed());
    let (Some(result), Some(params)) = (result, peek.params) else { return answer };
    match shared.sessions.begin(caller, &params, &result) {
        Ok(token) => {
            let Ok(token) = HeaderValue::from_str(&token) else { return answer };
            answer.headers_mut().insert(SESSION, token);
            answer
        }
        Err(why) => fault(StatusCode::OK, &peek.id, codes::INVALID_PARAMS, why),
    }
}

fn metrics<H: ServerHandler>(shared: &Shared<H>) -> String {
    let places = &shared.places;
    let rows = [
        ("in_flight", "gauge", places.in_flight() as u64),
        ("queue_depth", "gauge", places.waiting() as u64),
        ("parked", "gauge", shared.fleet.questions.waiting() as u64),
        ("standing_streams", "gauge", shared.fleet.standing.number() as u64),
        ("memory_max_bytes", "gauge", shared.settings.memory_max()),
        ("refused_total", "counter", places.refused()),
        ("answered_total", "counter", shared.answered.load(Relaxed)),
        ("timed_out_total", "counter", shared.timed_out.load(Relaxed)),
        ("stalled_total", "counter", shared.stalled.load(Relaxed)),
        ("journal_kept_total", "counter", shared.journal.kept.load(Relaxed)),
        ("journal_joined_total", "counter", shared.journal.joined.load(Relaxed)),
        ("journal_unknown_total", "counter", shared.journal.unknown.load(Relaxed)),
        ("journal_lost_total", "counter", shared.journal.lost.load(Relaxed)),
    ];
    let row =
        |(name, kind, value)| format!("# TYPE regatta_node_{name} {kind}\nregatta_node_{name} {value}\n");
    let mut told = rows.map(row).concat();
    shared.toolbox.write(&mut told);
    told
}
