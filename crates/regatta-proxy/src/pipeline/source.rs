//! The source of a call's stream: from an exchange under way to its response.
//!
//! Turns whatever the upstream gives (a late head, JSON, events, a loss) into messages for one client. It holds the
//! call's permit and its connection, and it always ends with a message that says how (DESIGN 5.3).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body;
use regatta_mcp::era::Era;
use regatta_mcp::sse::{Event, Framer};
use regatta_mcp::{documents, write};
use regatta_policy::snapshot::{Cursors, UpstreamResume};
use tokio::task::JoinHandle;

use super::detached::Exchange;
use super::exchange::{Answered, Errand};
use super::initialize::is_primed;
use super::notes::Word;
use crate::content::Kind;
use crate::encode::answer::{Marks, Role, mark};
use crate::encode::fault::message;
use crate::event_id::{self, Cursor};
use crate::fault::{Asker, Fault};
use crate::gateway::Gateway;
use crate::pending::Asking;
use crate::session::Bound;
use crate::slots::Permit;
use crate::streams::pace::{Due, Pace, Pacemaker};
use crate::streams::stream::{Produced, Source};
use crate::tool_news::is_ours;
use crate::upstream::UpstreamBody;

/// Where a call's messages come from.
pub(crate) struct CallSource {
    gateway: Arc<Gateway>,
    asker: Asker,
    state: State,
    ready: VecDeque<Produced>,
    asking: Arc<Asking>,
    /// Nothing more is said before this is done: the other gateways know what the answer made old, the session's record
    /// what it changed.
    settling: VecDeque<JoinHandle<()>>,
    /// The server gave event ids, so its client may count on them.
    has_ids: bool,
}

enum State {
    /// No head yet.
    Waiting(Exchange),
    Open(Box<Open>),
    Over,
}

/// An answer that is being read.
struct Open {
    errand: Box<Errand>,
    bound: Option<Bound>,
    replica: regatta_policy::ReplicaId,
    body: UpstreamBody,
    form: Form,
    pace: Pace,
    pacemaker: Option<Pacemaker>,
    parked: bool,
    /// The upstream's newest event id, for its own resumption.
    cursor: Option<Bytes>,
}

#[expect(clippy::large_enum_variant, reason = "one a call, and the large one is the ordinary case")]
enum Form {
    Events(Framer),
    Json(BytesMut),
}

impl CallSource {
    /// A call whose head is not there yet.
    pub fn waiting(gateway: Arc<Gateway>, asker: Asker, exchange: Exchange) -> CallSource {
        CallSource::with(gateway, asker, State::Waiting(exchange))
    }

    /// A call whose answer has begun.
    pub fn answered(gateway: Arc<Gateway>, asker: Asker, answered: Answered) -> CallSource {
        let mut source = CallSource::with(gateway, asker, State::Over);
        source.begin(answered);
        source
    }

    /// The response as an event, if all of the answer is here and it holds nothing else: then there is nothing to resume
    /// that its client will not have. Not if the server gave it an id, which its client may count on.
    pub async fn only_response(&mut self) -> Option<Bytes> {
        std::future::poll_fn(|cx| {
            while self.ready.is_empty() && self.poll_more(cx).is_ready() {}
            Poll::Ready(())
        })
        .await;
        for settling in self.settling.drain(..) {
            let _ = settling.await;
        }
        let is_alone = matches!(self.ready.make_contiguous(), [Produced::Event { .. }, Produced::End]);
        if !is_alone || self.has_ids {
            return None;
        }
        let Some(Produced::Event { name, data }) = self.ready.pop_front() else { return None };
        let mut out = BytesMut::with_capacity(data.len() + 32);
        regatta_mcp::events::write(&mut out, None, name.as_deref(), &data);
        Some(out.freeze())
    }

