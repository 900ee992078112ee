//! Places under every order of events: what was given out is what is counted, and at the end nothing is held.

use super::*;

const BOUNDS: Bounds = Bounds { inflight_max: 2, queue_max: 4, reserved_max: 1, parked_max: 2 };

const WHO: Who = Who {
    account: [0; 16],
    weight: std::num::NonZeroU32::MIN,
    rank: regatta_policy::line::Rank::Interactive,
};

fn slots() -> Arc<Slots> {
    Arc::new(Slots::new(BOUNDS))
}

fn enter(slots: &Arc<Slots>) -> Permit {
    slots.try_enter(Class::Ordinary).expect("a place is free")
}

/// Counts by asking every permit what it holds.
fn held(slots: &Arc<Slots>, permits: &[Permit]) -> Admission {
    let _steady = slots.lock();
    let count = |place| permits.iter().filter(|permit| permit.now() == Some(place)).count();
    let returning = count(Place::Returning);
    Admission {
        inflight: count(Place::Inflight),
        reserved: count(Place::Reserved),
        parked: count(Place::Parked) + returning,
        returning,
        ..Admission::default()
    }
}

#[test]
fn a_call_that_found_no_parking_place_is_counted_once() {
    let slots = Arc::new(Slots::new(Bounds { parked_max: 0, ..BOUNDS }));
    let mut permit = enter(&slots);
    assert!(!permit.park());
    permit.unpark();
    assert_eq!(slots.counts(), held(&slots, std::slice::from_ref(&permit)));
    drop(permit);
    assert_eq!(slots.counts(), Admission::default());
}

#[test]
fn a_returning_call_that_is_asked_again_leaves_the_line() {
    let slots = slots();
    let mut asked = enter(&slots);
    assert!(asked.park());
    let others = [enter(&slots), enter(&slots)];
    asked.unpark();
    assert_eq!(asked.now(), Some(Place::Returning));
    assert!(asked.park());
    drop(others);
    assert_eq!(slots.counts(), Admission { parked: 1, ..Admission::default() });
    drop(asked);
    assert_eq!(slots.counts(), Admission::default());
}

#[test]
fn a_reserved_place_is_never_parked() {
    let slots = slots();
    let _ordinary = enter(&slots);
    let mut reserved = slots.try_enter(Class::Exempt).expect("a place is free");
    assert!(!reserved.park());
    reserved.unpark();
    assert_eq!(slots.counts().reserved, 1);
    assert_eq!(slots.counts().inflight, 1);
}

#[tokio::test]
async fn a_waiter_that_gives_up_leaves_the_queue_and_lets_the_next_in() {
    let slots = slots();
    let first = [enter(&slots), enter(&slots)];
    assert_eq!(slots.enter(Class::Ordinary, WHO, Duration::from_millis(1)).await.err(), Some(Shed));
    assert_eq!(slots.counts().queued, 0);
    let patient = slots.clone();
    let waiting =
        tokio::spawn(async move { patient.enter(Class::Ordinary, WHO, Duration::from_secs(60)).await });
    while slots.counts().queued == 0 {
        tokio::task::yield_now().await;
    }
    drop(first);
    let permit = waiting.await.expect("no panic").expect("a place");
    assert_eq!(slots.counts(), held(&slots, std::slice::from_ref(&permit)));
}

/// Thousands of random steps: the counts are always what the permits hold.
#[test]
fn counts_are_what_is_held_in_any_order() {
    for seed in 1..200u64 {
        let slots = slots();
        let mut permits: Vec<Permit> = Vec::new();
        let mut dice = seed;
        for step in 0..200 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let roll = usize::try_from(dice >> 33).expect("31 bits");
            let which = roll / 8;
            match (roll % 8, permits.len()) {
                (0..=2, _) | (_, 0) => {
                    let class = if roll % 8 == 0 { Class::Exempt } else { Class::Ordinary };
                    permits.extend(slots.try_enter(class));
                }
                (3 | 4, all) => _ = permits[which % all].park(),
                (5 | 6, all) => permits[which % all].unpark(),
                (_, all) => drop(permits.swap_remove(which % all)),
            }
            assert_eq!(slots.counts(), held(&slots, &permits), "seed {seed}, step {step}");
        }
        permits.clear();
        assert_eq!(slots.counts(), Admission::default(), "seed {seed}");
    }
}
