//! The page to read first: one HTTP request, from the listener's hands to its answer.
//!
//! `accept → identify → admit → decode → limit → bind → (cache) → route → forward → encode`. Each stage takes what the one
//! before it made (`handover.rs`); a stage that says no returns a `Fault`, and `encode/fault.rs` says it to the
//! client. The stages know nothing of each other: what joins them is here and in `pipeline/`.

pub(crate) mod answers;
pub(crate) mod attempts;
pub(crate) mod batch;
pub(crate) mod cached;
pub(crate) mod delete;
pub(crate) mod detached;
pub(crate) mod exchange;
pub(crate) mod handshake;
pub(crate) mod initialize;
pub(crate) mod journal;
pub(crate) mod later;
pub(crate) mod leg;
pub(crate) mod legacy;
pub(crate) mod listen;
pub(crate) mod metadata;
pub(crate) mod modern;
pub(crate) mod notes;
mod overhear;
pub(crate) mod recalled;
pub(crate) mod record;
pub(crate) mod rehome;
pub(crate) mod shared;
pub(crate) mod source;
pub(crate) mod standing;
pub(crate) mod standing_source;
pub(crate) mod tend;
pub(crate) mod tool_list;

use std::sync::Arc;
use std::time::Instant;

use http::header::{ORIGIN, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};
use regatta_mcp::era::Era;

use crate::door::Door;
use crate::fault::{Asker, Fault, Refusal};
use crate::gateway::Gateway;
use crate::handover::{Allowed, Identified, Verb};
use crate::limit::Limiting;
use crate::listener::Arrival;
use crate::reply::ReplyBody;
use crate::view::View;
use crate::{accept, admit, cache, decode, encode, identify, limit};

/// Answers one request. Never fails: every fault has an answer.
pub async fn serve(gateway: Arc<Gateway>, arrival: Box<Arrival>) -> Response<ReplyBody> {
    gateway.metrics.requests.inc();
    gateway.poller.stir();
    let began = Instant::now();
    let view = gateway.view();
    let cors = match arrival.head.headers.contains_key(ORIGIN) {
        true => accept::cors(&arrival.head.headers, &view.admission),
        false => None,
    };
    let door = Door::of(&arrival.head, &arrival.peer);
    // Where there is one server, an answer is its own.
    let path = (view.servers.len() > 1).then(|| arrival.head.uri.clone());
    let answer = match (&cors, &arrival.head.method) {
        (Some(_), &Method::OPTIONS) => preflight(&view, &arrival.head).map_err(Fault::alone),
        (_, _) => walk(&gateway, &view, arrival).await,
    };
    gateway.metrics.duration.observe(began.elapsed().as_secs_f64());
    let answer = answer.and_then(|response| passed_on(&view, path.as_ref(), &door, response));
    let mut response = answer.unwrap_or_else(|refusal| {
        gateway.metrics.faults.inc();
        if encode::fault::is_dropped(&refusal) {
            gateway.metrics.dropped_messages.inc();
        }
        encode::fault::answer(&refusal)
    });
    if let Some(cors) = cors {
        encode::head::allow(response.headers_mut(), cors);
    }
    response
}

/// A browser asks whether its page may ask (Fetch standard, *CORS-preflight fetch*): where anything is served, and by a name
/// of ours, as any other request.
fn preflight(view: &View, head: &Parts) -> Result<Response<ReplyBody>, Fault> {
    accept::gate(view, head)?;
    match metadata::is_metadata(head.uri.path()) || view.server_at(head.uri.path()).is_some() {
        true => Ok(encode::head::preflight(&head.headers)),
        false => Err(Fault::NoSuchPath),
    }
}

