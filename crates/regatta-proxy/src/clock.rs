//! The one clock of the data plane: monotonic microseconds for waits, wall seconds for what others must read.
//!
//! Rules never read it; they are given its values.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use regatta_policy::Micros;

/// Time since the gateway's start, and the date.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that began at `start`.
    pub fn start(start: Instant) -> Clock {
        Clock { start }
    }

    /// Microseconds since the start; never goes back.
    pub fn now(&self) -> Micros {
        Micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Seconds since 1970 by the wall clock; may jump.
    pub fn wall_seconds(&self) -> u32 {
        wall_seconds()
    }
}

/// Seconds since 1970 by the wall clock; may jump.
pub(crate) fn wall_seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
