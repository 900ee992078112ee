//! Which of the published sealing keys seals, and when it is time for a new one (SESSIONS 2).
//!
//! Pure: the dates of the keys and `now` in, a choice out. A key seals only when every gateway had the time to learn it;
//! until then the one before it does, so that nobody is handed a token that the next gateway cannot open.

use std::time::Duration;

/// When a key was published, seconds since 1970, and its name, which decides between two of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// The date.
    pub at_s: u64,
    /// The key's name.
    pub fingerprint: [u8; 4],
}

/// The key to seal with: the newest that has been published for `ripe_after`; if none has, the oldest of all. Every
/// gateway that knows the same keys comes to the same answer. `None` only if there are no keys.
pub fn sealing(keys: &[Published], now_s: u64, ripe_after: Duration) -> Option<Published> {
    let is_ripe = |key: &&Published| key.at_s.saturating_add(ripe_after.as_secs()) <= now_s;
    keys.iter().filter(is_ripe).max().or_else(|| keys.iter().min()).copied()
}

/// Whether the newest key is old enough for a new one.
pub fn is_due(keys: &[Published], now_s: u64, rotate_every: Duration) -> bool {
    keys.iter().max().is_some_and(|newest| newest.at_s.saturating_add(rotate_every.as_secs()) <= now_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIPE: Duration = Duration::from_secs(60);

    fn key(at_s: u64, name: u8) -> Published {
        Published { at_s, fingerprint: [name; 4] }
    }

    #[test]
    fn a_new_key_seals_once_everybody_had_the_time_to_learn_it() {
        let keys = [key(1000, 1), key(2000, 2)];
        assert_eq!(sealing(&keys, 2059, RIPE), Some(key(1000, 1)));
        assert_eq!(sealing(&keys, 2060, RIPE), Some(key(2000, 2)));
        assert_eq!(sealing(&[], 2060, RIPE), None);
    }

    #[test]
    fn of_keys_that_are_all_new_the_oldest_seals_whatever_their_order() {
        let keys = [key(1001, 3), key(1000, 2), key(1000, 1)];
        assert_eq!(sealing(&keys, 1002, RIPE), Some(key(1000, 1)));
        assert_eq!(sealing(&keys, 1061, RIPE), Some(key(1001, 3)));
    }

    #[test]
    fn a_key_from_a_clock_that_is_ahead_does_not_seal_before_its_time() {
        let keys = [key(1000, 1), key(9000, 2)];
        assert_eq!(sealing(&keys, 5000, RIPE), Some(key(1000, 1)));
        assert!(!is_due(&keys, 5000, RIPE));
    }

    #[test]
    fn a_rotation_is_due_by_the_newest_key() {
        let day = Duration::from_secs(86_400);
        assert!(is_due(&[key(0, 1)], 86_400, day));
        assert!(!is_due(&[key(0, 1), key(86_000, 2)], 86_400, day));
        assert!(!is_due(&[], 86_400, day));
    }
}
