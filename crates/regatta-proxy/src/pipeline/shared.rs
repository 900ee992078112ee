//! A subscription to list changes alone, over the legs that its audience shares.
//!
//! One task an audience keeps a leg to each replica as long as anybody listens, opens lost ones anew and tells all
//! clients what they may have missed. A client of it holds no connection and no task of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use regatta_mcp::era::{Era, MODERN};
use regatta_mcp::headers::{MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION, MCP_SESSION_ID};
use regatta_mcp::{Method, meta, skim, splice, write};
use regatta_policy::ReplicaId;
use serde_json::{Map, Value, json};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::handshake::own_id;
use super::leg::{AGAIN_MAX, Leg, Shut, again_after};
use crate::callers::StreamPlace;
use crate::encode;
use crate::fault::{Asker, Fault, Refusal};
use crate::gateway::Gateway;
use crate::handover::{Call, Caller};
use crate::headers::Outbound;
use crate::listen::agreed::Agreed;
use crate::listen::body::{ListenBody, Source};
use crate::listen::lists::Lists;
use crate::listen::shared::{Agreement, Audience, Listening, Refused, Said, Shared};
use crate::reply::ReplyBody;
use crate::tool_news;
use crate::view::ServerView;

/// How long the acknowledgement waits for the slower replicas.
const ACKNOWLEDGE_WAIT: Duration = Duration::from_secs(2);
/// How long legs are kept that nobody listens to: a client that comes back finds them.
const LINGER: Duration = Duration::from_secs(2);
/// A replica that said no may have been replaced in place since.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Serves one subscription that wants `wanted` and nothing else.
pub(super) async fn listen(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
    id: Bytes,
    place: StreamPlace,
    wanted: Lists,
) -> Result<Response<ReplyBody>, Refusal> {
    let server = call.server.clone();
    let headers = Outbound::of(who_asks(call.head.headers), &as_told(&server, call.caller)).compact();
    drop(call.text);
    let listening = join(gateway, &server, headers, wanted);
    let Some(listening) = listening else { return Err(Fault::EraNotSpoken.told(&asker)) };
    let _ = tokio::time::timeout(ACKNOWLEDGE_WAIT, listening.settled()).await;
    match listening.agree() {
        Agreement::On(lists) => {
            let first = Agreed::on(lists).acknowledgement(&id);
            let body = ListenBody::new(gateway.clone(), id, &first, Source::Shared(listening), place);
            Ok(encode::head::events(ReplyBody::listen(body)))
        }
        Agreement::Refused(Refused::Said(said)) => Ok(repeat(&said, &id)),
        Agreement::Refused(Refused::Unusable) => Err(unusable(&asker)),
        Agreement::Nobody => Err(Fault::NoReplica.told(&asker)),
    }
}

/// Listens in the gateway's own name; none where no replica speaks the era.
pub(super) fn overhear(gateway: &Arc<Gateway>, server: &ServerView) -> Option<Listening> {
    join(gateway, server, Outbound::default(), Lists::ALL)
}

/// Joins those who would be sent the same under `headers`; opens the legs if it is the first of them.
fn join(gateway: &Arc<Gateway>, server: &ServerView, headers: Outbound, wanted: Lists) -> Option<Listening> {
    let speakers: Vec<ReplicaId> = speakers(server).collect();
    let first = speakers.first().copied()?;
    let path: Arc<str> = server.server.path.as_str().into();
    let audience = Audience { path: path.clone(), identity: identity(&headers) };
    let (listening, unopened) = gateway.shared_legs.join(&audience, wanted, speakers.into_iter());
    if let Some(shared) = unopened {
        let id = Bytes::from(own_id());
        let (text, rewritten) = (request(&id), rewritten());
        let pattern = Leg { gateway: gateway.clone(), path, replica: first, headers, rewritten, text, id };
        tokio::spawn(keep(Keeping { gateway: gateway.clone(), audience, shared }, pattern));
    }
    Some(listening)
}

/// What a client is told when a replica answered with something that is no word of MCP.
pub(super) fn unusable(asker: &Asker) -> Refusal {
    Fault::BadAnswer { why: "it is neither a stream nor a response" }.told(asker)
}

/// A replica's no under the id of the client that hears it.
fn repeat(said: &Said, id: &Bytes) -> Response<ReplyBody> {
    let text = match skim(&said.text).ok().and_then(|seen| seen.id) {
        Some(span) => splice(&said.text, &[(span, id.clone())]),
        None => said.text.clone(),
    };
    encode::head::like(said.head.clone(), ReplyBody::whole(text))
}

