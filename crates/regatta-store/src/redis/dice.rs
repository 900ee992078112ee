//! Chance and the calendar: pauses that do not fall together, names that are never used twice, and since when.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970, to be shown to people.
pub(super) fn wall_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The library's own generator fails only where the system has none, and then nothing here is safe.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        std::process::abort();
    }
    bytes
}

/// From the half of a pause to the whole of it.
pub(super) fn jittered(pause: Duration) -> Duration {
    let [byte] = random::<1>();
    pause / 2 + pause / 2 * u32::from(byte) / 255
}