    fn with(gateway: Arc<Gateway>, asker: Asker, state: State) -> CallSource {
        let (ready, asking, settling) = (VecDeque::new(), Arc::default(), VecDeque::new());
        CallSource { gateway, asker, state, ready, asking, settling, has_ids: false }
    }

    /// The head is there: how will the answer be read?
    fn begin(&mut self, answered: Answered) {
        let Answered { errand, answer, kind, replica } = answered;
        let form = match (answer.head.status, kind) {
            (_, Kind::Json) => Form::Json(BytesMut::new()),
            (StatusCode::OK, Kind::Events) => Form::Events(Framer::new(errand.server.limits.event_max)),
            (_, Kind::Events | Kind::None | Kind::Foreign) => {
                return self.last(Fault::BadAnswer { why: "it is neither JSON nor an event stream" });
            }
        };
        let pace = Pace { keep_alive: None, ..errand.pace() };
        let bound = errand.bound().cloned();
        let body = answer.body;
        let (parked, pacemaker, cursor) = (false, None, None);
        let open = Open { errand, bound, replica, body, form, pace, pacemaker, parked, cursor };
        self.state = State::Open(Box::new(open));
    }

    /// Ends with a fault.
    fn last(&mut self, fault: Fault) {
        match &fault {
            Fault::OutcomeUnknown { .. } => self.gateway.metrics.outcome_unknown.inc(),
            Fault::BadAnswer { .. } => self.gateway.metrics.bad_answers.inc(),
            _counted_elsewhere => 0,
        };
        if let State::Open(open) = &mut self.state
            && let Some(noted) = open.errand.noted.take()
        {
            self.settling.push_back(noted.settle(Word::No));
        }
        // What the call still asked its client: nobody waits for the answers any more (SESSIONS 4).
        let withdrawn = self.gateway.pending.forget(&self.asking);
        let last = message(&fault.told(&self.asker));
        for data in withdrawn.iter().map(|sealed| withdrawal(sealed)).chain([last]) {
            self.ready.push_back(Produced::Event { name: Some(Bytes::from_static(b"message")), data });
        }
        self.over();
    }

    /// The response was said: the connection is let end, so that it can serve again.
    fn answered_whole(&mut self) {
        if let State::Open(open) = std::mem::replace(&mut self.state, State::Over) {
            open.body.let_end();
        }
        self.over();
    }

    fn over(&mut self) {
        self.state = State::Over;
        self.ready.push_back(Produced::End);
    }

    /// The body ended.
    fn ended(&mut self) {
        let State::Open(open) = &mut self.state else { return };
        match &mut open.form {
            Form::Json(held) => {
                let text = held.split().freeze();
                self.take_json(&text);
            }
            // The server wants to be asked again: so does the client's stream end, resumable (2025-11-25
            // basic/transports, *Sending Messages* 6).
            Form::Events(_) => match open.cursor.take() {
                Some(id) => {
                    let cursor = Cursor { maker: open.replica, id }.to_bytes();
                    self.state = State::Over;
                    self.ready.push_back(Produced::Pause { cursor });
                }
                None => {
                    self.last(Fault::OutcomeUnknown { why: "the server ended the stream without a response" })
                }
            },
        }
    }

    fn take_json(&mut self, text: &Bytes) {
        let spans: Vec<_> = documents(text).collect();
        for span in spans {
            let document = text.slice(span.start as usize..span.end as usize);
            if !self.say(None, &document) {
                return;
            }
        }
        self.last(Fault::BadAnswer { why: "it holds no response to the request" });
    }

