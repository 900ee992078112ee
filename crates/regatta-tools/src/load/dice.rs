//! Seeded dice: the same seed gives the same arrivals on every machine (RELIABILITY D, method rules).

use std::time::Duration;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same `seed`.
    pub fn seeded(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Uniform in (0, 1].
    pub fn unit(&mut self) -> f64 {
        ((self.word() >> 11) as f64 + 1.0) / (1u64 << 53) as f64
    }

    /// The pause before the next arrival of a Poisson process with `rate` arrivals a second.
    pub fn pause(&mut self, rate: f64) -> Duration {
        Duration::from_secs_f64(-self.unit().ln() / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_have_the_mean_of_the_rate() {
        let mut dice = Dice::seeded(7);
        let total: Duration = (0..100_000).map(|_| dice.pause(2000.0)).sum();
        let mean_us = total.as_secs_f64() * 1e6 / 100_000.0;
        assert!((490.0..510.0).contains(&mean_us), "{mean_us}");
    }
}
