//! Whole lives of a fleet of nodes, over many seeds: who is alive is never got wrong, whatever happens to the registry.
//!
//! A failure prints `seed=…`; `REGATTA_SEED=… cargo test -p regatta-policy --test registry` plays that one again.
//! Simulated time only, in steps of 100 ms.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use regatta_policy::ids::mix;
use regatta_policy::registry::{Entry, Nodes, Reach, Standing, Status, Terms};
use regatta_policy::{Micros, ReplicaId};

const TERMS: Terms = Terms { lease: Duration::from_secs(8), nodes_max: 100 };
/// Steps between two heartbeats of a node, and how long it stays listed after one.
const BEAT: u64 = 20;
const LISTED: u64 = 100;
/// Steps between two readings.
const POLL: u64 = 10;
/// Steps after which probes say that nobody is there.
const PROBED: u64 = 45;
/// Steps that a whole life takes, and after which all trouble is over.
const END: u64 = 900;
const CALM: u64 = 500;

#[allow(clippy::disallowed_methods, reason = "a test may be told a seed")]
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("REGATTA_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=count).collect(),
    }
}

/// The same numbers from the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % limit
    }

    /// A time of trouble that is over before `CALM`.
    fn spell(&mut self, longest: u64) -> Range<u64> {
        let from = 50 + self.below(CALM - 50 - longest);
        from..from + 1 + self.below(longest)
    }
}

/// What befalls one node.
#[derive(Clone, Debug)]
enum Fate {
    Lives,
    /// Killed, for good.
    Dies {
        at: u64,
    },
    /// Says that it leaves, and does so 30 steps later.
    Leaves {
        at: u64,
    },
    /// Killed, and back under a new boot nonce.
    Restarts {
        at: u64,
        back: u64,
    },
    /// Its wall clock jumps.
    Jumps {
        at: u64,
        by: i64,
    },
}

/// What befalls the registry.
#[derive(Clone, Debug)]
enum Trouble {
    None,
    /// It cannot be read, and takes no heartbeats.
    Away(Range<u64>),
    /// It was wiped, and takes heartbeats again after the spell.
    Wiped(Range<u64>),
    /// It shows old heartbeats.
    Frozen(Range<u64>),
    /// The gateway itself stood still.
    Asleep(Range<u64>),
}

struct Node {
    id: String,
    fate: Fate,
    boot: u64,
    phase: u64,
}

impl Node {
    fn is_up(&self, step: u64) -> bool {
        match self.fate {
            Fate::Lives | Fate::Jumps { .. } => true,
            Fate::Dies { at } => step < at,
            Fate::Leaves { at } => step < at + 30,
            Fate::Restarts { at, back } => step < at || back <= step,
        }
    }

    fn is_stopping(&self, step: u64) -> bool {
        matches!(self.fate, Fate::Leaves { at } if at <= step)
    }

    fn entry(&self, step: u64) -> Entry {
        let jump = match self.fate {
            Fate::Jumps { at, by } if at <= step => by,
            _ => 0,
        };
        let boot = match self.fate {
            Fate::Restarts { back, .. } if back <= step => self.boot + 1,
            _ => self.boot,
        };
        Entry {
            id: self.id.clone(),
            boot: Some(boot.to_string()),
            status: if self.is_stopping(step) { Status::Stopping } else { Status::Running },
            heartbeat: (1_764_000_000 + step as i64 / 10 + jump).to_string(),
            beat_every: None,
            load: None,
            server: "shop".to_owned(),
            url: format!("http://{}:1/mcp", self.id),
            session_state: None,
            tools: None,
            journal: Vec::new(),
            version: None,
        }
    }
}

/// One life: the fleet, its registry, and the gateway that reads it.
struct World {
    seed: u64,
    fleet: Vec<Node>,
    trouble: Trouble,
    listed: BTreeMap<String, (u64, Entry)>,
    nodes: Nodes,
}

impl World {
    fn new(seed: u64, fates: Vec<Fate>, trouble: Trouble, dice: &mut Dice) -> World {
        let node =
            |(n, fate)| Node { id: format!("n{n}"), fate, boot: 10 * n as u64, phase: dice.below(BEAT) };
        let fleet = fates.into_iter().enumerate().map(node).collect();
        World { seed, fleet, trouble, listed: BTreeMap::new(), nodes: Nodes::default() }
    }

    fn run(mut self) {
        for step in 0..END {
            self.beat(step);
            if step % POLL == 3 {
                self.read(step);
                self.check(step);
            }
        }
    }

    fn beat(&mut self, step: u64) {
        self.listed.retain(|_, (at, _)| step < *at + LISTED);
        match &self.trouble {
            Trouble::Wiped(spell) if spell.contains(&step) => return self.listed.clear(),
            Trouble::Away(spell) | Trouble::Frozen(spell) if spell.contains(&step) => return,
            Trouble::None
            | Trouble::Away(_)
            | Trouble::Wiped(_)
            | Trouble::Frozen(_)
            | Trouble::Asleep(_) => {}
        }
        for node in &self.fleet {
            if matches!(node.fate, Fate::Leaves { at } if step == at + 30) {
                self.listed.remove(&node.id);
            }
            if node.is_up(step) && step % BEAT == node.phase {
                self.listed.insert(node.id.clone(), (step, node.entry(step)));
            }
        }
    }

