//! When is a bound replica *gone*, so that its sessions may leave it (SESSIONS 4).
//!
//! Pure: what is remembered of a replica, the outcome of one attempt and `now` in; a verdict out. Never sleeps
//! and never re-homes. Ejection, 5xx and 503 are not among the outcomes: they never make a replica gone.

use std::time::Duration;

use crate::ids::Micros;

/// Two refusals within this long: nobody listens there, so what it held in memory is gone.
pub const REFUSED_TWICE_WITHIN: Duration = Duration::from_millis(200);
/// The wait before the second attempt; doubles up to [`AGAIN_MAX`].
pub const AGAIN_FIRST: Duration = Duration::from_millis(50);
/// The longest wait between two attempts.
pub const AGAIN_MAX: Duration = Duration::from_millis(250);
/// Nobody tried for this long (beyond `gone_after`): what was seen before says nothing any more.
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
pub fn judge(watch: Watch, attempt: Attempt, gone_after: Duration, now: Micros) -> (Watch, Verdict) {
    match attempt {
        Attempt::Answered => (Watch::default(), Verdict::Here),
        // The replica is well, and this one session has no home there: nothing is held against the others.
        Attempt::UnknownSession => (Watch::default(), Verdict::Gone),
        Attempt::Removed => (watch, Verdict::Gone),
        Attempt::Refused => watch.failed(Some(now), gone_after, now),
        // Somebody listened, so an earlier refusal is disproved.
        Attempt::Reset => {
            Watch { run: watch.run.map(|run| Run { refused: None, ..run }) }.failed(None, gone_after, now)
        }
        Attempt::Unreachable => watch.failed(None, gone_after, now),
    }
}

impl Watch {
    /// One more failure; `refused` is its moment if the connection was refused.
    fn failed(self, refused: Option<Micros>, gone_after: Duration, now: Micros) -> (Watch, Verdict) {
        let fresh = Run { first: now, last: now, refused: None, count: 0 };
        let before = match self.run {
            Some(run) if now.since(run.last) <= gone_after.saturating_add(MEMORY) => run,
            Some(_) | None => fresh,
        };
        let twice = match (before.refused, refused) {
            (Some(earlier), Some(now)) => now.since(earlier) <= REFUSED_TWICE_WITHIN,
            (Some(_), None) | (None, Some(_)) | (None, None) => false,
        };
        let run = Run {
            last: before.last.max(now),
            refused: refused.or(before.refused),
            count: before.count.saturating_add(1),
            ..before
        };
        let watch = Watch { run: Some(run) };
        let elapsed = now.since(run.first);
        if twice || elapsed >= gone_after {
            return (watch, Verdict::Gone);
        }
        let doubled = AGAIN_FIRST.saturating_mul(1u32.checked_shl(run.count - 1).unwrap_or(u32::MAX));
        (watch, Verdict::TryAgain { after: doubled.min(AGAIN_MAX).min(gone_after - elapsed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE_AFTER: Duration = Duration::from_secs(2);

    fn at_ms(ms: u64) -> Micros {
        Micros(ms * 1000)
    }

    /// Feeds attempts at their moments; the last verdict.
    fn last(attempts: &[(u64, Attempt)]) -> Verdict {
        let mut watch = Watch::default();
        let mut verdict = Verdict::Here;
        for &(ms, attempt) in attempts {
            (watch, verdict) = judge(watch, attempt, GONE_AFTER, at_ms(ms));
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
        assert_eq!(last(&[(0, Unreachable), (60_000, Unreachable), (62_000, Unreachable)]), Verdict::Gone);
    }

    #[test]
    fn removal_and_an_unknown_session_are_gone_at_once() {
        assert_eq!(last(&[(0, Attempt::Removed)]), Verdict::Gone);
        assert_eq!(last(&[(0, Attempt::UnknownSession)]), Verdict::Gone);
    }

    #[test]
    fn an_unknown_session_says_nothing_against_the_other_sessions() {
        let (watch, _) = judge(Watch::default(), Attempt::Refused, GONE_AFTER, at_ms(0));
        let (watch, _) = judge(watch, Attempt::UnknownSession, GONE_AFTER, at_ms(10));
        assert_eq!(watch, Watch::default());
    }

    #[test]
    fn waits_grow_and_never_reach_past_gone_after() {
        let (mut watch, mut now, mut waits) = (Watch::default(), at_ms(0), Vec::new());
        loop {
            let (next, verdict) = judge(watch, Attempt::Unreachable, GONE_AFTER, now);
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
