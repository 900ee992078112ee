//! A message in a legacy session (2025-03-26 to 2025-11-25), as a service of one request: the peer is restored from the
//! session's data, the handler runs, and nothing stays behind.
//!
//! The handshake and the modern era go through `rmcp`'s own transport (`serve.rs`); this is what it has no seam for. A call
//! runs on when its client's connection is lost, and its client gets the rest at any node.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::StatusCode;
use http::request::Parts;
use regatta_mcp::{Decoded, codes};
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, GetExtensions as _, JsonRpcNotification,
    JsonRpcRequest, ServerJsonRpcMessage,
};
use rmcp::service::{RoleServer, RunningService, Service, serve_directly};
use rmcp::transport::OneshotTransport;
use serde_json::Value;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use crate::answers::{
    Answer, Apart, Reached, come_back, event_with_id, events, fault, json, not_run, plain, primer, reached,
    unknown_text,
};
use crate::caller::Caller;
use crate::calls::Listed;
use crate::clock::{Clock, Over};
use crate::drain::{Phase, Phases, phase_reached};
use crate::event_id::{self, Ids, Of};
use crate::fleet::Fleet;
use crate::journal::{Entry, Handed};
use crate::places::Place;
use crate::post::Letter;
use crate::questions;
use crate::session::{Refused, Session, Sessions};
use crate::streams::{Read, SPILL_PAUSE, Stream, Streams};
use crate::transport::{Asking, OneRequest};

/// How long a handler may take over a notification.
const NOTIFIED_MAX: std::time::Duration = std::time::Duration::from_secs(5);
const BROKEN_OFF: &str = "the handler ended without an answer";

/// What a request changes in its session once the handler has said yes.
enum Change {
    None,
    Level(String),
    Subscribe(String),
    Unsubscribe(String),
}

/// What a request holds of its node: a place, and its time. Never in its head, which the handler keeps for as long as it
/// likes.
pub(crate) struct Stay {
    pub(crate) place: Arc<Place>,
    pub(crate) clock: Arc<Clock>,
    /// Its call's in the journal, for who drives its stream.
    pub(crate) entry: Option<Handed>,
}

/// Where a message came.
pub(crate) struct At<'a> {
    pub(crate) sessions: &'a Arc<Sessions>,
    pub(crate) fleet: &'a Arc<Fleet>,
    pub(crate) caller: Caller,
}

/// Answers one message of a session.
pub(crate) async fn answer<S: Service<RoleServer>>(
    handler: S,
    at: At<'_>,
    session: Session,
    (parts, body): (Parts, Bytes),
    stay: Stay,
) -> Answer {
    let message: ClientJsonRpcMessage = match serde_json::from_slice(&body) {
        Ok(message) => message,
        Err(why) => return reached(Reached::Nothing, unreadable(&body, &why.to_string())),
    };
    match message {
        ClientJsonRpcMessage::Request(request) => run(handler, at, session, (parts, request), stay).await,
        ClientJsonRpcMessage::Notification(notification) => {
            notified(handler, &at, session, parts, notification).await;
            plain(StatusCode::ACCEPTED, "")
        }
        ClientJsonRpcMessage::Response(_) | ClientJsonRpcMessage::Error(_) => {
            let Fleet { questions, post, .. } = &**at.fleet;
            match questions::take(questions, post, session.uuid, message).await {
                Ok(()) => plain(StatusCode::ACCEPTED, ""),
                Err(why) => refusal(&why.into(), &Value::Null),
            }
        }
    }
}

/// Why a body is no message, under its id where that can be read.
fn unreadable(body: &Bytes, why: &str) -> Answer {
    let (code, id, why) = match regatta_mcp::decode(body) {
        Err(malformed) => (malformed.fault.code(), malformed.id, malformed.why),
        Ok(Decoded::One(message)) => (codes::INVALID_REQUEST, message.id.map(|id| id.raw), why),
        Ok(Decoded::Batch(_)) => (codes::INVALID_REQUEST, None, why),
    };
    let id = id.and_then(|id| serde_json::from_slice(id.of(body)).ok()).unwrap_or_default();
    fault(StatusCode::BAD_REQUEST, &id, code, why)
}

