//! An upstream answer on its way to a modern client, or one too large to hold, or one that nothing can resume: of a
//! legacy server without sessions, or to a batch.
//!
//! Owns the call: when the client goes away this body is dropped, the upstream connection with it, and the server
//! sees the disconnect that means *cancel* (2026-07-28 basic/patterns/cancellation). Every event goes out when it
//! arrives; a lost upstream ends in one honest error event, never in a hang.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use regatta_mcp::era::Era;
use regatta_mcp::events;
use regatta_mcp::scan::{AnswerScanner, HandleKind, Piece};
use regatta_mcp::sse::{Event, Framer};
use regatta_policy::ReplicaId;
use regatta_policy::snapshot::Cursors;
use regatta_seal::Fingerprint;
use regatta_store::Uuid16;
use tokio::sync::futures::OwnedNotified;

use super::answer::{Marks, Role, mark, same_id, unquote};
use super::batch;
use super::fault::messages;
use crate::fault::{Asker, Fault};
use crate::gateway::Gateway;
use crate::handles;
use crate::handover::Account;
use crate::realm::Realm;
use crate::reply::Cut;
use crate::slots::Permit;
use crate::streams::pace::{Due, Pace, Pacemaker};
use crate::upkeep::Upkeep;
use crate::upstream::UpstreamBody;

/// Who gets the answer.
pub(crate) struct Relaying {
    pub gateway: Arc<Gateway>,
    pub account: Account,
    pub asker: Asker,
    pub era: Era,
    /// The legacy session and the etag of its binding.
    pub session: Option<(Uuid16, [u8; 16])>,
    pub replica: ReplicaId,
    pub realm: Realm,
    pub cursors: Cursors,
    pub handle_key: Option<Fingerprint>,
    /// Held as long as the body.
    pub permit: Permit,
    /// What the answer does to the result cache.
    pub upkeep: Option<Box<Upkeep>>,
}

/// One body on its way.
pub(crate) struct Relay {
    to: Relaying,
    body: Option<UpstreamBody>,
    form: Form,
    ready: VecDeque<Bytes>,
    /// A JSON answer came to its end.
    whole: bool,
    pace: Pace,
    pacemaker: Option<Pacemaker>,
    /// Rings when the gateway has to leave; made at the first wait.
    leaving: Option<Pin<Box<OwnedNotified>>>,
}

enum Form {
    /// Event by event.
    Events(Framer),
    /// JSON too large to hold, chunk by chunk.
    Json(AnswerScanner),
}

impl Relay {
    /// Relays an event stream.
    pub fn events(to: Relaying, body: UpstreamBody, pace: Pace) -> Relay {
        let form = Form::Events(Framer::new(to.gateway.limits().event_max));
        Relay::with(to, body, form, pace)
    }

    /// Relays JSON of which `held` was read already; `None` if that shows that the answer is unusable: as long as nothing
    /// has gone out, the client can still be told so.
    pub fn json(to: Relaying, held: Bytes, body: UpstreamBody, pace: Pace) -> Option<Relay> {
        let pace = Pace { keep_alive: None, ..pace };
        let mut to = to;
        // Too large to be looked at whole, so nothing of it is kept.
        if let Some(upkeep) = &mut to.upkeep {
            upkeep.pass();
        }
        let form = Form::Json(AnswerScanner::new(to.gateway.limits().handle_max));
        let mut relay = Relay::with(to, body, form, pace);
        relay.take(held);
        relay.body.is_some().then_some(relay)
    }

    fn with(to: Relaying, body: UpstreamBody, form: Form, pace: Pace) -> Relay {
        let (ready, pacemaker, leaving) = (VecDeque::new(), None, None);
        Relay { to, body: Some(body), form, ready, whole: false, pace, pacemaker, leaving }
    }