fn speakers(server: &ServerView) -> impl Iterator<Item = ReplicaId> {
    server.replicas.iter().filter(|view| view.replica.eras.speaks_modern()).map(|view| view.replica.id)
}

/// The headers that may say who asks: all but those that say the same for everybody, or nothing that matters for a leg.
/// What is not known to be neutral parts audiences.
fn who_asks(mut headers: HeaderMap) -> HeaderMap {
    const NEUTRAL: [HeaderName; 12] = [
        header::ACCEPT,
        header::ACCEPT_LANGUAGE,
        header::CACHE_CONTROL,
        header::CONTENT_TYPE,
        header::HOST,
        header::PRAGMA,
        header::USER_AGENT,
        MCP_METHOD,
        MCP_NAME,
        MCP_PROTOCOL_VERSION,
        MCP_SESSION_ID,
        HeaderName::from_static(meta::TRACEPARENT),
    ];
    for name in NEUTRAL {
        headers.remove(name);
    }
    for name in [meta::TRACESTATE, "baggage", "sec-fetch-mode", "sec-fetch-site", "sec-fetch-dest"] {
        headers.remove(name);
    }
    headers
}

/// The same for the same headers in whatever order of their names.
fn identity(headers: &Outbound) -> [u8; 16] {
    let mut pairs: Vec<(&str, &[u8])> =
        headers.pairs().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    pairs.sort_by_key(|(name, _)| *name);
    let mut parts: Vec<&[u8]> =
        pairs.into_iter().flat_map(|(name, value)| [name.as_bytes(), value]).collect();
    if let Some(principal) = headers.principal() {
        let claims = principal.claims.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        parts.extend([&b"principal"[..], &principal.digest, &principal.scopes_digest]);
        parts.extend(claims);
    }
    regatta_seal::digest16(&parts)
}

/// The caller as far as the server is told of it: what it does not see need not part audiences, what it sees must.
fn as_told(server: &ServerView, caller: Caller) -> Caller {
    let is_told = server.guard.as_ref().is_some_and(|guard| guard.rules.identity_secret.is_some());
    Caller { principal: caller.principal.filter(|_| is_told), ..caller }
}

/// Asks for every list: a client hears of those that it wants.
fn request(id: &Bytes) -> Bytes {
    let params = json!({
        "_meta": {
            meta::PROTOCOL_VERSION: MODERN[0],
            meta::CLIENT_INFO: {"name": "regatta", "version": env!("CARGO_PKG_VERSION")},
            meta::CLIENT_CAPABILITIES: {},
        },
        "notifications": Lists::ALL.filter(),
    });
    let method = Method::SubscriptionsListen.as_str();
    write::request(&String::from_utf8_lossy(id), method, Some(&params.to_string()))
}

fn rewritten() -> Arc<[(HeaderName, HeaderValue)]> {
    let value = HeaderValue::from_static;
    Arc::new([
        (header::CONTENT_TYPE, value("application/json")),
        (header::ACCEPT, value("application/json, text/event-stream")),
        (MCP_PROTOCOL_VERSION, value(MODERN[0])),
        (MCP_METHOD, value(Method::SubscriptionsListen.as_str())),
    ])
}

/// Ends the audience when its task ends, in whatever way: nobody may wait for legs that are not there.
struct Keeping {
    gateway: Arc<Gateway>,
    audience: Audience,
    shared: Arc<Shared>,
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.gateway.shared_legs.end(&self.audience, &self.shared);
    }
}

/// Keeps one leg to every replica, also to those that come later, until nobody listens or the server is gone.
async fn keep(keeping: Keeping, pattern: Leg) {
    let Keeping { gateway, audience, shared } = &keeping;
    let mut legs = JoinSet::new();
    let mut running: HashMap<ReplicaId, AbortHandle> = HashMap::new();
    let mut news = None;
    loop {
        while legs.try_join_next().is_some() {}
        let Some(server) = gateway.view().server_at(&audience.path).cloned() else { return };
        news = news.or_else(|| gateway.tool_news.listen(&server, Era::Modern));
        running.retain(|id, leg| {
            let stays = server.replica(*id).is_some();
            if !stays {
                leg.abort();
            }
            stays && !leg.is_finished()
        });
        for replica in speakers(&server) {
            running.entry(replica).or_insert_with(|| {
                shared.begin(replica);
                legs.spawn(run(Leg { replica, ..pattern.clone() }, shared.clone()))
            });
        }
        // Those too that its first client still saw, and that had left before this began.
        shared.keep_only(|id| running.contains_key(&id));
        tokio::select! {
            () = tokio::time::sleep(AGAIN_MAX) => {}
            () = tool_news::changed(&mut news) => shared.changed(Lists::TOOLS),
            () = shared.crowd_changed() => {
                if shared.is_unheard() {
                    if let Some(_lingering) = gateway.shared_legs.linger() {
                        tokio::time::sleep(LINGER).await;
                    }
                    if gateway.shared_legs.close_unheard(audience) {
                        return;
                    }
                }
            }
        }
    }
}