/// A notification: a cancellation finds its call, everything else goes to the handler, which can only listen.
async fn notified<S: Service<RoleServer>>(
    handler: S,
    at: &At<'_>,
    session: Session,
    parts: Parts,
    mut notification: JsonRpcNotification<ClientNotification>,
) {
    if let ClientNotification::CancelledNotification(cancelled) = &notification.notification {
        let Some(id) = &cancelled.params.request_id else { return };
        let id = serde_json::to_value(id).unwrap_or_default();
        if !at.fleet.calls.cancel(session.uuid, &id) {
            let letter = Letter::Cancelled { session: session.uuid, id };
            at.fleet.post.send(at.fleet.post.all, letter).await;
        }
        return;
    }
    let client = (*session.client).clone();
    notification.notification.extensions_mut().insert(parts);
    notification.notification.extensions_mut().insert(session);
    let message = ClientJsonRpcMessage::Notification(notification);
    let (transport, mut messages) = OneshotTransport::<RoleServer>::new(message);
    // A handler of a notification ends by itself; nobody can tell when it did.
    let clock = at.fleet.clock(Instant::now() + NOTIFIED_MAX);
    tokio::spawn(async move {
        let service = serve_directly(handler, transport, Some(client));
        // What a handler says behind a notification has no stream to go on.
        let silence = async { while messages.recv().await.is_some() {} };
        tokio::select! {
            () = silence => {}
            _ = clock.over() => {}
        }
        drop(service);
    });
}

/// A call that runs. Dropped, it stops the handler.
struct Call<S: Service<RoleServer>> {
    messages: Receiver<ServerJsonRpcMessage>,
    listed: Listed,
    stay: Stay,
    _service: RunningService<RoleServer, S>,
}

impl<S: Service<RoleServer>> Call<S> {
    /// The next message; `None` when the client took the request back or the handler broke off.
    async fn next(&mut self) -> Option<ServerJsonRpcMessage> {
        tokio::select! {
            message = self.messages.recv() => message,
            () = self.listed.cancelled() => None,
        }
    }

    /// Of the two, if no message came.
    fn has_broken_off(&self) -> bool {
        self.messages.is_closed()
    }
}

/// A call whose client waits for the head of the answer. A lost connection is no cancellation (2025-11-25, *Sending Messages
/// to the Server*): dropped, it runs on by itself.
struct Waited<S: Service<RoleServer>>(Option<Call<S>>);

