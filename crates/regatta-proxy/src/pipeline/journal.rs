//! Calls that the journal of the nodes knows (docs/node.md): what names one, and whether it may be sent again.
//!
//! Every call of a tool at a server that nodes may join goes up under a name that stays the same from attempt to attempt
//! and from gateway to gateway, so that the nodes know a repeat for one. Which tools their journal keeps they say in the
//! registry; a call of one that was lost is sent again only to replicas that keep it too, and from then on nothing but the
//! nodes' own word says what became of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};
use regatta_mcp::{Kind, Method};
use regatta_policy::ReplicaId;
use regatta_policy::retry::{Repeatability, Repeats};
use regatta_policy::snapshot::Leases;

use super::exchange::{Errand, Gained};
use crate::fault::{Fault, Refusal};
use crate::handover::Call;
use crate::session::Bound;
use crate::view::ReplicaView;

/// Names a call, where its client gave it no key.
const CALL: HeaderName = HeaderName::from_static("x-regatta-call");
/// Names its caller, with `[auth]`: to a node that does not check who calls all look alike.
const CONTEXT: HeaderName = HeaderName::from_static("x-regatta-context");
/// Says that the same call was sent before.
const REPEAT: HeaderName = HeaderName::from_static("x-regatta-repeat");
/// How often a call is sent again: each time its node was lost in the middle of it.
const REPEATS_MAX: u8 = 3;

/// A call that may be in the journal.
pub(crate) struct Journaled {
    tool: Box<str>,
    /// How often it was written and lost.
    lost: u8,
}

/// What goes up with a call of a tool at a server that nodes may join; nothing with any other message.
pub(crate) fn named(
    call: &Call,
    bound: Option<&Bound>,
    rewritten: &mut Vec<(HeaderName, HeaderValue)>,
) -> Option<Box<Journaled>> {
    if call.server.server.leases == Leases::Unleased {
        return None;
    }
    let Some(message) = call.one() else {
        // The calls of a batch are named by their session and ids, or by keys of their client, which are that caller's alone.
        name_caller(call, rewritten);
        return None;
    };
    let is_call = message.method.is_some_and(|name| name.method == Method::ToolsCall);
    if !is_call || message.kind != Kind::Request {
        return None;
    }
    let tool = message.params.name?.get(&call.text).into();
    let name = match (bound, call.id()) {
        // An id is used once in a session (2025-11-25 basic, *Requests*), and nobody but gateways knows the uuid.
        (Some(bound), Some(id)) => regatta_seal::digest16(&[b"call", &bound.session.uuid.0, &id]),
        (_, _) => regatta_seal::random16(),
    };
    rewritten.push((CALL, value(name)));
    name_caller(call, rewritten);
    Some(Box::new(Journaled { tool, lost: 0 }))
}

fn name_caller(call: &Call, rewritten: &mut Vec<(HeaderName, HeaderValue)>) {
    if call.caller.principal.is_some() {
        rewritten.push((CONTEXT, value(call.caller.context)));
    }
}

fn value(name: [u8; 16]) -> HeaderValue {
    HeaderValue::try_from(URL_SAFE_NO_PAD.encode(name)).unwrap_or(HeaderValue::from_static("none"))
}

impl Errand {
    /// Whether a call that was lost at `at` may be sent again.
    pub fn repeatability_at(&self, at: &ReplicaView) -> Repeatability {
        match (self.repeatability, &self.journaled) {
            (Repeatability::Harmful, Some(call)) if at.replica.journals(&call.tool) => {
                Repeatability::Journaled
            }
            (repeatability, _) => repeatability,
        }
    }

    /// Whether that was done as often as it is done.
    pub fn journal_repeats(&self) -> Repeats {
        match &self.journaled {
            Some(call) if call.lost < REPEATS_MAX => Repeats::None,
            Some(_) | None => Repeats::Spent,
        }
    }

    /// Notes that it was written and lost, and will be asked for again.
    pub fn note_lost(&mut self) {
        let Some(call) = &mut self.journaled else { return };
        if call.lost == 0 {
            self.rewritten.push((REPEAT, HeaderValue::from_static("1")));
        }
        call.lost += 1;
        self.gateway.metrics.journal_asked.inc();
    }

    /// Whether it may have been run already, so that only the journal can say what became of it.
    pub fn is_in_journal(&self) -> bool {
        self.journaled.as_ref().is_some_and(|call| call.lost > 0)
    }

    /// What was gained by a call that may have been run before: nothing but the journal's word is an answer.
    pub fn of_journal(&self, gained: Result<Gained, Refusal>) -> Result<Gained, Refusal> {
        match gained {
            Ok((answer, replica)) if !answer.head.status.is_server_error() => Ok((answer, replica)),
            Err(refusal) if matches!(refusal.fault, Fault::OutcomeUnknown { .. }) => Err(refusal),
            Ok(_) | Err(_) => {
                self.gateway.metrics.outcome_unknown.inc();
                Err(self
                    .refuse(Fault::OutcomeUnknown { why: "its replica was lost, and no other could tell" }))
            }
        }
    }

    /// Whether `to` knows nothing of a call that may have been run: it would run it again.
    pub fn would_run_twice_at(&self, to: &ReplicaView) -> bool {
        self.journaled.as_ref().is_some_and(|call| call.lost > 0 && !to.replica.journals(&call.tool))
    }

    /// Whether to ask the journal for an answer that broke off at `replica`.
    pub fn asks_again(&mut self, replica: ReplicaId) -> bool {
        let server = self.server.clone();
        let asks = server.replica(replica).is_some_and(|at| {
            self.repeatability_at(at) == Repeatability::Journaled && self.journal_repeats() == Repeats::None
        });
        if asks {
            self.note_lost();
        }
        asks
    }
}
