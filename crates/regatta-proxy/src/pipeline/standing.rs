//! GET: a session's standing stream, or the rest of a stream (2025-11-25 basic/transports, *Listening for Messages*
//! and *Resumability and Redelivery*).
//!
//! The client's stream stays open whatever becomes of the replica behind it: no official client re-opens it after an
//! error (RELIABILITY 3.6). What cannot be resumed says so once, as a final error, never as an endless loop.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method as Verb, Response, StatusCode};
use regatta_mcp::era::Era;
use regatta_mcp::events;
use regatta_mcp::headers::LAST_EVENT_ID;
use regatta_policy::budget::Verdict;
use regatta_policy::retry::Repeatability;

use super::detached::Detachable;
use super::exchange::{Errand, Where, exchange};
use super::initialize::is_primed;
use super::legacy::priming;
use super::modern;
use super::recalled::{Cut, RecalledSource};
use super::source::CallSource;
use super::standing_source::StandingSource;
use crate::callers::StreamPlace;
use crate::event_id::{self, Cursor, EventId, Label};
use crate::fault::{Asker, Fault, Place, Refusal};
use crate::gateway::Gateway;
use crate::handover::{Accepted, Caller, Identified};
use crate::headers::Outbound;
use crate::peers;
use crate::peers::catch_up;
use crate::peers::letter::Hold;
use crate::realm::Realm;
use crate::reply::ReplyBody;
use crate::route::handles::Maker;
use crate::route::tools::Among;
use crate::session::{Bound, Session};
use crate::streams::body::{Reading, StreamBody};
use crate::streams::stream::{Carries, Phase, Stream};
use crate::view::ServerView;
use crate::{bind, encode};

/// All that a stream of a session needs to be opened, and opened again.
#[derive(Clone)]
pub(crate) struct Listener {
    pub gateway: Arc<Gateway>,
    pub server: Arc<ServerView>,
    pub caller: Caller,
    pub headers: Outbound,
    pub bound: Bound,
}

/// Serves one GET.
pub(crate) async fn get(
    gateway: &Arc<Gateway>,
    identified: Identified,
) -> Result<Response<ReplyBody>, Refusal> {
    let Identified { accepted: Accepted { server, arrival, .. }, caller } = identified;
    let head = arrival.head;
    let asker = Asker { era: Some(Era::Legacy), ..Asker::default() };
    let bound = bind::bind(gateway, &server, &caller, &head).await.map_err(|fault| fault.told(&asker))?;
    if gateway.is_draining() {
        return Err(Fault::Draining.told(&asker));
    }
    let Some(bound) = bound else { return without_session(gateway, server, caller, head, asker).await };
    let cursor = head.headers.get(LAST_EVENT_ID).cloned();
    // Compact: a standing stream may stay for days.
    let headers = Outbound::of(head.headers, &caller).compact();
    let listener = Listener { gateway: gateway.clone(), server, caller, headers, bound };
    match cursor {
        // Ours are text, so what is not text is not ours: no reason to take it for a new stream.
        Some(cursor) => match cursor.to_str() {
            Ok(cursor) => resume(listener, cursor, asker).await,
            Err(_) => Err(Fault::UnusableEventId.told(&asker)),
        },
        None => open(listener, asker).await,
    }
}

/// Servers without sessions answer for themselves; a stream of theirs could not be told apart from another client's.
async fn without_session(
    gateway: &Arc<Gateway>,
    server: Arc<ServerView>,
    caller: Caller,
    head: Parts,
    asker: Asker,
) -> Result<Response<ReplyBody>, Refusal> {
    let errand = Box::new(Errand {
        gateway: gateway.clone(),
        server,
        headers: Outbound::of(head.headers, &caller),
        caller,
        method: Verb::GET,
        text: Bytes::new(),
        rewritten: Vec::new(),
        asker: asker.clone(),
        era: Era::Legacy,
        repeatability: Repeatability::Harmless,
        place: Where::Any { maker: Maker::Nobody, affinity: None },
        cursor: None,
        among: Among::All,
        permit: None,
        upkeep: None,
        noted: None,
        entry: None,
        journaled: None,
        alarm: None,
    });
    let answered = exchange(errand).await?;
    match answered.answer.head.status.is_success() {
        true => Err(Fault::SessionRequired.told(&asker)),
        false => modern::pass(answered).await,
    }
}

impl Listener {
    /// What its handles are bound to.
    pub fn realm(&self) -> Realm {
        Realm::of(&self.server, &self.caller)
    }

    /// A place among the caller's open streams.
    fn place(&self, asker: &Asker) -> Result<StreamPlace, Refusal> {
        self.gateway.callers.stream(self.caller.account, &self.server.limits).map_err(|verdict| {
            self.gateway.metrics.limited.inc();
            match verdict {
                Verdict::Limited | Verdict::Granted => Fault::TooManyStreams.told(asker),
                Verdict::Shed => Fault::Overloaded.told(asker),
            }
        })
    }