    /// Passes one message on; false if it was the last, or nothing can follow it.
    fn say(&mut self, name: Option<Bytes>, data: &Bytes) -> bool {
        let State::Open(open) = &mut self.state else { return false };
        let ring = self.gateway.ring.load();
        let marks = Marks {
            ring: &ring,
            era: Era::Legacy,
            id: self.asker.id.as_ref(),
            replica: open.replica,
            session: open.bound.as_ref().map(|bound| (bound.session.uuid, bound.home.etag)),
            realm: open.errand.realm(),
            cursors: Cursors::Shared,
            handle_key: None,
            news: Some(&self.gateway.rehoming),
        };
        match mark(&marks, data) {
            None => self.last(Fault::BadAnswer { why: "a message is not JSON-RPC" }),
            Some((Role::Foreign, _)) => {
                self.gateway.metrics.dropped_messages.inc();
                return true;
            }
            Some((role @ (Role::Prose | Role::Said | Role::ToolsChanged), data)) => {
                if let Some(upkeep) = &open.errand.upkeep {
                    upkeep.heard();
                }
                let server = &open.errand.server;
                if role != Role::Prose {
                    self.settling.extend(server.results.hear_any(&data));
                }
                if role == Role::ToolsChanged && is_ours(&self.gateway, &server.server.path) {
                    return true;
                }
                self.ready.push_back(Produced::Event { name, data });
                return true;
            }
            Some((Role::Question { sealed }, data)) => {
                // What the client will answer is not in the key.
                if let Some(upkeep) = &mut open.errand.upkeep {
                    upkeep.pass();
                }
                self.gateway.pending.ask(&sealed, &self.asking);
                self.ready.push_back(Produced::Event { name, data });
                return true;
            }
            Some((Role::Withdrawal { sealed }, data)) => {
                self.gateway.pending.withdraw(&sealed);
                self.ready.push_back(Produced::Event { name, data });
                return true;
            }
            Some((Role::Final, outgoing)) => {
                if let Some(at_server) = open.errand.permit.as_mut().and_then(Permit::at_server) {
                    at_server.finished();
                }
                if let Some(noted) = open.errand.noted.take() {
                    self.settling.push_back(noted.settle(Word::of(data, self.asker.id.as_ref())));
                }
                let data = match open.errand.upkeep.take() {
                    Some(mut upkeep) => {
                        let outgoing = upkeep.answered(&self.gateway, data, outgoing);
                        self.settling.extend(upkeep.take_publishing());
                        outgoing
                    }
                    None => outgoing,
                };
                self.ready.push_back(Produced::Event { name, data });
                self.answered_whole();
            }
        }
        false
    }

    fn take_chunk(&mut self, chunk: Bytes) {
        let State::Open(open) = &mut self.state else { return };
        if let Some(pacemaker) = &mut open.pacemaker {
            pacemaker.heard();
        }
        let event_max = open.errand.server.limits.event_max;
        match &mut open.form {
            Form::Json(held) if held.len() + chunk.len() > event_max => {
                self.last(Fault::BadAnswer { why: "it is larger than event_max" });
            }
            Form::Json(held) => held.extend_from_slice(&chunk),
            Form::Events(framer) => {
                framer.push(chunk);
                self.take_events();
            }
        }
    }

    fn take_events(&mut self) {
        loop {
            let State::Open(open) = &mut self.state else { return };
            let Form::Events(framer) = &mut open.form else { return };
            match framer.next() {
                Ok(None) => return,
                Ok(Some(event)) => self.take_event(event),
                Err(_) => return self.last(Fault::BadAnswer { why: "an event is larger than event_max" }),
            }
        }
    }

    fn take_event(&mut self, event: Event) {
        let State::Open(open) = &mut self.state else { return };
        let is_priming = is_priming(&event);
        if let Some(id) = event.id.filter(|id| !id.is_empty()) {
            if let (UpstreamResume::Supported, Some(bound)) =
                (open.errand.server.server.upstream_resume, &open.bound)
            {
                let cursor = Cursor { maker: open.replica, id: id.clone() };
                let cursor = event_id::seal_cursor(&self.gateway.ring.load(), bound.session.uuid, &cursor);
                self.ready.push_back(Produced::Mark { cursor });
                if is_priming && is_primed(bound.session.content.version) {
                    self.ready.push_back(Produced::Priming);
                }
            }
            open.cursor = Some(id);
            self.has_ids = true;
        }
        if let Some(milliseconds) = event.retry_ms {
            self.ready.push_back(Produced::Retry { milliseconds });
        }
        if let Some(data) = event.data.filter(|data| !data.is_empty()) {
            self.say(event.event, &data);
        }
    }

