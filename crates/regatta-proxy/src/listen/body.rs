//! The client's side of a merged subscription: messages of all legs, kept open by comments, ended politely.
//!
//! Owns the client's own legs, or its place at shared ones: dropped with the client's connection, it takes them along.
//! A client that does not read stops its own legs, never the gateway's memory and never another client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use regatta_mcp::events;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

use super::agreed::graceful_end;
use super::shared::{Heard, Listening};
use crate::callers::StreamPlace;
use crate::gateway::Gateway;
use crate::streams::pace::{Due, Pace, Pacemaker};

/// See the module.
pub(crate) struct ListenBody {
    gateway: Arc<Gateway>,
    id: Bytes,
    source: Source,
    first: Option<Bytes>,
    pacemaker: Pacemaker,
    leaving: Pin<Box<OwnedNotified>>,
    over: bool,
    _place: StreamPlace,
}

/// Where its messages come from.
pub(crate) enum Source {
    /// Legs of its own, which end with it.
    Own {
        /// Whole messages, of all legs.
        messages: Receiver<Bytes>,
        /// The tasks that read them.
        _legs: JoinSet<()>,
    },
    /// Legs that others hear too.
    Shared(Listening),
}

impl ListenBody {
    /// A subscription that begins with `first` and goes on with what the legs send.
    pub fn new(
        gateway: Arc<Gateway>,
        id: Bytes,
        first: &[u8],
        source: Source,
        place: StreamPlace,
    ) -> ListenBody {
        let pace = Pace { silence_max: None, whole_max: None, keep_alive: Some(gateway.limits().keep_alive) };
        let leaving = Box::pin(gateway.leaving.clone().notified_owned());
        ListenBody {
            gateway,
            id,
            source,
            first: Some(events::message(first)),
            pacemaker: Pacemaker::start(pace),
            leaving,
            over: false,
            _place: place,
        }
    }

    /// The next bytes for the client.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if self.gateway.is_draining() || self.leaving.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(self.end()));
        }
        let said = match &mut self.source {
            Source::Own { messages, .. } => {
                messages.poll_recv(cx).map(|message| message.map(|message| events::message(&message)))
            }
            Source::Shared(listening) => listening.poll(cx).map(|heard| match heard {
                Heard::Changed(lists) => Some(lists.events(&self.id)),
                Heard::Over => None,
            }),
        };
        if let Poll::Ready(said) = said {
            self.pacemaker.sent();
            return Poll::Ready(Some(said.unwrap_or_else(|| self.end())));
        }
        match self.pacemaker.poll_due(cx) {
            Poll::Ready(Due::KeepAlive) => Poll::Ready(Some(events::KEEP_ALIVE)),
            Poll::Ready(Due::Silence | Due::End) | Poll::Pending => Poll::Pending,
        }
    }

    /// The last event: the subscription's result.
    fn end(&mut self) -> Bytes {
        self.over = true;
        events::message(&graceful_end(&self.id))
    }
}
