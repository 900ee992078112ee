//! What becomes of a request that was lost on its way, and how many repeats a server may get.
//!
//! Pure: DESIGN 5, rules 1–3, as a table, and a token bucket over a given `now`. Never sends anything.
//! A repeat that reached a server costs budget; a request that reached nobody is free.

use crate::ids::Micros;

/// How far a lost request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Not one byte of it was written upstream.
    Unwritten,
    /// The server refused it with "unknown session", so it was not executed.
    UnknownSession,
    /// It was written, wholly or in part: it may have been executed.
    Written,
}

/// Whether executing it twice does harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeatability {
    /// It does not: a read method, a tool in `repeatable_tools`, or an annotation that the operator trusts.
    Harmless,
    /// A journal that the server's replicas share runs it once however often it is sent, and answers every repeat: with the
    /// result of the first, or that its outcome is unknown.
    Journaled,
    /// It may.
    Harmful,
}

/// What the client has seen of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing of the server's. Our own priming event and comments do not count (SESSIONS 5).
    Unbegun,
    /// At least one byte of the server's.
    Begun,
}

/// Whether this request was repeated before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// Not yet.
    None,
    /// As often as allowed: that was all.
    Spent,
}

/// What becomes of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It reached nobody. Unbound: to another replica, always. Bound: as soon as its replica is *gone*
    /// ([`crate::gone`]), and to the same one until then. Costs no budget.
    Elsewhere,
    /// It may have been executed, and that is harmless: once more, if the [`Budget`] grants it.
    Again,
    /// It may have been executed, and the journal knows: sent again to a replica that shares it. Costs no budget if the
    /// replica is gone or the connection broke, because what is asked for is an answer and no second execution.
    AskJournal,
    /// Answered with −31001, `executed: "unknown"`.
    Never,
}

/// Whether, and how, a lost request is sent again (DESIGN 5, rules 1–3).
pub fn classify(loss: Loss, repeatability: Repeatability, answer: Answer, repeats: Repeats) -> Retry {
    match (answer, loss, repeatability, repeats) {
        // The client holds part of one answer: a second one could contradict it.
        (Answer::Begun, _, _, _) => Retry::Never,
        (Answer::Unbegun, Loss::Unwritten | Loss::UnknownSession, _, _) => Retry::Elsewhere,
        (Answer::Unbegun, Loss::Written, Repeatability::Harmless, Repeats::None) => Retry::Again,
        (Answer::Unbegun, Loss::Written, Repeatability::Journaled, Repeats::None) => Retry::AskJournal,
        (
            Answer::Unbegun,
            Loss::Written,
            Repeatability::Harmless | Repeatability::Journaled,
            Repeats::Spent,
        ) => Retry::Never,
        (Answer::Unbegun, Loss::Written, Repeatability::Harmful, _) => Retry::Never,
    }
}

/// How many repeats a server may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Repeats earned by a hundred requests.
    pub percent: u32,
    /// Repeats per second that a quiet server may get in any case.
    pub floor: u32,
    /// Repeats that can be saved up.
    pub saved_max: u32,
}

/// The allowance of the gateway.
pub const ALLOWANCE: Allowance = Allowance { percent: 10, floor: 3, saved_max: 250 };

/// A bucket of repeats, one per server. Counted in hundredths of a repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    saved: u64,
    /// Earned by requests since `window`.
    earned: u64,
    /// Begin of the second that is being counted.
    window: Micros,
}

/// Whether a repeat may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spend {
    /// It may.
    Granted,
    /// It may not: the loss is answered.
    Refused,
}

/// One repeat, in the bucket's unit.
const REPEAT: u64 = 100;
/// The floor is topped up at the end of each such span.
const WINDOW: Micros = Micros(1_000_000);

impl Budget {
    /// A bucket that holds one second's floor.
    pub fn new(allowance: Allowance, now: Micros) -> Budget {
        Budget { saved: u64::from(allowance.floor) * REPEAT, earned: 0, window: now }
    }

    /// After a first sending of a request; repeats earn nothing.
    pub fn earn(self, allowance: Allowance, now: Micros) -> Budget {
        let next = self.settle(allowance, now);
        let earned = u64::from(allowance.percent);
        Budget { saved: next.saved + earned, earned: next.earned + earned, ..next }.capped(allowance)
    }

