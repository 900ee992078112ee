//! A legacy message on its way: `initialize`, a client's answer, or anything else in (or without) a session.
//!
//! The call survives its connection: see `detached.rs` before the head, `streams/` after it. A head that takes
//! longer than `prime_after` makes us answer with a stream, so that the client holds an event id to resume from.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method as Verb, Response, StatusCode};
use regatta_mcp::era::Era;
use regatta_mcp::{Kind, Message, Method, documents};
use regatta_policy::retry::Repeatability;
use regatta_policy::snapshot::Cursors;
use regatta_store::Uuid16;

use super::answers::{self, Rest};
use super::cached::First;
use super::detached::{Detachable, text_of};
use super::exchange::{Answered, Errand, Where, prime_after};
use super::initialize::{initialize, is_primed};
use super::notes::Noted;
use super::source::CallSource;
use super::{batch, cached, journal, later, modern, notes, standing, tool_list};
use crate::encode::answer::{Marks, Role, mark};
use crate::event_id::Label;
use crate::fault::{Asker, Fault, Place, Refusal};
use crate::gateway::Gateway;
use crate::handover::{Call, Caller, Subject};
use crate::headers::Outbound;
use crate::peers;
use crate::peers::letter::Letter;
use crate::reply::ReplyBody;
use crate::route::handles::Maker;
use crate::route::tools::among;
use crate::session::Bound;
use crate::streams::body::{Reading, StreamBody};
use crate::streams::stream::{Carries, Source, Stream};
use crate::{bind, content, encode};

/// Serves one legacy POST.
pub(crate) async fn post(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    mut asker: Asker,
) -> Result<Response<ReplyBody>, Refusal> {
    let method = method_of(&call);
    if method == Some(Method::Initialize) {
        if gateway.is_draining() {
            return Err(Fault::Draining.told(&asker));
        }
        return Box::pin(initialize(gateway, call, asker)).await;
    }
    let bound = bind::bind(gateway, &call.server, &call.caller, &call.head)
        .await
        .map_err(|fault| fault.told(&asker))?;
    if let Some(bound) = &bound {
        asker.place = Place::Session;
        standing::let_pass(gateway, &bound.session).await;
    }
    if gateway.is_draining()
        && matches!(&call.message, Subject::One(message) if message.kind == Kind::Request)
    {
        return Err(Fault::Draining.told(&asker));
    }
    batch::check(&call, bound.as_ref()).map_err(|fault| fault.told(&asker))?;
    if let Some(list) = tool_list::composed(&call, &asker) {
        return Ok(tool_list::answer(list?, call.permit));
    }
    match (&call.message, bound) {
        (Subject::One(message), Some(bound)) if matches!(message.kind, Kind::Response { .. }) => {
            Box::pin(answers::answer(gateway, call, asker, bound)).await
        }
        (Subject::Batch(messages), Some(bound)) if messages.iter().any(answers::is_answer) => {
            match Box::pin(answers::apart(gateway, call, &asker, &bound)).await? {
                Rest::Call(call) => Box::pin(batch::pass(gateway, call, asker, bound)).await,
                Rest::Answer(answer) => Ok(answer),
            }
        }
        (Subject::Batch(_), Some(bound)) => Box::pin(batch::pass(gateway, call, asker, bound)).await,
        (Subject::One(_), Some(bound)) if later::concerns(&call, &bound) => {
            Box::pin(elsewhere(gateway, call, asker, bound)).await
        }
        (Subject::One(message), Some(bound)) => match notes::note(message, &call.text) {
            None if method == Some(Method::NotificationCancelled) => {
                Box::pin(cancelled(gateway, call, asker, bound)).await
            }
            None => request(gateway, call, asker, Some(bound), None).await,
            Some(note) => Box::pin(noted(gateway, call, asker, bound, note)).await,
        },
        (_, None) => request(gateway, call, asker, None, None).await,
    }
}

/// The method of a single message.
fn method_of(call: &Call) -> Option<Method> {
    call.one().and_then(|message| message.method).map(|name| name.method)
}

