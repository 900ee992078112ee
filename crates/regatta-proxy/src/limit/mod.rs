//! The fifth stage: quotas by method, tool and caller, now that these are proven.
//!
//! It finds the rules that count a call, charges all of them or none, and never answers. A batch is one call that
//! takes what its messages take together.

mod key;

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use regatta_mcp::{Kind as MessageKind, Message, Method};
use regatta_policy::Micros;
use regatta_policy::quota::rule::Kind;
use regatta_policy::quota::{Applies, Asked, Decision, Facts, Standing};

use crate::fault::{Fault, Limited};
use crate::gateway::Gateway;
use crate::handover::{Allowed, Call, Subject};
use crate::quotas::ready::{Ready, Shown, Visibility};
use crate::quotas::{Charge, Key, Taken, Undecided};

/// What a call takes of one rule.
struct Take {
    ready: Arc<Ready>,
    key: Key,
    cost: NonZeroU32,
}

impl Take {
    fn charge(&self) -> Charge<'_> {
        Charge {
            key: self.key,
            asked: Asked { quota: &self.ready.quota, cost: self.cost },
            reach: self.ready.reach,
        }
    }
}

/// What becomes of a call.
pub(crate) enum Limiting {
    /// It goes on, or it is refused.
    Decided(Result<Allowed, Fault>),
    /// What is known here is not enough: [`settle`].
    Undecided(Box<Waiting>),
}

/// A call that the shared store has to be asked about.
pub(crate) struct Waiting {
    call: Box<Call>,
    takes: Vec<Take>,
    undecided: Undecided,
}

/// Charges the call to its caller.
pub(crate) fn limit(gateway: &Arc<Gateway>, call: Box<Call>) -> Limiting {
    let mut takes = Vec::new();
    match &call.message {
        Subject::One(message) => note(&call, message, &mut takes),
        Subject::Batch(messages) => messages.iter().for_each(|message| note(&call, message, &mut takes)),
    }
    if takes.is_empty() {
        return Limiting::Decided(Ok(Allowed { call, shown: Shown::default() }));
    }
    let taken = {
        let charges: Vec<Charge<'_>> = takes.iter().map(Take::charge).collect();
        gateway.quotas.take(&charges, gateway.clock.now())
    };
    match taken {
        Taken::Decided(decision, standings) => {
            Limiting::Decided(told(gateway, call, takes, (decision, standings)))
        }
        Taken::Undecided(undecided) => Limiting::Undecided(Box::new(Waiting { call, takes, undecided })),
    }
}

/// Asks the store what becomes of the call.
pub(crate) async fn settle(gateway: &Arc<Gateway>, waiting: Box<Waiting>) -> Result<Allowed, Fault> {
    let Waiting { call, takes, undecided } = *waiting;
    let decided = {
        let charges: Vec<Charge<'_>> = takes.iter().map(Take::charge).collect();
        gateway.quotas.settle((&*gateway.store, &gateway.clock), &charges, undecided).await
    };
    told(gateway, call, takes, decided)
}

/// The decision as the pipeline hears it.
fn told(
    gateway: &Gateway,
    call: Box<Call>,
    takes: Vec<Take>,
    (decision, standings): (Decision, Vec<Standing>),
) -> Result<Allowed, Fault> {
    match decision {
        Decision::Granted => {
            takes.iter().for_each(|take| _ = take.ready.granted.inc());
            let lines = takes.into_iter().map(|take| take.ready).zip(standings);
            let is_shown = |(ready, _): &(Arc<Ready>, _)| ready.visibility == Visibility::Shown;
            Ok(Allowed { call, shown: Shown { lines: lines.filter(is_shown).collect() } })
        }
        Decision::Limited { by, retry_after } => {
            gateway.metrics.limited.inc();
            let ready = takes[by].ready.clone();
            ready.refused.inc();
            let shown = Shown { lines: takes.into_iter().map(|take| take.ready).zip(standings).collect() };
            let retry_after = wait(retry_after, &ready);
            Err(Fault::Limited(Box::new(Limited { ready, retry_after, shown })))
        }
    }
}

/// Adds what `message` takes.
fn note(call: &Call, message: &Message, takes: &mut Vec<Take>) {
    let method = match message.method {
        Some(name) if name.method == Method::Other => name.text.get(&call.text),
        Some(name) => Cow::Borrowed(name.method.as_str()),
        None => Cow::Borrowed(""),
    };
    let is_call = message.method() == Some(Method::ToolsCall);
    let asks = is_call && call.server.quotas.iter().any(|ready| ready.asks_for_tool);
    let tool = message.params.name.filter(|_| asks).map(|name| name.get(&call.text));
    let kind = match message.kind {
        MessageKind::Request => Kind::Request,
        MessageKind::Notification => Kind::Notification,
        MessageKind::Response { .. } => Kind::Answer,
    };
    let facts = Facts {
        kind,
        method: &method,
        tool: tool.as_deref(),
        server: &call.server.server.name,
        credential: call.caller.credential(),
    };
    for ready in &call.server.quotas {
        let Applies::Yes { cost } = ready.rule.applies(&facts) else { continue };
        let key = (ready.digest, key::of(&ready.rule.per, call, facts.tool));
        match takes.iter_mut().find(|take| take.key == key) {
            Some(take) => take.cost = take.cost.saturating_add(cost.get()),
            None => takes.push(Take { ready: ready.clone(), key, cost }),
        }
    }
}

/// How long a client should wait. A batch that never fits is told a window: it has to come in parts.
fn wait(retry_after: Micros, ready: &Ready) -> Duration {
    match retry_after {
        Micros(u64::MAX) => ready.rule.terms.within,
        Micros(micros) => Duration::from_millis(micros.div_ceil(1000)),
    }
}
