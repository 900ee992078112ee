//! A legacy call whose client may go away before the answer is there: its head, and if it is JSON its body.
//!
//! Dropping it is not cancelling it (2025-11-25 basic/transports, *Sending Messages* 6): the call goes on in a task
//! of its own, within `detached_max`. The undisturbed way spawns nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use regatta_mcp::era::Era;

use super::cached;
use super::exchange::{Answered, Errand, exchange};
use super::notes::Word;
use super::source::CallSource;
use crate::content::Kind;
use crate::fault::{Fault, Refusal};
use crate::forward::probe::{Unread, collect};
use crate::gateway::Gateway;
use crate::handover::Account;
use crate::streams::stream::{Produced, Source};
use crate::streams::table::BeingOpened;
use crate::upstream::{UpstreamAnswer, UpstreamBody};
use crate::within::within;

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
        Detachable::behind(None, errand)
    }

    /// Begins the errand once a standing stream is open, if one is being opened.
    pub fn behind(opening: Option<BeingOpened>, errand: Box<Errand>) -> Detachable {
        let (gateway, account) = (errand.gateway.clone(), errand.caller.account);
        let exchange: Exchange = match (&errand.noted, opening) {
            (None, None) => Box::pin(exchange(errand)),
            (Some(_), None) => Box::pin(settled(errand)),
            (_, Some(opening)) => Box::pin(after(opening, errand)),
        };
        Detachable { gateway, account, exchange: Some(exchange) }
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

/// Runs an errand once a standing stream has been opened.
async fn after(opening: BeingOpened, errand: Box<Errand>) -> Result<Answered, Refusal> {
    opening.wait().await;
    match errand.noted {
        None => exchange(errand).await,
        Some(_) => settled(errand).await,
    }
}

/// Runs an errand that was noted, and settles that, unless its response is still to come as an event.
async fn settled(mut errand: Box<Errand>) -> Result<Answered, Refusal> {
    let noted = errand.noted.take();
    let mut answered = exchange(errand).await;
    let word = match &mut answered {
        Ok(answered) if answered.is_stream() => {
            answered.errand.noted = noted;
            None
        }
        Ok(answered) if is_json(answered) => {
            let text = answered.answer.body.take_whole(usize::MAX).unwrap_or_default();
            answered.answer.body = UpstreamBody::held(text.clone());
            noted.map(|noted| (noted, Word::of(&text, answered.errand.asker.id.as_ref())))
        }
        Ok(_) | Err(_) => noted.map(|noted| (noted, Word::No)),
    };
    if let Some((noted, word)) = word {
        // Run to its end by itself, even if the caller goes away now.
        let _ = noted.settle(word).await;
    }
    answered
}

fn is_json(answered: &Answered) -> bool {
    answered.answer.head.status == StatusCode::OK && answered.kind == Kind::Json
}

/// Whether a legacy answer can still be lost with its client. Events are fed to a stream, and what is JSON is waited for
/// like its head, so that the client gets its stream meanwhile.
pub(super) fn trails(answered: &Answered) -> bool {
    answered.errand.era == Era::Legacy && is_json(answered) && !answered.answer.body.is_whole()
}

/// Waits for all of an answer in JSON; with the errand, if that fails.
pub(super) async fn hold(answered: Answered) -> Result<Answered, (Box<Errand>, Refusal)> {
    let Answered { errand, answer, kind, replica } = answered;
    let UpstreamAnswer { head, body } = answer;
    let body = match text_of(&errand, body).await {
        Ok(text) => UpstreamBody::held(text),
        Err(refusal) => return Err((errand, refusal)),
    };
    Ok(Answered { errand, answer: UpstreamAnswer { head, body }, kind, replica })
}

/// All of an answer in JSON, at most `event_max` bytes, within `request_timeout`.
pub(crate) async fn text_of(errand: &Errand, body: UpstreamBody) -> Result<Bytes, Refusal> {
    let max = errand.server.limits.event_max;
    let patience = errand.server.server.call.request_timeout;
    match within(patience, collect(body, max)).await {
        Some(Ok(text)) => Ok(text),
        Some(Err(Unread::TooLarge)) => {
            errand.gateway.metrics.bad_answers.inc();
            Err(errand.refuse(Fault::BadAnswer { why: "it is larger than event_max" }))
        }
        Some(Err(Unread::Broken)) | None => {
            errand.gateway.metrics.outcome_unknown.inc();
            Err(errand.refuse(Fault::OutcomeUnknown { why: "the answer broke off" }))
        }
    }
}

/// Reads an answer that its client does not wait for, so that the server can finish; bounded in time. What it does to
/// the result cache is done.
async fn drain(answered: Answered) {
    if answered.errand.upkeep.is_some() {
        return cached::bring(answered).await;
    }
    if answered.errand.noted.is_some() {
        return hear_out(answered).await;
    }
    let whole = answered.errand.server.server.call.request_max;
    let mut body = answered.answer.body;
    let read = async {
        while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
    };
    let _ = tokio::time::timeout(whole, read).await;
}

/// Reads events for what their response does to the session's record.
async fn hear_out(answered: Answered) {
    let (gateway, asker) = (answered.errand.gateway.clone(), answered.errand.asker.clone());
    let mut source = CallSource::answered(gateway, asker, answered);
    loop {
        match std::future::poll_fn(|cx| source.poll_next(cx)).await {
            Produced::End | Produced::Pause { .. } => return,
            Produced::Event { .. }
            | Produced::Recorded { .. }
            | Produced::Mark { .. }
            | Produced::Priming
            | Produced::Retry { .. } => {}
        }
    }
}
