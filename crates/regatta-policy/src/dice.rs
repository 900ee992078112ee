//! What is made of a roll: an even number below a bound.
//!
//! The crate throws no dice of its own. Callers hand in 64 random bits, and a rule that needs several
//! independent numbers takes each for a different `purpose` from the same bits, so a decision is repeatable.

use crate::ids::mix;

/// An even number in `0..bound` out of `dice`; zero if `bound` is zero. Different purposes give independent numbers.
pub fn below(dice: u64, purpose: u64, bound: u64) -> u64 {
    let word = mix(dice.wrapping_add(purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    // Lemire's multiply-shift: no division, and a bias under bound / 2^64.
    ((u128::from(word) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn stays_below_the_bound_and_reaches_every_number() {
        let mut seen = [0u32; 7];
        (0..7_000).for_each(|dice| seen[below(dice, 1, 7) as usize] += 1);
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
        assert_eq!(below(42, 0, 0), 0);
    }

    #[test]
    fn purposes_are_independent() {
        let same = (0..10_000).filter(|&dice| below(dice, 1, 10) == below(dice, 2, 10)).count();
        assert!((800..1200).contains(&same), "{same}");
    }
}
