//! `subscriptions/listen`: one subscription of the client, one leg to every replica (SESSIONS 7).
//!
//! Any replica may be the one where something changes, so all are listened to. The client hears one acknowledgement
//! with the union, first; a lost leg is opened anew for as long as the client listens.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{Method as Verb, Response, StatusCode};
use http_body::Body;
use regatta_mcp::era::Era;
use regatta_mcp::sse::Framer;
use regatta_mcp::{SkimKind, skim};
use regatta_policy::ReplicaId;
use regatta_policy::budget::Verdict;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::content::{self, Kind};
use crate::encode;
use crate::encode::answer::same_id;
use crate::fault::{Asker, Fault, Refusal};
use crate::forward::{self, Patience, Upward};
use crate::gateway::Gateway;
use crate::handover::Call;
use crate::headers::Outbound;
use crate::listen::agreed::Agreed;
use crate::listen::body::ListenBody;
use crate::reply::ReplyBody;
use crate::upstream::{UpstreamAnswer, UpstreamBody};
use crate::view::ServerView;

/// How long the first acknowledgement waits for the slower replicas.
const ACKNOWLEDGE_WAIT: Duration = Duration::from_secs(2);
/// Messages of all legs that wait for a slow client.
const WAITING_MAX: usize = 64;
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// What a leg tells before the client hears anything.
enum Opened {
    Acknowledged(Bytes),
    Refused(Response<ReplyBody>),
    Lost,
}

/// Everything a leg needs to open itself, again and again.
#[derive(Clone)]
struct Leg {
    gateway: Arc<Gateway>,
    path: Arc<str>,
    replica: ReplicaId,
    headers: Outbound,
    text: Bytes,
    id: Bytes,
    messages: Sender<Bytes>,
}

/// Serves one `subscriptions/listen`.
pub(crate) async fn listen(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
) -> Result<Response<ReplyBody>, Refusal> {
    let Some(id) = asker.id.clone() else { return Err(Fault::BadHandle.told(&asker)) };
    let place =
        gateway.callers.stream(call.caller.account, &call.server.limits).map_err(
            |verdict| match verdict {
                Verdict::Limited | Verdict::Granted => Fault::TooManyStreams.told(&asker),
                Verdict::Shed => Fault::Overloaded.told(&asker),
            },
        )?;
    let server = call.server.clone();
    let (sender, messages) = channel(WAITING_MAX);
    let (opened, mut answers) = channel(server.replicas.len().max(1));
    let mut legs = JoinSet::new();
    let headers = Outbound::of(call.head.headers).compact();
    let speakers = server.replicas.iter().filter(|view| view.replica.eras.speaks_modern());
    let path: Arc<str> = server.server.path.as_str().into();
    let speakers: Vec<Leg> = speakers
        .map(|view| Leg {
            gateway: gateway.clone(),
            path: path.clone(),
            replica: view.replica.id,
            headers: headers.clone(),
            text: call.text.clone(),
            id: id.clone(),
            messages: sender.clone(),
        })
        .collect();
    let Some(pattern) = speakers.first().cloned() else {
        return Err(Fault::EraNotSpoken.told(&asker));
    };
    let known = speakers.iter().map(|leg| leg.replica).collect();
    for leg in speakers {
        legs.spawn(run(leg, Some(opened.clone())));
    }
    drop((opened, sender));
    match gather(&mut answers, legs.len()).await {
        Gathered::Agreed(agreed) => {
            legs.spawn(welcome(pattern, known));
            let first = agreed.acknowledgement(&id);
            let body = ListenBody::new(gateway.clone(), id, first, messages, legs, place);
            Ok(encode::head::events(ReplyBody::listen(body)))
        }
        Gathered::Refused(response) => Ok(response),
        Gathered::Nobody => Err(Fault::NoReplica.told(&asker)),
    }
}

enum Gathered {
    Agreed(Agreed),
    Refused(Response<ReplyBody>),
    Nobody,
}

