//! The second stage: who calls?
//!
//! With `[auth]` a credential is proven here and goes no further: it is taken out of the request, so that nothing
//! behind this stage could pass it on (2026-07-28 basic/authorization, *Token Handling*; RELIABILITY T10). Any doubt
//! refuses (T11). Without `[auth]` nobody checks, and the context is a digest of the header (SESSIONS 9).

mod bearer;
pub(crate) mod scopes;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, FORWARDED};
use regatta_policy::access::{Anonymous, Asked};
use regatta_policy::peers::ToldBy;

use crate::access::{Guard, Presented, Unproven};
use crate::fault::{Fault, Problem};
use crate::gateway::Gateway;
use crate::handover::{Accepted, Account, Caller, Identified, network};
use crate::principal::Principal;
use crate::view::View;
use bearer::{Credential, X_API_KEY, X_FORWARDED_FOR};

/// How long a request waits for a key that its issuer may have by now.
const KEY_WAIT: Duration = Duration::from_secs(4);

/// Names the caller of an accepted request.
pub(crate) async fn identify(
    gateway: &Gateway,
    view: &View,
    mut accepted: Accepted,
) -> Result<Identified, Fault> {
    let ip = client(view, &accepted);
    let Some(guard) = accepted.server.guard.clone() else { return Ok(unchecked(accepted, ip)) };
    let principal = match checked(gateway, &guard, &accepted) {
        Ok(principal) => principal,
        // Boxed: the rare ways should not make every request's future larger.
        Err(Doubt::Token(text)) => Some(Box::pin(prove(gateway, &guard, &accepted, &text)).await?),
        Err(Doubt::Refused(problem)) => return Err(refuse(gateway, &accepted, problem)),
    };
    accepted.arrival.head.headers.remove(AUTHORIZATION);
    accepted.arrival.head.headers.remove(&X_API_KEY);
    let caller = match principal {
        Some(principal) => {
            let context = principal.digest;
            Caller { context, account: Account(context), ip, principal: Some(principal) }
        }
        None => nobody(ip),
    };
    let required = guard.rules.required_scopes.iter().map(String::as_str);
    match caller.principal.as_ref().is_none_or(|principal| principal.may(required)) {
        true => Ok(Identified { accepted, caller }),
        false => Err(refuse(gateway, &accepted, Problem::Scope)),
    }
}

/// Why a request's caller is not known at once.
enum Doubt {
    Refused(Problem),
    /// This has not been proven yet.
    Token(String),
}

/// The caller, as far as can be told without a signature; none for nobody.
fn checked(gateway: &Gateway, guard: &Guard, accepted: &Accepted) -> Result<Option<Arc<Principal>>, Doubt> {
    let text = match bearer::presented(&accepted.arrival.head).map_err(Doubt::Refused)? {
        Credential::Text(text) => text,
        Credential::None if guard.rules.anonymous == Anonymous::Allowed => return Ok(None),
        Credential::None => return Err(Doubt::Refused(Problem::Missing)),
    };
    let presented = Presented::new(text, accepted.server.fleet);
    let known = guard.known(&presented, u64::from(gateway.clock.wall_seconds()));
    known.map(Some).ok_or_else(|| Doubt::Token(text.to_owned()))
}

/// Proves a token; asks its issuer for a key that is not here, once.
async fn prove(
    gateway: &Gateway,
    guard: &Arc<Guard>,
    accepted: &Accepted,
    text: &str,
) -> Result<Arc<Principal>, Fault> {
    let server = &accepted.server;
    let presented = Presented::new(text, server.fleet);
    let now_s = || u64::from(gateway.clock.wall_seconds());
    let issuer = match guard.prove(&presented, &server.audience, now_s()) {
        Ok(principal) => return Ok(principal),
        Err(Unproven::Wrong(why)) => return Err(refuse(gateway, accepted, Problem::Invalid { why })),
        Err(Unproven::UnknownKey { issuer, .. } | Unproven::NoKeys { issuer }) => issuer,
    };
    match tokio::time::timeout(KEY_WAIT, gateway.newer_keys(issuer)).await {
        Ok(Asked::Found { .. }) => {}
        // Whether the token is good, nobody can say now: no reason to send its client away for another.
        Ok(Asked::Away) | Err(_) => return Err(Fault::KeysAway),
    }
    // Looked up anew: the rules may have changed with the keys.
    let newer = gateway.view().server_at(&server.server.path).and_then(|server| server.guard.clone());
    let newer = newer.unwrap_or_else(|| guard.clone());
    let why = match newer.prove(&presented, &server.audience, now_s()) {
        Ok(principal) => return Ok(principal),
        Err(Unproven::NoKeys { .. }) => return Err(Fault::KeysAway),
        Err(Unproven::Wrong(why)) => why,
        Err(Unproven::UnknownKey { key, .. }) => {
            newer.note_absent(key, now_s());
            "no key of its issuer fits"
        }
    };
    Err(refuse(gateway, accepted, Problem::Invalid { why }))
}

fn refuse(gateway: &Gateway, accepted: &Accepted, problem: Problem) -> Fault {
    gateway.metrics.unauthorized.inc();
    let door = accepted.door();
    scopes::challenge(&accepted.server, &door, problem, None)
}

/// The client's address, behind the proxies that are trusted.
fn client(view: &View, accepted: &Accepted) -> IpAddr {
    let (proxies, peer) = (&view.proxies, accepted.arrival.peer.address.ip());
    if proxies.trusted.is_empty() {
        return peer;
    }
    let name = match proxies.told_by {
        ToldBy::XForwardedFor => X_FORWARDED_FOR,
        ToldBy::Forwarded => FORWARDED,
    };
    let claims =
        accepted.arrival.head.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    proxies.client(peer, claims.collect::<Vec<_>>().into_iter())
}

/// A caller whom nobody checks: known by a digest of what it sends, never by the bytes themselves.
fn unchecked(accepted: Accepted, ip: IpAddr) -> Identified {
    let context = authorization(&accepted.arrival.head.headers);
    let caller = match context {
        None => nobody(ip),
        Some(context) => Caller { context, account: Account(context), ip, principal: None },
    };
    Identified { accepted, caller }
}

fn authorization(headers: &HeaderMap) -> Option<[u8; 16]> {
    let value = headers.get(AUTHORIZATION)?;
    Some(regatta_seal::digest16(&[b"authorization", value.as_bytes()]))
}

/// Quotas of nobody go by the address.
fn nobody(ip: IpAddr) -> Caller {
    Caller { context: [0; 16], account: Account(network(ip)), ip, principal: None }
}
