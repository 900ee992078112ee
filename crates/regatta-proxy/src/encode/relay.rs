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
use regatta_mcp::sse::{Event, Framer};
use regatta_policy::ReplicaId;
use regatta_seal::Fingerprint;
use regatta_store::Uuid16;
use tokio::sync::futures::OwnedNotified;

use super::answer::{Marks, Role, mark};
use super::fault::message;
use crate::fault::{Asker, Fault};
use crate::gateway::Gateway;
use crate::reply::Cut;
use crate::slots::Permit;
use crate::streams::pace::{Due, Pace, Pacemaker};
use crate::upstream::UpstreamBody;

const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");

/// Who gets the answer.
pub(crate) struct Relaying {
    pub gateway: Arc<Gateway>,
    pub asker: Asker,
    pub era: Era,
    /// The legacy session and the etag of its binding.
    pub session: Option<(Uuid16, [u8; 16])>,
    pub replica: ReplicaId,
    pub fleet: [u8; 8],
    pub handle_key: Option<Fingerprint>,
    /// Held as long as the body.
    pub _permit: Permit,
}

/// One body on its way.
pub(crate) struct Relay {
    to: Relaying,
    body: Option<UpstreamBody>,
    form: Form,
    pace: Pace,
    pacemaker: Option<Pacemaker>,
    /// Rings when the gateway has to leave; made at the first wait.
    leaving: Option<Pin<Box<OwnedNotified>>>,
}

#[expect(clippy::large_enum_variant, reason = "one a call, and the large one is the ordinary case")]
enum Form {
    /// Event by event.
    Events { framer: Framer, ready: VecDeque<Bytes> },
    /// JSON too large to hold: what was held first, then chunk by chunk.
    Json { held: Option<Bytes> },
}

impl Relay {
    /// Relays an event stream.
    pub fn events(to: Relaying, body: UpstreamBody, pace: Pace) -> Relay {
        let framer = Framer::new(to.gateway.limits().event_max);
        Relay {
            to,
            body: Some(body),
            form: Form::Events { framer, ready: VecDeque::new() },
            pace,
            pacemaker: None,
            leaving: None,
        }
    }

    /// Relays JSON of which `held` was read already.
    pub fn json(to: Relaying, held: Bytes, body: UpstreamBody, pace: Pace) -> Relay {
        let pace = Pace { keep_alive: None, ..pace };
        Relay {
            to,
            body: Some(body),
            form: Form::Json { held: Some(held) },
            pace,
            pacemaker: None,
            leaving: None,
        }
    }

