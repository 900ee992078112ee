//! Which of the published sealing keys seals, when it is time for a new one, and when an old one is of no more use
//! (SESSIONS 2).
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

/// The keys that have not sealed for `kept_for`, because a newer one did: nothing that they sealed is worth opening. Twice
/// `ripe_after`, so that a clock that is behind does not seal with one of them meanwhile.
pub fn outlived(
    keys: &[Published],
    now_s: u64,
    ripe_after: Duration,
    kept_for: Duration,
) -> impl Iterator<Item = Published> {
    let needed = kept_for.saturating_add(ripe_after * 2).as_secs();
    let has_sealed_alone = |key: &&Published| key.at_s.saturating_add(needed) <= now_s;
    let successor = keys.iter().filter(has_sealed_alone).max().copied();
    keys.iter().copied().filter(move |key| successor.is_some_and(|successor| *key < successor))
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
    fn a_key_is_outlived_when_another_has_sealed_for_as_long_as_its_texts_are_needed() {
        let keys = [key(3000, 3), key(1000, 1), key(2000, 2)];
        let outlived = |now_s| -> Vec<u8> {
            let mut names: Vec<u8> = outlived(&keys, now_s, RIPE, Duration::from_secs(5000))
                .map(|key| key.fingerprint[0])
                .collect();
            names.sort_unstable();
            names
        };
        assert!(outlived(7119).is_empty());
        assert_eq!(outlived(7120), [1]);
        assert_eq!(outlived(8120), [1, 2]);
        assert_eq!(outlived(u64::MAX), [1, 2], "the one that seals stays");
    }

    #[test]
    fn a_rotation_is_due_by_the_newest_key() {
        let day = Duration::from_secs(86_400);
        assert!(is_due(&[key(0, 1)], 86_400, day));
        assert!(!is_due(&[key(0, 1), key(86_000, 2)], 86_400, day));
        assert!(!is_due(&[], 86_400, day));
    }
}
