//! What is counted under one key: by the rule's algorithm, and blocked for a while after a breach if the rule says so.
//!
//! Pure, and in three steps so that several rules can decide together: *look* changes nothing that counts, then either
//! every counter is *charged* or those that refused are *breached* ([`super::decide`]).

use std::num::NonZeroU32;
use std::time::Duration;

use super::gcra::{self, Rate};
use super::window::{Allowance, Window};
use crate::ids::Micros;

/// How much a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How it is counted.
    pub algorithm: Algorithm,
    /// What a breach costs.
    pub breach: Breach,
}

/// How a quota is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Exactly, over any window of the rule's length.
    SlidingWindow(Allowance),
    /// As an even rate with a burst.
    Gcra(Rate),
}

/// What a request beyond the quota costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Only itself.
    Refused,
    /// Everything under its key, for so long; requests meanwhile do not make it longer.
    Blocked(Duration),
}

/// What was used under one key.
#[derive(Clone, Debug)]
pub struct Counter {
    used: Used,
    /// The end of a block; in the past if there is none.
    blocked_until: Micros,
}

#[derive(Clone, Debug)]
enum Used {
    Window(Window),
    Tat(Option<Micros>),
}

/// Whether a request fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It does.
    Fits,
    /// It does not.
    Over {
        /// When it would, if nothing else comes; the largest number if it never does.
        retry_after: Micros,
    },
    /// Nothing does, until then.
    Blocked {
        /// The rest of the block.
        retry_after: Micros,
    },
}

/// How a key stands, for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Units that would be granted now.
    pub remaining: u32,
    /// How long until the whole quota is there again, if nothing else comes.
    pub reset_after: Micros,
}

impl Quota {
    /// Units that can come at once.
    pub fn at_once(&self) -> u32 {
        match self.algorithm {
            Algorithm::SlidingWindow(allowance) => allowance.allow(),
            Algorithm::Gcra(rate) => rate.room(None, Micros(0)),
        }
    }
}

impl Counter {
    /// Nothing used.
    pub fn new(quota: &Quota) -> Counter {
        let used = match quota.algorithm {
            Algorithm::SlidingWindow(_) => Used::Window(Window::default()),
            Algorithm::Gcra(_) => Used::Tat(None),
        };
        Counter { used, blocked_until: Micros(0) }
    }

    /// Whether `cost` units fit at `now`.
    pub fn look(&mut self, quota: &Quota, cost: NonZeroU32, now: Micros) -> Look {
        if now < self.blocked_until {
            return Look::Blocked { retry_after: Micros(self.blocked_until.0 - now.0) };
        }
        match (&mut self.used, quota.algorithm) {
            (Used::Window(window), Algorithm::SlidingWindow(allowance)) => {
                window.forget(allowance, now);
                match cost.get() <= window.room(allowance) {
                    true => Look::Fits,
                    false => Look::Over { retry_after: window.wait(allowance, cost, now) },
                }
            }
            (Used::Tat(tat), Algorithm::Gcra(rate)) => match gcra::judge(*tat, rate, cost, now) {
                gcra::Verdict::Granted { .. } => Look::Fits,
                gcra::Verdict::Limited { retry_after } => Look::Over { retry_after },
            },
            (Used::Window(_), Algorithm::Gcra(_)) | (Used::Tat(_), Algorithm::SlidingWindow(_)) => {
                // The key holds a digest of the rule, algorithm included, so this is another rule's counter.
                *self = Counter::new(quota);
                self.look(quota, cost, now)
            }
        }
    }

    /// Counts `cost` units that fitted.
    pub fn charge(&mut self, quota: &Quota, cost: NonZeroU32, now: Micros) {
        match (&mut self.used, quota.algorithm) {
            (Used::Window(window), Algorithm::SlidingWindow(allowance)) => {
                window.charge(allowance, cost, now)
            }
            (Used::Tat(tat), Algorithm::Gcra(rate)) => {
                if let gcra::Verdict::Granted { tat: next } = gcra::judge(*tat, rate, cost, now) {
                    *tat = Some(next);
                }
            }
            (Used::Window(_), Algorithm::Gcra(_)) | (Used::Tat(_), Algorithm::SlidingWindow(_)) => {}
        }
    }

    /// A request did not fit: begins the block, if the rule has one. Gives how long to wait now.
    pub fn breach(&mut self, quota: &Quota, retry_after: Micros, now: Micros) -> Micros {
        match quota.breach {
            Breach::Refused => retry_after,
            Breach::Blocked(block) => {
                self.blocked_until = now.after(block);
                Micros(self.blocked_until.0 - now.0)
            }
        }
    }