    /// A call whose server asked its client something holds a parking place, not one in flight (DESIGN 5.5).
    fn park(&mut self, cx: &mut Context<'_>) {
        let State::Open(open) = &mut self.state else { return };
        let waits = self.asking.waits(cx.waker());
        if waits == open.parked {
            return;
        }
        let pace = open.pace;
        let pacemaker = open.pacemaker.get_or_insert_with(|| Pacemaker::start(pace));
        let permit = open.errand.permit.as_mut();
        if waits {
            if permit.is_some_and(|permit| !permit.park()) {
                self.gateway.metrics.park_refused.inc();
            }
            pacemaker.pause();
        } else {
            if let Some(permit) = permit {
                permit.unpark();
            }
            pacemaker.resume();
        }
        open.parked = waits;
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Open(open) = &mut self.state else { return Poll::Pending };
        let pace = open.pace;
        let pacemaker = open.pacemaker.get_or_insert_with(|| Pacemaker::start(pace));
        match std::task::ready!(pacemaker.poll_due(cx)) {
            Due::KeepAlive => {}
            Due::Silence => self.last(Fault::OutcomeUnknown { why: "the server was silent for too long" }),
            Due::End => self.last(Fault::OutcomeUnknown { why: "the call took longer than request_max" }),
        }
        Poll::Ready(())
    }
}

/// Whether a server's event is there for its id alone (2025-11-25 basic/transports, *Sending Messages* 6). One with a wish
/// for reconnects is passed on as such, under an id like any other.
pub(super) fn is_priming(event: &Event) -> bool {
    event.data.as_ref().is_none_or(Bytes::is_empty) && event.retry_ms.is_none()
}

impl CallSource {
    /// One step: ready when something may have been produced.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Over => self.ready.push_back(Produced::End),
            State::Waiting(exchange) => match std::task::ready!(exchange.as_mut().poll(cx)) {
                Ok(answered) => self.begin(answered),
                Err(refusal) => self.last(refusal.fault),
            },
            State::Open(open) => match Pin::new(&mut open.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(chunk) = frame.into_data() {
                        self.take_chunk(chunk);
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    self.last(Fault::OutcomeUnknown { why: "the connection to the server broke" });
                }
                Poll::Ready(None) => self.ended(),
                Poll::Pending => {
                    self.park(cx);
                    std::task::ready!(self.poll_due(cx));
                }
            },
        }
        Poll::Ready(())
    }
}

impl Source for CallSource {
    fn cancelled(&mut self) {
        self.gateway.pending.let_go(&self.asking);
        if let State::Open(open) = &mut self.state
            && let Some(at_server) = open.errand.permit.as_mut().and_then(Permit::at_server)
        {
            at_server.taken_back();
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Produced> {
        loop {
            while let Some(settling) = self.settling.front_mut() {
                let _ = std::task::ready!(Pin::new(settling).poll(cx));
                self.settling.pop_front();
            }
            if let Some(produced) = self.ready.pop_front() {
                return Poll::Ready(produced);
            }
            std::task::ready!(self.poll_more(cx));
        }
    }
}

/// Takes a question back at the client that was asked under the id `sealed` (basic/utilities/cancellation).
pub(super) fn withdrawal(sealed: &str) -> Bytes {
    let id = write::json_string(sealed);
    let params = format!(r#"{{"requestId":{id},"reason":"the server that asked is gone"}}"#);
    write::notification("notifications/cancelled", Some(&params))
}

impl Drop for CallSource {
    fn drop(&mut self) {
        self.gateway.pending.forget(&self.asking);
    }
}
