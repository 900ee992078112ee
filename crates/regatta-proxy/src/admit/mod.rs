//! The third stage: a place, and the bytes, before anything is parsed.
//!
//! A request that finds every place taken is looked into only as far as needed to know whether it may be
//! refused at all (DESIGN 3): it reads its body under a reserved place, and `settle` decides after *decode*.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http_body::Body as _;
use regatta_mcp::Kind;
use regatta_mcp::Method;
use regatta_mcp::headers;
use regatta_policy::admission::Class;
use regatta_policy::line::{Rank, Who};
use regatta_policy::snapshot::Limits;

use crate::fault::Fault;
use crate::gate::{Entry, Gate};
use crate::gateway::Gateway;
use crate::handover::{Accepted, Admitted, Call, Caller, Identified, Subject, text_header};
use crate::listener::{Begun, BodyError, RequestBody, begin_body, finish_body, read_body};
use crate::slots::Permit;

/// Bodies up to this size are read to learn whether an overflowing request is exempt; larger ones never are, and wait
/// like any other.
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
    let limits = accepted.server.limits.clone();
    // A claim, good enough for a place to read the body in; *settle* looks at what it turned out to be.
    let discovers = text_header(&accepted.arrival.head, &headers::MCP_METHOD)
        .is_some_and(|method| method == "server/discover");
    let at_once = if discovers { None } else { gateway.slots.try_enter(Class::Ordinary) };
    let (permit, standing) = match at_once {
        Some(permit) => (permit, Standing::Settled),
        // Boxed: the ordinary request should not carry what this needs.
        None => Box::pin(line_up(gateway, &accepted, &caller, &limits)).await?,
    };
    let Accepted { server, mut arrival } = accepted;
    let body = &mut arrival.body;
    let (text, permit, standing) = match standing {
        Standing::Settled => (read_body(body, limits.body_max, limits.body_timeout).await?, permit, standing),
        Standing::Provisional => {
            Box::pin(read_provisionally(gateway, body, &caller, permit, &limits)).await?
        }
    };
    Ok((Admitted { server, caller, arrival, text, permit }, standing))
}

/// A place for a request that found none free: in the line before a byte of its body is read, if it shows that it may be
/// refused, else a reserved one.
async fn line_up(
    gateway: &Arc<Gateway>,
    accepted: &Accepted,
    caller: &Caller,
    limits: &Limits,
) -> Result<(Permit, Standing), Fault> {
    let length = usize::try_from(accepted.arrival.body.size_hint().lower()).unwrap_or(usize::MAX);
    if length > limits.body_max {
        return Err(Fault::BodyTooLarge);
    }
    let who = |rank| who(caller, rank);
    Ok(match claim(&accepted.arrival.head) {
        Some((method, tool)) => {
            let who = who(accepted.server.gate.rank(method, tool));
            (enter(gateway, Class::Ordinary, who, limits).await?, Standing::Settled)
        }
        None if length > EXEMPT_BODY_MAX => {
            (enter(gateway, Class::Ordinary, who(Rank::Interactive), limits).await?, Standing::Settled)
        }
        None => (enter(gateway, Class::Exempt, who(Rank::Interactive), limits).await?, Standing::Provisional),
    })
}

/// Reads a body in a reserved place. One that turns out to be larger than any exempt one is of those that may be
/// refused: it leaves that place and waits in line, with what was read of it.
async fn read_provisionally(
    gateway: &Arc<Gateway>,
    body: &mut RequestBody,
    caller: &Caller,
    mut permit: Permit,
    limits: &Limits,
) -> Result<(Bytes, Permit, Standing), Fault> {
    let enough = limits.body_max.min(EXEMPT_BODY_MAX);
    let begun = match begin_body(body, enough, limits.body_timeout).await? {
        Begun::Whole(text) => return Ok((text, permit, Standing::Provisional)),
        Begun::Part(begun) => begun,
    };
    permit.give_back();
    let permit = enter(gateway, Class::Ordinary, who(caller, Rank::Interactive), limits).await?;
    let text = finish_body(body, begun, limits.body_max, limits.body_timeout).await?;
    Ok((text, permit, Standing::Settled))
}

impl From<BodyError> for Fault {
    fn from(error: BodyError) -> Fault {
        match error {
            BodyError::TooLarge => Fault::BodyTooLarge,
            BodyError::TimedOut => Fault::BodyTimeout,
            BodyError::Broken => Fault::BodyBroken,
        }
    }
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

/// What a call shows at its server's gate; none where there is no bound, or it counts for no call.
pub(crate) fn entry(call: &Call) -> Option<Box<Entry>> {
    if call.server.gate.is_open() || class(call) == Class::Exempt {
        return None;
    }
    let (method, tool) = names(call);
    let (method, tool) = (method.into_owned(), tool.map(Cow::into_owned));
    Some(Box::new(Entry { who: who(&call.caller, rank(call)), method, tool }))
}

/// Gets a place at the server, held by `permit` from now on.
pub(crate) async fn at_server(
    gateway: &Gateway,
    gate: &Gate,
    entry: &Entry,
    permit: &mut Permit,
) -> Result<(), Fault> {
    let entered = gate.enter(entry).await.map_err(|_| {
        gateway.metrics.shed.inc();
        Fault::Overloaded
    })?;
    if let Some(at_server) = entered {
        permit.hold(at_server);
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

/// Whoever is not known weighs as little as anybody.
fn who(caller: &Caller, rank: Rank) -> Who {
    let weight = caller.principal.as_ref().map_or(NonZeroU32::MIN, |principal| principal.weight);
    Who { account: caller.account.0, weight, rank }
}

/// Whether a message may be refused for being busy.
fn class(call: &Call) -> Class {
    let message = match &call.message {
        Subject::One(message) => message,
        Subject::Batch(messages) if messages.iter().all(|message| message.kind != Kind::Request) => {
            return Class::Exempt;
        }
        Subject::Batch(_) => return Class::Ordinary,
    };
    match message.kind {
        Kind::Response { .. } | Kind::Notification => Class::Exempt,
        Kind::Request if message.method.is_some_and(|name| name.method == Method::ServerDiscover) => {
            Class::Exempt
        }
        Kind::Request => Class::Ordinary,
    }
}

async fn enter(gateway: &Arc<Gateway>, class: Class, who: Who, limits: &Limits) -> Result<Permit, Fault> {
    gateway.slots.enter(class, who, limits.queue_wait_max).await.map_err(|_| {
        gateway.metrics.shed.inc();
        Fault::Overloaded
    })
}