    /// The next bytes for the client.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            if let Some(publishing) = self.to.upkeep.as_mut().and_then(|upkeep| upkeep.publishing()) {
                let _ = ready!(Pin::new(publishing).poll(cx));
                self.to.upkeep = None;
            }
            if let Some(bytes) = self.ready.pop_front() {
                self.sent();
                return Poll::Ready(Some(Ok(bytes)));
            }
            let Some(body) = &mut self.body else { return Poll::Ready(self.rest()) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.take(data);
                    }
                }
                Poll::Ready(Some(Err(_))) => self.lose("the connection to the server broke"),
                Poll::Ready(None) => self.finish(),
                Poll::Pending => ready!(self.poll_due(cx)),
            }
        }
    }

    /// What one chunk of the server's turns into waits in `ready`.
    fn take(&mut self, data: Bytes) {
        if let Some(pacemaker) = &mut self.pacemaker {
            pacemaker.heard();
        }
        match &mut self.form {
            Form::Events(framer) => {
                framer.push(data);
                self.take_events();
            }
            Form::Json(_) => self.take_json(&data),
        }
    }

    fn take_events(&mut self) {
        loop {
            let Form::Events(framer) = &mut self.form else { return };
            match framer.next().map(|event| event.map(|event| pass(&mut self.to, event))) {
                Ok(None) => return,
                Ok(Some(Passed::Nothing)) => {}
                Ok(Some(Passed::On(bytes))) => self.ready.push_back(bytes),
                Ok(Some(Passed::Last(bytes))) => {
                    self.ready.push_back(bytes);
                    // The response ends the stream; what a server says after it is for nobody.
                    if let Some(body) = self.body.take() {
                        body.let_end();
                    }
                    return;
                }
                Ok(Some(Passed::Broken)) => return self.spoil("an event is not a JSON-RPC message"),
                Err(_) => return self.spoil("an event is larger than event_max"),
            }
        }
    }

    /// Passes JSON on as it flows; its handles are wrapped, and its id has to be the asked one.
    fn take_json(&mut self, data: &Bytes) {
        let Form::Json(scanner) = &mut self.form else { return };
        let mut pieces = Vec::new();
        let scanned = scanner.push(data, &mut pieces);
        for piece in pieces {
            match piece {
                Piece::PassThrough(bytes) => self.ready.push_back(bytes),
                Piece::Handle { kind, text } => match handle(&self.to, kind, &text) {
                    Some(text) => self.ready.push_back(text),
                    None => return self.spoil("it is not the response to the request"),
                },
            }
        }
        if scanned.is_err() {
            self.spoil("it is no JSON, or a handle in it is larger than handle_max");
        }
    }

    /// The server's connection ended.
    fn finish(&mut self) {
        match &self.form {
            Form::Json(scanner) if scanner.finish().is_ok() => {
                self.body = None;
                self.whole = true;
            }
            Form::Json(_) => self.lose("the answer broke off"),
            // Nothing waits: a batch whose requests were all answered, or one of notifications only.
            Form::Events(_) if !self.to.asker.waits() => self.body = None,
            Form::Events(_) => self.lose("the server ended the stream without a response"),
        }
    }

    fn lose(&mut self, why: &'static str) {
        self.to.gateway.metrics.outcome_unknown.inc();
        self.say_last(Fault::OutcomeUnknown { why });
    }

    fn spoil(&mut self, why: &'static str) {
        self.to.gateway.metrics.bad_answers.inc();
        self.say_last(Fault::BadAnswer { why });
    }

    fn say_last(&mut self, fault: Fault) {
        self.body = None;
        match self.form {
            Form::Events(_) => {
                let last = messages(&fault.told(&self.to.asker));
                self.ready.extend(last.iter().map(|text| events::message(text)));
            }
            // Half an answer must not look like a whole one: it ends in a cut.
            Form::Json(_) => self.ready.clear(),
        }
    }

    /// Whether somebody else waits for this answer too.
    pub fn is_awaited(&self) -> bool {
        let upkeep = self.to.upkeep.as_ref();
        self.body.is_some()
            && upkeep.and_then(|upkeep| upkeep.audience()).is_some_and(|audience| audience.is_there())
    }

    /// Who called, and the gateway.
    pub fn caller(&self) -> (Arc<Gateway>, Account) {
        (self.to.gateway.clone(), self.to.account)
    }

    fn sent(&mut self) {
        if let Some(pacemaker) = &mut self.pacemaker {
            pacemaker.sent();
        }
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let pace = self.pace;
        if self.poll_leaving(cx).is_ready() {
            self.lose("the gateway had to leave before the server answered");
            return Poll::Ready(());
        }
        let pacemaker = self.pacemaker.get_or_insert_with(|| Pacemaker::start(pace));
        match ready!(pacemaker.poll_due(cx)) {
            Due::KeepAlive => self.ready.push_back(events::KEEP_ALIVE),
            Due::Silence | Due::End => self.lose("the server was silent for too long"),
        }
        Poll::Ready(())
    }

    /// Ready when the gateway cannot wait any longer. The bell hangs in a place that all streams share, so it is looked at
    /// once, to be heard by, and then only while a drain is on: it rings at no other time.
    fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let gateway = &self.to.gateway;
        if self.leaving.is_some() && !gateway.is_draining() {
            return Poll::Pending;
        }
        let bell = || Box::pin(gateway.last_words.clone().notified_owned());
        self.leaving.get_or_insert_with(bell).as_mut().poll(cx)
    }

    /// What follows when there is nothing left to read: the end, or a cut where half an answer has gone out.
    fn rest(&self) -> Option<Result<Bytes, Cut>> {
        match &self.form {
            Form::Json(_) if !self.whole => Some(Err(Cut("the answer did not come to its end"))),
            Form::Json(_) | Form::Events(_) => None,
        }
    }
}