    /// The next bytes for the client.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            match &mut self.form {
                Form::Events { ready, .. } => {
                    if let Some(event) = ready.pop_front() {
                        self.sent();
                        return Poll::Ready(Some(Ok(event)));
                    }
                }
                Form::Json { held } => {
                    if let Some(held) = held.take() {
                        return Poll::Ready(Some(Ok(held)));
                    }
                }
            }
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data()
                        && let Some(out) = self.take(data)
                    {
                        return Poll::Ready(Some(out));
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    self.lose("the connection to the server broke");
                    return Poll::Ready(self.rest());
                }
                Poll::Ready(None) => return Poll::Ready(self.finish()),
                Poll::Pending => return self.poll_due(cx),
            }
        }
    }

    /// What one chunk of the server's turns into at once; events wait in `ready`.
    fn take(&mut self, data: Bytes) -> Option<Result<Bytes, Cut>> {
        if let Some(pacemaker) = &mut self.pacemaker {
            pacemaker.heard();
        }
        let Form::Events { framer, ready } = &mut self.form else { return Some(Ok(data)) };
        framer.push(data);
        loop {
            match framer.next() {
                Ok(Some(event)) => match pass(&self.to, event) {
                    Passed::On(bytes) => ready.push_back(bytes),
                    Passed::Last(bytes) => {
                        ready.push_back(bytes);
                        // The response ends the stream; what a server says after it is for nobody.
                        if let Some(body) = self.body.take() {
                            body.let_end();
                        }
                        return None;
                    }
                    Passed::Nothing => {}
                    Passed::Broken => {
                        self.spoil("an event is not a JSON-RPC message");
                        return None;
                    }
                },
                Ok(None) => return None,
                Err(_) => {
                    self.spoil("an event is larger than event_max");
                    return None;
                }
            }
        }
    }

    /// The server's connection ended without a response.
    fn finish(&mut self) -> Option<Result<Bytes, Cut>> {
        self.body = None;
        match &mut self.form {
            Form::Json { .. } => None,
            // A batch, or one of notifications only, has no one response that could be missing.
            Form::Events { .. } if self.to.asker.id.is_none() => None,
            Form::Events { ready, .. } => {
                let fault = Fault::OutcomeUnknown { why: "the server ended the stream without a response" };
                self.to.gateway.metrics.outcome_unknown.inc();
                ready.push_back(event(&message(&fault.told(&self.to.asker))));
                ready.pop_front().map(Ok)
            }
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
        match &mut self.form {
            Form::Events { ready, .. } => ready.push_back(event(&message(&fault.told(&self.to.asker)))),
            // Half an answer must not look like a whole one: the next turn cuts the connection.
            Form::Json { held } => *held = None,
        }
    }

    fn sent(&mut self) {
        if let Some(pacemaker) = &mut self.pacemaker {
            pacemaker.sent();
        }
    }

    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let pace = self.pace;
        let bell = &self.to.gateway.last_words;
        let leaving = self.leaving.get_or_insert_with(|| Box::pin(bell.clone().notified_owned()));
        if leaving.as_mut().poll(cx).is_ready() {
            self.lose("the gateway had to leave before the server answered");
            return Poll::Ready(self.rest());
        }
        let pacemaker = self.pacemaker.get_or_insert_with(|| Pacemaker::start(pace));
        match ready!(pacemaker.poll_due(cx)) {
            Due::KeepAlive => Poll::Ready(Some(Ok(KEEP_ALIVE))),
            Due::Silence | Due::End => {
                self.lose("the server was silent for too long");
                Poll::Ready(self.rest())
            }
        }
    }

    /// What a stream's last event is, or a cut where half an answer has gone out.
    fn rest(&mut self) -> Option<Result<Bytes, Cut>> {
        match &mut self.form {
            Form::Events { ready, .. } => ready.pop_front().map(Ok),
            Form::Json { .. } => Some(Err(Cut("the answer did not come to its end"))),
        }
    }
}

enum Passed {
    On(Bytes),
    Last(Bytes),
    Nothing,
    Broken,
}

fn pass(to: &Relaying, event: Event) -> Passed {
    let Some(data) = event.data.as_ref().filter(|data| !data.is_empty()) else { return Passed::Nothing };
    let ring = to.gateway.ring.load();
    let marks = Marks {
        ring: &ring,
        era: to.era,
        id: to.asker.id.as_ref(),
        replica: to.replica,
        session: to.session,
        fleet: to.fleet,
        handle_key: to.handle_key,
        resumed: false,
    };
    match mark(&marks, data) {
        None => Passed::Broken,
        Some((Role::Foreign, _)) => {
            to.gateway.metrics.dropped_messages.inc();
            Passed::Nothing
        }
        Some((Role::Said | Role::Question { .. }, text)) => Passed::On(again(&event, data, text)),
        Some((Role::Final, text)) => Passed::Last(again(&event, data, text)),
    }
}

/// The event as it came if nothing in it changed, else written anew. Event ids mean nothing in this era.
fn again(event: &Event, data: &Bytes, text: Bytes) -> Bytes {
    if event.id.is_none() && text.as_ptr() == data.as_ptr() && text.len() == data.len() {
        return event.raw.clone();
    }
    let mut out = BytesMut::with_capacity(text.len() + 32);
    regatta_mcp::events::write(&mut out, None, event.event.as_deref(), &text);
    out.freeze()
}

fn event(text: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 16);
    regatta_mcp::events::write(&mut out, None, Some(b"message"), text);
    out.freeze()
}
