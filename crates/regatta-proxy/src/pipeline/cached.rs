//! What joins the result cache with a request's way: answers that were kept, one fetch for many, fetches of our own.
//!
//! A request that others wait for outlives its client, within `detached_max`; nobody waits longer for another's fetch
//! than for a fetch of its own. Nothing here decides what may be kept: `upkeep.rs` does, by the rules.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method as Verb, Response, StatusCode};
use http_body::Body;
use regatta_cache::{Audience, Joined, Kept, Landing, Lead, Patience, Sought, Status, seek};
use regatta_mcp::sse::Framer;
use regatta_mcp::{SkimKind, skim};
use regatta_policy::admission::Class;
use regatta_seal::Fingerprint;
use tokio::time::Instant;

use super::exchange::{Answered, Errand, Gained, Where, exchange};
use super::legacy::repeatability;
use super::modern;
use crate::admit;
use crate::cache::{Look, consult};
use crate::content::Kind;
use crate::encode;
use crate::encode::answer::same_id;
use crate::fault::{Asker, Fault, Refusal};
use crate::forward::probe::collect;
use crate::gateway::Gateway;
use crate::handover::{Account, Call};
use crate::headers::Outbound;
use crate::reply::ReplyBody;
use crate::route::handles::{Maker, directions};
use crate::route::tools::among;
use crate::session::Bound;
use crate::upkeep::{By, Fill, Upkeep};
use crate::upstream::UpstreamBody;

/// What a first look gave.
pub(crate) enum First {
    /// It was kept.
    Answer(Response<ReplyBody>),
    /// The call goes on, with what its answer will do to the cache.
    GoOn(Box<Call>, Option<Box<Upkeep>>),
}

/// Looks whether the call's answer was kept. Never waits.
pub(crate) fn first(gateway: &Arc<Gateway>, call: Box<Call>, bound: Option<&Bound>) -> First {
    let consulted = consult(gateway, &call, bound);
    match (consulted.look, consulted.touch) {
        (Look::Aside, None) => First::GoOn(call, None),
        (Look::Aside, touch) => First::GoOn(call, Some(Box::new(Upkeep::new(None, touch)))),
        (Look::Asks(asking), touch) => First::GoOn(call, Some(Box::new(Upkeep::new(Some(asking), touch)))),
        (Look::Found { kept, status, refresh }, touch) => {
            // Nothing is executed, so nothing is touched.
            Upkeep::new(None, touch).was_idle();
            if let Some(fill) = refresh {
                fetch_anew(gateway, &call, bound, fill);
            }
            First::Answer(found(gateway, call, &kept, status))
        }
    }
}

fn found(gateway: &Gateway, call: Box<Call>, kept: &Kept, status: Status) -> Response<ReplyBody> {
    let id = call.id().unwrap_or_default();
    kept.tell(status);
    encode::head::json(ReplyBody::held(kept.response(&id, status, gateway.clock.now()), call.permit))
}

const LATE: Fault = Fault::OutcomeUnknown { why: "the server did not answer in time" };

/// Asks the other gateways, if there are any.
async fn sought(gateway: &Gateway, lead: Box<Lead>, patience: Patience) -> Sought {
    match lead.about().shared {
        None => Sought::Lead(lead),
        Some(_) => Box::pin(seek(lead, patience, || gateway.clock.now())).await,
    }
}

