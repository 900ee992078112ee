//! How long a session lives, counted from its issue, and by day for its tombstones (SESSIONS 8).
//!
//! Pure: whole seconds of wall time since 1970 are handed in, because tokens outlive processes and travel between
//! machines whose clocks differ a little.

use std::time::Duration;

/// How far another gateway's clock may be ahead of ours: a token may look as if it was issued this far in the
/// future. Beyond it the issuer's clock was wrong, and the session would live too long.
pub const SKEW_MAX: Duration = Duration::from_secs(3600);

const DAY_S: u64 = 24 * 3600;

/// The day on which a session was issued, in days since 1970 (UTC). Its tombstone lies in the group of this day and
/// goes with the whole group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssueDay(pub u32);

impl IssueDay {
    /// The day of `issued_s`, seconds since 1970.
    pub fn of(issued_s: u32) -> IssueDay {
        IssueDay((u64::from(issued_s) / DAY_S) as u32)
    }

    /// Whether no session of this day can be alive any more at `now_s`, on any gateway's clock: its tombstones may go.
    pub fn is_over(self, now_s: u64, lifetime_max: Duration) -> bool {
        let last_issue_s = (u64::from(self.0) + 1) * DAY_S;
        now_s > last_issue_s.saturating_add(lifetime_max.as_secs()).saturating_add(2 * SKEW_MAX.as_secs())
    }
}

/// What the age of a session says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It may be served.
    Alive,
    /// It is over: 404, so that the client starts anew.
    Past,
}

/// Whether a session issued at `issued_s` is alive at `now_s`, both in seconds since 1970.
pub fn judge(issued_s: u32, now_s: u64, lifetime_max: Duration) -> Lifetime {
    let issued_s = u64::from(issued_s);
    let too_old = now_s > issued_s.saturating_add(lifetime_max.as_secs());
    let from_the_future = issued_s > now_s.saturating_add(SKEW_MAX.as_secs());
    match too_old || from_the_future {
        true => Lifetime::Past,
        false => Lifetime::Alive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * DAY_S);
    const ISSUED_S: u32 = 1_800_000_000;

    fn at(offset_s: i64) -> Lifetime {
        judge(ISSUED_S, u64::from(ISSUED_S).checked_add_signed(offset_s).unwrap(), WEEK)
    }

    #[test]
    fn lives_for_its_lifetime_and_no_longer() {
        assert_eq!(at(0), Lifetime::Alive);
        assert_eq!(at(7 * 24 * 3600), Lifetime::Alive);
        assert_eq!(at(7 * 24 * 3600 + 1), Lifetime::Past);
    }

    #[test]
    fn bears_a_clock_that_is_a_little_behind() {
        assert_eq!(at(-3600), Lifetime::Alive);
        assert_eq!(at(-3601), Lifetime::Past);
    }

    #[test]
    fn tombstones_outlive_every_session_of_their_day() {
        let day = IssueDay::of(ISSUED_S);
        let last = u64::from(day.0 + 1) * DAY_S - 1;
        for now_s in (last..last + WEEK.as_secs() + 3 * DAY_S).step_by(600) {
            if day.is_over(now_s, WEEK) {
                assert_eq!(
                    judge(u32::try_from(last).unwrap(), now_s - SKEW_MAX.as_secs(), WEEK),
                    Lifetime::Past
                );
            }
        }
        assert!(day.is_over(last + WEEK.as_secs() + DAY_S, WEEK));
    }
}
