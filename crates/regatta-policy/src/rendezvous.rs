//! Rendezvous hashing: every key ranks all replicas, and the highest rank that can serve is taken.
//!
//! Highest random weight (Thaler and Ravishankar, 1998). The same in every gateway, whatever the order of the
//! list; when a replica leaves, only its own keys move, and when it returns, exactly they come back.

use std::cmp::Reverse;

use crate::ids::{ReplicaId, mix};

/// The rank of `id` for `key`; the highest wins.
pub fn weight(key: u64, id: ReplicaId) -> u64 {
    // Both sides are mixed before they meet: neither keys nor ids need to be random of themselves.
    mix(mix(key.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ mix(u64::from_be_bytes(id.0)))
}

/// The index of the first choice of `key` among `ids`, or `None` if there are none.
pub fn choose(key: u64, ids: impl IntoIterator<Item = ReplicaId>) -> Option<usize> {
    let ranked = ids.into_iter().enumerate().map(|(index, id)| ((weight(key, id), id), index));
    ranked.max_by_key(|&(rank, _)| rank).map(|(_, index)| index)
}

/// All indices of `ids`, first choice of `key` first: the order in which a re-homing tries them (SESSIONS 4).
pub fn ranking(key: u64, ids: &[ReplicaId]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by_key(|&index| Reverse((weight(key, ids[index]), ids[index])));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replicas(count: usize) -> Vec<ReplicaId> {
        (0..count).map(|n| ReplicaId::of("shop", &format!("http://127.0.0.1:{}/mcp", 3000 + n))).collect()
    }

    #[test]
    fn nobody_is_chosen_among_none() {
        assert_eq!(choose(7, []), None);
        assert!(ranking(7, &[]).is_empty());
    }

    #[test]
    fn keys_spread_evenly() {
        let ids = replicas(5);
        let mut shares = [0u32; 5];
        (0..10_000).for_each(|key| shares[choose(key, ids.iter().copied()).expect("five")] += 1);
        assert!(shares.iter().all(|&share| (1800..2200).contains(&share)), "{shares:?}");
    }

    proptest! {
        #[test]
        fn only_the_keys_of_the_one_that_left_move(count in 2usize..20, gone in any::<prop::sample::Index>(), key in any::<u64>()) {
            let all = replicas(count);
            let gone = all[gone.index(count)];
            let rest: Vec<ReplicaId> = all.iter().copied().filter(|&id| id != gone).collect();
            let before = all[choose(key, all.iter().copied()).expect("some")];
            let after = rest[choose(key, rest.iter().copied()).expect("some")];
            if before == gone {
                prop_assert_eq!(after, all[ranking(key, &all)[1]]);
            } else {
                prop_assert_eq!(after, before);
            }
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(count in 1usize..20, key in any::<u64>()) {
            let there = replicas(count);
            let back: Vec<ReplicaId> = there.iter().rev().copied().collect();
            let one = there[choose(key, there.iter().copied()).expect("some")];
            prop_assert_eq!(one, back[choose(key, back.iter().copied()).expect("some")]);
            prop_assert_eq!(one, there[ranking(key, &there)[0]]);
        }
    }
}
