//! The source of a standing stream: the replica's own, opened again and again behind the client's back.
//!
//! When the replica goes, the session is re-homed by the same exchange that opens the stream anew, and the client is
//! warned if it listens to warnings (SESSIONS 4). When somebody else moves the session, the stream follows. Between two openings there is always a wait.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use regatta_mcp::era::Era;
use regatta_mcp::sse::{Event, Framer};
use regatta_mcp::write;
use regatta_policy::deviation::LogLevel;
use regatta_policy::snapshot::{Cursors, UpstreamResume};
use regatta_policy::token::Capabilities;
use tokio::time::Instant;

use super::detached::Exchange;
use super::exchange::{Answered, exchange};
use super::initialize::is_primed;
use super::source::{is_priming, withdrawal};
use super::standing::Listener;
use crate::bind;
use crate::encode::answer::{Marks, Role, mark};
use crate::event_id::{self, Cursor};
use crate::fault::{Asker, Fault, Place, Refusal};
use crate::results::Publishing;
use crate::session::Bound;
use crate::streams::stream::{Produced, Source};
use crate::tool_news::{self, Ears, is_ours};
use crate::upstream::UpstreamBody;

/// Waits between two openings.
const AGAIN_FIRST: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct StandingSource {
    listener: Listener,
    state: State,
    ready: VecDeque<Produced>,
    /// What the other gateways are being told; until they know, nothing of `ready` goes out.
    telling: VecDeque<Publishing>,
    failures: u32,
    cursor: Option<Cursor>,
    asking: std::sync::Arc<crate::pending::Asking>,
    /// For changes of a list of tools that is composed by us.
    ears: Ears,
    /// Where the session lives now, if somebody said that this may have changed.
    looking: Option<Looking>,
}

type Looking = Pin<Box<dyn Future<Output = Result<Bound, Fault>> + Send>>;

#[expect(clippy::large_enum_variant, reason = "one a call, and the large one is the ordinary case")]
enum State {
    Opening(Exchange),
    Open { body: UpstreamBody, framer: Framer, since: Instant },
    Over,
}

impl StandingSource {
    /// A stream whose upstream answered.
    pub fn opened(listener: Listener, answered: Answered) -> StandingSource {
        let mut source = StandingSource::with(listener, State::Over);
        source.begin(answered);
        source
    }

    /// A stream whose upstream takes its time.
    pub fn opening(listener: Listener, exchange: Exchange) -> StandingSource {
        StandingSource::with(listener, State::Opening(exchange))
    }

    fn with(listener: Listener, state: State) -> StandingSource {
        let asking = std::sync::Arc::default();
        // A server that never declared it must not be made to say it.
        let hears = listener.bound.session.content.capabilities.covers(Capabilities::TOOLS_CHANGED);
        let news = || listener.gateway.tool_news.listen(&listener.server, Era::Legacy);
        let ears = Ears::on(hears.then(news).flatten());
        let (ready, telling) = (VecDeque::new(), VecDeque::new());
        let (failures, cursor, looking) = (0, None, None);
        StandingSource { listener, state, ready, telling, failures, cursor, asking, ears, looking }
    }

    fn begin(&mut self, answered: Answered) {
        if !answered.is_stream() {
            return self.refused(answered.answer.head.status);
        }
        if let Some(bound) = answered.errand.bound()
            && bound.home != self.listener.bound.home
        {
            self.listener.bound = bound.clone();
            self.cursor = None;
            self.withdraw();
            self.moved();
        }
        let framer = Framer::new(self.listener.server.limits.event_max);
        self.state = State::Open { body: answered.answer.body, framer, since: Instant::now() };
    }

    /// The server offers no stream, or not now.
    fn refused(&mut self, status: StatusCode) {
        if status == StatusCode::METHOD_NOT_ALLOWED || status == StatusCode::UNAUTHORIZED {
            self.state = State::Over;
            self.ready.push_back(Produced::End);
        } else {
            // 409: the old stream's end has not come through yet (SESSIONS 5).
            self.again();
        }
    }

