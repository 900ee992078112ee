//! When is a bound replica *gone*, so that its sessions may leave it (SESSIONS 4).
//!
//! Pure: what is remembered of a replica, the outcome of one attempt and `now` in; a verdict out. Never sleeps
//! and never re-homes. Ejection, 5xx and 503 are not among the outcomes: they never make a replica gone.

use std::time::Duration;

use crate::ids::Micros;
use crate::snapshot::CallBounds;

/// Two refusals within this long: nobody listens there, so what it held in memory is gone.
pub const REFUSED_TWICE_WITHIN: Duration = Duration::from_millis(200);
/// The wait before the second attempt; doubles up to [`AGAIN_MAX`].
pub const AGAIN_FIRST: Duration = Duration::from_millis(50);
/// The longest wait between two attempts.
pub const AGAIN_MAX: Duration = Duration::from_millis(250);
/// A failure that is followed up is followed by the next attempt within this long, however busy this process is; two that
/// lie further apart were two accidents, and nobody looked in between.
pub const FOLLOWED_UP_WITHIN: Duration = Duration::from_secs(1);
/// A replica that was found gone is so for the next caller too, unless nobody tried for this long (beyond `gone_after`).
pub const MEMORY: Duration = Duration::from_secs(5);

/// How an attempt to reach the replica ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The connection was refused (`ECONNREFUSED`).
    Refused,
    /// No connection for another reason: no route, a timeout, a failed TLS handshake.
    Unreachable,
    /// Connected, then cut before anything was answered.
    Reset,
    /// Any answer, whatever its status.
    Answered,
    /// The server does not know the session: 404, or 400 and a failed `ping` in that session.
    UnknownSession,
    /// No longer in the Snapshot, or its lease is lost.
    Removed,
}

/// What is remembered of one replica; shared by all calls that are bound to it. Starts empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    run: Option<Run>,
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: Micros,
    last: Micros,
    refused: Option<Micros>,
    count: u32,
    was_gone: bool,
}

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may come back: try the same replica again after this long.
    TryAgain {
        /// Never reaches past `gone_after`.
        after: Duration,
    },
    /// Re-home (or 404 for `session_state = "memory"`).
    Gone,
    /// It is here.
    Here,
}

/// The next memory and the verdict, after an attempt ended at `now`.
pub fn judge(watch: Watch, attempt: Attempt, bounds: &CallBounds, now: Micros) -> (Watch, Verdict) {
    match attempt {
        Attempt::Answered => (Watch::default(), Verdict::Here),
        // The replica is well, and this one session has no home there: nothing is held against the others.
        Attempt::UnknownSession => (Watch::default(), Verdict::Gone),
        Attempt::Removed => (watch, Verdict::Gone),
        Attempt::Refused => watch.failed(Some(now), Duration::ZERO, bounds.gone_after, now),
        // Somebody listened, so what was held against it is disproved.
        Attempt::Reset => {
            let run = watch.run.map(|run| Run { refused: None, was_gone: false, ..run });
            Watch { run }.failed(None, bounds.connect_timeout, bounds.gone_after, now)
        }
        Attempt::Unreachable => watch.failed(None, bounds.connect_timeout, bounds.gone_after, now),
    }
}