impl<S: Service<RoleServer>> Drop for Waited<S> {
    fn drop(&mut self) {
        let (Some(mut call), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        if call.stay.clock.is_over() {
            return;
        }
        runtime.spawn(async move {
            let clock = call.stay.clock.clone();
            let to_its_end = async { while call.next().await.is_some_and(|message| !is_last(&message)) {} };
            tokio::select! {
                () = to_its_end => {}
                _ = clock.over() => {}
            }
        });
    }
}

async fn run<S: Service<RoleServer>>(
    handler: S,
    at: At<'_>,
    session: Session,
    (parts, mut request): (Parts, JsonRpcRequest<ClientRequest>),
    stay: Stay,
) -> Answer {
    let id = serde_json::to_value(&request.id).unwrap_or_default();
    let change = change_of(&request.request);
    let client = (*session.client).clone();
    request.request.extensions_mut().insert(parts);
    let (uuid, primes) = (session.uuid, session.primes());
    let level = session.record.level.clone();
    // What is to be changed of it is looked at again behind the handler.
    let changed = (!matches!(change, Change::None)).then(|| session.clone());
    request.request.extensions_mut().insert(session);
    let asking = Asking {
        questions: at.fleet.questions.clone(),
        post: at.fleet.post.clone(),
        session: uuid,
        clock: stay.clock.clone(),
        level,
    };
    let (transport, messages) = OneRequest::new(ClientJsonRpcMessage::Request(request), asking);
    let listed = at.fleet.calls.list(uuid, &id);
    let service = serve_directly(handler, transport, Some(client));
    let mut waited = Waited(Some(Call { messages, listed, stay, _service: service }));
    let first = match &mut waited.0 {
        Some(call) => call.next().await,
        None => None,
    };
    let Some(call) = waited.0.take() else { return plain(StatusCode::INTERNAL_SERVER_ERROR, "") };
    let Some(first) = first else {
        return nothing(&call, &id);
    };
    if !is_last(&first) {
        return stream(&at, (uuid, primes), id, first, call);
    }
    if let (ServerJsonRpcMessage::Response(_), Some(session)) = (&first, changed)
        && let Err(refused) = keep(at.sessions, &session, change).await
    {
        return unkept(&refused, &id);
    }
    one(&first)
}

/// No message came: the client took the request back, and waits for no response (2025-11-25, *Cancellation*).
fn nothing<S: Service<RoleServer>>(call: &Call<S>, id: &Value) -> Answer {
    if call.has_broken_off() {
        let fault = fault(StatusCode::OK, id, codes::INTERNAL_ERROR, BROKEN_OFF);
        return reached(Reached::NoAnswer, fault);
    }
    events(futures_util::stream::empty())
}

#[expect(deprecated, reason = "legacy clients set a log level still")]
fn change_of(request: &ClientRequest) -> Change {
    match request {
        ClientRequest::SetLevelRequest(request) => {
            let level = serde_json::to_value(request.params.level).unwrap_or_default();
            Change::Level(level.as_str().unwrap_or_default().to_owned())
        }
        ClientRequest::SubscribeRequest(request) => Change::Subscribe(request.params.uri.clone()),
        ClientRequest::UnsubscribeRequest(request) => Change::Unsubscribe(request.params.uri.clone()),
        _ => Change::None,
    }
}

async fn keep(sessions: &Sessions, session: &Session, change: Change) -> Result<(), Refused> {
    match change {
        Change::None => Ok(()),
        Change::Level(level) => sessions.change(session, |record| record.level = Some(level.clone())).await,
        Change::Subscribe(uri) => {
            sessions.change(session, |record| _ = record.subscriptions.insert(uri.clone())).await
        }
        Change::Unsubscribe(uri) => {
            sessions.change(session, |record| _ = record.subscriptions.remove(&uri)).await
        }
    }
}

/// Why a session is not served, as an answer to what was not run.
pub(crate) fn refusal(refused: &Refused, id: &Value) -> Answer {
    match refused {
        Refused::Gone => {
            fault(StatusCode::NOT_FOUND, id, codes::INVALID_REQUEST, "no such session: initialize again")
        }
        Refused::StoreAway => {
            let why = "the session cannot be looked up or changed now";
            not_run(StatusCode::SERVICE_UNAVAILABLE, id, codes::STORE_UNAVAILABLE, why)
        }
        Refused::Bound(why) => fault(StatusCode::OK, id, codes::RATE_LIMITED, why),
    }
}

/// The same behind a handler that has said yes: it was run.
fn unkept(refused: &Refused, id: &Value) -> Answer {
    match refused {
        Refused::StoreAway => {
            let why = "the session cannot be changed now";
            fault(StatusCode::SERVICE_UNAVAILABLE, id, codes::STORE_UNAVAILABLE, why)
        }
        Refused::Gone | Refused::Bound(_) => refusal(refused, id),
    }
}

fn is_last(message: &ServerJsonRpcMessage) -> bool {
    matches!(message, ServerJsonRpcMessage::Response(_) | ServerJsonRpcMessage::Error(_))
}

fn one(message: &ServerJsonRpcMessage) -> Answer {
    json(StatusCode::OK, serde_json::to_vec(message).unwrap_or_default())
}

/// Progress, a question or the like comes first: everything as events, to the response. A task of its own runs the call, so
/// that it does not hang on who reads.
fn stream<S: Service<RoleServer>>(
    at: &At<'_>,
    (session, primes): ([u8; 16], bool),
    id: Value,
    first: ServerJsonRpcMessage,
    mut call: Call<S>,
) -> Answer {
    let number = regatta_seal::random_u64();
    let stream = at.fleet.streams.open(event_id::stream(session, number), id.clone());
    let entry = call.stay.entry.take().and_then(|handed| handed.take());
    let name = entry.as_ref().map(|entry| entry.name().0);
    let of = Of::Call { owner: at.fleet.post.own.0, number, id: id.clone(), call: name };
    let ids = Ids { sessions: at.sessions.clone(), caller: at.caller, session, of };
    stream.push(Bytes::from(serde_json::to_vec(&first).unwrap_or_default()));
    let phases = at.fleet.drain.phases();
    let driven = Driven { streams: at.fleet.streams.clone(), stream: stream.clone(), id, entry };
    tokio::spawn(driven.drive(call, phases.clone()));
    let begin = primes.then(|| primer(&ids.of(0)));
    let reader = (Reader(stream), ids);
    let rest = futures_util::stream::unfold(reader, |(reader, ids)| async {
        let (number, event) = reader.next().await?;
        Some((event_with_id(&ids.of(number), &event), (reader, ids)))
    });
    let hint = futures_util::stream::iter(std::iter::once_with(move || {
        // Cut off before its result was read: the rest is at another node.
        (*phases.borrow() >= Phase::LastWords).then(come_back)
    }));
    let hint = hint.filter_map(std::future::ready);
    let mut answer = events(futures_util::stream::iter(begin).chain(rest).chain(hint));
    answer.extensions_mut().insert(Apart);
    answer
}

/// Who reads a stream; its client went away when it is dropped.
struct Reader(Arc<Stream>);

impl Reader {
    async fn next(&self) -> Option<(u64, Bytes)> {
        loop {
            match self.0.read() {
                Read::Event(number, event) => return Some((number, event)),
                Read::Over => return None,
                Read::Wait => self.0.has_more().await,
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.0.is_finished() {
            self.0.let_go();
        }
    }
}

/// A call's stream, and who has to know how the call ends.
struct Driven {
    streams: Arc<Streams>,
    stream: Arc<Stream>,
    id: Value,
    entry: Option<Entry>,
}

impl Driven {
    /// Runs a call to its end; its events go to whoever reads, and to the store when nobody does or the node leaves.
    async fn drive<S: Service<RoleServer>>(mut self, mut call: Call<S>, mut phases: Phases) {
        // Until its events are where its client finds them, though its place is free before.
        let _work = call.stay.place.work.clone();
        let mut over = Box::pin(call.stay.clock.clone().over());
        loop {
            if !self.stream.is_read() {
                self.streams.spill(&self.stream).await;
            }
            let (is_read, has_room) = (self.stream.is_read(), self.stream.has_room());
            tokio::select! {
                message = call.next(), if has_room => match message {
                    Some(message) if self.take(&message).await == Taken::Last => break,
                    Some(_) => {}
                    None => {
                        if call.has_broken_off() {
                            self.say(unknown_text(&self.id, BROKEN_OFF));
                        }
                        break;
                    }
                },
                () = self.stream.heeded() => {}
                // The store was away, and is asked again.
                () = tokio::time::sleep(SPILL_PAUSE), if !is_read && !has_room => {}
                over = &mut over => {
                    self.last_word(&mut call, over).await;
                    break;
                }
            }
        }
        // The handler is done, or is stopped; its place is free, and of a call that it did not end nothing is known from now
        // on, however slowly its client reads.
        drop((call, self.entry.take()));
        self.stream.end();
        let mut leaving = Box::pin(phase_reached(&mut phases, Phase::LastWords));
        while self.stream.is_read() && !self.stream.is_finished() {
            tokio::select! {
                () = self.stream.heeded() => {}
                // Its client may read on here, for a moment, and otherwise anywhere.
                () = &mut leaving => break,
            }
        }
        if !self.stream.is_finished() {
            self.streams.spill(&self.stream).await;
        }
    }

    /// Takes a message of the handler. The journal has its response before anybody.
    async fn take(&mut self, message: &ServerJsonRpcMessage) -> Taken {
        let text = serde_json::to_vec(message).unwrap_or_default();
        let taken = if is_last(message) { Taken::Last } else { Taken::OneOfMany };
        if taken == Taken::Last
            && let Some(entry) = self.entry.take()
        {
            entry.told(&text).await;
        }
        self.say(text);
        taken
    }

    /// Ends a call that is over: with what its handler has said already, or with a word that nobody knows what became of it.
    async fn last_word<S: Service<RoleServer>>(&mut self, call: &mut Call<S>, over: Over) {
        while let Ok(message) = call.messages.try_recv() {
            if self.take(&message).await == Taken::Last {
                return;
            }
        }
        self.say(unknown_text(&self.id, over.why()));
    }

    fn say(&self, message: impl Into<Bytes>) {
        self.stream.push(message.into());
    }
}

/// What was taken of a call's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    OneOfMany,
    Last,
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_no_message_is_refused_under_its_id_where_that_can_be_read() {
        for (body, id, code) in [
            ("{", Value::Null, codes::PARSE_ERROR),
            (r#"{"jsonrpc":"2.0","id":"a","method":7}"#, json!("a"), codes::INVALID_REQUEST),
            (r#"{"id":5,"method":"ping"}"#, json!(5), codes::INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":5,"method":"ping","params":7}"#, json!(5), codes::INVALID_PARAMS),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, Value::Null, codes::INVALID_REQUEST),
            ("7", Value::Null, codes::INVALID_REQUEST),
        ] {
            let answer = unreadable(&Bytes::from_static(body.as_bytes()), "why");
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
            let Ok(told) = answer.into_body().collect().await;
            let told: Value = serde_json::from_slice(&told.to_bytes()).unwrap();
            assert_eq!((&told["id"], &told["error"]["code"]), (&id, &json!(code)), "{body}");
        }
    }
}