/// Who asks, for a call that is refused before it is bound: inside a live session its fault rides on HTTP 200.
pub(crate) async fn placed(gateway: &Arc<Gateway>, call: &Call, asker: Asker) -> Asker {
    match bind::bind(gateway, &call.server, &call.caller, &call.head).await {
        Ok(Some(_)) if call.era == Era::Legacy => Asker { place: Place::Session, ..asker },
        Ok(_) | Err(_) => asker,
    }
}

/// A message that is not, or not only, for the session's own replica: a call of a tool that it lacks, or a notification
/// of a session that has several bindings.
async fn elsewhere(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
    bound: Bound,
) -> Result<Response<ReplyBody>, Refusal> {
    if call.one().is_some_and(|message| message.kind == Kind::Notification) {
        later::tell(&call, &bound);
        return match method_of(&call) {
            Some(Method::NotificationCancelled) => cancelled(gateway, call, asker, bound).await,
            _other => request(gateway, call, asker, Some(bound), None).await,
        };
    }
    let bound = later::seat(gateway, &call, bound).await.map_err(|fault| fault.told(&asker))?;
    request(gateway, call, asker, Some(bound), None).await
}

/// A request that a later home of the session must be told of.
async fn noted(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
    bound: Bound,
    note: notes::Note,
) -> Result<Response<ReplyBody>, Refusal> {
    let bound = notes::before(gateway, bound, &note).await.map_err(|fault| fault.told(&asker))?;
    let (server, client) = (call.server.clone(), Outbound::of(call.head.headers.clone(), &call.caller));
    let noted = Noted { gateway: gateway.clone(), server, client, bound: bound.clone(), note };
    request(gateway, call, asker, Some(bound), Some(Box::new(noted))).await
}

/// The raw id of the request that a `notifications/cancelled` takes back.
pub(super) fn taken_back(message: &Message, text: &Bytes) -> Option<Bytes> {
    message.method.filter(|name| name.method == Method::NotificationCancelled)?;
    message.params.request_id.map(|span| text.slice(span.start as usize..span.end as usize))
}

/// A call, wherever it runs, waits for no person any more.
pub(super) fn tell_cancelled(gateway: &Arc<Gateway>, session: Uuid16, id: Bytes) {
    peers::cancelled(gateway, session, &id);
    peers::tell_all(gateway, Letter::Cancelled { session, id });
}

/// A client takes a request back: its server is told, and the call, wherever it runs, waits for no person any more.
async fn cancelled(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
    bound: Bound,
) -> Result<Response<ReplyBody>, Refusal> {
    let session = bound.session.uuid;
    let id = call.one().and_then(|message| taken_back(message, &call.text));
    let answer = request(gateway, call, asker, Some(bound), None).await?;
    id.into_iter().for_each(|id| tell_cancelled(gateway, session, id));
    Ok(answer)
}

/// The errand of an ordinary legacy message.
fn errand(gateway: &Arc<Gateway>, call: Box<Call>, asker: Asker, bound: Option<Bound>) -> Box<Errand> {
    let (repeatability, among, mut rewritten) = (repeatability(&call), among(&call), Vec::new());
    let journaled = journal::named(&call, bound.as_ref(), &mut rewritten);
    let place = match bound {
        Some(bound) => Where::Home(bound),
        None => Where::Any { maker: Maker::Nobody, affinity: None },
    };
    Box::new(Errand {
        gateway: gateway.clone(),
        server: call.server,
        headers: Outbound::of(call.head.headers, &call.caller),
        caller: call.caller,
        method: Verb::POST,
        text: call.text,
        rewritten,
        asker,
        era: call.era,
        repeatability,
        place,
        among,
        cursor: None,
        permit: Some(call.permit),
        upkeep: None,
        noted: None,
        entry: call.entry,
        journaled,
        alarm: None,
    })
}

