//! One request to one replica, up to the head of its answer.
//!
//! It is written at most once: only a request of which not a byte left goes out again, on a fresh connection.
//! The wait for the head has no time-out of its own; dropping it closes the connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use regatta_policy::Micros;
use regatta_policy::eject::Outcome;
use regatta_policy::snapshot::CallBounds;

use super::answer::UpstreamAnswer;
use super::codec::{self, Outgoing, RequestHead};
use super::connect::connect;
use super::error::{NotWritten, SendError, Written};
use super::link::{Failed, Link};
use super::pool::{Slot, Turn};
use super::replica::{Lease, Upstream};

impl Upstream {
    /// Begins a request to this replica's endpoint; its `Host` is written already.
    pub fn request(&self, method: &Method) -> RequestHead {
        RequestHead::new(method, &self.opening)
    }

    /// The same to another path of its.
    pub fn request_to(&self, method: &Method, path: &str) -> RequestHead {
        RequestHead::new(method, &codec::opening(path, &self.authority()))
    }

    /// Sends `request`.
    ///
    /// Returns at the head of the answer. The answer's body owns `lease` and the connection.
    ///
    /// # Errors
    /// See [`SendError`]; failures count against the replica, but for `ConnectionsMax`.
    pub async fn send(
        self: &Arc<Self>,
        lease: Lease,
        request: Outgoing,
        bounds: &CallBounds,
    ) -> Result<UpstreamAnswer, SendError> {
        let started = self.common.now();
        self.begin(started);
        let turn = self.pool.turn(bounds.connections_per_replica_max, bounds.connect_timeout, started).await;
        // Boxed: a kept connection is the ordinary case, and its future should not carry what connecting needs.
        let fresh = match turn {
            None => return self.not_written(NotWritten::ConnectionsMax),
            Some(Turn::Open(slot)) => Box::pin(self.send_fresh(lease, slot, request, bounds, started)),
            Some(Turn::Kept(mut link)) => match link.exchange(request).await {
                Ok(answer) => return Ok(UpstreamAnswer::new(answer, link, lease, started)),
                Err(Failed::Sent(why)) => return self.written(why),
                // Stale: closed between the look and the write. Its place is ours, so a fresh one needs no wait.
                Err(Failed::Unsent(request)) => {
                    Box::pin(self.send_fresh(lease, link.into_slot(), request, bounds, started))
                }
            },
        };
        fresh.await
    }

    /// Sends on a connection of its own.
    async fn send_fresh(
        self: &Arc<Self>,
        lease: Lease,
        slot: Slot,
        request: Outgoing,
        bounds: &CallBounds,
        started: Micros,
    ) -> Result<UpstreamAnswer, SendError> {
        let mut link = match self.open(slot, bounds.connect_timeout).await {
            Ok(link) => link,
            Err(why) => return self.not_written(why),
        };
        match link.exchange(request).await {
            Ok(answer) => Ok(UpstreamAnswer::new(answer, link, lease, started)),
            Err(Failed::Sent(why)) => self.written(why),
            Err(Failed::Unsent(_)) => self.not_written(NotWritten::StaleConnection),
        }
    }

    async fn open(&self, slot: Slot, timeout: Duration) -> Result<Box<Link>, NotWritten> {
        let user_timeout = Duration::from_millis(self.common.user_timeout_ms.load(Ordering::Relaxed));
        let io = connect(&self.endpoint, timeout, user_timeout, &self.common.trust).await?;
        self.connects.fetch_add(1, Ordering::Relaxed);
        Ok(Link::new(io, slot))
    }

    fn not_written<T>(&self, why: NotWritten) -> Result<T, SendError> {
        match why {
            // Our own bound, not its fault.
            NotWritten::ConnectionsMax => {}
            NotWritten::Refused
            | NotWritten::Unreachable
            | NotWritten::ConnectTimedOut
            | NotWritten::Tls
            | NotWritten::StaleConnection => self.record(Outcome::ConnectFailed, None, self.common.now()),
        }
        Err(SendError::NotWritten { why })
    }

    fn written<T>(&self, why: Written) -> Result<T, SendError> {
        self.record(Outcome::Reset, None, self.common.now());
        Err(SendError::Written { why })
    }
}
