//! The third stage: a place, and the bytes, before anything is parsed.
//!
//! A request that finds every place taken is looked into only as far as needed to know whether it may be
//! refused at all (DESIGN 3): it reads its body under a reserved place, and `settle` decides after *decode*.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::request::Parts;
use regatta_mcp::Kind;
use regatta_mcp::Method;
use regatta_mcp::headers;
use regatta_policy::admission::Class;
use regatta_policy::line::{Rank, Who};

use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::handover::{Accepted, Admitted, Call, Caller, Identified, Subject, text_header};
use crate::listener::{BodyError, read_body};
use crate::slots::Permit;

/// Bodies up to this size are read to learn whether an overflowing request is exempt; larger ones never are.
const EXEMPT_BODY_MAX: usize = 256 << 10;

/// What *settle* has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The permit is the right one.
    Settled,
    /// It was let in on a reserved place, to be judged when its class is known.
    Provisional,
}

/// Gets a place and the whole body.
pub(crate) async fn admit(
    gateway: &Arc<Gateway>,
    identified: Identified,
) -> Result<(Admitted, Standing), Fault> {
    let Identified { accepted, caller } = identified;
    let door = accepted.server.guard.is_some().then(|| accepted.door());
    let limits = accepted.server.limits.clone();
    // A claim, good enough for a place to read the body in; *settle* looks at what it turned out to be.
    let discovers =
        text_header(&accepted.head, &headers::MCP_METHOD).is_some_and(|method| method == "server/discover");
    let at_once = if discovers { None } else { gateway.slots.try_enter(Class::Ordinary) };
    let (permit, standing) = match (at_once, claim(&accepted.head)) {
        (Some(permit), _) => (permit, Standing::Settled),
        // It says itself that it may be refused: it waits, or goes, before a byte of its body is read.
        (None, Some((method, tool))) => {
            let who = who(&caller, accepted.server.gate.rank(method, tool));
            (enter(gateway, Class::Ordinary, who, &limits).await?, Standing::Settled)
        }
        (None, None) => {
            let who = who(&caller, Rank::Interactive);
            (enter(gateway, Class::Exempt, who, &limits).await?, Standing::Provisional)
        }
    };
    let max = match standing {
        Standing::Settled => limits.body_max,
        Standing::Provisional => limits.body_max.min(EXEMPT_BODY_MAX),
    };
    let text = read_body(accepted.body, max, limits.body_timeout).await.map_err(|error| match error {
        BodyError::TooLarge if standing == Standing::Provisional && max < limits.body_max => {
            Fault::Overloaded
        }
        BodyError::TooLarge => Fault::BodyTooLarge,
        BodyError::TimedOut => Fault::BodyTimeout,
        BodyError::Broken => Fault::BodyBroken,
    })?;
    let Accepted { server, head, peer, .. } = accepted;
    Ok((Admitted { server, caller, door, head, text, permit, alarm: peer.alarm }, standing))
}

/// Moves a provisional ordinary request to a place of its own, or refuses it.
pub(crate) async fn settle(gateway: &Arc<Gateway>, call: &mut Call, standing: Standing) -> Result<(), Fault> {
    if standing == Standing::Settled || class(call) == Class::Exempt {
        return Ok(());
    }
    // First back, then into the queue: waiting in a reserved place would keep out those that it is reserved for.
    call.permit.give_back();
    let who = who(&call.caller, rank(call));
    call.permit = enter(gateway, Class::Ordinary, who, &call.server.limits).await?;
    Ok(())
}

/// Gets a place at the server, where that has a bound of its own.
pub(crate) async fn at_server(gateway: &Arc<Gateway>, call: &mut Call) -> Result<(), Fault> {
    if call.server.gate.is_open() || class(call) == Class::Exempt {
        return Ok(());
    }
    let who = who(&call.caller, rank(call));
    let (method, tool) = names(call);
    let entered = call.server.gate.enter(who, &method, tool.as_deref()).await;
    let at_server = entered.map_err(|_| {
        gateway.metrics.shed.inc();
        Fault::Overloaded
    })?;
    if let Some(at_server) = at_server {
        call.permit.hold(at_server);
    }
    Ok(())
}

/// Method and tool of a single message; of a batch none.
fn names(call: &Call) -> (Cow<'_, str>, Option<Cow<'_, str>>) {
    let Some(message) = call.one() else { return (Cow::Borrowed(""), None) };
    let method = message.method.map(|name| name.text.get(&call.text)).unwrap_or_default();
    let is_call = message.method() == Some(Method::ToolsCall);
    (method, message.params.name.filter(|_| is_call).map(|name| name.get(&call.text)))
}

fn rank(call: &Call) -> Rank {
    let (method, tool) = names(call);
    call.server.gate.rank(&method, tool.as_deref())
}

/// What a modern request's headers say of its method and tool, if that is of a kind that may be refused. A claim: who
/// lies is refused in *decode*, and has waited in the wrong line.
fn claim(head: &Parts) -> Option<(&str, Option<&str>)> {
    let method = text_header(head, &headers::MCP_METHOD)?;
    let is_exempt = method == "server/discover" || method.starts_with("notifications/");
    let tool = text_header(head, &headers::MCP_NAME).filter(|_| method == "tools/call");
    (!is_exempt).then_some((method, tool))
}

/// Everybody weighs the same, as long as nobody says who they are.
fn who(caller: &Caller, rank: Rank) -> Who {
    Who { account: caller.account.0, weight: NonZeroU32::MIN, rank }
}

/// Whether a message may be refused for being busy.
fn class(call: &Call) -> Class {
    let Subject::One(message) = &call.message else { return Class::Ordinary };
    match message.kind {
        Kind::Response { .. } | Kind::Notification => Class::Exempt,
        Kind::Request if message.method.is_some_and(|name| name.method == Method::ServerDiscover) => {
            Class::Exempt
        }
        Kind::Request => Class::Ordinary,
    }
}

async fn enter(
    gateway: &Arc<Gateway>,
    class: Class,
    who: Who,
    limits: &regatta_policy::snapshot::Limits,
) -> Result<Permit, Fault> {
    gateway.slots.enter(class, who, limits.queue_wait_max).await.map_err(|_| {
        gateway.metrics.shed.inc();
        Fault::Overloaded
    })
}