    /// Leaves a home that is not the session's any more, whether or not its replica has ended the stream: what is said by
    /// itself is said at the new one.
    fn found(&mut self, found: Result<Bound, Fault>) {
        match found {
            Err(Fault::NoSuchSession) => {
                self.state = State::Over;
                self.ready.push_back(Produced::End);
            }
            Ok(bound) if bound.home != self.listener.bound.home => {
                // One that is being opened looks for itself.
                if let State::Open { .. } = self.state {
                    let opening = reopen(self.listener.clone(), self.cursor.clone(), Duration::ZERO);
                    self.state = State::Opening(Box::pin(opening));
                }
            }
            // The store may be away: the replica itself will say so.
            Ok(_) | Err(_) => {}
        }
    }

    /// Opens anew after a wait that grows with every failure; one that did not stand is a failure too, or a server that
    /// closes at once would be asked twenty times a second for each of its sessions.
    fn again(&mut self) {
        if let State::Open { since, .. } = &self.state
            && since.elapsed() >= AGAIN_MAX
        {
            self.failures = 0;
        }
        let wait = AGAIN_FIRST.saturating_mul(1 << self.failures.min(10)).min(AGAIN_MAX);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Opening(Box::pin(reopen(self.listener.clone(), self.cursor.clone(), wait)));
    }

    /// Takes back what the old home still asked: nobody waits for the answers any more (SESSIONS 4).
    fn withdraw(&mut self) {
        for sealed in self.listener.gateway.pending.forget(&std::mem::take(&mut self.asking)) {
            let data = withdrawal(&sealed);
            self.ready.push_back(Produced::Event { name: Some(Bytes::from_static(b"message")), data });
        }
    }

    /// Tells the client that its session lives elsewhere now, if it listens to warnings.
    fn moved(&mut self) {
        let session = &self.listener.bound.session;
        let level = self.listener.bound.record.as_ref().and_then(|record| record.deviation.log_level);
        let logs = session.content.capabilities.covers(Capabilities::LOGGING);
        if !logs || !level.is_none_or(|level| level.admits(LogLevel::Warning)) {
            return;
        }
        let params = r#"{"level":"warning","logger":"regatta","data":"the session was resumed at another replica; what its server kept in memory is gone"}"#;
        let data = write::notification("notifications/message", Some(params));
        self.ready.push_back(Produced::Event { name: Some(Bytes::from_static(b"message")), data });
    }

    fn take_chunk(&mut self, chunk: Bytes) {
        let State::Open { framer, .. } = &mut self.state else { return };
        framer.push(chunk);
        loop {
            let State::Open { framer, .. } = &mut self.state else { return };
            match framer.next() {
                Ok(None) => return,
                Ok(Some(event)) => self.take_event(event),
                Err(_) => {
                    self.listener.gateway.metrics.bad_answers.inc();
                    return self.again();
                }
            }
        }
    }

    fn take_event(&mut self, event: Event) {
        let is_priming = is_priming(&event);
        let resumes = self.listener.server.server.upstream_resume == UpstreamResume::Supported;
        if let Some(id) = event.id.filter(|id| resumes && !id.is_empty()) {
            let (gateway, session) = (&self.listener.gateway, self.listener.bound.session.uuid);
            let cursor = Cursor { maker: self.listener.bound.home.replica, id };
            let sealed = event_id::seal_cursor(&gateway.ring.load(), session, &cursor);
            self.cursor = Some(cursor);
            self.ready.push_back(Produced::Mark { cursor: sealed });
            if is_priming && is_primed(self.listener.bound.session.content.version) {
                self.ready.push_back(Produced::Priming);
            }
        }
        let Some(data) = event.data.filter(|data| !data.is_empty()) else { return };
        let gateway = &self.listener.gateway;
        let ring = gateway.ring.load();
        let bound = &self.listener.bound;
        let marks = Marks {
            ring: &ring,
            era: Era::Legacy,
            id: None,
            replica: bound.home.replica,
            session: Some((bound.session.uuid, bound.home.etag)),
            realm: self.listener.realm(),
            cursors: Cursors::Shared,
            handle_key: None,
            news: None,
        };
        match mark(&marks, &data) {
            None | Some((Role::Foreign, _)) => _ = gateway.metrics.dropped_messages.inc(),
            Some((Role::Question { sealed }, data)) => {
                gateway.pending.ask(&sealed, &self.asking);
                self.ready.push_back(Produced::Event { name: event.event, data });
            }
            Some((Role::Withdrawal { sealed }, data)) => {
                gateway.pending.withdraw(&sealed);
                self.ready.push_back(Produced::Event { name: event.event, data });
            }
            Some((Role::Prose, data)) => self.ready.push_back(Produced::Event { name: event.event, data }),
            Some((role @ (Role::Said | Role::ToolsChanged | Role::Final), data)) => {
                let server = &self.listener.server;
                // Before the client hears of it and asks, here or at another gateway.
                self.telling.extend(server.results.hear_any(&data));
                if role != Role::ToolsChanged || !is_ours(gateway, &server.server.path) {
                    self.ready.push_back(Produced::Event { name: event.event, data });
                }
            }
        }
    }