    /// A GET to the session's home.
    pub fn errand(
        &self,
        cursor: Option<(regatta_policy::ReplicaId, http::HeaderValue)>,
        asker: Asker,
    ) -> Box<Errand> {
        Box::new(Errand {
            gateway: self.gateway.clone(),
            server: self.server.clone(),
            caller: self.caller.clone(),
            headers: self.headers.clone(),
            method: Verb::GET,
            text: Bytes::new(),
            rewritten: Vec::new(),
            asker,
            era: Era::Legacy,
            repeatability: Repeatability::Harmless,
            place: Where::Home(self.bound.clone()),
            cursor,
            among: Among::All,
            permit: None,
            upkeep: None,
            noted: None,
            entry: None,
            journaled: None,
            alarm: None,
        })
    }

    fn read(&self, stream: Arc<Stream>, reading: Reading) -> Response<ReplyBody> {
        encode::head::events(ReplyBody::stream(StreamBody::new(self.gateway.clone(), stream, reading)))
    }
}

/// Lets the GET of a standing stream pass that the client sent before this message: official clients send it right after the
/// handshake, and call tools without waiting for its answer. Servers drop what they would say on a stream that is not open, and
/// a call whose question was dropped has no end. Directly they meet both requests in the client's order.
pub(super) async fn let_pass(gateway: &Gateway, session: &Session) {
    if session.counts_as_early() && gateway.streams.standing(session.uuid).is_none() {
        // Of connections that became readable at once the runtime runs the last one first: the GET may stand behind us.
        tokio::task::yield_now().await;
    }
}

/// Opens the standing stream, or goes on with one that lost its reader.
async fn open(listener: Listener, asker: Asker) -> Result<Response<ReplyBody>, Refusal> {
    let uuid = listener.bound.session.uuid;
    let gateway = listener.gateway.clone();
    // Before the look for an open one: else two requests at once would both find none.
    let Some(_opening) = gateway.streams.open_standing(uuid) else {
        return Err(Fault::StreamTaken.told(&asker));
    };
    let place = listener.place(&asker)?;
    if let Some(stream) = listener.gateway.streams.standing(uuid) {
        if stream.is_read() || stream.caller.context != listener.caller.context {
            return Err(Fault::StreamTaken.told(&asker));
        }
        if matches!(stream.phase(), Phase::Live) {
            let (reader, at) = stream.attach();
            return Ok(listener.read(stream, Reading { reader, at, priming: None, place: Some(place) }));
        }
    }
    // Another gateway may still hold the one that this client was cut from.
    let elsewhere = peers::release::ask(&gateway, uuid, peers::context_of(&listener.caller));
    let mut opening = Detachable::new(listener.errand(None, asker.clone()));
    let source = match tokio::time::timeout(listener.server.server.call.prime_after, &mut opening).await {
        Ok(answered) => {
            match (answered, elsewhere) {
                (Ok(answered), Some(elsewhere)) if answered.answer.head.status == StatusCode::CONFLICT => {
                    match elsewhere.answer().await {
                        Hold::Kept => return Err(Fault::StreamTaken.told(&asker)),
                        // It takes the server a moment to see that the other one is gone; the client need not.
                        Hold::LetGo => StandingSource::going_on(listener.clone(), None),
                    }
                }
                (Ok(answered), _) if answered.is_stream() => {
                    StandingSource::opened(listener.clone(), answered)
                }
                (Ok(answered), _) => return modern::pass(answered).await,
                // Official clients never ask again after an error (RELIABILITY 3.6): they get their stream, and it waits.
                (Err(refusal), _) if encode::fault::is_passing(&refusal) => {
                    StandingSource::going_on(listener.clone(), None)
                }
                (Err(refusal), _) => return Err(refusal),
            }
        }
        Err(_) => match opening.take() {
            Some(exchange) => StandingSource::opening(listener.clone(), exchange),
            None => return Err(Fault::NoReplica.told(&asker)),
        },
    };
    let number = regatta_seal::random_u64();
    let (boot, context) = (listener.gateway.boot, peers::context_of(&listener.caller));
    let label = Label { number, boot, replica: listener.bound.home.replica, context, id: None };
    let label = label.seal(&listener.gateway.ring.load(), uuid);
    let ring_bytes_max = listener.server.limits.ring_bytes_max;
    let stream = Stream::new(
        number,
        uuid,
        listener.caller.clone(),
        Carries::Standing,
        label,
        ring_bytes_max,
        Box::new(source),
    );
    let stream = Arc::new(stream);
    listener.gateway.streams.insert(&stream);
    let priming = is_primed(listener.bound.session.content.version).then(|| priming(&stream));
    Ok(listener.read(stream, Reading { reader: 1, at: 1, priming, place: Some(place) }))
}