/// Finds out who fetches what the errand asks for. Gives the answer if somebody else brought it.
pub(crate) async fn settle(errand: &mut Errand) -> Result<Option<Bytes>, Refusal> {
    let gateway = errand.gateway.clone();
    let Some(asking) = errand.upkeep.as_mut().and_then(|upkeep| upkeep.take_asking()) else {
        return Ok(None);
    };
    let bounds = &errand.server.server.call;
    let patience = Patience { silence: bounds.request_timeout, whole: bounds.request_max };
    let since = Instant::now();
    let tally = asking.about.tally.clone();
    loop {
        let now = gateway.clock.now();
        let joined = gateway.results.cache.join(asking.key, asking.about.clone(), asking.spare.clone(), now);
        let (kept, status) = match joined {
            Joined::Lead(lead) => {
                let lead = match sought(&gateway, lead, patience).await {
                    Sought::Lead(lead) => lead,
                    Sought::Kept(kept) => {
                        tally.shared(kept.form.len(), kept.cost);
                        return Ok(Some(given(errand, &kept, Status::Hit)));
                    }
                    Sought::Late => return Err(errand.refuse(LATE)),
                };
                tally.miss();
                warn_if_useless(errand, asking.by);
                if let Some(upkeep) = &mut errand.upkeep {
                    upkeep.lead(Fill { rules: asking.rules, by: asking.by, lead });
                }
                return Ok(None);
            }
            Joined::Found(kept) => (kept, Status::Hit),
            Joined::Wait(waiter) => match waiter.landing(since, patience).await {
                Some(Landing::Kept(kept)) => (kept, Status::Hit),
                Some(Landing::Spare(kept)) => (kept, Status::Stale),
                Some(Landing::Passed) => {
                    tally.miss();
                    return Ok(None);
                }
                Some(Landing::Lost) => continue,
                None => return Err(errand.refuse(LATE)),
            },
        };
        tally.shared(kept.form.len(), kept.cost);
        return Ok(Some(given(errand, &kept, status)));
    }
}

/// A kept result as the answer to the errand, which then has nothing more to do with the cache.
fn given(errand: &mut Errand, kept: &Kept, status: Status) -> Bytes {
    if let Some(mut upkeep) = errand.upkeep.take() {
        upkeep.was_idle();
    }
    let id = errand.asker.id.clone().unwrap_or_default();
    kept.response(&id, status, errand.gateway.clock.now())
}

fn warn_if_useless(errand: &Errand, by: By) {
    let By::Rule(rule) = by else { return };
    let Some(view) = errand.server.results.rules.get(rule) else { return };
    if view.tally.must_warn() {
        tracing::warn!(
            server = errand.server.server.name,
            tool = view.rule.tool.as_str(),
            "a [[cache]] rule helps nobody: fewer than 5 % of its calls were found in the cache"
        );
    }
}

/// What is left of an older result, if the server could not answer the errand.
pub(crate) fn spare(errand: &mut Errand, gained: &Result<Gained, Refusal>) -> Option<Bytes> {
    let failed = match gained {
        Ok((answer, _)) => answer.head.status.is_server_error(),
        Err(refusal) => matches!(
            refusal.fault,
            Fault::NoReplica
                | Fault::Overloaded
                | Fault::MakerGone
                | Fault::OutcomeUnknown { .. }
                | Fault::BadAnswer { .. }
        ),
    };
    let gateway = errand.gateway.clone();
    let kept = errand.upkeep.as_mut().filter(|_| failed)?.spare(&gateway)?;
    kept.tell(Status::Stale);
    Some(given(errand, &kept, Status::Stale))
}

/// A modern request that has to do with the cache. It dies with its client, like any other (2026-07-28
/// basic/patterns/cancellation), unless somebody else waits for its answer.
pub(crate) async fn modern(
    mut errand: Box<Errand>,
    key: Option<Fingerprint>,
) -> Result<Response<ReplyBody>, Refusal> {
    if let Some(text) = settle(&mut errand).await? {
        return Ok(encode::head::json(match errand.permit {
            Some(permit) => ReplyBody::held(text, permit),
            None => ReplyBody::whole(text),
        }));
    }
    let audience = errand.upkeep.as_ref().and_then(|upkeep| upkeep.audience());
    if audience.is_some() {
        // It may go on in another task.
        errand.alarm = None;
    }
    let (gateway, account) = (errand.gateway.clone(), errand.caller.account);
    let answering = Box::pin(async move { modern::answer(exchange(errand).await?, key).await });
    Awaited { gateway, account, audience, answering: Some(answering) }.await
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Refusal>> + Send>>;

/// A request that goes on without its client while others wait for its answer.
struct Awaited {
    gateway: Arc<Gateway>,
    account: Account,
    audience: Option<Audience>,
    answering: Option<Answering>,
}

impl Future for Awaited {
    type Output = Result<Response<ReplyBody>, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(answering) = self.answering.as_mut() else { return Poll::Pending };
        let polled = answering.as_mut().poll(cx);
        if polled.is_ready() {
            self.answering = None;
        }
        polled
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let Some(answering) = self.answering.take() else { return };
        if self.audience.as_ref().is_some_and(|audience| audience.is_there()) {
            // The body, if it is one that flows, sees to itself when it is dropped.
            self.gateway.detach(self.account, async move { drop(answering.await) });
        }
    }
}

