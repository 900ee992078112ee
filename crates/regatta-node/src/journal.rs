//! The journal of calls: a tool declared `once` is never run twice for one call, whoever repeats it and wherever.
//!
//! A call is named by who sends it, its tool and arguments, and a key: `_meta["io.regatta/idempotencyKey"]`, or the header
//! `Idempotency-Key`, or the name that a gateway gives it, or the session with the request's id. The first to come runs it, to its end, whatever becomes of its
//! connection, and keeps the result; who comes later gets the result, waits for it, or is told that the outcome is unknown.
//! What a call says before its result goes out as it comes.

mod entry;
mod name;
mod outcome;
mod relay;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use regatta_mcp::codes;
use regatta_store::{Begun, CallName, Run, StoreError};
use rmcp::ServerHandler;
use serde_json::Value;
use tokio::time::Instant;

pub(crate) use self::entry::{Entry, Handed};
use self::entry::{LEASE, Signs, TakingBack, Unanswered};
pub(crate) use self::name::name;
pub(crate) use self::outcome::retold;
use self::outcome::{End, end, repeat};
use crate::answers::{Answer, not_run, unknown};
use crate::caller::Caller;
use crate::clock::Over;
use crate::legacy::Stay;
use crate::serve::{self, Peek, Shared};

/// How often a call that waits for another's result looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// That a gateway sent the call before.
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
    taking_back: TakingBack,
}

impl Counts {
    fn note_lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }
}

/// A request that is on its way.
pub(crate) struct Request {
    pub(crate) caller: Caller,
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) peek: Peek,
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
        match begin(&shared, call, run, life).await {
            Ok(Begun::Yours) => break,
            // What it asks a person may take longer than this request has.
            Ok(Begun::Running) if Instant::now() + LOOK_EVERY >= deadline => {
                counts.unknown.fetch_add(1, Relaxed);
                return unknown(&id, "this call runs still, and who sends it again gets its result");
            }
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
    let store = shared.sessions.store.clone();
    let signs = Signs::give(store.clone(), call, run, life);
    let (counts, place) = (counts.clone(), stay.place.clone());
    let entry = Entry { store, call, run, life, counts, signs, place };
    let running = tokio::spawn(to_its_end(shared, entry, request, stay, deadline));
    match running.await {
        Ok(answer) => answer,
        Err(_) => unknown(&id, BROKEN),
    }
}

/// Begins a call, and leaves no trace of one that is not to be run because no answer came, or came too late.
async fn begin<H: ServerHandler>(
    shared: &Shared<H>,
    call: CallName,
    run: Run,
    life: Duration,
) -> Result<Begun, StoreError> {
    let store = &shared.sessions.store;
    let unanswered = Unanswered::of(store, call, run, &shared.journal.taking_back);
    let begun = store.begin_call(&call, run, LEASE, life).await;
    if begun.is_ok() {
        unanswered.answered();
    }
    begun
}

/// Runs a call to its end, or to the head of an answer that comes as events, which has a task of its own.
async fn to_its_end<H: ServerHandler>(
    shared: Arc<Shared<H>>,
    entry: Entry,
    request: Request,
    stay: Stay,
    deadline: Instant,
) -> Answer {
    let Request { caller, parts, body, peek } = request;
    let (id, is_checked, clock) = (peek.id.clone(), name::is_checked(&peek), stay.clock.clone());
    let handed = Handed::new(entry);
    let stay = Stay { entry: Some(handed.clone()), ..stay };
    let routed = serve::route(&shared, caller, (parts, body), peek, stay);
    let Ok(answer) = tokio::time::timeout_at(deadline, routed).await else {
        return unknown(&id, Over::Time.why());
    };
    // Who drives a legacy call's stream has it.
    let Some(entry) = handed.take() else { return answer };
    if answer.body().size_hint().exact().is_none() {
        return relay::relay(entry, answer, id, clock);
    }
    let (head, body) = answer.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes);
    let end = end(&head, &body, is_checked);
    let is_broken = end == End::Broken;
    entry.end(end).await;
    match is_broken {
        true => unknown(&id, BROKEN),
        false => http::Response::from_parts(head, Full::new(body).boxed()),
    }
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
pub(crate) mod tests {
    use rmcp::model::{CallToolRequestParams, CallToolResponse, ProgressNotificationParam};
    use rmcp::service::RequestContext;
    use rmcp::{ErrorData, RoleServer};

    use super::*;

    pub(crate) struct Nobody;

    impl ServerHandler for Nobody {}

    /// All that a node without a store has.
    pub(crate) async fn shared<H: ServerHandler>(factory: serve::Factory<H>) -> Arc<Shared<H>> {
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
            stalled: Arc::default(),
            tools: Tools { once: ["order".to_owned()].into() },
            journal: Arc::default(),
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
        let call = name(&shared.tools, &shared.sessions.server, &request).unwrap();
        let place = Arc::new(shared.places.try_take().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        let clock = shared.fleet.clock(deadline);
        let answer =
            answer(shared.clone(), call, request, Stay { place, clock, entry: None }, deadline).await;
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

    /// Tells of its progress, and of nothing else.
    struct Endless;

    impl ServerHandler for Endless {
        async fn call_tool(
            &self,
            _: CallToolRequestParams,
            context: RequestContext<RoleServer>,
        ) -> Result<CallToolResponse, ErrorData> {
            let progress = ProgressNotificationParam::new(context.meta.get_progress_token().unwrap(), 0.5);
            context.peer.notify_progress(progress).await.unwrap();
            std::future::pending().await
        }
    }

    /// A call of a legacy session that says something before its end.
    fn endless_order(shared: &Shared<Endless>) -> Request {
        let params =
            br#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}"#;
        let agreed = serde_json::json!({"protocolVersion": "2025-11-25", "capabilities": {}});
        let token = shared.sessions.begin(Caller([0; 16]), params, &agreed).unwrap();
        let (parts, ()) =
            http::Request::post("/mcp").header(serve::SESSION, token).body(()).unwrap().into_parts();
        let body = Bytes::from_static(
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":
            {"name":"order","_meta":{"progressToken":"p","io.regatta/idempotencyKey":"a"}}}"#,
        );
        Request { caller: Caller([0; 16]), parts, peek: Peek::at(&body), body }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_too_long_gives_its_place_back_though_its_client_does_not_read() {
        let shared = shared(Arc::new(|| Endless)).await;
        let request = endless_order(&shared);
        let place = Arc::new(shared.places.try_take().unwrap());
        let deadline = Instant::now() + Duration::from_secs(5);
        let stay = Stay { place, clock: shared.fleet.clock(deadline), entry: None };
        let unread = serve::one(&shared, request, stay, deadline).await;
        assert_eq!((unread.body().size_hint().exact(), shared.places.in_flight()), (None, 1));
        tokio::time::sleep_until(deadline + Duration::from_secs(1)).await;
        assert_eq!(shared.places.in_flight(), 0);
        assert_eq!(shared.places.works.number(), 1, "its last words are not read");
        drop(unread);
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
