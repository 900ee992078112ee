//! Budgets: never more than the limit, equal parts for who wants them, and back from who leaves or dies.

use std::time::Duration;

use super::{Names, eventually};
use crate::{BudgetAsk, BudgetHolder, BudgetName, BudgetShare, Store};

const TERM: Duration = Duration::from_secs(60);

pub(super) async fn run(store: &dyn Store, names: &Names) {
    one_alone_gets_what_it_wants_and_never_more_than_there_is(store, names).await;
    a_newcomer_gets_its_part_as_the_others_renew(store, names).await;
    what_is_in_use_counts_until_it_is_let_go(store, names).await;
    an_ask_that_was_overtaken_changes_nothing(store, names).await;
    who_leaves_or_dies_gives_back(store, names).await;
    the_sum_never_exceeds_the_limit(store, names).await;
}

fn ask(names: &Names, case: u8, holder: u32, limit: u32, want: u32) -> BudgetAsk {
    let (budget, holder) = (BudgetName(names.bytes(case, 0)), BudgetHolder(names.bytes(case, holder)));
    BudgetAsk { budget, limit, holder, busy: 0, want, turn: 1, term: TERM }
}

async fn hold(store: &dyn Store, ask: BudgetAsk) -> BudgetShare {
    store.hold_budget(ask).await.expect("a budget can be held")
}

async fn one_alone_gets_what_it_wants_and_never_more_than_there_is(store: &dyn Store, names: &Names) {
    assert_eq!(hold(store, ask(names, 90, 1, 10, 4)).await, BudgetShare { units: 4, holders: 1 });
    assert_eq!(hold(store, ask(names, 90, 1, 10, 40)).await, BudgetShare { units: 10, holders: 1 });
    assert_eq!(hold(store, ask(names, 90, 1, 10, 0)).await, BudgetShare { units: 0, holders: 1 });
}

async fn a_newcomer_gets_its_part_as_the_others_renew(store: &dyn Store, names: &Names) {
    assert_eq!(hold(store, ask(names, 91, 1, 10, 10)).await.units, 10);
    assert_eq!(hold(store, ask(names, 91, 2, 10, 10)).await.units, 0, "nothing is free yet");
    assert_eq!(hold(store, ask(names, 91, 3, 10, 2)).await.units, 0);
    assert_eq!(
        hold(store, ask(names, 91, 1, 10, 10)).await.units,
        4,
        "two of ten wanted, four each for the others"
    );
    assert_eq!(hold(store, ask(names, 91, 2, 10, 10)).await.units, 4);
    assert_eq!(hold(store, ask(names, 91, 3, 10, 2)).await, BudgetShare { units: 2, holders: 3 });
}

async fn what_is_in_use_counts_until_it_is_let_go(store: &dyn Store, names: &Names) {
    assert_eq!(hold(store, ask(names, 92, 1, 6, 6)).await.units, 6);
    assert_eq!(hold(store, ask(names, 92, 2, 6, 6)).await.units, 0);
    let busy = |busy| BudgetAsk { busy, ..ask(names, 92, 1, 6, 6) };
    assert_eq!(hold(store, busy(6)).await.units, 3, "its part, though it has more");
    assert_eq!(hold(store, ask(names, 92, 2, 6, 6)).await.units, 0, "all six are in use");
    assert_eq!(hold(store, busy(5)).await.units, 3);
    assert_eq!(hold(store, ask(names, 92, 2, 6, 6)).await.units, 1);
    assert_eq!(hold(store, busy(1)).await.units, 3);
    assert_eq!(hold(store, ask(names, 92, 2, 6, 6)).await.units, 3);
    assert_eq!(hold(store, ask(names, 92, 3, 6, 6)).await.units, 0, "three and three");
}

async fn an_ask_that_was_overtaken_changes_nothing(store: &dyn Store, names: &Names) {
    let late = BudgetAsk { turn: 7, ..ask(names, 95, 1, 6, 1) };
    let early = BudgetAsk { turn: 8, ..ask(names, 95, 1, 6, 6) };
    assert_eq!(hold(store, early).await.units, 6);
    assert_eq!(hold(store, late).await, BudgetShare { units: 0, holders: 1 });
    assert_eq!(hold(store, ask(names, 95, 2, 6, 6)).await.units, 0, "the first one still has all");
}

async fn who_leaves_or_dies_gives_back(store: &dyn Store, names: &Names) {
    let short = BudgetAsk { term: Duration::from_millis(50), ..ask(names, 93, 1, 8, 8) };
    assert_eq!(hold(store, short).await.units, 8);
    let whole = async || (hold(store, ask(names, 93, 2, 8, 8)).await.units == 8).then_some(());
    eventually("a lease of 50 ms is over", whole).await;
    let leaver = ask(names, 93, 2, 8, 8);
    store.leave_budget(leaver.budget, leaver.holder).await.expect("a holder can leave");
    store.leave_budget(leaver.budget, leaver.holder).await.expect("and again");
    assert_eq!(hold(store, ask(names, 93, 3, 8, 8)).await, BudgetShare { units: 8, holders: 1 });
}

/// Seven holders that ask for this and that in an order of no meaning.
async fn the_sum_never_exceeds_the_limit(store: &dyn Store, names: &Names) {
    const LIMIT: u32 = 11;
    let mut given = [0; 7];
    for turn in 0..200_u32 {
        let dice = turn.wrapping_mul(2_654_435_761) >> 16;
        let holder = dice % 7;
        let want = dice / 7 % 16;
        // It lets go of some of what it has, and asks.
        let busy = dice / 112 % 8;
        let busy = busy.min(given[holder as usize]);
        let asked = BudgetAsk { busy, ..ask(names, 94, holder + 1, LIMIT, want) };
        given[holder as usize] = hold(store, asked).await.units.max(busy);
        let sum: u32 = given.iter().sum();
        assert!(sum <= LIMIT, "turn {turn}: {given:?}");
    }
    for holder in (0..7).cycle().take(21) {
        given[holder as usize] = hold(store, ask(names, 94, holder + 1, LIMIT, LIMIT)).await.units;
    }
    assert_eq!(given.iter().sum::<u32>(), LIMIT);
    assert!(given.iter().all(|units| (1..=2).contains(units)), "equal parts: {given:?}");
}
