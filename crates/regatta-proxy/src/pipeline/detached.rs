//! A legacy call whose client may go away before the answer's head is there.
//!
//! Dropping it is not cancelling it (2025-11-25 basic/transports, *Sending Messages* 6): the call goes on in a task
//! of its own, within `detached_max`. The undisturbed way spawns nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::Body;

use super::cached;
use super::exchange::{Answered, Errand, exchange};
use crate::fault::Refusal;
use crate::gateway::Gateway;
use crate::handover::Account;

/// An exchange under way.
pub(crate) type Exchange = Pin<Box<dyn Future<Output = Result<Answered, Refusal>> + Send>>;

/// An exchange that survives its owner.
pub(crate) struct Detachable {
    gateway: Arc<Gateway>,
    account: Account,
    exchange: Option<Exchange>,
}

impl Detachable {
    /// Begins the errand.
    pub fn new(errand: Box<Errand>) -> Detachable {
        let (gateway, account) = (errand.gateway.clone(), errand.caller.account);
        Detachable { gateway, account, exchange: Some(Box::pin(exchange(errand))) }
    }

    /// Takes the exchange out: from now on somebody else sees to it.
    pub fn take(mut self) -> Option<Exchange> {
        self.exchange.take()
    }
}

impl Future for Detachable {
    type Output = Result<Answered, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(exchange) = self.exchange.as_mut() else { return Poll::Pending };
        let polled = exchange.as_mut().poll(cx);
        if polled.is_ready() {
            self.exchange = None;
        }
        polled
    }
}

impl Drop for Detachable {
    fn drop(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        self.gateway.detach(self.account, async move {
            if let Ok(answered) = exchange.await {
                drain(answered).await;
            }
        });
    }
}

/// Reads an answer that its client does not wait for, so that the server can finish; bounded in time. What it does to
/// the result cache is done.
async fn drain(answered: Answered) {
    if answered.errand.upkeep.is_some() {
        return cached::bring(answered).await;
    }
    let whole = answered.errand.server.server.call.request_max;
    let mut body = answered.answer.body;
    let read = async {
        while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
    };
    let _ = tokio::time::timeout(whole, read).await;
}
