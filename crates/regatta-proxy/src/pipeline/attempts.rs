//! What the loss of an attempt means for the request (DESIGN 5): elsewhere, once more, or the end.

use regatta_policy::gone::Attempt;
use regatta_policy::retry::{self, Repeats, Retry};

use super::exchange::Errand;
use crate::fault::Fault;
use crate::forward::Loss;

/// What was tried so far.
#[derive(Default)]
pub(super) struct Attempts {
    spent: bool,
}

/// What follows.
pub(super) enum Next {
    /// Nothing reached the server.
    Elsewhere,
    /// Something did, and a repeat does no harm.
    Again,
    /// The client is told.
    Refuse(Fault),
}

impl Attempts {
    /// What a loss means for the errand.
    pub(super) fn after(&mut self, errand: &Errand, loss: Loss) -> Next {
        let how = match loss {
            Loss::Refused | Loss::Unreachable | Loss::Full => retry::Loss::Unwritten,
            Loss::Broken | Loss::Silent | Loss::Gone => retry::Loss::Written,
            Loss::Leaving => return Next::Refuse(Fault::OutcomeUnknown { why: lost_how(loss) }),
        };
        let repeats = if self.spent { Repeats::Spent } else { Repeats::None };
        match retry::classify(how, errand.repeatability, retry::Answer::Unbegun, repeats) {
            Retry::Elsewhere => Next::Elsewhere,
            Retry::Again if errand.gateway.spend_retry() => {
                self.spent = true;
                Next::Again
            }
            Retry::Again | Retry::Never => {
                errand.gateway.metrics.outcome_unknown.inc();
                Next::Refuse(Fault::OutcomeUnknown { why: lost_how(loss) })
            }
        }
    }
}

fn lost_how(loss: Loss) -> &'static str {
    match loss {
        Loss::Silent => "the server did not answer in time",
        Loss::Gone => "the server's node was lost before it answered",
        Loss::Leaving => "the gateway had to leave before the server answered",
        Loss::Broken | Loss::Refused | Loss::Unreachable | Loss::Full => "the connection to the server broke",
    }
}

/// The loss as what it says of the replica.
pub(super) fn attempt(loss: Loss) -> Attempt {
    match loss {
        Loss::Refused => Attempt::Refused,
        Loss::Broken => Attempt::Reset,
        Loss::Gone => Attempt::Removed,
        Loss::Unreachable | Loss::Silent | Loss::Full | Loss::Leaving => Attempt::Unreachable,
    }
}