    /// An opening failed: for good if the session is over, else for now.
    fn failed(&mut self, refusal: &Refusal) {
        match &refusal.fault {
            Fault::NoSuchSession => {
                self.state = State::Over;
                self.ready.push_back(Produced::End);
            }
            _for_now => self.again(),
        }
    }
}

/// Waits, then opens the stream at wherever the session lives by then.
async fn reopen(mut listener: Listener, cursor: Option<Cursor>, wait: Duration) -> Result<Answered, Refusal> {
    tokio::time::sleep(wait).await;
    let asker = Asker { era: Some(Era::Legacy), place: Place::Session, ..Asker::default() };
    // The view may be newer by now: replicas come and go while a stream stands.
    if let Some(server) = listener.gateway.view().server_at(&listener.server.server.path) {
        listener.server = server.clone();
    }
    // A session that was ended must not come to life again because its server says 404.
    let record = bind::look_up(&listener.gateway, &listener.bound.session).await;
    let record = record.map_err(|fault| fault.told(&asker))?;
    listener.bound = bind::at_home(listener.bound.session.clone(), record);
    exchange(listener.errand(cursor.as_ref().and_then(Cursor::asked), asker)).await
}

impl StandingSource {
    /// A stream that was cut at another gateway goes on, from the server's `cursor` if there is one.
    pub fn going_on(listener: Listener, cursor: Option<Cursor>) -> StandingSource {
        let opening = Box::pin(reopen(listener.clone(), cursor.clone(), Duration::ZERO));
        let mut source = StandingSource::with(listener, State::Opening(opening));
        source.cursor = cursor;
        source
    }
}

impl Source for StandingSource {
    fn session_changed(&mut self) {
        let (gateway, session) = (self.listener.gateway.clone(), self.listener.bound.session.clone());
        self.looking = Some(Box::pin(async move {
            let record = bind::look_up(&gateway, &session).await?;
            Ok(bind::at_home(session, record))
        }));
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Produced> {
        loop {
            while let Some(told) = self.telling.front_mut() {
                let _ = ready!(Pin::new(told).poll(cx));
                self.telling.pop_front();
            }
            if let Some(produced) = self.ready.pop_front() {
                return Poll::Ready(produced);
            }
            if let Some(Poll::Ready(found)) = self.looking.as_mut().map(|looking| looking.as_mut().poll(cx)) {
                self.looking = None;
                self.found(found);
                continue;
            }
            if self.ears.poll_changed(cx).is_ready() {
                let name = Some(Bytes::from_static(b"message"));
                return Poll::Ready(Produced::Event { name, data: tool_news::notification() });
            }
            match &mut self.state {
                State::Over => return Poll::Ready(Produced::End),
                State::Opening(exchange) => match ready!(exchange.as_mut().poll(cx)) {
                    Ok(answered) => self.begin(answered),
                    Err(refusal) => self.failed(&refusal),
                },
                State::Open { body, .. } => match ready!(Pin::new(body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(chunk) = frame.into_data() {
                            self.take_chunk(chunk);
                        }
                    }
                    Some(Err(_)) | None => self.again(),
                },
            }
        }
    }
}

impl Drop for StandingSource {
    fn drop(&mut self) {
        self.listener.gateway.pending.forget(&self.asking);
    }
}
