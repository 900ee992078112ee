//! Quotas: nothing beyond the terms is granted, whoever asks; what is not used comes back; gateways are counted.

use std::time::{Duration, Instant};

use super::mail::gateway;
use super::{Names, eventually};
use crate::{QuotaAsk, QuotaGrant, QuotaKey, QuotaTerms, QuotaWant, Store, StoreError};

const HOUR: u64 = 3_600_000_000;

pub(super) async fn run(store: &dyn Store, names: &Names) {
    a_window_is_never_exceeded_and_opens_again(store, names).await;
    an_even_rate_is_never_exceeded(store, names).await;
    what_is_held_counts_and_what_was_not_used_comes_back(store, names).await;
    what_a_dead_holder_had_comes_back_by_itself(store, names).await;
    a_refusal_blocks_where_the_terms_say_so(store, names).await;
    all_keys_of_a_question_are_answered_in_order_and_alone(store, names).await;
    gateways_are_counted_while_they_are_there(store, names).await;
}

fn key(names: &Names, number: u32) -> QuotaKey {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&names.bytes(70, number));
    QuotaKey(key)
}

/// A request for one unit of `allow` in an hour.
pub(super) fn hourly(names: &Names, number: u32, allow: u32) -> QuotaAsk {
    QuotaAsk {
        key: key(names, number),
        terms: QuotaTerms::Window { allow, within_us: HOUR },
        block_us: 0,
        holder: 1,
        used: 0,
        last_ago_us: 0,
        want: QuotaWant::AtOnce(1),
        extra: 0,
        term_us: 1_000_000,
    }
}

pub(super) async fn ask(store: &dyn Store, ask: QuotaAsk) -> QuotaGrant {
    let mut answers = store.ask_quotas(vec![ask]).await;
    answers.pop().expect("one answer").expect("the store is there")
}

fn remaining(grant: QuotaGrant) -> Option<u32> {
    match grant {
        QuotaGrant::Granted { remaining, .. } => Some(remaining),
        QuotaGrant::Refused { .. } => None,
    }
}

async fn a_window_is_never_exceeded_and_opens_again(store: &dyn Store, names: &Names) {
    let one = hourly(names, 1, 3);
    for left in [2, 1, 0] {
        assert_eq!(remaining(ask(store, one).await), Some(left));
    }
    for holder in [1, 2] {
        let QuotaGrant::Refused { retry_after_us } = ask(store, QuotaAsk { holder, ..one }).await else {
            panic!("the fourth is too much, whoever asks")
        };
        assert!(retry_after_us.is_some_and(|wait| (HOUR / 2..=HOUR).contains(&wait)), "{retry_after_us:?}");
    }
    let many = QuotaAsk { want: QuotaWant::AtOnce(4), ..hourly(names, 2, 3) };
    assert_eq!(ask(store, many).await, QuotaGrant::Refused { retry_after_us: None }, "it never fits");

    let terms = QuotaTerms::Window { allow: 1, within_us: 100_000 };
    let short = QuotaAsk { terms, ..hourly(names, 3, 1) };
    assert_eq!(remaining(ask(store, short).await), Some(0));
    let opens = async || remaining(ask(store, short).await).map(|_| ());
    eventually("a window of 100 ms opens again", opens).await;
}

async fn an_even_rate_is_never_exceeded(store: &dyn Store, names: &Names) {
    // Three at once, then one each minute.
    let terms = QuotaTerms::Even { interval_us: 60_000_000, slack_us: 120_000_000 };
    let even = QuotaAsk { terms, extra: 1, ..hourly(names, 4, 1) };
    let (began, mut granted) = (Instant::now(), 0);
    for holder in 0..6 {
        if let QuotaGrant::Granted { held, .. } = ask(store, QuotaAsk { holder, ..even }).await {
            granted += 1 + held;
        }
    }
    assert!(granted >= 1, "the first is within the burst");
    if began.elapsed() < Duration::from_secs(50) {
        assert!(granted <= 3, "{granted}");
    }
}