/// Serves the rest of a stream.
async fn resume(listener: Listener, cursor: &str, asker: Asker) -> Result<Response<ReplyBody>, Refusal> {
    peers::keys::learn_key_of(&listener.gateway, cursor).await.map_err(|fault| fault.told(&asker))?;
    let opened = event_id::open(&listener.gateway.ring.load(), listener.bound.session.uuid, cursor);
    let Some(EventId { label, sequence, cursor: theirs }) = opened else {
        return Err(Fault::UnusableEventId.told(&asker));
    };
    let gateway = listener.gateway.clone();
    // Whoever gave it its name: it may have gone on here.
    let found = gateway.streams.find(label.number, listener.bound.session.uuid);
    let found = found.filter(|stream| stream.caller.context == listener.caller.context);
    let next = sequence.checked_add(1).ok_or_else(|| Fault::UnusableEventId.told(&asker))?;
    let is_mine = label.context == peers::context_of(&listener.caller);
    match (found, label.id.clone()) {
        // What its ring let go is in the store: a stream that runs here is never looked for elsewhere.
        (Some(stream), Some(id))
            if stream.can_serve(next) || catch_up::is_possible(&gateway, &stream, next) =>
        {
            let place = listener.place(&asker)?;
            gateway.metrics.resumed.inc();
            if let Phase::Paused { cursor } = stream.phase() {
                // Another home than its maker would open a standing stream for it.
                let there = Cursor::from_bytes(&cursor)
                    .and_then(|cursor| Some((listener.bound.at(&[cursor.maker], "")?, cursor)));
                let Some((bound, cursor)) = there else { return Ok(lost(&gateway, id, asker)) };
                feed(&Listener { bound, ..listener.clone() }, &stream, &cursor, id);
            }
            let (reader, _) = stream.attach();
            Ok(listener.read(stream, Reading { reader, at: next, priming: None, place: Some(place) }))
        }
        (Some(stream), None) if matches!(stream.phase(), Phase::Live) => {
            let place = listener.place(&asker)?;
            gateway.metrics.resumed.inc();
            let (reader, _) = stream.attach();
            // A standing stream has gaps by nature, so one more is better than a cut that comes again and again.
            let at = stream.nearest(next);
            Ok(listener.read(stream, Reading { reader, at, priming: None, place: Some(place) }))
        }
        (found, _) if gateway.peers.are_many() && is_mine => {
            let place = listener.place(&asker)?;
            if let Some(behind) = found.filter(|stream| !stream.is_standing()) {
                // It shows what another gateway says, or its client has heard more elsewhere than it ever said.
                peers::spill::drop_relay(&gateway, &behind);
            }
            gateway.metrics.resumed.inc();
            gateway.metrics.resumed_elsewhere.inc();
            let sealed = cursor.split_once('.').map_or(cursor, |(sealed, _)| sealed);
            let cut = Cut { label, sealed: sealed.to_owned(), next, cursor: theirs };
            Ok(go_on(listener, cut, place, asker))
        }
        // A standing stream has nothing to finish: it starts anew.
        (Some(_) | None, None) => open(listener, asker).await,
        (Some(_) | None, Some(id)) => Ok(lost(&gateway, id, asker)),
    }
}

/// Goes on with a stream that was cut at another gateway: the client's answer is open at once, what becomes of it is
/// seen behind it (SESSIONS 5).
fn go_on(listener: Listener, cut: Cut, place: StreamPlace, asker: Asker) -> Response<ReplyBody> {
    let carries = cut.label.id.clone().map_or(Carries::Standing, |id| Carries::Call { id });
    let (number, session, at) = (cut.label.number, listener.bound.session.uuid, cut.next);
    let (label, ring_bytes_max) = (cut.sealed.clone(), listener.server.limits.ring_bytes_max);
    let (gateway, caller) = (listener.gateway.clone(), listener.caller.clone());
    let source = RecalledSource::begin(listener.clone(), cut, asker);
    let stream = Stream::new(number, session, caller, carries, label, ring_bytes_max, Box::new(source));
    let stream = Arc::new(stream.going_on(at));
    gateway.streams.insert(&stream);
    let priming = Some(events::KEEP_ALIVE);
    listener.read(stream, Reading { reader: 1, at, priming, place: Some(place) })
}

/// Lets a paused stream go on from the upstream's own cursor.
fn feed(listener: &Listener, stream: &Stream, cursor: &Cursor, id: Bytes) {
    let asker = Asker { id: Some(id), era: Some(Era::Legacy), place: Place::Session, batch: None };
    let Some(asked) = cursor.asked() else { return };
    let errand = listener.errand(Some(asked), asker.clone());
    let exchange = Box::pin(exchange(errand));
    stream.feed(Box::new(CallSource::waiting(listener.gateway.clone(), asker, exchange)));
}

/// The rest cannot be had: the request's last word is that nobody knows (SESSIONS 5).
fn lost(gateway: &Gateway, id: Bytes, asker: Asker) -> Response<ReplyBody> {
    gateway.metrics.outcome_unknown.inc();
    let asker = Asker { id: Some(id), ..asker };
    let text = encode::fault::message(&Fault::StreamLost.told(&asker));
    encode::head::events(ReplyBody::whole(events::message(&text)))
}
