//! Single readings, one after the other; whole lives over many seeds are in tests/registry.

use std::time::Duration;

use super::{Entry, Judgement, Load, Mood, Nodes, Reach, Standing, Status, Terms};
use crate::ids::Micros;

const TERMS: Terms = Terms { lease: Duration::from_secs(8), nodes_max: 4 };

fn at(seconds: u64) -> Micros {
    Micros(seconds * 1_000_000)
}

fn node(id: &str, beat: u64) -> Entry {
    Entry {
        id: id.to_owned(),
        boot: None,
        status: Status::Running,
        heartbeat: beat.to_string(),
        beat_every: None,
        load: Some(Load { permille: 500 }),
        server: "shop".to_owned(),
        url: format!("http://{id}:1/mcp"),
        session_state: None,
        tools: None,
        journal: Vec::new(),
        version: None,
    }
}

fn read(nodes: &mut Nodes, entries: &[Entry], reach: Reach, seconds: u64) -> Judgement {
    nodes.read(TERMS, entries.to_vec(), |_| reach, at(seconds))
}

fn standings(nodes: &Nodes) -> Vec<(&str, Standing)> {
    nodes.alive().map(|alive| (alive.entry.id.as_str(), alive.standing)).collect()
}

/// Three nodes that were seen to beat at second 1; nodes of `silent` keep their heartbeat of then.
fn fleet(silent: &[&str], beat: u64) -> Vec<Entry> {
    ["a", "b", "c"].map(|id| node(id, if silent.contains(&id) { 1 } else { beat })).to_vec()
}

fn running() -> Nodes {
    let mut nodes = Nodes::default();
    read(&mut nodes, &fleet(&[], 0), Reach::Unknown, 0);
    read(&mut nodes, &fleet(&[], 1), Reach::Unknown, 1);
    nodes
}

#[test]
fn a_node_joins_with_its_first_reading_and_runs_with_its_next_heartbeat() {
    let mut nodes = Nodes::default();
    read(&mut nodes, &[node("a", 1)], Reach::Unknown, 0);
    assert_eq!(standings(&nodes), [("a", Standing::Joining)]);
    assert!(!Standing::Joining.takes_new_work(Reach::Unknown));
    assert!(Standing::Joining.takes_new_work(Reach::Reached));
    read(&mut nodes, &[node("a", 2)], Reach::Unknown, 1);
    assert_eq!(standings(&nodes), [("a", Standing::Running)]);
    assert!(Standing::Running.takes_new_work(Reach::Unknown));
}

#[test]
fn a_node_that_beats_seldom_and_says_so_has_four_of_its_beats() {
    let slow = |beat| Entry { beat_every: Some(Duration::from_secs(5)), ..node("slow", beat) };
    let mut nodes = running();
    let read_at = |nodes: &mut Nodes, second: u64| {
        let mut entries = fleet(&[], second);
        entries.push(slow(2));
        read(nodes, &entries, Reach::Reached, second);
        let found = standings(nodes).into_iter().find(|(id, _)| *id == "slow");
        found.map(|(_, standing)| standing)
    };
    for second in 2..=24 {
        let expected = match second {
            0..=17 => Some(Standing::Joining),
            18..=22 => Some(Standing::Suspect),
            _ => None,
        };
        assert_eq!(read_at(&mut nodes, second), expected, "second {second}");
    }
}

#[test]
fn missed_heartbeats_make_a_node_suspect_and_the_end_of_its_lease_makes_it_gone() {
    let mut nodes = running();
    for second in 2..=12 {
        let expected = match second {
            0..=7 => Some(Standing::Running),
            8 | 9 => Some(Standing::Suspect),
            _ => None,
        };
        read(&mut nodes, &fleet(&["a"], second), Reach::Reached, second);
        let found = standings(&nodes).into_iter().find(|(id, _)| *id == "a").map(|(_, standing)| standing);
        assert_eq!(found, expected, "second {second}");
    }
    read(&mut nodes, &fleet(&["a"], 20), Reach::Reached, 13);
    assert_eq!(standings(&nodes).len(), 2, "a dead entry that stays listed is no new node");
    read(&mut nodes, &fleet(&[], 21), Reach::Reached, 14);
    assert_eq!(standings(&nodes)[0], ("a", Standing::Joining), "a heartbeat is");
}

#[test]
fn a_clock_that_jumps_back_is_a_heartbeat_as_well() {
    let mut nodes = running();
    for (second, beat) in [(2, 5000), (4, 3), (6, 2), (8, 1)] {
        read(&mut nodes, &fleet(&[], beat), Reach::Unknown, second);
        assert!(standings(&nodes).iter().all(|(_, standing)| *standing == Standing::Running));
    }
}

