//! When a replica counts as healthy, and when it is asked again.
//!
//! Pure: takes what the last probe saw, gives a standing and a pause. Never sends, sleeps or rolls dice itself.

use std::time::Duration;

use regatta_policy::snapshot::Health;

/// Failures in a row after which a replica is unhealthy.
const FAILURES_MAX: u32 = 2;
/// Between probes of a healthy replica.
const CALM: Duration = Duration::from_secs(5);
/// Between probes of one that is not, and of a new one.
const EAGER: Duration = Duration::from_secs(1);
/// Before a first failure is looked at again.
const RECHECK: Duration = Duration::from_millis(250);
/// How long a replica is new.
const NEW: Duration = Duration::from_secs(10);

/// Where a replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What the data plane is told.
    pub health: Health,
    /// Failed probes in a row.
    pub failures: u32,
    /// Of the last ones, how many in a row got no answer at all.
    pub mute: u32,
}

/// How a probe went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The replica spoke MCP, or asked for credentials as an MCP server does.
    Spoke,
    /// It answered something else.
    Failed,
    /// It gave no answer at all: not reached, or silent.
    Mute,
}

impl Standing {
    /// A replica nobody has probed.
    pub const NEW: Standing = Standing { health: Health::Unknown, failures: 0, mute: 0 };

    /// The standing after one more probe.
    pub fn after(self, outcome: Outcome) -> Standing {
        let mute = match outcome {
            Outcome::Spoke => return Standing { health: Health::Healthy, failures: 0, mute: 0 },
            Outcome::Failed => 0,
            Outcome::Mute => self.mute.saturating_add(1),
        };
        let failures = self.failures.saturating_add(1);
        let health = match (failures >= FAILURES_MAX, mute >= FAILURES_MAX) {
            (false, _) => self.health,
            (true, false) => Health::Unhealthy,
            (true, true) => Health::Unreachable,
        };
        Standing { health, failures, mute }
    }

    /// How long to wait for the next probe of a replica that is known for `age`; `dice` spreads it by ±10 %.
    pub fn pause(self, age: Duration, dice: u64) -> Duration {
        let base = match self.health {
            Health::Healthy | Health::Unknown if self.failures > 0 => RECHECK,
            Health::Healthy if age >= NEW => CALM,
            Health::Healthy | Health::Unknown | Health::Unhealthy | Health::Unreachable => EAGER,
        };
        base.mul_f64(0.9 + 0.2 * (dice % 1024) as f64 / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_failures_in_a_row_make_a_replica_unhealthy_and_one_success_makes_it_healthy() {
        let healthy = Standing::NEW.after(Outcome::Spoke);
        let shaken = healthy.after(Outcome::Failed);
        assert_eq!(shaken.health, Health::Healthy);
        assert_eq!(shaken.after(Outcome::Spoke), healthy);
        let down = shaken.after(Outcome::Failed);
        assert_eq!(down.health, Health::Unhealthy);
        assert_eq!(down.after(Outcome::Spoke), healthy);
        assert_eq!(Standing::NEW.after(Outcome::Failed).health, Health::Unknown);
    }

    #[test]
    fn only_two_probes_in_a_row_without_any_answer_make_a_replica_unreachable() {
        let after = |outcomes: &[Outcome]| {
            outcomes.iter().fold(Standing::NEW, |at, outcome| at.after(*outcome)).health
        };
        assert_eq!(after(&[Outcome::Mute, Outcome::Mute]), Health::Unreachable);
        assert_eq!(after(&[Outcome::Failed, Outcome::Mute]), Health::Unhealthy);
        assert_eq!(after(&[Outcome::Failed, Outcome::Mute, Outcome::Mute]), Health::Unreachable);
        assert_eq!(after(&[Outcome::Mute, Outcome::Mute, Outcome::Failed]), Health::Unhealthy);
        assert_eq!(after(&[Outcome::Mute, Outcome::Mute, Outcome::Spoke]), Health::Healthy);
    }

    #[test]
    fn a_first_failure_is_looked_at_again_soon() {
        let old = Duration::from_secs(60);
        let healthy = Standing::NEW.after(Outcome::Spoke);
        assert!(healthy.pause(old, 0) >= Duration::from_millis(4500));
        assert!(healthy.pause(Duration::ZERO, 1023) <= Duration::from_millis(1100));
        let shaken = healthy.after(Outcome::Failed);
        assert!(shaken.pause(old, 1023) < Duration::from_millis(300));
        assert!(shaken.after(Outcome::Failed).pause(old, 512) >= Duration::from_millis(900));
    }
}