impl Watch {
    /// One more failure, of an attempt that took `attempt_max` at most; `refused` is its moment if the connection was
    /// refused.
    fn failed(
        self,
        refused: Option<Micros>,
        attempt_max: Duration,
        gone_after: Duration,
        now: Micros,
    ) -> (Watch, Verdict) {
        let goes_on = |run: &Run| {
            let within = match run.was_gone {
                true => gone_after.saturating_add(MEMORY),
                false => FOLLOWED_UP_WITHIN.saturating_add(attempt_max),
            };
            now.since(run.last) <= within
        };
        let fresh = Run { first: now, last: now, refused: None, count: 0, was_gone: false };
        let before = self.run.filter(goes_on).unwrap_or(fresh);
        let twice = match (before.refused, refused) {
            (Some(earlier), Some(now)) => now.since(earlier) <= REFUSED_TWICE_WITHIN,
            (Some(_), None) | (None, Some(_)) | (None, None) => false,
        };
        let elapsed = now.since(before.first);
        let is_gone = twice || elapsed >= gone_after;
        let run = Run {
            last: before.last.max(now),
            refused: refused.or(before.refused),
            count: before.count.saturating_add(1),
            was_gone: before.was_gone || is_gone,
            ..before
        };
        let watch = Watch { run: Some(run) };
        if is_gone {
            return (watch, Verdict::Gone);
        }
        let doubled = AGAIN_FIRST.saturating_mul(1u32.checked_shl(run.count - 1).unwrap_or(u32::MAX));
        (watch, Verdict::TryAgain { after: doubled.min(AGAIN_MAX).min(gone_after - elapsed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gone after 2 s; a connect takes 1 s at most.
    fn bounds() -> CallBounds {
        CallBounds::default()
    }

    fn at_ms(ms: u64) -> Micros {
        Micros(ms * 1000)
    }

    /// Feeds attempts at their moments; the last verdict.
    fn last(attempts: &[(u64, Attempt)]) -> Verdict {
        let mut watch = Watch::default();
        let mut verdict = Verdict::Here;
        for &(ms, attempt) in attempts {
            (watch, verdict) = judge(watch, attempt, &bounds(), at_ms(ms));
        }
        verdict
    }

    fn again(ms: u64) -> Verdict {
        Verdict::TryAgain { after: Duration::from_millis(ms) }
    }

    #[test]
    fn two_refusals_within_200_ms_are_gone_at_once() {
        use Attempt::*;
        assert_eq!(last(&[(0, Refused)]), again(50));
        assert_eq!(last(&[(0, Refused), (50, Refused)]), Verdict::Gone);
        assert_eq!(last(&[(0, Refused), (200, Refused)]), Verdict::Gone);
        assert_eq!(last(&[(0, Refused), (201, Refused)]), again(100));
        assert_eq!(last(&[(0, Refused), (201, Refused), (300, Refused)]), Verdict::Gone);
    }

    #[test]
    fn a_listener_between_two_refusals_disproves_the_first() {
        use Attempt::*;
        assert_eq!(last(&[(0, Refused), (50, Answered), (100, Refused)]), again(50));
        assert_eq!(last(&[(0, Refused), (50, Reset), (100, Refused)]), again(200));
    }

    #[test]
    fn unreachable_for_gone_after_is_gone_and_not_before() {
        use Attempt::*;
        assert_eq!(last(&[(0, Unreachable), (1000, Unreachable)]), again(100));
        assert_eq!(last(&[(0, Unreachable), (1000, Reset), (1990, Unreachable)]), again(10));
        assert_eq!(last(&[(0, Unreachable), (1000, Unreachable), (2000, Unreachable)]), Verdict::Gone);
        assert_eq!(last(&[(0, Unreachable), (1999, Answered), (2000, Unreachable)]), again(50));
    }

    #[test]
    fn failures_that_nobody_followed_up_are_forgotten() {
        use Attempt::*;
        assert_eq!(last(&[(0, Unreachable), (60_000, Unreachable)]), again(50));
        let followed_up =
            [(0, Unreachable), (60_000, Unreachable), (61_000, Unreachable), (62_000, Unreachable)];
        assert_eq!(last(&followed_up), Verdict::Gone);
    }

    #[test]
    fn two_lone_failures_are_two_accidents_however_far_apart() {
        use Attempt::*;
        for apart in [2_001, 3_000, 5_000, 6_999] {
            assert_eq!(last(&[(0, Refused), (apart, Refused)]), again(50), "{apart} ms");
            assert_eq!(last(&[(0, Unreachable), (apart, Unreachable)]), again(50), "{apart} ms");
            assert_eq!(last(&[(0, Unreachable), (apart, Refused)]), again(50), "{apart} ms");
        }
    }

    #[test]
    fn one_that_was_found_gone_is_so_for_the_next_caller_until_somebody_listens() {
        use Attempt::*;
        assert_eq!(last(&[(0, Refused), (50, Refused), (6_000, Refused)]), Verdict::Gone);
        assert_eq!(last(&[(0, Refused), (50, Refused), (8_000, Refused)]), again(50));
        assert_eq!(last(&[(0, Refused), (50, Refused), (3_000, Reset), (6_000, Refused)]), again(50));
    }

    #[test]
    fn removal_and_an_unknown_session_are_gone_at_once() {
        assert_eq!(last(&[(0, Attempt::Removed)]), Verdict::Gone);
        assert_eq!(last(&[(0, Attempt::UnknownSession)]), Verdict::Gone);
    }

    #[test]
    fn an_unknown_session_says_nothing_against_the_other_sessions() {
        let (watch, _) = judge(Watch::default(), Attempt::Refused, &bounds(), at_ms(0));
        let (watch, _) = judge(watch, Attempt::UnknownSession, &bounds(), at_ms(10));
        assert_eq!(watch, Watch::default());
    }

    #[test]
    fn waits_grow_and_never_reach_past_gone_after() {
        let (mut watch, mut now, mut waits) = (Watch::default(), at_ms(0), Vec::new());
        loop {
            let (next, verdict) = judge(watch, Attempt::Unreachable, &bounds(), now);
            match verdict {
                Verdict::TryAgain { after } => (watch, now) = (next, now.after(after)),
                Verdict::Gone => break,
                Verdict::Here => panic!("nothing answered"),
            }
            waits.push(now.0 / 1000);
        }
        assert_eq!(waits, [50, 150, 350, 600, 850, 1100, 1350, 1600, 1850, 2000]);
    }
}