/// A handle as the client gets it; `None` for an id that nobody asked under.
fn handle(to: &Relaying, kind: HandleKind, text: &Bytes) -> Option<Bytes> {
    let ring = to.gateway.ring.load();
    let sealed = match kind {
        HandleKind::Id => return to.asker.id.as_ref().filter(|id| same_id(id, text)).map(|_| text.clone()),
        HandleKind::RequestState => handles::seal_state(&ring, to.realm, to.replica, &unquote(text)?),
        HandleKind::TaskId => handles::seal_task(&ring, to.realm, to.replica, &unquote(text)?, to.handle_key),
    };
    Some(Bytes::from(regatta_mcp::write::json_string(&sealed)))
}

enum Passed {
    On(Bytes),
    Last(Bytes),
    Nothing,
    Broken,
}

fn pass(to: &mut Relaying, event: Event) -> Passed {
    let Some(data) = event.data.as_ref().filter(|data| !data.is_empty()) else { return Passed::Nothing };
    if to.asker.batch.is_some() && batch::hear(&mut to.asker.batch, data) {
        return Passed::On(again(&event, data, data.clone()));
    }
    let ring = to.gateway.ring.load();
    let marks = Marks {
        ring: &ring,
        era: to.era,
        id: to.asker.id.as_ref(),
        replica: to.replica,
        session: to.session,
        realm: to.realm,
        cursors: to.cursors,
        handle_key: to.handle_key,
        news: None,
    };
    match mark(&marks, data) {
        None => Passed::Broken,
        Some((Role::Foreign, _)) => {
            to.gateway.metrics.dropped_messages.inc();
            Passed::Nothing
        }
        Some((
            role @ (Role::Prose
            | Role::Said
            | Role::ToolsChanged
            | Role::Question { .. }
            | Role::Withdrawal { .. }),
            text,
        )) => {
            if let Some(upkeep) = &mut to.upkeep {
                match role {
                    Role::Question { .. } => upkeep.pass(),
                    Role::Prose
                    | Role::Said
                    | Role::ToolsChanged
                    | Role::Withdrawal { .. }
                    | Role::Final
                    | Role::Foreign => upkeep.heard(),
                }
            }
            Passed::On(again(&event, data, text))
        }
        Some((Role::Final, text)) => {
            if let Some(at_server) = to.permit.at_server() {
                at_server.finished();
            }
            let text = match &mut to.upkeep {
                Some(upkeep) => upkeep.answered(&to.gateway, data, text),
                None => text,
            };
            Passed::Last(again(&event, data, text))
        }
    }
}

/// The event as it came if nothing in it changed, else written anew. Nothing can be resumed here, so event ids and
/// reconnection times mean nothing.
fn again(event: &Event, data: &Bytes, text: Bytes) -> Bytes {
    let is_plain = event.id.is_none() && event.retry_ms.is_none();
    if is_plain && text.as_ptr() == data.as_ptr() && text.len() == data.len() {
        return event.raw.clone();
    }
    let mut out = BytesMut::with_capacity(text.len() + 32);
    regatta_mcp::events::write(&mut out, None, event.event.as_deref(), &text);
    out.freeze()
}