    /// One repeat, if there is one.
    pub fn spend(self, allowance: Allowance, now: Micros) -> (Budget, Spend) {
        let next = self.settle(allowance, now);
        match next.saved.checked_sub(REPEAT) {
            Some(saved) => (Budget { saved, ..next }, Spend::Granted),
            None => (next, Spend::Refused),
        }
    }

    /// Closes the seconds that have passed. The floor fills up what requests did not earn, and adds nothing on
    /// top: a busy server gets its percentage and no more, so the amplification stays what it says.
    fn settle(self, allowance: Allowance, now: Micros) -> Budget {
        let passed = now.0.saturating_sub(self.window.0) / WINDOW.0;
        if passed == 0 {
            return self;
        }
        let floor = u64::from(allowance.floor) * REPEAT;
        let idle = floor.saturating_mul(passed - 1);
        let saved = self.saved.saturating_add(floor.saturating_sub(self.earned)).saturating_add(idle);
        let window = Micros(self.window.0 + passed * WINDOW.0);
        Budget { saved, earned: 0, window }.capped(allowance)
    }

    fn capped(self, allowance: Allowance) -> Budget {
        Budget { saved: self.saved.min(u64::from(allowance.saved_max) * REPEAT), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Micros {
        Micros(ms * 1000)
    }

    #[test]
    fn all_combinations_follow_design_5() {
        use {Answer::*, Loss::*, Repeatability::*};
        for loss in [Unwritten, UnknownSession, Written] {
            for repeatability in [Harmless, Journaled, Harmful] {
                for answer in [Unbegun, Begun] {
                    for repeats in [Repeats::None, Repeats::Spent] {
                        let retry = classify(loss, repeatability, answer, repeats);
                        let reached_nobody = loss != Written;
                        let expected = if answer == Begun {
                            Retry::Never // rule 2: never after a byte of the server's
                        } else if reached_nobody {
                            Retry::Elsewhere // rule 1; "unknown session" was not executed
                        } else if repeatability == Harmless && repeats == Repeats::None {
                            Retry::Again // rule 2: once
                        } else if repeatability == Journaled && repeats == Repeats::None {
                            Retry::AskJournal // rule 3: the journal answers instead
                        } else {
                            Retry::Never // rule 3
                        };
                        assert_eq!(retry, expected, "{loss:?} {repeatability:?} {answer:?} {repeats:?}");
                    }
                }
            }
        }
    }

    /// Grants in `seconds` seconds of `rate` requests per second, each of which asks for a repeat.
    fn grants(rate: u64, seconds: u64) -> u64 {
        let mut budget = Budget::new(ALLOWANCE, at_ms(0));
        let mut granted = 0;
        for n in 0..rate * seconds {
            let now = Micros(n * 1_000_000 / rate);
            budget = budget.earn(ALLOWANCE, now);
            let (next, spend) = budget.spend(ALLOWANCE, now);
            granted += u64::from(spend == Spend::Granted);
            budget = next;
        }
        granted
    }

    #[test]
    fn a_busy_server_gets_a_tenth_and_the_first_floor() {
        let granted = grants(1000, 20);
        assert!((2000..=2003).contains(&granted), "{granted}");
    }

    #[test]
    fn a_quiet_server_gets_the_floor() {
        let granted = grants(5, 20);
        assert!((57..=61).contains(&granted), "{granted}");
    }

    #[test]
    fn what_is_saved_is_capped() {
        let mut budget = Budget::new(ALLOWANCE, at_ms(0));
        let late = Micros(u64::MAX);
        let mut granted = 0;
        while let (next, Spend::Granted) = budget.spend(ALLOWANCE, late) {
            (budget, granted) = (next, granted + 1);
        }
        assert_eq!(granted, ALLOWANCE.saved_max);
    }

    #[test]
    fn nothing_is_granted_without_allowance() {
        let none = Allowance { percent: 0, floor: 0, saved_max: 0 };
        let budget = Budget::new(none, at_ms(0)).earn(none, at_ms(10));
        assert_eq!(budget.spend(none, at_ms(5000)).1, Spend::Refused);
    }
}
