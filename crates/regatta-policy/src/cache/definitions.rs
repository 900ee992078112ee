//! Under which definition of a tool a result was made: part of its key, so that what a tool gave by an older schema is
//! never given out for a newer one (RELIABILITY T22).
//!
//! Nothing here depends on the order in which replicas were asked, so every gateway that saw the same definitions has the
//! same number, and finds what the others kept.

use std::collections::BTreeMap;

use crate::ids::{ReplicaId, stable_hash};

/// What is not known, because nobody could read the list or the definition.
const UNKNOWN: u64 = 0;

/// Digests of one replica's definitions, by tool.
pub type Digests = BTreeMap<String, u64>;

/// The definitions of the tools whose results are kept, as all replicas of a server give them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definitions {
    tools: BTreeMap<String, Definition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Definition {
    /// Of all that are given.
    all: u64,
    /// Which replica gives which; empty where all give the same.
    given: Vec<(ReplicaId, u64)>,
}

impl Definitions {
    /// What `replicas` give, of the tools that `is_kept` names.
    pub fn sum<'a>(
        replicas: impl Iterator<Item = (ReplicaId, &'a Digests)>,
        is_kept: impl Fn(&str) -> bool,
    ) -> Definitions {
        let mut tools: BTreeMap<String, Definition> = BTreeMap::new();
        for (replica, digests) in replicas {
            for (tool, digest) in digests.iter().filter(|(tool, _)| is_kept(tool)) {
                tools.entry(tool.clone()).or_default().given.push((replica, *digest));
            }
        }
        tools.values_mut().for_each(Definition::settle);
        Definitions { tools }
    }

    /// The number of `tool`'s definition for a call that is bound to the replica `home`, or to none; zero if nobody knows.
    ///
    /// While replicas differ, as in the middle of a roll-out, an unbound call may be answered by any of them: what it
    /// brings is kept under a number of its own, and not found before or after.
    pub fn of(&self, tool: &str, home: Option<ReplicaId>) -> u64 {
        let Some(definition) = self.tools.get(tool) else { return UNKNOWN };
        let at_home = definition.given.iter().find(|(replica, _)| Some(*replica) == home);
        at_home.map_or(definition.all, |(_, digest)| *digest)
    }
}

impl Definition {
    fn settle(&mut self) {
        let mut different: Vec<u64> = self.given.iter().map(|(_, digest)| *digest).collect();
        different.sort_unstable();
        different.dedup();
        self.all = match different[..] {
            [] => UNKNOWN,
            [only] => only,
            [..] => {
                let bytes: Vec<[u8; 8]> = different.iter().map(|digest| digest.to_be_bytes()).collect();
                stable_hash(&bytes.iter().map(|digest| &digest[..]).collect::<Vec<_>>())
            }
        };
        if different.len() < 2 {
            self.given.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(number: u64) -> ReplicaId {
        ReplicaId(number.to_be_bytes())
    }

    fn sum(replicas: &[(u64, &[(&str, u64)])]) -> Definitions {
        let replicas: Vec<(ReplicaId, Digests)> = replicas
            .iter()
            .map(|(id, tools)| {
                (id_of(*id), tools.iter().map(|(tool, digest)| ((*tool).to_owned(), *digest)).collect())
            })
            .collect();
        Definitions::sum(replicas.iter().map(|(id, digests)| (*id, digests)), |tool| tool != "unkept")
    }

    #[test]
    fn another_definition_is_another_number_and_an_unknown_one_is_zero() {
        let one = sum(&[(1, &[("get", 7), ("unkept", 9)])]);
        assert_eq!((one.of("get", None), one.of("get", Some(id_of(1)))), (7, 7));
        assert_eq!((one.of("unkept", None), one.of("absent", None)), (UNKNOWN, UNKNOWN));
        assert_ne!(sum(&[(1, &[("get", 8)])]).of("get", None), one.of("get", None));
        assert_eq!(Definitions::default().of("get", None), UNKNOWN);
    }

    #[test]
    fn replicas_that_agree_are_like_one_whoever_they_are() {
        let many = sum(&[(1, &[("get", 7)]), (2, &[("get", 7)]), (3, &[])]);
        assert_eq!(many, sum(&[(9, &[("get", 7)])]));
    }

    #[test]
    fn while_replicas_differ_each_counts_for_its_own_sessions_and_all_of_them_for_who_has_none() {
        let mixed = sum(&[(1, &[("get", 7)]), (2, &[("get", 8)])]);
        let at = |replica: u64| mixed.of("get", Some(id_of(replica)));
        assert_eq!((at(1), at(2)), (7, 8));
        let unbound = mixed.of("get", None);
        assert!(unbound != 7 && unbound != 8 && unbound != UNKNOWN, "{unbound}");
        assert_eq!(at(3), unbound, "a home without the tool: another replica answers");
        let other_order = sum(&[(5, &[("get", 8)]), (4, &[("get", 7)]), (6, &[("get", 7)])]);
        assert_eq!(other_order.of("get", None), unbound);
    }
}