/// One leg, opened again and again until its replica leaves the config.
async fn run(leg: Leg, shared: Arc<Shared>) {
    let mut failures = 0u32;
    loop {
        let Some(server) = leg.server() else { return shared.forget(leg.replica) };
        let since = Instant::now();
        let wait = match leg.open(&server).await {
            Ok(mut subscription) => {
                let honoured = honoured(&subscription.filter);
                shared.opened(leg.replica, honoured, leg.said(honoured));
                while let Some((data, seen)) = subscription.notification(&leg.gateway).await {
                    // Before any client hears of it and asks, here or at another gateway.
                    if let Some(told) = leg.server().and_then(|server| server.results.hear(&seen, &data)) {
                        let _ = told.await;
                    }
                    let method = seen.method.map(|method| method.get(&data));
                    let lists = method.map_or(Lists::NONE, |method| Lists::of_method(&method));
                    shared.changed(leg.said(lists));
                }
                // One that did not stand is a failure too, or its clients are told that everything changed, again and
                // again.
                if since.elapsed() >= AGAIN_MAX {
                    failures = 0;
                }
                // Clients hear of it when the leg stands again.
                drop(server.results.missed());
                shared.lost(leg.replica);
                again_after(failures)
            }
            Err(Shut::Refused(refused)) => {
                let passes = will_pass(&refused);
                shared.refused(leg.replica, refused);
                if passes { again_after(failures) } else { ASK_AGAIN }
            }
            Err(Shut::Lost) => {
                shared.lost(leg.replica);
                again_after(failures)
            }
        };
        failures = failures.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // A no is for those who heard it: a client that comes later has the replica asked for itself.
            () = shared.asked_again(leg.replica) => {}
        }
    }
}

/// Whether a no says how the replica is just now, rather than what it thinks of the request.
fn will_pass(refused: &Refused) -> bool {
    match refused {
        Refused::Said(said) => {
            let status = said.head.status;
            let is_for_now = matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            );
            is_for_now || status.is_server_error()
        }
        Refused::Unusable => true,
    }
}

fn honoured(filter: &[u8]) -> Lists {
    serde_json::from_slice::<Map<String, Value>>(filter)
        .map_or(Lists::NONE, |filter| Lists::of_filter(&filter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::Account;
    use crate::principal::Principal;

    fn who(pairs: &[(&'static str, &'static str)]) -> [u8; 16] {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        identity(&Outbound::of(who_asks(headers), &somebody(None)))
    }

    fn somebody(principal: Option<Principal>) -> Caller {
        let ip = std::net::Ipv4Addr::LOCALHOST.into();
        Caller { context: [0; 16], account: Account([0; 16]), ip, principal: principal.map(Arc::new) }
    }

    #[test]
    fn a_principal_that_the_server_is_told_of_shares_with_itself_only() {
        let told = |subject: &str, scope: &str, tenant: &str| {
            let claims = vec![("tenant".into(), tenant.into())];
            let principal = Principal::new("https://a.example", subject, [scope.into()], claims);
            identity(&Outbound::of(HeaderMap::new(), &somebody(Some(principal))))
        };
        let alice = told("alice", "read", "a");
        assert_eq!(alice, told("alice", "read", "a"));
        for other in
            [told("bob", "read", "a"), told("alice", "write", "a"), told("alice", "read", "b"), who(&[])]
        {
            assert_ne!(alice, other);
        }
    }

    #[test]
    fn whatever_may_say_who_asks_parts_audiences() {
        let nobody = who(&[]);
        assert_eq!(
            nobody,
            who(&[("user-agent", "a"), ("traceparent", "00-1"), ("host", "x"), ("x-forwarded-for", "1")])
        );
        for header in ["authorization", "cookie", "x-api-key", "x-request-id", "mcp-param-tenant"] {
            assert_ne!(nobody, who(&[(header, "a")]), "{header}");
            assert_ne!(who(&[(header, "b")]), who(&[(header, "a")]), "{header}");
        }
        assert_eq!(who(&[("a", "1"), ("b", "2")]), who(&[("b", "2"), ("a", "1")]));
        assert_ne!(who(&[("a", "1"), ("a", "2")]), who(&[("a", "2"), ("a", "1")]));
    }
}