async fn walk(
    gateway: &Arc<Gateway>,
    view: &View,
    arrival: Box<Arrival>,
) -> Result<Response<ReplyBody>, Refusal> {
    if metadata::is_metadata(arrival.head.uri.path()) {
        return Box::pin(metadata::get(gateway, view, arrival)).await.map_err(Fault::alone);
    }
    let accepted = accept::accept(view, arrival).map_err(Fault::alone)?;
    let identified = identify::identify(gateway, view, accepted).await.map_err(Fault::alone)?;
    match accept::form(&identified.accepted).map_err(Fault::alone)? {
        Verb::Post => post(gateway, identified).await,
        // Boxed: the rare ways should not make every request's future larger.
        Verb::Get => Box::pin(standing::get(gateway, identified)).await,
        Verb::Delete => Box::pin(delete::delete(gateway, identified)).await,
    }
}

/// A server's 401 on its way to the client. Where the gateway checks, it is about the gateway's own credential and
/// nothing that the client could mend; else it is the client's, and leads to metadata at our address (SESSIONS 9).
fn passed_on(
    view: &View,
    path: Option<&Uri>,
    door: &Door,
    mut response: Response<ReplyBody>,
) -> Result<Response<ReplyBody>, Refusal> {
    if !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Ok(response);
    }
    let server = match path {
        Some(path) => view.server_at(path.path()),
        None => view.servers.first(),
    };
    let Some(server) = server else { return Ok(response) };
    match (&server.guard, response.status()) {
        (Some(_), StatusCode::UNAUTHORIZED) => return Err(Fault::CredentialRefused.alone()),
        (Some(_), _) => _ = response.headers_mut().remove(WWW_AUTHENTICATE),
        (None, _) => encode::challenge::rewrite(response.headers_mut(), server, door),
    }
    Ok(response)
}

async fn post(gateway: &Arc<Gateway>, identified: Identified) -> Result<Response<ReplyBody>, Refusal> {
    let (admitted, standing) = admit::admit(gateway, identified).await.map_err(Fault::alone)?;
    if gateway.nap.is_fresh(gateway.clock.now()) {
        // It may have waited while we were stopped. Its connection looks whether the client is still there before it comes
        // back to this: what nobody waits for is not begun (RELIABILITY F9).
        tokio::task::yield_now().await;
    }
    let mut call = decode::decode(admitted)?;
    let asker = Asker { id: call.id(), batch: call.batch(), era: Some(call.era), ..Asker::default() };
    identify::scopes::check(gateway, &call).map_err(|fault| fault.told(&asker))?;
    if let Err(fault) = admit::settle(gateway, &mut call, standing).await {
        let asker = Box::pin(legacy::placed(gateway, &call, asker)).await;
        return Err(fault.told(&asker));
    }
    let Allowed { mut call, shown } = match limit::limit(gateway, call) {
        Limiting::Decided(decided) => decided,
        Limiting::Undecided(undecided) => Box::pin(limit::settle(gateway, undecided)).await,
    }
    .map_err(|fault| fault.told(&asker))?;
    if let Some(entry) = admit::entry(&call) {
        match cache::may_keep(&call) || legacy::may_wait(gateway, &call) {
            // What is kept needs no place at its server; who fetches it gets one then. Nor does a call that waits for the standing
            // stream of its session.
            true => call.entry = Some(entry),
            false => {
                let server = call.server.clone();
                let entered = admit::at_server(gateway, &server.gate, &entry, &mut call.permit).await;
                if let Err(fault) = entered {
                    let asker = Box::pin(legacy::placed(gateway, &call, asker)).await;
                    return Err(fault.told(&asker));
                }
            }
        }
    }
    let mut response = match call.era {
        Era::Legacy => legacy::post(gateway, call, asker).await?,
        Era::Modern => modern::post(gateway, call, asker).await?,
    };
    encode::quota::write(response.headers_mut(), &shown);
    Ok(response)
}

#[cfg(test)]
mod tests {
    fn size_of_future<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        std::mem::size_of::<F>()
    }

    /// The future of a request is moved into its connection, so its size is paid with every request.
    #[test]
    fn the_future_of_a_request_stays_small() {
        assert!(size_of_future(super::serve) <= 8 << 10);
    }
}
