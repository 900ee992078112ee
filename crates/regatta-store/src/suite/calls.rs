//! The journal: one runs a call, whoever asks again is told how it stands, and a lost one is nobody's to run.

use std::time::Duration;

use bytes::Bytes;

use super::{Names, eventually};
use crate::calls::CALL_RESULT_MAX;
use crate::{Begun, CallName, Holds, Run, Store, StoreError};

const LONG: Duration = Duration::from_secs(60);
const BRIEF: Duration = Duration::from_millis(50);

pub(super) async fn run(store: &dyn Store, names: &Names) {
    one_runs_it_and_all_get_its_result(store, names).await;
    a_lost_call_is_run_by_nobody_and_its_late_result_still_counts(store, names).await;
    a_lease_is_renewed(store, names).await;
    a_call_that_runs_is_not_forgotten(store, names).await;
    what_was_never_begun_can_be_forgotten(store, names).await;
}

pub(super) fn call(names: &Names, number: u32) -> CallName {
    let mut name = [0; 32];
    name[..16].copy_from_slice(&names.bytes(80, number));
    CallName(name)
}

pub(super) fn attempt(names: &Names, number: u32) -> Run {
    Run(names.bytes(81, number))
}

async fn begin(store: &dyn Store, call: &CallName, run: Run, lease: Duration) -> Begun {
    store.begin_call(call, run, lease, LONG).await.expect("a call can be begun")
}

async fn one_runs_it_and_all_get_its_result(store: &dyn Store, names: &Names) {
    let (call, one, other) = (call(names, 1), attempt(names, 1), attempt(names, 2));
    let result = Bytes::from_static(b"\x00{\"result\":1}");
    assert_eq!(store.result_of_call(&call).await, Ok(None));
    assert_eq!(begin(store, &call, one, LONG).await, Begun::Yours);
    assert_eq!(store.result_of_call(&call).await, Ok(None), "it runs");
    assert_eq!(begin(store, &call, one, LONG).await, Begun::Yours, "the same attempt after a lost answer");
    assert_eq!(begin(store, &call, other, LONG).await, Begun::Running);
    assert_eq!(store.end_call(&call, other, result.clone(), LONG).await, Ok(Holds::No));
    let large = Bytes::from(vec![0; CALL_RESULT_MAX + 1]);
    let refused = store.end_call(&call, one, large, LONG).await;
    assert_eq!(refused, Err(StoreError::TooLarge("result of a call")));
    assert_eq!(store.end_call(&call, one, result.clone(), LONG).await, Ok(Holds::Yes));
    assert_eq!(begin(store, &call, other, LONG).await, Begun::Done(result.clone()));
    assert_eq!(store.result_of_call(&call).await, Ok(Some(result.clone())));
    assert_eq!(begin(store, &call, one, LONG).await, Begun::Done(result));
    assert_eq!(store.hold_call(&call, one, LONG, LONG).await, Ok(Holds::No), "it is over");
}

async fn a_lost_call_is_run_by_nobody_and_its_late_result_still_counts(store: &dyn Store, names: &Names) {
    let (call, one, other) = (call(names, 2), attempt(names, 3), attempt(names, 4));
    assert_eq!(begin(store, &call, one, BRIEF).await, Begun::Yours);
    let lost = async || (begin(store, &call, other, LONG).await == Begun::Lost).then_some(());
    eventually("a call whose lease ended is lost", lost).await;
    assert_eq!(begin(store, &call, attempt(names, 5), LONG).await, Begun::Lost, "and stays so");
    let result = Bytes::from_static(b"late");
    assert_eq!(store.end_call(&call, one, result.clone(), LONG).await, Ok(Holds::Yes));
    assert_eq!(begin(store, &call, other, LONG).await, Begun::Done(result));
}

async fn a_lease_is_renewed(store: &dyn Store, names: &Names) {
    let (call, one, other) = (call(names, 3), attempt(names, 6), attempt(names, 7));
    assert_eq!(begin(store, &call, one, Duration::from_millis(1)).await, Begun::Yours);
    assert_eq!(store.hold_call(&call, other, LONG, LONG).await, Ok(Holds::No));
    assert_eq!(store.hold_call(&call, one, LONG, LONG).await, Ok(Holds::Yes));
    assert_eq!(begin(store, &call, other, LONG).await, Begun::Running);
}

async fn a_call_that_runs_is_not_forgotten(store: &dyn Store, names: &Names) {
    let (runs, silent) = (call(names, 5), call(names, 6));
    let (one, other, brief) = (attempt(names, 10), attempt(names, 11), Duration::from_secs(1));
    for call in [&runs, &silent] {
        assert_eq!(store.begin_call(call, one, LONG, brief).await, Ok(Begun::Yours));
        if call == &runs {
            assert_eq!(store.hold_call(call, one, LONG, LONG).await, Ok(Holds::Yes));
        }
    }
    let forgotten = async || (begin(store, &silent, other, LONG).await == Begun::Yours).then_some(());
    eventually("what gave no sign is forgotten", forgotten).await;
    assert_eq!(begin(store, &runs, other, LONG).await, Begun::Running);
}

async fn what_was_never_begun_can_be_forgotten(store: &dyn Store, names: &Names) {
    let (call, one, other) = (call(names, 4), attempt(names, 8), attempt(names, 9));
    assert_eq!(begin(store, &call, one, LONG).await, Begun::Yours);
    store.forget_call(&call, other).await.expect("another's is not forgotten");
    assert_eq!(begin(store, &call, other, LONG).await, Begun::Running);
    store.forget_call(&call, one).await.expect("it can be forgotten");
    assert_eq!(begin(store, &call, other, LONG).await, Begun::Yours);
}