#[test]
fn a_suspect_tells_no_load() {
    let mut nodes = running();
    (2..=8).for_each(|second| _ = read(&mut nodes, &fleet(&["a"], second), Reach::Reached, second));
    let loads: Vec<_> = nodes.alive().map(|alive| alive.load.is_some()).collect();
    assert_eq!(loads, [false, true, true]);
}

#[test]
fn when_most_fall_silent_at_once_they_stay_unless_probes_find_nobody() {
    let mut nodes = running();
    for second in 2..60 {
        let mood = read(&mut nodes, &fleet(&["a", "b"], second), Reach::Reached, second).mood;
        assert_eq!(mood == Mood::Glitch, second > 5, "second {second}");
        assert!(standings(&nodes).iter().all(|(_, standing)| *standing == Standing::Running));
    }
    assert!(nodes.alive().all(|alive| alive.load.is_none()));
    read(&mut nodes, &fleet(&["a", "b"], 60), Reach::Unreachable, 60);
    assert_eq!(standings(&nodes), [("c", Standing::Running)]);
}

#[test]
fn a_wiped_registry_changes_nothing_and_is_filled_again() {
    let mut nodes = running();
    for second in 2..30 {
        let mood = read(&mut nodes, &[], Reach::Reached, second).mood;
        assert_eq!(mood == Mood::Glitch, second > 5, "second {second}");
        assert_eq!(standings(&nodes).len(), 3);
    }
    read(&mut nodes, &fleet(&[], 99), Reach::Reached, 30);
    assert_eq!(read(&mut nodes, &fleet(&[], 100), Reach::Reached, 31).mood, Mood::Calm);
    assert!(standings(&nodes).iter().all(|(_, standing)| *standing == Standing::Running));
}

#[test]
fn while_the_store_is_away_no_lease_runs_out() {
    let mut nodes = running();
    nodes.away();
    read(&mut nodes, &fleet(&["a", "b", "c"], 0), Reach::Reached, 100);
    assert!(standings(&nodes).iter().all(|(_, standing)| *standing == Standing::Running));
}

#[test]
fn a_node_that_says_so_drains_and_leaves_at_once() {
    let mut nodes = running();
    let mut entries = fleet(&[], 2);
    entries[1].status = Status::Stopping;
    read(&mut nodes, &entries, Reach::Reached, 2);
    assert_eq!(standings(&nodes)[1], ("b", Standing::Stopping));
    entries.remove(1);
    read(&mut nodes, &entries, Reach::Reached, 3);
    assert_eq!(standings(&nodes).len(), 2);
}

#[test]
fn all_that_leave_politely_are_no_glitch() {
    let mut nodes = running();
    let mut entries = fleet(&[], 2);
    entries.iter_mut().for_each(|entry| entry.status = Status::Stopping);
    read(&mut nodes, &entries, Reach::Reached, 2);
    assert_eq!(read(&mut nodes, &[], Reach::Reached, 3).mood, Mood::Calm);
    assert!(standings(&nodes).is_empty());
}

#[test]
fn a_node_that_is_not_ready_gets_no_work() {
    let mut nodes = Nodes::default();
    let starting = |beat| Entry { status: Status::Starting, ..node("a", beat) };
    read(&mut nodes, &[starting(1)], Reach::Reached, 0);
    read(&mut nodes, &[starting(2)], Reach::Reached, 1);
    assert_eq!(standings(&nodes), [("a", Standing::Starting)]);
    assert!(!Standing::Starting.takes_new_work(Reach::Reached));
}

#[test]
fn a_new_boot_nonce_is_a_new_node() {
    let mut nodes = Nodes::default();
    let booted = |boot: &str, beat| Entry { boot: Some(boot.to_owned()), ..node("a", beat) };
    read(&mut nodes, &[booted("1", 1)], Reach::Reached, 0);
    read(&mut nodes, &[booted("1", 2)], Reach::Reached, 1);
    let before = nodes.alive().next().expect("a").entry.replica();
    read(&mut nodes, &[booted("2", 3)], Reach::Reached, 2);
    let after = nodes.alive().next().expect("a");
    assert_eq!((after.standing, after.joined), (Standing::Joining, at(2)));
    assert_ne!(after.entry.replica(), before);
}

#[test]
fn no_more_nodes_than_nodes_max_are_known() {
    let mut nodes = Nodes::default();
    let entries: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(|id| node(id, 1)).to_vec();
    assert_eq!(read(&mut nodes, &entries, Reach::Unknown, 0).over_max, 2);
    assert_eq!(nodes.alive().count(), 4);
    assert_eq!(
        read(&mut nodes, &entries[1..], Reach::Unknown, 1).over_max,
        2,
        "who is missing keeps its place"
    );
}
