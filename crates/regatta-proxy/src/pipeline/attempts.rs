//! What the loss of one attempt means for the errand (DESIGN 5): elsewhere, again, or an answer that says so.
//!
//! Asks the rules, the retry budget and the journal's bounds; sends nothing itself.

use regatta_policy::gone::Attempt;
use regatta_policy::retry::{self, Repeatability, Repeats, Retry};

use super::exchange::Errand;
use crate::fault::Fault;
use crate::forward::Loss;
use crate::view::ReplicaView;

/// What was tried so far.
#[derive(Default)]
pub(super) struct Attempts {
    spent: bool,
}

/// What to do after a loss.
pub(super) enum Next {
    Elsewhere,
    Again,
    Refuse(Fault),
}

impl Attempts {
    /// What a loss means for the errand (DESIGN 5).
    pub fn after(&mut self, errand: &mut Errand, loss: Loss, at: &ReplicaView) -> Next {
        let how = match loss {
            Loss::Refused | Loss::Unreachable | Loss::Full => retry::Loss::Unwritten,
            Loss::Broken | Loss::Silent | Loss::Gone => retry::Loss::Written,
            Loss::Leaving => return Next::Refuse(Fault::OutcomeUnknown { why: lost_how(loss) }),
        };
        let repeatability = errand.repeatability_at(at);
        let repeats = match (repeatability, self.spent) {
            (Repeatability::Journaled, _) => errand.journal_repeats(),
            (Repeatability::Harmless | Repeatability::Harmful, true) => Repeats::Spent,
            (Repeatability::Harmless | Repeatability::Harmful, false) => Repeats::None,
        };
        match retry::classify(how, repeatability, retry::Answer::Unbegun, repeats) {
            Retry::Elsewhere => Next::Elsewhere,
            Retry::Again if errand.gateway.spend_retry() => {
                self.spent = true;
                Next::Again
            }
            // A server that is slow is asked as sparingly as ever.
            Retry::AskJournal if loss != Loss::Silent || errand.gateway.spend_retry() => {
                errand.note_lost();
                Next::Again
            }
            Retry::Again | Retry::AskJournal | Retry::Never => {
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

/// The same for the rule that says whether a replica is gone.
pub(super) fn attempt(loss: Loss) -> Attempt {
    match loss {
        Loss::Refused => Attempt::Refused,
        Loss::Broken => Attempt::Reset,
        Loss::Gone => Attempt::Removed,
        Loss::Unreachable | Loss::Silent | Loss::Full | Loss::Leaving => Attempt::Unreachable,
    }
}
