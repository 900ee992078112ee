//! One upstream subscription: opened at one replica, up to its acknowledgement, then read event by event.
//!
//! Opens once and never again by itself; who owns the leg decides what a loss means (`listen.rs`, `shared.rs`).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method as Verb, StatusCode};
use http_body::Body;
use regatta_mcp::sse::Framer;
use regatta_mcp::{Skim, SkimKind, skim};
use regatta_policy::ReplicaId;

use crate::content::Kind;
use crate::encode::answer::same_id;
use crate::forward::{self, Patience, Upward};
use crate::gateway::Gateway;
use crate::headers::Outbound;
use crate::listen::lists::Lists;
use crate::listen::shared::{Refused, Said};
use crate::tool_news;
use crate::upstream::{AnswerHead, UpstreamAnswer, UpstreamBody};
use crate::view::ServerView;

/// The first wait before a leg is opened again.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
/// The longest; a leg that stood that long has not failed.
pub(super) const AGAIN_MAX: Duration = Duration::from_secs(5);

/// Everything a leg needs to open itself, again and again.
#[derive(Clone)]
pub(super) struct Leg {
    pub gateway: Arc<Gateway>,
    pub path: Arc<str>,
    pub replica: ReplicaId,
    pub headers: Outbound,
    /// Put in place of the headers of the same name.
    pub rewritten: Arc<[(HeaderName, HeaderValue)]>,
    pub text: Bytes,
    /// The request's id in `text`, raw.
    pub id: Bytes,
}

/// An upstream subscription that was acknowledged.
pub(super) struct Subscription {
    body: UpstreamBody,
    framer: Framer,
    /// The acknowledged filter, as JSON.
    pub filter: Bytes,
}

/// Why there is none.
pub(super) enum Shut {
    /// The replica said no.
    Refused(Refused),
    /// It could not be reached, or fell silent.
    Lost,
}

impl Leg {
    /// The server, as long as the replica is one of its own.
    pub fn server(&self) -> Option<Arc<ServerView>> {
        let server = self.gateway.view().server_at(&self.path).cloned()?;
        server.replica(self.replica).is_some().then_some(server)
    }

    /// Of what the replica says changed, that which is its own to say.
    pub fn said(&self, lists: Lists) -> Lists {
        match tool_news::is_ours(&self.gateway, &self.path) {
            true => lists.without(Lists::TOOLS),
            false => lists,
        }
    }

    /// Asks the replica and waits for its acknowledgement.
    pub async fn open(&self, server: &ServerView) -> Result<Subscription, Shut> {
        let view = server.replica(self.replica).ok_or(Shut::Lost)?;
        let upward = Upward {
            method: Verb::POST,
            text: &self.text,
            session: None,
            cursor: None,
            rewritten: &self.rewritten,
        };
        let bounds = &server.server.call;
        let answer = forward::send(view, &self.headers, upward, bounds, Patience::of(bounds.request_timeout))
            .await
            .map_err(|_| Shut::Lost)?;
        let UpstreamAnswer { head, body } = answer;
        if head.status != StatusCode::OK || head.kind != Kind::Events {
            return Err(self.refused(head, body, bounds.request_timeout).await);
        }
        let framer = Framer::new(server.limits.event_max);
        let mut subscription = Subscription { body, framer, filter: Bytes::new() };
        let acknowledged = tokio::time::timeout(bounds.request_timeout, subscription.acknowledged());
        subscription.filter = acknowledged.await.ok().flatten().ok_or(Shut::Lost)?;
        Ok(subscription)
    }

    /// What an answer means that is no stream: the server's own word if it is one, else nothing that a client may see
    /// (a login page, a redirect; RELIABILITY I128, I129).
    async fn refused(&self, head: AnswerHead, body: UpstreamBody, patience: Duration) -> Shut {
        let kind = head.kind;
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
            return Shut::Refused(Refused::Said(Arc::new(Said { head, text })));
        }
        self.gateway.metrics.bad_answers.inc();
        Shut::Refused(Refused::Unusable)
    }
}

impl Subscription {
    /// The filter of the acknowledgement, which has to come first; `None` if something else ends the wait.
    async fn acknowledged(&mut self) -> Option<Bytes> {
        while let Some(data) = self.next().await {
            let seen = skim(&data).ok()?;
            match (seen.kind, seen.notifications) {
                (SkimKind::Notification, Some(filter)) => {
                    return Some(Bytes::copy_from_slice(filter.of(&data)));
                }
                (SkimKind::Notification | SkimKind::Request, _) => {}
                (SkimKind::Response { .. }, _) => return None,
            }
        }
        None
    }

    /// The next notification; `None` when the stream is over, in whatever way.
    pub async fn notification(&mut self, gateway: &Gateway) -> Option<(Bytes, Skim)> {
        loop {
            let data = self.next().await?;
            let seen = skim(&data).ok()?;
            match seen.kind {
                SkimKind::Notification => return Some((data, seen)),
                // MUST NOT ask (2026-07-28 streamable-http, *Receiving Messages*).
                SkimKind::Request => _ = gateway.metrics.dropped_messages.inc(),
                // The replica ends it gracefully; the client's subscription goes on at the others.
                SkimKind::Response { .. } => return None,
            }
        }
    }

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

/// The wait before a leg that failed `failures` times is opened again.
pub(super) fn again_after(failures: u32) -> Duration {
    AGAIN_FIRST.saturating_mul(1 << failures.min(10)).min(AGAIN_MAX)
}
