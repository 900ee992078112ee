//! `/.well-known/oauth-protected-resource`: whose tokens an endpoint takes (RFC 9728).
//!
//! With `[auth]` the document is ours. Without, it is the server's own, asked of a replica as clients ask, with the
//! endpoint's address as we are called in place of the replica's (SESSIONS 9). It needs no credential and takes none.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use regatta_mcp::era::Era;
use regatta_policy::access::METADATA_PATH;
use serde_json::{Value, json};

use crate::access::Guard;
use crate::door::Door;
use crate::fault::Fault;
use crate::forward;
use crate::forward::probe::collect;
use crate::gateway::Gateway;
use crate::handover::{Account, Caller};
use crate::listener::{Arrival, Peer};
use crate::reply::ReplyBody;
use crate::route::tools::Among;
use crate::route::{self, Tried};
use crate::view::{ReplicaView, ServerView, View};
use crate::{accept, encode};

/// The largest document of a server that is passed on.
const DOCUMENT_MAX: usize = 64 << 10;

/// Whether a path is one of metadata.
pub(crate) fn is_metadata(path: &str) -> bool {
    path.strip_prefix(METADATA_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Serves one request for metadata.
pub(crate) async fn get(
    gateway: &Arc<Gateway>,
    view: &View,
    arrival: Box<Arrival>,
) -> Result<Response<ReplyBody>, Fault> {
    let Arrival { head, peer, .. } = *arrival;
    accept::gate(view, &head)?;
    let server = server(view, head.uri.path()).ok_or(Fault::NoSuchPath)?;
    if head.method != Method::GET {
        return Err(Fault::BadVerb { allow: "GET" });
    }
    let door = Door::of(&head, &peer);
    let document = match &server.guard {
        Some(guard) => ours(guard, &door.resource(server)),
        None => theirs(gateway, server, &door, &peer).await?,
    };
    Ok(answer(&document))
}

/// The server that a path is about. Without the endpoint's path it is only clear where there is one server.
fn server<'a>(view: &'a View, path: &str) -> Option<&'a Arc<ServerView>> {
    let suffix = path.strip_prefix(METADATA_PATH)?;
    match (suffix, view.servers.as_slice()) {
        ("", [only]) => Some(only),
        ("", _) => view.server_at("/"),
        (suffix, servers) => {
            let is_named = |server: &&Arc<ServerView>| {
                // A proxy in front may show the endpoint under the path of the configured URI.
                let public =
                    server.guard.as_ref().and_then(|guard| guard.rules.resource_at(&server.server.path));
                let public = public.map(|uri| regatta_policy::access::metadata_url(&uri));
                server.server.path == suffix
                    || public.is_some_and(|url| {
                        url.split_once(METADATA_PATH).is_some_and(|(_, rest)| rest == suffix)
                    })
            };
            servers.iter().find(is_named)
        }
    }
}

fn ours(guard: &Guard, resource: &str) -> Value {
    let issuers: Vec<&str> = guard.rules.issuers.iter().map(|issuer| issuer.url.as_str()).collect();
    let mut document = json!({"resource": resource, "bearer_methods_supported": ["header"]});
    if !issuers.is_empty() {
        document["authorization_servers"] = json!(issuers);
    }
    let scopes = guard.rules.scopes();
    if !scopes.is_empty() {
        document["scopes_supported"] = json!(scopes);
    }
    document
}

/// A replica's own document, at the path of its endpoint or at the root, as clients look (2026-07-28
/// basic/authorization, *Authorization Server Discovery*).
async fn theirs(
    gateway: &Arc<Gateway>,
    server: &Arc<ServerView>,
    door: &Door,
    peer: &Peer,
) -> Result<Value, Fault> {
    let ip = peer.address.ip();
    let nobody = Caller { context: [0; 16], account: Account([0; 16]), ip, principal: None };
    let tried = Tried::default();
    let replica = [Era::Modern, Era::Legacy]
        .into_iter()
        .find_map(|era| route::any(gateway, server, era, &nobody, None, &Among::All, tried))
        .ok_or(Fault::NoReplica)?;
    let path = replica.replica.endpoint.path.split('?').next().unwrap_or_default();
    let path = if path == "/" { "" } else { path };
    let mut found = fetch(server, replica, &format!("{METADATA_PATH}{path}")).await?;
    if found.is_none() && !path.is_empty() {
        found = fetch(server, replica, METADATA_PATH).await?;
    }
    let mut document = found.ok_or(Fault::NoSuchPath)?;
    // MUST be what the client asked about, or it is not used (RFC 9728 section 3.3).
    document["resource"] = Value::from(door.resource(server));
    Ok(document)
}

async fn fetch(server: &ServerView, replica: &ReplicaView, path: &str) -> Result<Option<Value>, Fault> {
    let mut request = replica.upstream.request_to(&Method::GET, path);
    request.header(&header::ACCEPT, &HeaderValue::from_static("application/json"));
    let request = request.finish(Bytes::new());
    let bounds = &server.server.call;
    let waiting = forward::dispatch(replica, request, bounds, bounds.request_timeout);
    let answer = waiting.await.map_err(|_| Fault::NoReplica)?;
    if answer.head.status != StatusCode::OK {
        return Ok(None);
    }
    let text = tokio::time::timeout(bounds.request_timeout, collect(answer.body, DOCUMENT_MAX)).await;
    let Ok(Ok(text)) = text else { return Ok(None) };
    Ok(serde_json::from_slice(&text).ok().filter(Value::is_object))
}

fn answer(document: &Value) -> Response<ReplyBody> {
    let mut response = encode::fault::plain(StatusCode::OK);
    *response.body_mut() = ReplyBody::whole(Bytes::from(document.to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    response
}