/// Waits for all legs, but not longer than for the first and `ACKNOWLEDGE_WAIT`.
async fn gather(answers: &mut Receiver<Opened>, legs: usize) -> Gathered {
    let mut agreed: Option<Agreed> = None;
    let mut refused = None;
    let all = async {
        for _ in 0..legs {
            match answers.recv().await {
                Some(Opened::Acknowledged(filter)) => agreed.get_or_insert_default().add(&filter),
                Some(Opened::Refused(response)) => refused = Some(response),
                Some(Opened::Lost) => {}
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(ACKNOWLEDGE_WAIT, all).await;
    match (agreed, refused) {
        (Some(agreed), _) => Gathered::Agreed(agreed),
        (None, Some(response)) => Gathered::Refused(response),
        (None, None) => Gathered::Nobody,
    }
}

/// Gives replicas that come later a leg of their own, made by `pattern`.
async fn welcome(pattern: Leg, mut known: HashSet<ReplicaId>) {
    let mut legs = JoinSet::new();
    loop {
        tokio::time::sleep(AGAIN_MAX).await;
        while legs.try_join_next().is_some() {}
        let Some(server) = pattern.gateway.view().server_at(&pattern.path).cloned() else { return };
        known.retain(|id| server.replica(*id).is_some());
        for view in server.replicas.iter().filter(|view| view.replica.eras.speaks_modern()) {
            if known.insert(view.replica.id) {
                legs.spawn(run(Leg { replica: view.replica.id, ..pattern.clone() }, None));
            }
        }
    }
}

/// One leg, until its client goes away or the replica leaves the config. `opened` is told how the first opening went;
/// a leg without it came later.
async fn run(leg: Leg, mut opened: Option<Sender<Opened>>) {
    let mut failures = 0u32;
    loop {
        let Some(server) = leg.server() else { return };
        let since = Instant::now();
        match leg.open(&server).await {
            Ok(mut stream) => {
                match opened.take() {
                    Some(first) => _ = first.send(Opened::Acknowledged(stream.filter.clone())).await,
                    // What happened while nobody listened is not known.
                    None => leg.say_everything(&stream.filter).await,
                }
                if leg.relay(&mut stream).await.is_err() {
                    return;
                }
                // One that did not stand is a failure too, or its client is told that everything changed, again and again.
                if since.elapsed() >= AGAIN_MAX {
                    failures = 0;
                }
            }
            Err(Shut::Refused(response)) => {
                // Refused at first, refused always, unless the replica is only unwell: another one may agree.
                let for_good = !response.status().is_server_error();
                if let Some(first) = opened.take() {
                    let _ = first.send(Opened::Refused(response)).await;
                    if for_good {
                        return;
                    }
                }
            }
            Err(Shut::Unusable(response)) => {
                if let Some(first) = opened.take() {
                    let _ = first.send(Opened::Refused(response)).await;
                }
            }
            Err(Shut::Lost) => {
                if let Some(first) = opened.take() {
                    let _ = first.send(Opened::Lost).await;
                }
            }
        }
        let wait = AGAIN_FIRST.saturating_mul(1 << failures.min(10)).min(AGAIN_MAX);
        failures = failures.saturating_add(1);
        tokio::time::sleep(wait).await;
    }
}

enum Shut {
    /// By the server's own word.
    Refused(Response<ReplyBody>),
    /// By something that is no word of MCP; the answer is ours.
    Unusable(Response<ReplyBody>),
    Lost,
}

/// An upstream subscription that was acknowledged.
struct Stream {
    body: UpstreamBody,
    framer: Framer,
    filter: Bytes,
}

impl Leg {
    /// The server, as long as the replica is one of its own.
    fn server(&self) -> Option<Arc<ServerView>> {
        let server = self.gateway.view().server_at(&self.path).cloned()?;
        server.replica(self.replica).is_some().then_some(server)
    }

    async fn open(&self, server: &ServerView) -> Result<Stream, Shut> {
        let view = server.replica(self.replica).ok_or(Shut::Lost)?;
        let upward = Upward {
            method: Verb::POST,
            text: self.text.clone(),
            session: None,
            cursor: None,
            rewritten: &[],
        };
        let bounds = &server.server.call;
        let answer = forward::send(view, &self.headers, upward, bounds, Patience::of(bounds.request_timeout))
            .await
            .map_err(|_| Shut::Lost)?;
        let UpstreamAnswer { head, body } = answer;
        if head.status != StatusCode::OK || content::kind(&head.headers) != Kind::Events {
            return Err(self.refused(head, body, bounds.request_timeout).await);
        }
        let mut stream = Stream { body, framer: Framer::new(server.limits.event_max), filter: Bytes::new() };
        let acknowledged = async {
            while let Some(data) = stream.next().await {
                let Ok(seen) = skim(&data) else { return None };
                match (seen.kind, seen.notifications) {
                    (SkimKind::Notification, Some(filter)) => {
                        return Some(Bytes::copy_from_slice(filter.of(&data)));
                    }
                    (SkimKind::Notification | SkimKind::Request, _) => {}
                    (SkimKind::Response { .. }, _) => return None,
                }
            }
            None
        };
        let filter = tokio::time::timeout(bounds.request_timeout, acknowledged)
            .await
            .ok()
            .flatten()
            .ok_or(Shut::Lost)?;
        stream.filter = filter;
        Ok(stream)
    }

    /// What an answer means that is no stream: the server's own word if it is one, else nothing that a client may see
    /// (a login page, a redirect; RELIABILITY I128, I129).
    async fn refused(&self, head: Parts, body: UpstreamBody, patience: Duration) -> Shut {
        let kind = content::kind(&head.headers);
        let text = forward::probe::collect(body, forward::probe::HANDSHAKE_MAX);
        let Ok(Ok(text)) = tokio::time::timeout(patience, text).await else { return Shut::Lost };
        let is_response = || {
            let Ok(seen) = skim(&text) else { return false };
            let is_ours = seen.id.is_some_and(|id| same_id(&self.id, id.of(&text)));
            is_ours && matches!(seen.kind, SkimKind::Response { .. })
        };
        let may_pass = match kind {
            Kind::Json if head.status == StatusCode::OK => is_response(),
            Kind::Json => head.status.is_client_error() || head.status.is_server_error(),
            Kind::Events | Kind::None | Kind::Foreign => head.status.is_client_error(),
        };
        if may_pass {
            return Shut::Refused(encode::head::like(head, ReplyBody::whole(text)));
        }
        self.gateway.metrics.bad_answers.inc();
        let asker = Asker { id: Some(self.id.clone()), era: Some(Era::Modern), ..Asker::default() };
        let fault = Fault::BadAnswer { why: "it is neither a stream nor a response" };
        Shut::Unusable(encode::fault::answer(&fault.told(&asker)))
    }

    /// Passes notifications on until the upstream ends; an error means that the client is gone.
    async fn relay(&self, stream: &mut Stream) -> Result<(), ()> {
        while let Some(data) = stream.next().await {
            let Ok(seen) = skim(&data) else { return Ok(()) };
            match seen.kind {
                SkimKind::Notification => {
                    if let Some(server) = self.server() {
                        server.results.hear(&seen, &data);
                    }
                    self.messages.send(data).await.map_err(|_| ())?;
                }
                // MUST NOT ask (2026-07-28 streamable-http, *Receiving Messages*).
                SkimKind::Request => _ = self.gateway.metrics.dropped_messages.inc(),
                // The replica ends it gracefully; the client's subscription goes on at the others.
                SkimKind::Response { .. } => return Ok(()),
            }
        }
        Ok(())
    }

    async fn say_everything(&self, filter: &Bytes) {
        if let Some(server) = self.server() {
            server.results.missed();
        }
        let mut agreed = Agreed::default();
        agreed.add(filter);
        for message in agreed.everything(&self.id) {
            if self.messages.send(message).await.is_err() {
                return;
            }
        }
    }
}

impl Stream {
    /// The data of the next event; `None` when the stream is over, broken or spoiled.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            while let Some(event) = self.framer.next().ok()? {
                if let Some(data) = event.data.filter(|data| !data.is_empty()) {
                    return Some(data);
                }
            }
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await?.ok()?;
            if let Ok(chunk) = frame.into_data() {
                self.framer.push(chunk);
            }
        }
    }
}
