//! The drain of a gateway: no new work, old work finishes, then it leaves; has a deadline.
//!
//! Pure: when it began, its lengths and `now` in; the phase, what is refused, and when to exit out. Never
//! closes anything. In every phase answers carry `Connection: close` and `/ready` says no (RELIABILITY F13–F17).

use std::time::Duration;

use crate::dice;
use crate::ids::Micros;

/// The earliest reconnect of a client whose stream a drain ends.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(500);
/// Reconnects are spread evenly over this long after the first (F16 asks for 5 s at least).
pub const RECONNECT_SPREAD: Duration = Duration::from_secs(6);
/// Before the deadline, so long is kept to answer what will not finish.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

/// A drain that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// When the signal came.
    pub began: Micros,
    /// How long work is still taken, so that whoever balances over the gateways can notice; zero for one alone.
    pub notice: Duration,
    /// From `began` to the end, whatever is left.
    pub deadline: Duration,
}

/// Where a drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// `/ready` says no; work is still taken, standing streams are ended.
    Notice,
    /// New work is refused (−31006); old work goes on.
    Draining,
    /// What is left is answered with −31001 and ended.
    LastWords,
    /// The deadline has passed.
    Over,
}

/// Kinds of work that a draining gateway tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A request that begins something: a call, an `initialize`.
    Call,
    /// A stream that would stand: a GET, `subscriptions/listen`.
    StandingStream,
    /// What helps old work to finish: the exempt classes (DESIGN 3).
    Exempt,
}

/// Whether work is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// It is.
    Open,
    /// 503, −31006, `Connection: close`: another gateway takes it.
    Shut,
}

/// What the gateway does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask again when something ends, at the latest after this long.
    Wait(Duration),
    /// Answer all that is left now.
    SayLastWords,
    /// Leave.
    Exit,
}

impl Drain {
    /// Where the drain stands at `now`. A deadline too short for all phases keeps the last words first.
    pub fn phase(self, now: Micros) -> Phase {
        let elapsed = now.since(self.began);
        let last_words = self.last_words_at();
        if elapsed >= self.deadline {
            Phase::Over
        } else if elapsed >= last_words {
            Phase::LastWords
        } else if elapsed >= self.notice.min(last_words) {
            Phase::Draining
        } else {
            Phase::Notice
        }
    }

    /// What the gateway does at `now`, with `left` calls and streams not yet ended.
    pub fn step(self, left: usize, now: Micros) -> Step {
        let elapsed = now.since(self.began);
        match self.phase(now) {
            Phase::Notice => Step::Wait(self.notice.min(self.last_words_at()).saturating_sub(elapsed)),
            Phase::Draining | Phase::LastWords if left == 0 => Step::Exit,
            Phase::Draining => Step::Wait(self.last_words_at().saturating_sub(elapsed)),
            Phase::LastWords => Step::SayLastWords,
            Phase::Over => Step::Exit,
        }
    }

    /// From `began` to the last words: a deadline under two [`LAST_WORDS`] is halved.
    fn last_words_at(self) -> Duration {
        self.deadline.saturating_sub(LAST_WORDS.min(self.deadline / 2))
    }
}

impl Phase {
    /// Whether `work` is taken in this phase.
    pub fn door(self, work: Work) -> Door {
        match (self, work) {
            (Phase::Notice, Work::Call) => Door::Open,
            // It would be ended at once: better not to begin.
            (Phase::Notice, Work::StandingStream) => Door::Shut,
            (Phase::Draining, Work::Call | Work::StandingStream) => Door::Shut,
            (Phase::Notice | Phase::Draining | Phase::LastWords, Work::Exempt) => Door::Open,
            (Phase::LastWords, Work::Call | Work::StandingStream) => Door::Shut,
            (Phase::Over, Work::Call | Work::StandingStream | Work::Exempt) => Door::Shut,
        }
    }
}

/// The `retry:` value for a stream that a drain ends: spread evenly, so that clients do not return as a herd.
pub fn reconnect_after(dice: u64) -> Duration {
    let spread_ms = RECONNECT_SPREAD.as_millis() as u64;
    RECONNECT_FIRST + Duration::from_millis(dice::below(dice, 0, spread_ms + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Drain =
        Drain { began: Micros(5_000_000), notice: Duration::from_secs(2), deadline: Duration::from_secs(20) };

    fn after_ms(ms: u64) -> Micros {
        DRAIN.began.after(Duration::from_millis(ms))
    }

    #[test]
    fn the_phases_follow_each_other() {
        for (ms, phase) in [
            (0, Phase::Notice),
            (1999, Phase::Notice),
            (2000, Phase::Draining),
            (18_999, Phase::Draining),
            (19_000, Phase::LastWords),
            (20_000, Phase::Over),
        ] {
            assert_eq!(DRAIN.phase(after_ms(ms)), phase, "{ms} ms");
        }
    }

    #[test]
    fn a_short_deadline_still_leaves_time_for_last_words() {
        let short = Drain { deadline: Duration::from_millis(400), ..DRAIN };
        assert_eq!(short.phase(after_ms(199)), Phase::Notice);
        assert_eq!(short.phase(after_ms(200)), Phase::LastWords);
        assert_eq!(short.phase(after_ms(400)), Phase::Over);
        let none = Drain { deadline: Duration::ZERO, ..DRAIN };
        assert_eq!(none.step(9, after_ms(0)), Step::Exit);
    }

    #[test]
    fn new_work_is_refused_and_old_work_is_helped_to_finish() {
        for (phase, call, stream, exempt) in [
            (Phase::Notice, Door::Open, Door::Shut, Door::Open),
            (Phase::Draining, Door::Shut, Door::Shut, Door::Open),
            (Phase::LastWords, Door::Shut, Door::Shut, Door::Open),
            (Phase::Over, Door::Shut, Door::Shut, Door::Shut),
        ] {
            assert_eq!(phase.door(Work::Call), call, "{phase:?}");
            assert_eq!(phase.door(Work::StandingStream), stream, "{phase:?}");
            assert_eq!(phase.door(Work::Exempt), exempt, "{phase:?}");
        }
    }

    #[test]
    fn leaves_when_nothing_is_left_and_at_the_deadline_in_any_case() {
        assert_eq!(DRAIN.step(0, after_ms(500)), Step::Wait(Duration::from_millis(1500)));
        assert_eq!(DRAIN.step(0, after_ms(2000)), Step::Exit);
        assert_eq!(DRAIN.step(3, after_ms(2000)), Step::Wait(Duration::from_secs(17)));
        assert_eq!(DRAIN.step(3, after_ms(19_000)), Step::SayLastWords);
        assert_eq!(DRAIN.step(0, after_ms(19_500)), Step::Exit);
        assert_eq!(DRAIN.step(3, after_ms(20_000)), Step::Exit);
    }

    #[test]
    fn a_gateway_alone_leaves_at_once_when_idle() {
        let alone = Drain { notice: Duration::ZERO, ..DRAIN };
        assert_eq!(alone.step(0, after_ms(0)), Step::Exit);
    }

    #[test]
    fn reconnects_spread_over_at_least_five_seconds() {
        let waits: Vec<Duration> = (0..2000).map(reconnect_after).collect();
        let (first, last) = (waits.iter().min().expect("many"), waits.iter().max().expect("many"));
        assert!(*last - *first >= Duration::from_secs(5), "{first:?} to {last:?}");
        let busiest = (0..7).map(|s| waits.iter().filter(|wait| wait.as_secs() == s).count()).max();
        assert!(busiest.expect("seven") < 450, "{busiest:?}");
    }
}
