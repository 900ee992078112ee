//! The client's side of a merged subscription: messages of all legs, kept open by comments, ended politely.
//!
//! Owns the legs: dropped with the client's connection, it takes all of them along. A client that does not read
//! stops its legs, never the gateway's memory: the channel is short and bounded.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use regatta_mcp::events;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

use super::agreed::graceful_end;
use crate::callers::StreamPlace;
use crate::gateway::Gateway;
use crate::streams::pace::{Due, Pace, Pacemaker};

/// See the module.
pub(crate) struct ListenBody {
    gateway: Arc<Gateway>,
    id: Bytes,
    messages: Receiver<Bytes>,
    first: Option<Bytes>,
    pacemaker: Pacemaker,
    leaving: std::pin::Pin<Box<tokio::sync::futures::OwnedNotified>>,
    over: bool,
    _legs: JoinSet<()>,
    _place: StreamPlace,
}

impl ListenBody {
    /// A subscription that begins with `first` and goes on with what the legs send.
    pub fn new(
        gateway: Arc<Gateway>,
        id: Bytes,
        first: Bytes,
        messages: Receiver<Bytes>,
        legs: JoinSet<()>,
        place: StreamPlace,
    ) -> ListenBody {
        let pace = Pace { silence_max: None, whole_max: None, keep_alive: Some(gateway.limits().keep_alive) };
        let leaving = Box::pin(gateway.leaving.clone().notified_owned());
        ListenBody {
            gateway,
            id,
            messages,
            first: Some(events::message(&first)),
            pacemaker: Pacemaker::start(pace),
            leaving,
            over: false,
            _legs: legs,
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
            self.over = true;
            return Poll::Ready(Some(events::message(&graceful_end(&self.id))));
        }
        if let Poll::Ready(message) = self.messages.poll_recv(cx) {
            self.pacemaker.sent();
            return Poll::Ready(message.map(|message| events::message(&message)));
        }
        match self.pacemaker.poll_due(cx) {
            Poll::Ready(Due::KeepAlive) => Poll::Ready(Some(events::KEEP_ALIVE)),
            Poll::Ready(Due::Silence | Due::End) | Poll::Pending => Poll::Pending,
        }
    }
}

use std::future::Future;
