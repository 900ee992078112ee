//! Whether a principal may hold one more of something that stays: a stream, a detached call.
//!
//! Pure: two counts and two bounds in, a verdict out. Never counts by itself; the caller raises both counters
//! together with the verdict and lowers them when the thing's body is dropped.

/// How many are held already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// By this principal.
    pub own: usize,
    /// By all principals together.
    pub all: usize,
}

/// How many may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// By one principal.
    pub own_max: usize,
    /// By all principals together.
    pub all_max: usize,
}

/// What becomes of one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Count it.
    Granted,
    /// The principal used its share: *limited* (429), the others are not disturbed.
    Limited,
    /// The gateway is full: *shed* (503), whoever asks.
    Shed,
}

/// Whether one more may be held. A principal over its own share hears so even when the gateway is full too:
/// waiting for others would not help it.
pub fn judge(held: Held, bounds: Bounds) -> Verdict {
    if held.own >= bounds.own_max {
        Verdict::Limited
    } else if held.all >= bounds.all_max {
        Verdict::Shed
    } else {
        Verdict::Granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_principal_never_takes_the_place_of_all() {
        let bounds = Bounds { own_max: 2, all_max: 3 };
        for (own, all, verdict) in [
            (0, 0, Verdict::Granted),
            (1, 2, Verdict::Granted),
            (2, 2, Verdict::Limited),
            (0, 3, Verdict::Shed),
            (2, 3, Verdict::Limited),
            (9, 9, Verdict::Limited),
        ] {
            assert_eq!(judge(Held { own, all }, bounds), verdict, "own {own}, all {all}");
        }
    }
}