    /// How the key stands at `now`.
    pub fn standing(&self, quota: &Quota, now: Micros) -> Standing {
        let (room, empty_at) = match (&self.used, quota.algorithm) {
            (Used::Window(window), Algorithm::SlidingWindow(allowance)) => {
                (window.room(allowance), window.empty_at(allowance))
            }
            (Used::Tat(tat), Algorithm::Gcra(rate)) => (rate.room(*tat, now), tat.unwrap_or_default()),
            (Used::Window(_), Algorithm::Gcra(_)) | (Used::Tat(_), Algorithm::SlidingWindow(_)) => {
                (quota.at_once(), Micros(0))
            }
        };
        let remaining = if now < self.blocked_until { 0 } else { room };
        let reset_at = empty_at.max(self.blocked_until);
        Standing { remaining, reset_after: Micros(reset_at.0.saturating_sub(now.0)) }
    }

    /// From when on it says nothing that a new counter does not.
    pub fn empty_at(&self, quota: &Quota) -> Micros {
        let used = match (&self.used, quota.algorithm) {
            (Used::Window(window), Algorithm::SlidingWindow(allowance)) => window.empty_at(allowance),
            (Used::Tat(tat), Algorithm::Gcra(_)) => tat.unwrap_or_default(),
            (Used::Window(_), Algorithm::Gcra(_)) | (Used::Tat(_), Algorithm::SlidingWindow(_)) => Micros(0),
        };
        used.max(self.blocked_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;
    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    fn sixty_a_minute(breach: Breach) -> Quota {
        let sixty = NonZeroU32::new(60).expect("positive");
        Quota { algorithm: Algorithm::SlidingWindow(Allowance::new(sixty, 60 * SECOND)), breach }
    }

    fn fill(counter: &mut Counter, quota: &Quota, now: Micros) {
        for _ in 0..60 {
            assert_eq!(counter.look(quota, ONE, now), Look::Fits);
            counter.charge(quota, ONE, now);
        }
    }

    #[test]
    fn a_breach_blocks_for_its_time_and_no_longer() {
        let quota = sixty_a_minute(Breach::Blocked(60 * SECOND));
        let mut counter = Counter::new(&quota);
        fill(&mut counter, &quota, at(0));
        let Look::Over { retry_after } = counter.look(&quota, ONE, at(50)) else { panic!("the 61st") };
        assert_eq!(retry_after, at(10), "the window alone");
        assert_eq!(counter.breach(&quota, retry_after, at(50)), at(60), "the block is longer");
        assert_eq!(counter.look(&quota, ONE, at(100)), Look::Blocked { retry_after: at(10) });
        assert_eq!(counter.standing(&quota, at(100)), Standing { remaining: 0, reset_after: at(10) });
        assert_eq!(counter.empty_at(&quota), at(110));
        assert_eq!(counter.look(&quota, ONE, at(110)), Look::Fits);
    }

    #[test]
    fn without_a_block_the_window_alone_says_when() {
        let quota = sixty_a_minute(Breach::Refused);
        let mut counter = Counter::new(&quota);
        fill(&mut counter, &quota, at(0));
        let Look::Over { retry_after } = counter.look(&quota, ONE, at(50)) else { panic!("the 61st") };
        assert_eq!(counter.breach(&quota, retry_after, at(50)), at(10));
        assert_eq!(counter.look(&quota, ONE, at(60)), Look::Fits);
        assert_eq!(counter.standing(&quota, at(60)).remaining, 60);
    }

    #[test]
    fn a_block_shorter_than_the_window_does_not_open_it() {
        let quota = sixty_a_minute(Breach::Blocked(SECOND));
        let mut counter = Counter::new(&quota);
        fill(&mut counter, &quota, at(0));
        let Look::Over { retry_after } = counter.look(&quota, ONE, at(1)) else { panic!("the 61st") };
        counter.breach(&quota, retry_after, at(1));
        assert_eq!(counter.look(&quota, ONE, at(2)), Look::Over { retry_after: at(58) });
    }

    #[test]
    fn says_what_remains_by_either_algorithm() {
        let five = NonZeroU32::new(5).expect("positive");
        let gcra =
            Quota { algorithm: Algorithm::Gcra(Rate::new(five, 5 * SECOND, five)), breach: Breach::Refused };
        for (quota, reset_after) in [(sixty_a_minute(Breach::Refused), at(60)), (gcra, at(2))] {
            let mut counter = Counter::new(&quota);
            let two = NonZeroU32::new(2).expect("positive");
            assert_eq!(counter.look(&quota, two, at(9)), Look::Fits);
            counter.charge(&quota, two, at(9));
            let standing = Standing { remaining: quota.at_once() - 2, reset_after };
            assert_eq!(counter.standing(&quota, at(9)), standing);
        }
    }
}
