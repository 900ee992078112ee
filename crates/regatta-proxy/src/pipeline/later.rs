//! Later bindings: a session's second home, at a replica with a tool that its own replica lacks.
//!
//! Opened as a re-homing opens one, with the client's own params, and written into the deviation record by
//! compare-and-set, so that any gateway finds it and no session has two at one place. It never takes the place of the
//! session's own binding: what the session is told by itself comes from there.

use std::sync::Arc;

use regatta_mcp::{Kind, Method, write};
use regatta_policy::ReplicaId;
use regatta_policy::deviation::{Change, LogLevel};
use regatta_policy::token::{Binding, Capabilities};

use super::handshake::{self, Since, own_id};
use super::rehome::Reason;
use super::{record, rehome};
use crate::bind::{self, seated};
use crate::fault::Fault;
use crate::forward::probe;
use crate::gateway::Gateway;
use crate::handover::Call;
use crate::headers::Outbound;
use crate::route::{self, tools};
use crate::session::{Bound, Home};
use crate::view::{ReplicaView, ServerView};

/// Whether the message has to go to another replica than the session's own, or to others as well.
pub(crate) fn concerns(call: &Call, bound: &Bound) -> bool {
    let is_notification = call.one().is_some_and(|message| message.kind == Kind::Notification);
    match is_notification {
        true => !bound.later().is_empty(),
        false => tools::tool(call).is_some_and(|(_, tool)| !tool.holders.contains(&bound.home.replica)),
    }
}

/// The session as it is bound where the called tool is; bound there now if it was not.
pub(crate) async fn seat(gateway: &Arc<Gateway>, call: &Call, bound: Bound) -> Result<Bound, Fault> {
    let Some((name, tool)) = tools::tool(call) else { return Ok(bound) };
    let headers = Outbound::of(call.head.headers.clone(), &call.caller);
    let server = &call.server;
    // A session whose own replica left goes where it can live first: perhaps that place has the tool.
    let bound = match server.replica(bound.home.replica) {
        Some(_) => bound,
        None => rehome::rehome(gateway, server, &bound, &headers, Reason::Removed).await?,
    };
    if let Some(seated) = bound.at(&tool.holders, &name) {
        return Ok(seated);
    }
    let wish = Wish { server, client: &headers, tool: &name, left: None };
    tokio::time::timeout(rehome::WHOLE_MAX, open(gateway, wish, &bound))
        .await
        .unwrap_or(Err(Fault::NoReplica))
}

/// Gives the session another later binding for `tool` in place of that of `bound`.
pub(super) async fn replace(
    gateway: &Arc<Gateway>,
    server: &Arc<ServerView>,
    bound: &Bound,
    client: &Outbound,
    reason: Reason,
    tool: &str,
) -> Result<Bound, Fault> {
    // The newest view: the replica may have come back under another name since the call began.
    let server = gateway.view().server_at(&server.server.path).cloned().unwrap_or_else(|| server.clone());
    let wish = Wish { server: &server, client, tool, left: Some((&bound.home, reason)) };
    open(gateway, wish, bound).await
}

/// What a later binding is wanted for.
struct Wish<'a> {
    server: &'a Arc<ServerView>,
    client: &'a Outbound,
    tool: &'a str,
    /// The later home that is given up, and why.
    left: Option<(&'a Home, Reason)>,
}

impl Wish<'_> {
    /// The session's binding at one of `places`, if it has one that is not given up: somebody may have been faster.
    fn granted(&self, bound: &Bound, places: &[ReplicaId]) -> Option<Bound> {
        let is_left = |seated: &Bound| self.left.is_some_and(|(left, _)| seated.home == *left);
        bound.at(places, self.tool).filter(|seated| !is_left(seated))
    }
}

/// The session as the store itself knows it: an end, or the binding of another gateway, may be that fresh.
async fn met(gateway: &Arc<Gateway>, bound: &Bound) -> Result<Bound, Fault> {
    let record = bind::meet_patiently(gateway, &bound.session).await?;
    Ok(bind::at_home(bound.session.clone(), record))
}

async fn open(gateway: &Arc<Gateway>, wish: Wish<'_>, bound: &Bound) -> Result<Bound, Fault> {
    let uuid = bound.session.uuid;
    let flight = gateway.rehoming.flight(uuid);
    let _turn = flight.lock().await;
    let now = met(gateway, bound).await?;
    let known = wish.server.server.catalogue.as_ref().and_then(|catalogue| catalogue.tools.get(wish.tool));
    let Some(known) = known else { return Err(Fault::NoReplica) };
    if let Some(seated) = wish.granted(&now, &known.holders) {
        return Ok(seated);
    }
    let away = wish.left.and_then(|(left, reason)| match reason {
        Reason::SessionUnknown => None,
        Reason::Removed | Reason::OutOfReach => Some(left.replica),
    });
    for view in route::homes(wish.server, &uuid.0, away) {
        if known.carriers.contains(&view.replica.id)
            && let Some(seated) = settle(gateway, &wish, &now, view, &known.holders).await?
        {
            return Ok(seated);
        }
    }
    Err(Fault::NoReplica)
}