/// Whether executing the message twice does harm: by the protocol, or by the operator's word (DESIGN 5.2).
pub(crate) fn repeatability(call: &Call) -> Repeatability {
    let Some(message) = call.one() else { return Repeatability::Harmful };
    let Some(name) = message.method else { return Repeatability::Harmful };
    let listed = &call.server.server.repeatable_tools;
    let is_listed = || {
        let tool = message.params.name.filter(|_| name.method == Method::ToolsCall && !listed.is_empty());
        tool.map(|tool| tool.get(&call.text))
            .is_some_and(|tool| listed.iter().any(|glob| glob.matches(&tool)))
    };
    match name.method.is_read() || is_listed() {
        true => Repeatability::Harmless,
        false => Repeatability::Harmful,
    }
}

/// Whether it may have to wait for its session's standing stream: then its place at the server is for [`request`] to get.
pub(super) fn may_wait(gateway: &Gateway, call: &Call) -> bool {
    let is_ordinary = method_of(call).is_some_and(|method| method != Method::Initialize);
    call.era == Era::Legacy && is_ordinary && gateway.streams.opens_any()
}

/// Carries an ordinary message to its server, and the answer back; settles what was `noted` of it.
pub(super) async fn request(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
    bound: Option<Bound>,
    noted: Option<Box<Noted>>,
) -> Result<Response<ReplyBody>, Refusal> {
    let alarm = call.alarm.clone();
    let (call, upkeep) = match cached::first(gateway, call, bound.as_ref()) {
        First::Answer(answer) => return Ok(answer),
        First::GoOn(call, upkeep) => (call, upkeep),
    };
    let mut errand = errand(gateway, call, asker.clone(), bound.clone());
    errand.upkeep = upkeep;
    errand.noted = noted;
    let (wait, server, caller) = (prime_after(&errand), errand.server.clone(), errand.caller.clone());
    // A question of its server's would be lost while the stream for it is not open.
    let before = match (&bound, &asker.id) {
        (Some(bound), Some(_)) => gateway.streams.being_opened(bound.session.uuid),
        (_, _) => None,
    };
    let mut exchange = Detachable::behind(before, errand);
    // Else there is nothing to resume: no session that could hold a stream, or a batch.
    let opening = bound.zip(asker.id.clone()).map(|(bound, id)| {
        let ring_bytes_max = server.limits.ring_bytes_max;
        Opening { gateway, bound, id, caller, ring_bytes_max }
    });
    let exchanged = match &opening {
        Some(_) => alarm.within(wait, &mut exchange).await,
        None => Some((&mut exchange).await),
    };
    let Some(answered) = exchanged else {
        let refused = || Fault::NoReplica.told(&asker);
        let (opening, exchange) = opening.zip(exchange.take()).ok_or_else(refused)?;
        let replica = opening.bound.home.replica;
        let source = CallSource::waiting(gateway.clone(), asker, exchange);
        return Ok(opening.stream(replica, Box::new(source)));
    };
    let answered = answered?;
    if !answered.is_stream() {
        drop(opening);
        return self::answered(answered).await;
    }
    match opening {
        Some(opening) => streamed(opening, asker, answered).await,
        // Events pass as they come.
        None => Ok(modern::relay(answered, None)),
    }
}

/// Answers with events: with a stream that can be resumed, unless the response is all that came, and came at once.
async fn streamed(
    opening: Opening<'_>,
    asker: Asker,
    answered: Answered,
) -> Result<Response<ReplyBody>, Refusal> {
    let replica = answered.replica;
    let mut source = Box::new(CallSource::answered(opening.gateway.clone(), asker, answered));
    match source.only_response().await {
        Some(event) => Ok(encode::head::events(ReplyBody::whole(event))),
        None => Ok(opening.stream(replica, source)),
    }
}

/// What a new stream of a call needs.
struct Opening<'a> {
    gateway: &'a Arc<Gateway>,
    bound: Bound,
    id: Bytes,
    caller: Caller,
    ring_bytes_max: usize,
}

