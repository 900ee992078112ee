//! Which replica an unbound request goes to.
//!
//! Pure: candidates and facts in, an index out. Counts nothing, throws no dice, remembers nothing between
//! requests; runs on each request, so it walks the list three times at most and allocates nothing.
//! Sits in *route*; a bound request never comes here.

use std::time::Duration;

use crate::dice;
use crate::ids::{ReplicaId, mix};
use crate::registry::Load;
use crate::rendezvous;
use crate::snapshot::Balance;

/// How long a new replica's share grows from [`WEIGHT_NEW`] to the whole.
pub const SLOW_START: Duration = Duration::from_secs(10);
/// The share of a replica that has just begun to serve, of [`WEIGHT_WHOLE`].
pub const WEIGHT_NEW: u64 = 100;
/// The share of a replica that has served for [`SLOW_START`].
pub const WEIGHT_WHOLE: u64 = 1000;

/// A report of more counts as this much: a full replica is avoided, not shut.
const PERMILLE_MAX: u64 = 950;

/// One replica, as seen at the moment of the choice.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Which replica.
    pub id: ReplicaId,
    /// Requests that this gateway has in flight there.
    pub in_flight: u32,
    /// Average latency in microseconds ([`crate::ewma::Ewma::read_us`]); 0 for unknown, treated as the mean.
    pub ewma_us: u64,
    /// The load it reports of itself, of all gateways together; unknown is treated as the mean.
    pub load: Option<Load>,
    /// How long ago it began (or began again) to serve.
    pub age: Duration,
    /// Whether it may be chosen.
    pub standing: Standing,
}

/// What is known against a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Good,
    /// Put aside by observed failures ([`crate::eject`]).
    Ejected,
    /// Failed its active probes.
    Unhealthy,
    /// Takes no new work.
    Draining,
}

/// What the rules decide by, besides the candidates.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// A number that rises by one with every choice for this server.
    pub turn: u64,
    /// 64 random bits.
    pub dice: u64,
    /// Hash of what a sticky rule sticks to, such as the client's address.
    pub key: u64,
}

/// The index of the replica to send a new request to, or `None` if nobody may be chosen.
///
/// A replica that this request was already tried at is left out of `candidates` by the caller.
pub fn choose(rule: Balance, candidates: &[Candidate], facts: Facts) -> Option<usize> {
    let round = Round::open(rule, candidates, facts)?;
    match rule {
        Balance::RoundRobin => round.nth(facts.turn % round.count),
        Balance::LeastConnections => least_connections(&round, facts.dice),
        Balance::LeastLoad => least_load(&round, facts.dice),
        Balance::StickyIp => sticky(&round, facts.key),
    }
}

/// Who takes part in one choice.
struct Round<'a> {
    candidates: &'a [Candidate],
    door: Door,
    /// Candidates with less weight than this sit this round out.
    threshold: u64,
    /// How many take part; never zero.
    count: u64,
}

/// Which standings are let in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    GoodOnly,
    /// Panic: so many look bad that the fault is more likely ours than theirs.
    AllButDraining,
}