    fn read(&mut self, step: u64) {
        match &self.trouble {
            Trouble::Away(spell) if spell.contains(&step) => return self.nodes.away(),
            Trouble::Asleep(spell) if spell.contains(&step) => return,
            Trouble::None
            | Trouble::Away(_)
            | Trouble::Wiped(_)
            | Trouble::Frozen(_)
            | Trouble::Asleep(_) => {}
        }
        let entries: Vec<Entry> = self.listed.values().map(|(_, entry)| entry.clone()).collect();
        let dead: Vec<ReplicaId> = self
            .fleet
            .iter()
            .filter(|node| !node.is_up(step) && !node.is_up(step.saturating_sub(PROBED)))
            .map(|node| node.entry(0).replica())
            .collect();
        let reach = |id| if dead.contains(&id) { Reach::Unreachable } else { Reach::Reached };
        self.nodes.read(TERMS, entries, reach, Micros(step * 100_000));
    }

    fn standing(&self, node: &Node) -> Option<Standing> {
        self.nodes.alive().find(|alive| alive.entry.id == node.id).map(|alive| alive.standing)
    }

    /// What must hold at every reading.
    fn check(&self, step: u64) {
        let seed = self.seed;
        for node in &self.fleet {
            let standing = self.standing(node);
            match node.fate {
                // Known from its first heartbeat on, and its work is never taken away.
                Fate::Lives | Fate::Jumps { .. } if step >= BEAT + POLL => {
                    let takes = standing.is_some_and(|standing| standing.takes_new_work(Reach::Reached));
                    assert!(takes, "seed={seed} step={step}: {} is {standing:?}", node.id);
                }
                Fate::Lives | Fate::Jumps { .. } => {}
                Fate::Dies { at } | Fate::Leaves { at } => {
                    // The longest way: all but the last words, a lease, and the trouble in between.
                    let over = CALM.max(at) + 200;
                    assert!(step < over || standing.is_none(), "seed={seed} step={step}: {} stays", node.id);
                }
                Fate::Restarts { back, .. } => {
                    let well = standing == Some(Standing::Running);
                    let due = CALM.max(back) + 2 * BEAT + POLL;
                    assert!(step < due || well, "seed={seed} step={step}: {} is {standing:?}", node.id);
                }
            }
        }
    }
}

fn fate(dice: &mut Dice) -> Fate {
    let at = 50 + dice.below(CALM - 150);
    match dice.below(8) {
        0 | 1 => Fate::Dies { at },
        2 => Fate::Leaves { at },
        3 => Fate::Restarts { at, back: at + 1 + dice.below(150) },
        4 => Fate::Jumps { at, by: if dice.below(2) == 0 { 3600 } else { -3600 } },
        _ => Fate::Lives,
    }
}

#[test]
fn who_lives_works_and_who_died_is_gone_whatever_becomes_of_the_registry() {
    for seed in seeds(2000) {
        let mut dice = Dice(seed);
        let fates = (0..1 + dice.below(8)).map(|_| fate(&mut dice)).collect();
        let trouble = match dice.below(5) {
            0 => Trouble::Away(dice.spell(250)),
            1 => Trouble::Wiped(dice.spell(250)),
            2 => Trouble::Asleep(dice.spell(250)),
            _ => Trouble::None,
        };
        World::new(seed, fates, trouble, &mut dice).run();
    }
}

#[test]
fn a_registry_that_shows_old_heartbeats_takes_no_work_from_anybody() {
    for seed in seeds(500) {
        let mut dice = Dice(seed);
        let fates = vec![Fate::Lives; 1 + dice.below(8) as usize];
        let trouble = Trouble::Frozen(dice.spell(250));
        World::new(seed, fates, trouble, &mut dice).run();
    }
}

/// The bound that the documents promise: lease, one heartbeat and one reading.
#[test]
fn a_node_that_dies_alone_is_gone_within_its_lease_and_a_reading() {
    for seed in seeds(500) {
        let mut dice = Dice(seed);
        let at = 50 + dice.below(300);
        let mut fates = vec![Fate::Lives; 1 + dice.below(7) as usize];
        fates.push(Fate::Dies { at });
        let mut world = World::new(seed, fates, Trouble::None, &mut dice);
        let mut gone = None;
        for step in 0..END {
            world.beat(step);
            if step % POLL == 3 {
                world.read(step);
                let dead = world.fleet.last().expect("two at least");
                if step > at && world.standing(dead).is_none() {
                    gone = gone.or(Some(step));
                }
            }
        }
        let gone = gone.unwrap_or(END);
        assert!(gone <= at + 80 + 2 * POLL, "seed={seed}: died at {at}, gone at {gone}");
    }
}