/// Binds the session at `view` too; `None` if that replica does not want it.
async fn settle(
    gateway: &Arc<Gateway>,
    wish: &Wish<'_>,
    bound: &Bound,
    view: &ReplicaView,
    places: &[ReplicaId],
) -> Result<Option<Bound>, Fault> {
    let opened = handshake::enter(wish.server, bound, view, wish.client, Capabilities::TOOLS).await;
    let Some(opened) = opened else { return Ok(None) };
    let (home, since) = (&opened.home, opened.since);
    if since == Since::Now {
        tell_level(wish.server, bound, wish.client, home).await;
    }
    let told = level(bound);
    // The handshake took its time, as that of a re-homing does.
    let bound = &met(gateway, bound).await?;
    if let Some(seated) = wish.granted(bound, places) {
        return Ok(Some(seated));
    }
    let (to, left) = (binding(home), wish.left.map(|(left, _)| binding(left)));
    // Its place may have left the registry before anybody called there: lost all the same.
    let is_known = |home: Home| wish.server.replica(home.replica).is_some();
    let is_one_lost = !bound.later().iter().filter_map(seated).all(is_known);
    let change = Change::Settle { left: left.as_ref(), to: &to, etag: home.etag, places };
    let bound = record::change(gateway, bound, change).await?;
    let seated = bound.at(places, wish.tool);
    if seated.as_ref().is_none_or(|seated| seated.home.etag != home.etag) {
        // Another gateway was first: its binding is the session's, ours is ended.
        return Ok(seated);
    }
    let home = opened.keep();
    if level(&bound) != told {
        // What the client asked for meanwhile.
        tell_level(wish.server, &bound, wish.client, &home).await;
    }
    gateway.metrics.later_bindings.inc();
    tracing::info!(replica = %home.replica, tool = wish.tool, "session bound at a second replica for its tool");
    match wish.left {
        _ if since == Since::Ever => {}
        Some((left, reason)) => {
            gateway.rehoming.moved(&Bound { home: left.clone(), ..bound }, reason, wish.client);
        }
        None if is_one_lost => gateway.rehoming.moved(&bound, Reason::Removed, wish.client),
        None => {}
    }
    Ok(seated)
}

/// Tells all later homes which level the client wants: what they say is no less and no more; and the session's own one, if
/// that is not the one any more that was `told`. Whoever waits for this waits for all of them no longer than for one.
pub(crate) async fn repeat_level(server: &ServerView, bound: &Bound, client: &Outbound, told: &Home) {
    let own = (bound.home.etag != told.etag).then(|| bound.home.clone());
    let all = async {
        for home in own.into_iter().chain(bound.later().iter().filter_map(seated)) {
            tell_level(server, bound, client, &home).await;
        }
    };
    let _ = tokio::time::timeout(probe::PATIENCE, all).await;
}

fn level(bound: &Bound) -> Option<LogLevel> {
    bound.record.as_ref().and_then(|record| record.deviation.log_level)
}

async fn tell_level(server: &ServerView, bound: &Bound, client: &Outbound, home: &Home) {
    let (Some(level), Some(view)) = (level(bound), server.replica(home.replica)) else { return };
    let params = format!(r#"{{"level":{}}}"#, write::json_string(level.as_str()));
    let text = write::request(&own_id(), Method::LoggingSetLevel.as_str(), Some(&params));
    let _ = probe::tell(view, client, &home.upstream_session, text, &server.server.call).await;
}

/// Passes a client's notification on to all later homes, beside whatever waits for an answer: which of them a
/// cancellation or progress is for, only they know.
pub(crate) fn tell(call: &Call, bound: &Bound) {
    let client = Outbound::of(call.head.headers.clone(), &call.caller);
    for home in bound.later().iter().filter_map(seated) {
        let (server, client, text) = (call.server.clone(), client.clone(), call.text.clone());
        tokio::spawn(async move {
            if let Some(view) = server.replica(home.replica) {
                let bounds = &server.server.call;
                let _ = probe::tell(view, &client, &home.upstream_session, text, bounds).await;
            }
        });
    }
}

/// Ends all later upstream sessions of a session that is over; nobody waits for it.
pub(crate) fn end(server: &Arc<ServerView>, bound: &Bound, client: Outbound) {
    let homes: Vec<Home> = bound.later().iter().filter_map(seated).collect();
    if homes.is_empty() {
        return;
    }
    let server = server.clone();
    tokio::spawn(async move {
        for home in homes {
            if let Some(view) = server.replica(home.replica) {
                let _ = probe::delete(view, &client, &home.upstream_session, &server.server.call).await;
            }
        }
    });
}

fn binding(home: &Home) -> Binding {
    let upstream_session = home.upstream_session.to_str().ok().map(str::to_owned);
    Binding { replica: home.replica, upstream_session }
}