async fn what_is_held_counts_and_what_was_not_used_comes_back(store: &dyn Store, names: &Names) {
    let first = QuotaAsk { want: QuotaWant::Held(2), extra: 4, term_us: HOUR, ..hourly(names, 5, 10) };
    let QuotaGrant::Granted { held, remaining: left, .. } = ask(store, first).await else {
        panic!("two of ten fit")
    };
    let counted = if held == 0 { 2 } else { held };
    assert!(held <= 6 && left == 10 - counted, "{held} held, {left} left");
    let other = QuotaAsk { holder: 2, want: QuotaWant::AtOnce(left + 1), ..hourly(names, 5, 10) };
    assert_eq!(remaining(ask(store, other).await), None, "what one holds another cannot have");
    // One of them was used, if any was held.
    let used = held.min(1);
    let back = QuotaAsk { used, want: QuotaWant::Nothing, ..hourly(names, 5, 10) };
    let expected = if held == 0 { 8 } else { 9 };
    assert_eq!(remaining(ask(store, back).await), Some(expected));
    assert_eq!(remaining(ask(store, back).await), Some(expected), "told twice, it counts once");
}

async fn what_a_dead_holder_had_comes_back_by_itself(store: &dyn Store, names: &Names) {
    let terms = QuotaTerms::Window { allow: 4, within_us: 100_000 };
    let short = QuotaAsk { terms, term_us: 50_000, ..hourly(names, 6, 4) };
    ask(store, QuotaAsk { want: QuotaWant::Held(1), extra: 3, ..short }).await;
    let all = QuotaAsk { holder: 2, want: QuotaWant::AtOnce(4), ..short };
    let back = async || remaining(ask(store, all).await).map(|_| ());
    eventually("what the first holder took is there again", back).await;
}

async fn a_refusal_blocks_where_the_terms_say_so(store: &dyn Store, names: &Names) {
    let terms = QuotaTerms::Window { allow: 1, within_us: 100_000 };
    let blocking = QuotaAsk { terms, block_us: HOUR, ..hourly(names, 7, 1) };
    let blocked = async || match ask(store, blocking).await {
        QuotaGrant::Granted { .. } => None,
        QuotaGrant::Refused { retry_after_us } => retry_after_us,
    };
    let breach = async || match blocked().await {
        None => blocked().await,
        wait => wait,
    };
    let first = eventually("two within a tenth of a second, at last", breach).await;
    assert!(first > HOUR / 2, "the window alone would be a tenth of a second: {first}");
    tokio::time::sleep(Duration::from_millis(150)).await;
    let second = blocked().await.expect("still blocked");
    assert!(second < first, "it does not grow: {first}, {second}");
}

async fn all_keys_of_a_question_are_answered_in_order_and_alone(store: &dyn Store, names: &Names) {
    let asks = (0..20).map(|number| hourly(names, 100 + number, 1 + number)).collect();
    let answers = store.ask_quotas(asks).await;
    let left: Vec<u32> =
        answers.into_iter().map(|answer| remaining(answer.expect("it is there")).expect("it fits")).collect();
    assert_eq!(left, (0..20).collect::<Vec<u32>>());
    assert_eq!(store.ask_quotas(Vec::new()).await, Vec::<Result<QuotaGrant, StoreError>>::new());
}

async fn gateways_are_counted_while_they_are_there(store: &dyn Store, names: &Names) {
    let long = Duration::from_secs(60);
    let attend = async |number, ttl| store.attend(gateway(names, number), ttl).await.expect("it can attend");
    // Others of the same store may run the suite too, and come and go.
    let before = attend(71, long).await;
    assert_eq!(attend(71, long).await, before, "one counts once");
    assert_eq!(attend(72, long).await, before + 1);
    store.depart(gateway(names, 72)).await.expect("it can leave");
    assert_eq!(attend(71, long).await, before);
    attend(73, Duration::from_millis(50)).await;
    let gone = async || (attend(71, long).await == before).then_some(());
    eventually("a gateway that died counts no more", gone).await;
    store.depart(gateway(names, 71)).await.expect("it can leave");
}