impl<'a> Round<'a> {
    /// Works out who takes part, or `None` if nobody may.
    ///
    /// Slow start is one roll for the whole round: who has weight *w* of the greatest weight *m* takes part in
    /// *w/m* of the rounds, whatever the rule. The heaviest always takes part, so replicas that are equally new
    /// are treated alike, and a round is never empty.
    fn open(rule: Balance, candidates: &'a [Candidate], facts: Facts) -> Option<Round<'a>> {
        let door = door(candidates);
        let mut round = Round { candidates, door, threshold: 0, count: 0 };
        let heaviest = round.all().map(|(_, candidate)| weight(candidate.age)).max()?;
        let roll = match rule {
            // A sticky key is its own dice: it moves once while a new replica warms up, not with each request.
            Balance::StickyIp => facts.key,
            Balance::RoundRobin | Balance::LeastConnections | Balance::LeastLoad => facts.dice,
        };
        round.threshold = 1 + dice::below(roll, 1, heaviest);
        round.count = round.all().count() as u64;
        Some(round)
    }

    /// Those who take part, with their index in the caller's list.
    fn all(&self) -> impl Iterator<Item = (usize, &'a Candidate)> + '_ {
        self.candidates.iter().enumerate().filter(|(_, candidate)| {
            admits(self.door, candidate.standing) && weight(candidate.age) >= self.threshold
        })
    }

    /// The index of the `n`th that takes part, from zero.
    fn nth(&self, n: u64) -> Option<usize> {
        self.all().nth(n as usize).map(|(index, _)| index)
    }
}

/// Panic mode: when more than half of those that do not drain look bad, all of them are let in.
fn door(candidates: &[Candidate]) -> Door {
    let (mut good, mut bad) = (0usize, 0usize);
    for candidate in candidates {
        match candidate.standing {
            Standing::Good => good += 1,
            Standing::Ejected | Standing::Unhealthy => bad += 1,
            Standing::Draining => {}
        }
    }
    if bad > good { Door::AllButDraining } else { Door::GoodOnly }
}

fn admits(door: Door, standing: Standing) -> bool {
    match standing {
        Standing::Good => true,
        Standing::Ejected | Standing::Unhealthy => door == Door::AllButDraining,
        Standing::Draining => false,
    }
}

/// The weight of a replica that serves for `age`: [`WEIGHT_NEW`] rising in a line to [`WEIGHT_WHOLE`].
fn weight(age: Duration) -> u64 {
    if age >= SLOW_START {
        return WEIGHT_WHOLE;
    }
    let (age, whole) = (age.as_micros() as u64, SLOW_START.as_micros() as u64);
    WEIGHT_NEW + (WEIGHT_WHOLE - WEIGHT_NEW) * age / whole
}

/// What is in flight is divided by the weight: a new replica that is idle would otherwise win every round it
/// takes part in, and have its whole share long before it is warm.
fn least_connections(round: &Round<'_>, dice: u64) -> Option<usize> {
    let load = |candidate: &Candidate| u64::from(candidate.in_flight) * WEIGHT_WHOLE / weight(candidate.age);
    let least = round.all().map(|(_, candidate)| load(candidate)).min()?;
    let tied = || round.all().filter(|(_, candidate)| load(candidate) == least);
    let winner = dice::below(dice, 2, tied().count() as u64);
    tied().nth(winner as usize).map(|(index, _)| index)
}

/// Power of two choices (Mitzenmacher, 2001): two at random, the cheaper one wins. Better than the cheapest of
/// all, because many gateways with the same stale view would all run to that one.
fn least_load(round: &Round<'_>, dice: u64) -> Option<usize> {
    if round.count == 1 {
        return round.nth(0);
    }
    let first = dice::below(dice, 2, round.count);
    let second = (first + 1 + dice::below(dice, 3, round.count - 1)) % round.count;
    let (first, second) = (round.nth(first)?, round.nth(second)?);
    let (mean_us, mean_permille) = (mean_ewma_us(round), mean_permille(round));
    let cost = |index: usize| cost(&round.candidates[index], mean_us, mean_permille);
    // A tie goes to the first, which is as random as the second.
    Some(if cost(second) < cost(first) { second } else { first })
}

/// Expected wait of one more request, in request-microseconds. The load that a replica reports stretches it as a
/// queue does: half loaded waits twice as long as idle, and nearly full is avoided however fast it was.
fn cost(candidate: &Candidate, mean_us: u64, mean_permille: u64) -> u64 {
    let ewma_us = if candidate.ewma_us == 0 { mean_us } else { candidate.ewma_us };
    let permille = candidate.load.map_or(mean_permille, |load| u64::from(load.permille));
    let room = 1000 - permille.min(PERMILLE_MAX);
    (u64::from(candidate.in_flight) + 1).saturating_mul(ewma_us).saturating_mul(1000) / room
}

/// The mean of the reported loads, 0 if nobody reports one.
fn mean_permille(round: &Round<'_>) -> u64 {
    let (mut sum, mut known) = (0u64, 0u64);
    for load in round.all().filter_map(|(_, candidate)| candidate.load) {
        (sum, known) = (sum + u64::from(load.permille), known + 1);
    }
    sum.checked_div(known).unwrap_or(0)
}

/// The mean of the known averages, at least 1.
fn mean_ewma_us(round: &Round<'_>) -> u64 {
    let (mut sum, mut known) = (0u64, 0u64);
    for (_, candidate) in round.all() {
        if candidate.ewma_us > 0 {
            sum = sum.saturating_add(candidate.ewma_us);
            known += 1;
        }
    }
    sum.checked_div(known).unwrap_or(1).max(1)
}

/// The first choice of the key among those who take part: one that cannot serve is passed over by the ranking.
fn sticky(round: &Round<'_>, key: u64) -> Option<usize> {
    let nth = rendezvous::choose(mix(key), round.all().map(|(_, candidate)| candidate.id))?;
    round.nth(nth as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [Balance; 4] =
        [Balance::RoundRobin, Balance::LeastConnections, Balance::LeastLoad, Balance::StickyIp];

    fn good(n: usize) -> Candidate {
        let id = ReplicaId::of("shop", &format!("http://127.0.0.1:{}/mcp", 3000 + n));
        Candidate { id, in_flight: 0, ewma_us: 1000, load: None, age: SLOW_START, standing: Standing::Good }
    }

    fn fleet(count: usize) -> Vec<Candidate> {
        (0..count).map(good).collect()
    }

    fn facts(n: u64) -> Facts {
        Facts { turn: n, dice: mix(n + 1), key: mix(n + 7) }
    }

    /// How often each of `candidates` is chosen in `rounds` choices.
    fn shares(rule: Balance, candidates: &[Candidate], rounds: u64) -> Vec<u64> {
        let mut shares = vec![0; candidates.len()];
        for n in 0..rounds {
            shares[choose(rule, candidates, facts(n)).expect("somebody may be chosen")] += 1;
        }
        shares
    }

    #[test]
    fn nobody_is_chosen_among_none_or_among_the_draining() {
        let mut draining = fleet(2);
        draining.iter_mut().for_each(|candidate| candidate.standing = Standing::Draining);
        for rule in RULES {
            assert_eq!(choose(rule, &[], facts(1)), None);
            assert_eq!(choose(rule, &draining, facts(1)), None);
        }
    }

    #[test]
    fn every_rule_spreads_over_equal_replicas() {
        for rule in RULES {
            let shares = shares(rule, &fleet(5), 10_000);
            assert!(shares.iter().all(|share| (1800..2200).contains(share)), "{rule:?} {shares:?}");
        }
    }

    #[test]
    fn who_is_not_good_gets_nothing_under_any_rule() {
        for rule in RULES {
            for standing in [Standing::Ejected, Standing::Unhealthy, Standing::Draining] {
                let mut fleet = fleet(3);
                fleet[1].standing = standing;
                assert_eq!(shares(rule, &fleet, 1000)[1], 0, "{rule:?} {standing:?}");
            }
        }
    }

    #[test]
    fn panics_when_more_than_half_of_those_that_do_not_drain_look_bad() {
        let mut fleet = fleet(5);
        fleet[4].standing = Standing::Draining;
        fleet[0].standing = Standing::Ejected;
        fleet[1].standing = Standing::Unhealthy;
        assert_eq!(
            shares(Balance::RoundRobin, &fleet, 1000),
            [0, 0, 500, 500, 0],
            "half is not more than half"
        );
        fleet[2].standing = Standing::Unhealthy;
        assert_eq!(shares(Balance::RoundRobin, &fleet, 1000), [250, 250, 250, 250, 0]);
    }

    #[test]
    fn round_robin_takes_turns() {
        let order: Vec<_> = (0..6)
            .map(|turn| choose(Balance::RoundRobin, &fleet(3), Facts { turn, dice: 9, key: 0 }))
            .collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2].map(Some));
    }

    #[test]
    fn least_connections_takes_the_idlest_and_breaks_ties_by_dice() {
        let mut fleet = fleet(3);
        fleet[0].in_flight = 1;
        let shares = shares(Balance::LeastConnections, &fleet, 2000);
        assert_eq!(shares[0], 0);
        assert!((900..1100).contains(&shares[1]), "{shares:?}");
    }

    #[test]
    fn least_load_weighs_latency_and_what_is_in_flight() {
        let mut two = fleet(2);
        two[0].ewma_us = 10_000;
        assert_eq!(shares(Balance::LeastLoad, &two, 100), [0, 100]);
        two[1].in_flight = 10;
        assert_eq!(
            shares(Balance::LeastLoad, &two, 100),
            [100, 0],
            "ten waiting on the fast one take longer"
        );
    }

    #[test]
    fn least_load_treats_an_unknown_latency_as_the_mean() {
        let mut three = fleet(3);
        (three[0].ewma_us, three[1].ewma_us, three[2].ewma_us) = (1000, 0, 3000);
        let shares = shares(Balance::LeastLoad, &three, 3000);
        assert!(shares[0] > shares[1] && shares[1] > shares[2], "{shares:?}");
    }

    #[test]
    fn least_load_weighs_what_replicas_report_of_themselves() {
        let load = |permille| Some(Load { permille });
        let mut two = fleet(2);
        (two[0].load, two[1].load) = (load(900), load(100));
        assert_eq!(shares(Balance::LeastLoad, &two, 100), [0, 100]);
        two[1].in_flight = 10;
        assert_eq!(
            shares(Balance::LeastLoad, &two, 100),
            [100, 0],
            "what is in flight is newer than a report"
        );
        let mut three = fleet(3);
        (three[0].load, three[2].load) = (load(100), load(900));
        let shares = shares(Balance::LeastLoad, &three, 3000);
        assert!(shares[0] > shares[1] && shares[1] > shares[2], "unknown is the mean: {shares:?}");
    }

    #[test]
    fn least_load_survives_extreme_numbers() {
        let mut two = fleet(2);
        (two[0].ewma_us, two[0].in_flight) = (u64::MAX, u32::MAX);
        (two[1].ewma_us, two[1].in_flight) = (u64::MAX, u32::MAX);
        assert!(choose(Balance::LeastLoad, &two, facts(3)).is_some());
    }

    #[test]
    fn a_sticky_key_stays_and_falls_to_the_next_while_its_replica_is_bad() {
        let mut fleet = fleet(4);
        let home = choose(Balance::StickyIp, &fleet, facts(1)).expect("four");
        for n in 0..100 {
            let again = Facts { turn: n, dice: mix(n), key: facts(1).key };
            assert_eq!(choose(Balance::StickyIp, &fleet, again), Some(home));
        }
        fleet[home].standing = Standing::Ejected;
        let next = choose(Balance::StickyIp, &fleet, facts(1)).expect("three");
        assert_ne!(next, home);
        fleet[home].standing = Standing::Good;
        assert_eq!(choose(Balance::StickyIp, &fleet, facts(1)), Some(home));
    }

    #[test]
    fn a_new_replica_starts_slowly_under_every_rule() {
        for rule in RULES {
            let mut fleet = fleet(4);
            fleet[3].age = Duration::ZERO;
            let fresh = shares(rule, &fleet, 10_000)[3];
            fleet[3].age = SLOW_START / 2;
            let half = shares(rule, &fleet, 10_000)[3];
            // The rules that look at load give it 10 % of the rounds and, when all are idle, its fair share of them.
            assert!((150..400).contains(&fresh), "{rule:?} {fresh}");
            assert!((1100..1700).contains(&half), "{rule:?} {half}");
        }
    }

    #[test]
    fn equally_new_replicas_do_not_hold_back() {
        for rule in RULES {
            let mut fleet = fleet(4);
            fleet.iter_mut().for_each(|candidate| candidate.age = Duration::from_millis(3));
            let shares = shares(rule, &fleet, 10_000);
            assert!(shares.iter().all(|share| (2250..2750).contains(share)), "{rule:?} {shares:?}");
        }
    }

    #[test]
    fn a_sticky_key_moves_once_while_a_new_replica_warms_up() {
        let mut fleet = fleet(3);
        for key in 0..200 {
            let mut homes: Vec<usize> = (0..=100)
                .filter_map(|percent| {
                    fleet[2].age = SLOW_START * percent / 100;
                    choose(Balance::StickyIp, &fleet, Facts { turn: 0, dice: 0, key: mix(key) })
                })
                .collect();
            homes.dedup();
            assert!(homes.len() <= 2, "{homes:?}");
        }
    }
}
