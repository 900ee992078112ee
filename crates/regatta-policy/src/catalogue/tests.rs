//! Replicas that differ, restart, rename their tools, are lost and come back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Catalogue, Coverage, Facts, Known, Spread, Union};
use crate::ids::{Micros, ReplicaId};
use crate::snapshot::Eras;

type Has = BTreeMap<String, Option<Arc<str>>>;

const KEPT: Duration = Duration::from_secs(600);

fn id(n: u8) -> ReplicaId {
    ReplicaId([n; 8])
}

fn has(tools: &[(&str, &str)]) -> Has {
    let named = |(name, more): &(&str, &str)| {
        ((*name).to_owned(), Some(format!(r#"{{"name":"{name}"{more}}}"#).into()))
    };
    tools.iter().map(named).collect()
}

fn plain(names: &[&str]) -> Has {
    has(&names.iter().map(|name| (*name, "")).collect::<Vec<_>>())
}

fn facts<'a>(n: u8, origin: &'a str, tools: &'a Has) -> Facts<'a> {
    Facts { id: id(n), origin, eras: Eras::Dual, tools: Known::Settled(tools) }
}

fn sum(before: &Union, replicas: &[Facts<'_>], seconds: u64) -> (Union, Catalogue) {
    let union = before.next(replicas, KEPT, Micros(seconds * 1_000_000));
    let catalogue = union.catalogue(replicas);
    (union, catalogue)
}

fn names(catalogue: &Catalogue) -> Vec<&str> {
    catalogue.tools.keys().map(String::as_str).collect()
}

#[test]
fn replicas_with_the_same_tools_are_not_spread() {
    let tools = plain(&["b", "a"]);
    let (_, catalogue) = sum(&Union::default(), &[facts(1, "x", &tools), facts(2, "y", &tools)], 0);
    assert_eq!(catalogue.spread, Spread::Same);
    assert_eq!(&*catalogue.legacy.text, r#"[{"name":"a"},{"name":"b"}]"#);
    assert_eq!(catalogue.legacy, catalogue.modern);
}

#[test]
fn a_replica_of_which_nothing_is_known_makes_no_difference() {
    let tools = plain(&["a"]);
    let silent = Facts { tools: Known::NotNow, ..facts(2, "y", &tools) };
    let (_, catalogue) = sum(&Union::default(), &[facts(1, "x", &tools), silent], 0);
    assert_eq!((catalogue.spread, &catalogue.tools["a"].carriers[..]), (Spread::Same, &[id(1)][..]));
}

#[test]
fn the_union_is_listed_and_each_tool_has_its_replicas() {
    let (one, two) = (plain(&["a", "both"]), plain(&["b", "both"]));
    let (_, catalogue) = sum(&Union::default(), &[facts(1, "x", &one), facts(2, "y", &two)], 0);
    assert_eq!(catalogue.spread, Spread::Mixed);
    assert_eq!(&*catalogue.modern.text, r#"[{"name":"a"},{"name":"b"},{"name":"both"}]"#);
    assert_eq!(catalogue.tools["a"].carriers, [id(1)]);
    assert_eq!(catalogue.tools["both"].carriers, [id(1), id(2)]);
}

#[test]
fn the_most_frequent_definition_is_listed_and_gets_the_new_work() {
    let (old, new) = (has(&[("a", r#","v":1"#)]), has(&[("a", r#","v":2"#)]));
    let (one, two, three) = (facts(1, "x", &new), facts(2, "y", &old), facts(3, "z", &old));
    let (union, catalogue) = sum(&Union::default(), &[one, two, three], 0);
    assert_eq!(union.disputed().collect::<Vec<_>>(), ["a"]);
    assert_eq!(&*catalogue.legacy.text, r#"[{"name":"a","v":1}]"#);
    assert_eq!(catalogue.tools["a"].carriers, [id(2), id(3)]);
    assert_eq!(catalogue.tools["a"].holders, [id(1), id(2), id(3)]);
    let (_, swapped) = sum(&Union::default(), &[three, one, two], 0);
    assert_eq!(swapped.legacy, catalogue.legacy, "whatever the order");
    let (_, even) = sum(&Union::default(), &[one, two], 0);
    assert_eq!(even.legacy, catalogue.legacy, "the first in order of bytes among equals");
}

#[test]
fn two_spellings_of_one_definition_are_no_dispute() {
    let spelled = |text: &str| -> Has { [("a".to_owned(), Some(text.into()))].into() };
    let (one, two) =
        (spelled(r#"{"name":"a","n":{"x":1,"y":2}}"#), spelled(r#"{ "n": {"y": 2, "x": 1}, "name": "a" }"#));
    let (union, catalogue) = sum(&Union::default(), &[facts(1, "x", &one), facts(2, "y", &two)], 0);
    assert_eq!((union.disputed().count(), catalogue.spread), (0, Spread::Same));
    assert_eq!(catalogue.tools["a"].carriers, [id(1), id(2)]);
    let (_, swapped) = sum(&Union::default(), &[facts(2, "y", &two), facts(1, "x", &one)], 0);
    assert_eq!(swapped.legacy, catalogue.legacy, "the same spelling is listed everywhere");
}

#[test]
fn the_tools_of_a_lost_replica_stay_listed_for_a_while_and_nobody_has_them() {
    let (one, two) = (plain(&["a"]), plain(&["b"]));
    let (union, before) = sum(&Union::default(), &[facts(1, "x", &one), facts(2, "y", &two)], 0);
    let (union, lost) = sum(&union, &[facts(1, "x", &one)], 10);
    assert_eq!((lost.spread, &lost.legacy), (Spread::Mixed, &before.legacy));
    assert!(lost.tools["b"].carriers.is_empty());
    let (kept, _) = sum(&union, &[facts(1, "x", &one)], 609);
    assert_eq!(kept.tools.len(), 2);
    let (_, over) = sum(&union, &[facts(1, "x", &one)], 610);
    assert_eq!((over.spread, names(&over)), (Spread::Same, vec!["a"]));
}

#[test]
fn a_list_is_never_emptied_by_the_loss_of_all() {
    let tools = plain(&["a"]);
    let (union, before) = sum(&Union::default(), &[facts(1, "x", &tools)], 0);
    let (_, after) = sum(&union, &[], 1);
    assert_eq!(after.legacy, before.legacy);
}

#[test]
fn a_restart_changes_nothing_until_the_tools_are_known_again() {
    let (old, new) = (plain(&["a", "b"]), plain(&["a", "c"]));
    let (union, before) = sum(&Union::default(), &[facts(1, "x", &old)], 0);
    let (union, _) = sum(&union, &[], 1);
    let back = Facts { tools: Known::NotNow, ..facts(9, "x", &new) };
    let (union, unknown) = sum(&union, &[back], 2);
    assert_eq!((&unknown.legacy, &unknown.tools["b"].carriers[..]), (&before.legacy, &[id(9)][..]));
    let (_, after) = sum(&union, &[facts(9, "x", &new)], 3);
    assert_eq!(names(&after), ["a", "c"], "a rename is one change");
}

#[test]
fn a_tool_that_its_replica_dropped_is_gone_at_once() {
    let (both, one) = (plain(&["a", "b"]), plain(&["a"]));
    let (union, _) = sum(&Union::default(), &[facts(1, "x", &both), facts(2, "y", &one)], 0);
    let (_, after) = sum(&union, &[facts(1, "x", &one), facts(2, "y", &one)], 1);
    assert_eq!((after.spread, names(&after)), (Spread::Same, vec!["a"]));
}

#[test]
fn clients_are_shown_what_their_era_can_call() {
    let (one, two) = (plain(&["old"]), plain(&["new"]));
    let legacy = Facts { eras: Eras::Legacy, ..facts(1, "x", &one) };
    let modern = Facts { eras: Eras::Modern, ..facts(2, "y", &two) };
    let (_, catalogue) = sum(&Union::default(), &[legacy, modern], 0);
    assert_eq!(&*catalogue.legacy.text, r#"[{"name":"old"}]"#);
    assert_eq!(&*catalogue.modern.text, r#"[{"name":"new"}]"#);
}

#[test]
fn names_without_definitions_are_routed_and_not_listed() {
    let (names, listed): (Has, Has) = ([("a".to_owned(), None)].into(), plain(&["b"]));
    let (_, catalogue) = sum(&Union::default(), &[facts(1, "x", &names), facts(2, "y", &listed)], 0);
    assert_eq!(&*catalogue.legacy.text, r#"[{"name":"b"}]"#);
    assert_eq!(catalogue.legacy.coverage, Coverage::Partial);
    assert_eq!(catalogue.tools["a"].carriers, [id(1)]);
}

#[test]
fn of_nothing_nothing_is_said() {
    let union = Union::default();
    assert_eq!(union.catalogue(&[]).spread, Spread::Unknown);
}