impl Opening<'_> {
    /// Answers with a stream that can be resumed.
    fn stream(self, replica: regatta_policy::ReplicaId, source: Box<dyn Source>) -> Response<ReplyBody> {
        let uuid = self.bound.session.uuid;
        let number = regatta_seal::random_u64();
        let (boot, context) = (self.gateway.boot, peers::context_of(&self.caller));
        let label = Label { number, boot, replica, context, id: Some(self.id.clone()) };
        let label = label.seal(&self.gateway.ring.load(), uuid);
        let carries = Carries::Call { id: self.id };
        let stream = Stream::new(number, uuid, self.caller, carries, label, self.ring_bytes_max, source);
        let stream = Arc::new(stream);
        self.gateway.streams.insert(&stream);
        let priming = is_primed(self.bound.session.content.version).then(|| priming(&stream));
        let reading = Reading { reader: 1, at: 1, priming, place: None };
        encode::head::events(ReplyBody::stream(StreamBody::new(self.gateway.clone(), stream, reading)))
    }
}

/// The event before any other: an id to resume from, and no content.
pub(crate) fn priming(stream: &Stream) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    regatta_mcp::events::write_priming(&mut out, &stream.event_id(0));
    out.freeze()
}

/// Answers with what is not a stream: JSON that is held and judged, or whatever refuses.
async fn answered(answered: Answered) -> Result<Response<ReplyBody>, Refusal> {
    if answered.answer.head.status != StatusCode::OK || answered.kind != content::Kind::Json {
        return Box::pin(modern::pass(answered)).await;
    }
    let Answered { mut errand, answer, replica, .. } = answered;
    let mut body = answer.body;
    let text = match body.take_whole(errand.server.limits.event_max) {
        Some(text) => text,
        None => Box::pin(text_of(&errand, body)).await?,
    };
    let text = judge(&mut errand, replica, text)?;
    cached::told(&mut errand).await;
    let body = match errand.permit {
        Some(permit) => ReplyBody::held(text, permit),
        None => ReplyBody::whole(text),
    };
    Ok(encode::head::like(answer.head, body))
}

/// A JSON answer must hold the response to the request; what else it says passes too (RELIABILITY 3.11).
fn judge(errand: &mut Errand, replica: regatta_policy::ReplicaId, text: Bytes) -> Result<Bytes, Refusal> {
    if errand.asker.id.is_none() {
        return Ok(text);
    }
    let ring = errand.gateway.ring.load();
    let marks = Marks {
        ring: &ring,
        era: Era::Legacy,
        id: errand.asker.id.as_ref(),
        replica,
        session: errand.bound().map(|bound| (bound.session.uuid, bound.home.etag)),
        realm: errand.realm(),
        cursors: Cursors::Shared,
        handle_key: None,
        news: Some(&errand.gateway.rehoming),
    };
    let mut spans = documents(&text);
    if let (Some(only), None) = (spans.next(), spans.next()) {
        let document = text.slice(only.start as usize..only.end as usize);
        if let Some((Role::Final, outgoing)) = mark(&marks, &document) {
            return Ok(match &mut errand.upkeep {
                Some(upkeep) => upkeep.answered(&errand.gateway, &document, outgoing),
                None => outgoing,
            });
        }
    } else {
        let mut out = BytesMut::with_capacity(text.len());
        let mut is_answered = false;
        for span in documents(&text) {
            let document = text.slice(span.start as usize..span.end as usize);
            let Some((role, outgoing)) = mark(&marks, &document) else { continue };
            if role == Role::Final {
                is_answered = true;
                // With other messages before it: not one that is kept, but a writing tool has written.
                if let Some(upkeep) = &mut errand.upkeep {
                    upkeep.pass();
                    upkeep.answered(&errand.gateway, &document, Bytes::new());
                }
            }
            let document = outgoing;
            if role != Role::Foreign {
                out.extend_from_slice(&document);
                out.extend_from_slice(b"\n");
            }
        }
        if is_answered {
            return Ok(out.freeze());
        }
    }
    errand.gateway.metrics.bad_answers.inc();
    Err(errand.refuse(Fault::BadAnswer { why: "it holds no response to the request" }))
}