/// Fetches a kept result anew, by a request like the one that found it. It has a place like any other call, and none to
/// wait for: a gateway that is full has better things to do.
fn fetch_anew(gateway: &Arc<Gateway>, call: &Call, bound: Option<&Bound>, fill: Fill) {
    let Fill { rules, by, lead } = fill;
    let Some(permit) = gateway.slots.try_enter(Class::Ordinary) else { return };
    let affinity = directions(call, &gateway.ring.load()).ok().and_then(|way| way.affinity);
    let place = match bound {
        Some(bound) => Where::Home(bound.clone()),
        None => Where::Any { maker: Maker::Nobody, affinity },
    };
    let mut errand = Box::new(Errand {
        gateway: gateway.clone(),
        server: call.server.clone(),
        caller: call.caller.clone(),
        headers: Outbound::of(call.head.headers.clone(), &call.caller),
        method: Verb::POST,
        text: call.text.clone(),
        rewritten: Vec::new(),
        asker: Asker { id: call.id(), era: Some(call.era), ..Asker::default() },
        era: call.era,
        repeatability: repeatability(call),
        place,
        among: among(call),
        cursor: None,
        permit: Some(permit),
        alarm: None,
        upkeep: None,
        noted: None,
        entry: admit::entry(call),
        journaled: None,
    });
    let bounds = &call.server.server.call;
    let patience = Patience { silence: bounds.request_timeout, whole: bounds.request_max };
    gateway.detach(call.caller.account, async move {
        let Sought::Lead(lead) = sought(&errand.gateway, lead, patience).await else { return };
        errand.upkeep = Some(Box::new(Upkeep::fill(Fill { rules, by, lead })));
        if let Ok(answered) = exchange(errand).await {
            bring(answered).await;
        }
    });
}

/// Reads an answer for the cache alone.
pub(crate) async fn bring(answered: Answered) {
    let Answered { mut errand, answer, kind, .. } = answered;
    let (Some(upkeep), Some(id)) = (errand.upkeep.take(), errand.asker.id.clone()) else { return };
    let whole = errand.server.server.call.request_max;
    let mut reader = Reader { upkeep, id, gateway: errand.gateway.clone() };
    let event_max = errand.server.limits.event_max;
    let read = async {
        match (answer.head.status, kind) {
            (StatusCode::OK, Kind::Json) => {
                if let Ok(text) = collect(answer.body, event_max).await {
                    reader.take(&text);
                }
            }
            (StatusCode::OK, Kind::Events) => reader.events(answer.body, event_max).await,
            (_, _) => {}
        }
    };
    let _ = tokio::time::timeout(whole, read).await;
}

/// Waits until the other gateways were told what the answer made old, if it did: before the answer goes out.
pub(crate) async fn told(errand: &mut Errand) {
    if let Some(publishing) = errand.upkeep.as_mut().and_then(|upkeep| upkeep.take_publishing()) {
        let _ = publishing.await;
    }
}

/// Whether the response was said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    More,
    All,
}

struct Reader {
    upkeep: Box<Upkeep>,
    id: Bytes,
    gateway: Arc<Gateway>,
}

impl Reader {
    fn take(&mut self, text: &Bytes) -> Heard {
        let Ok(seen) = skim(text) else { return Heard::All };
        match seen.kind {
            // Nobody is there to be asked.
            SkimKind::Request => {
                self.upkeep.pass();
                Heard::All
            }
            SkimKind::Notification => {
                self.upkeep.heard();
                Heard::More
            }
            SkimKind::Response { .. } => match seen.id {
                Some(id) if same_id(&self.id, id.of(text)) => {
                    // Nobody waits for the answer itself, so nothing waits for what it makes old.
                    self.upkeep.answered(&self.gateway, text, text.clone());
                    Heard::All
                }
                Some(_) | None => Heard::More,
            },
        }
    }

    async fn events(&mut self, mut body: UpstreamBody, event_max: usize) {
        let mut framer = Framer::new(event_max);
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(data) = frame.into_data() else { continue };
            framer.push(data);
            while let Ok(Some(event)) = framer.next() {
                let data = event.data.filter(|data| !data.is_empty());
                if data.is_some_and(|data| self.take(&data) == Heard::All) {
                    return body.let_end();
                }
            }
        }
    }
}
