//! Who shares which legs, what each client hears of them, and what a new one is told.

use super::*;

const A: ReplicaId = ReplicaId([1; 8]);
const B: ReplicaId = ReplicaId([2; 8]);

fn audience(identity: u8) -> Audience {
    Audience { path: "/mcp".into(), identity: [identity; 16] }
}

fn of(method: &str) -> Lists {
    Lists::of_method(&format!("notifications/{method}/list_changed"))
}

fn poll(listening: &Listening) -> Poll<Heard> {
    listening.poll(&mut Context::from_waker(Waker::noop()))
}

fn is_settled(listening: &Listening) -> bool {
    lock(&listening.shared.state).is_settled(listening.number)
}

#[test]
fn one_audience_has_one_set_of_legs_and_others_have_theirs() {
    let legs = SharedLegs::default();
    let (one, first) = legs.join(&audience(1), Lists::ALL, [A].into_iter());
    let (two, second) = legs.join(&audience(1), Lists::ALL, [A].into_iter());
    let (_other, third) = legs.join(&audience(2), Lists::ALL, [A].into_iter());
    let shared = first.expect("the first opens the legs");
    assert!(second.is_none() && third.is_some());
    shared.opened(A, Lists::ALL, Lists::ALL);
    assert_eq!(legs.open_legs(), 1);
    drop(one);
    assert!(!legs.close_unheard(&audience(1)), "somebody listens");
    drop(two);
    assert!(shared.is_unheard() && legs.close_unheard(&audience(1)));
    assert_eq!(legs.open_legs(), 0);
}

#[test]
fn changes_coalesce_and_only_wanted_ones_are_heard() {
    let legs = SharedLegs::default();
    let (slow, shared) = legs.join(&audience(1), of("tools").or(of("prompts")), [A].into_iter());
    let (fast, _) = legs.join(&audience(1), of("tools"), [A].into_iter());
    let shared = shared.expect("new");
    shared.opened(A, Lists::ALL, Lists::ALL);
    for _ in 0..1000 {
        shared.changed(of("tools"));
        assert_eq!(poll(&fast), Poll::Ready(Heard::Changed(of("tools"))));
        shared.changed(of("prompts"));
        shared.changed(of("resources"));
        assert_eq!(poll(&fast), Poll::Pending);
    }
    assert_eq!(poll(&slow), Poll::Ready(Heard::Changed(of("tools").or(of("prompts")))));
    assert_eq!(poll(&slow), Poll::Pending);
}

#[test]
fn the_acknowledgement_is_the_union_of_what_is_wanted_and_honoured() {
    let legs = SharedLegs::default();
    let (listening, shared) = legs.join(&audience(1), of("tools").or(of("prompts")), [A, B].into_iter());
    let shared = shared.expect("new");
    shared.opened(A, of("tools").or(of("resources")), Lists::NONE);
    assert!(!is_settled(&listening), "B is still to come");
    shared.opened(B, of("prompts"), of("prompts"));
    assert!(is_settled(&listening));
    assert!(matches!(listening.agree(), Agreement::On(lists) if lists == of("tools").or(of("prompts"))));
}

#[test]
fn who_was_acknowledged_hears_of_every_leg_that_opens_later() {
    let legs = SharedLegs::default();
    let (early, shared) = legs.join(&audience(1), Lists::ALL, [A, B].into_iter());
    let shared = shared.expect("new");
    shared.opened(A, Lists::ALL, Lists::ALL);
    shared.lost(B);
    assert!(matches!(early.agree(), Agreement::On(_)));
    assert_eq!(poll(&early), Poll::Pending);
    shared.lost(A);
    let (late, _) = legs.join(&audience(1), Lists::ALL, [A, B].into_iter());
    assert!(!is_settled(&late), "a leg that stood is waited for");
    shared.opened(A, of("tools"), of("tools"));
    assert_eq!(poll(&early), Poll::Ready(Heard::Changed(of("tools"))));
    assert!(is_settled(&late) && matches!(late.agree(), Agreement::On(_)));
    assert_eq!(poll(&late), Poll::Pending, "it was acknowledged after the leg stood");
    shared.opened(B, of("prompts"), of("prompts"));
    assert_eq!(poll(&late), Poll::Ready(Heard::Changed(of("prompts"))));
    assert_eq!(poll(&early), Poll::Ready(Heard::Changed(of("prompts"))));
}

#[test]
fn without_a_leg_a_no_is_passed_on_before_an_absence() {
    let legs = SharedLegs::default();
    let (listening, shared) = legs.join(&audience(1), Lists::ALL, [A, B].into_iter());
    let shared = shared.expect("new");
    shared.lost(A);
    shared.refused(B, Refused::Unusable);
    assert!(is_settled(&listening));
    assert!(matches!(listening.agree(), Agreement::Refused(Refused::Unusable)));
    shared.forget(B);
    assert!(matches!(listening.agree(), Agreement::Nobody));
}

#[tokio::test]
async fn a_no_is_told_to_those_who_wait_for_it_and_asked_for_again_by_who_comes_later() {
    let legs = SharedLegs::default();
    let (one, shared) = legs.join(&audience(1), Lists::ALL, [A].into_iter());
    let shared = shared.expect("new");
    let (two, _) = legs.join(&audience(1), Lists::ALL, [A].into_iter());
    shared.refused(A, Refused::Unusable);
    assert!(is_settled(&one) && is_settled(&two));
    let again = tokio::spawn({
        let shared = shared.clone();
        async move { shared.asked_again(A).await }
    });
    tokio::task::yield_now().await;
    assert!(!again.is_finished(), "nobody came");
    let (late, _) = legs.join(&audience(1), Lists::ALL, [A].into_iter());
    again.await.expect("asked again");
    assert!(is_settled(&one) && !is_settled(&late));
    shared.opened(A, Lists::ALL, Lists::ALL);
    late.settled().await;
    assert!(matches!(late.agree(), Agreement::On(_)));
}

#[test]
fn a_leg_that_was_forgotten_while_it_was_opened_does_not_stand() {
    let legs = SharedLegs::default();
    let (listening, shared) = legs.join(&audience(1), Lists::ALL, [A, B].into_iter());
    let shared = shared.expect("new");
    shared.keep_only(|id| id == B);
    shared.opened(A, Lists::ALL, Lists::ALL);
    assert_eq!(legs.open_legs(), 0);
    shared.opened(B, of("tools"), Lists::NONE);
    assert!(is_settled(&listening), "A is not waited for");
    assert!(matches!(listening.agree(), Agreement::On(lists) if lists == of("tools")));
}

#[test]
fn the_end_of_an_audience_ends_its_clients_and_makes_room_for_a_new_one() {
    let legs = SharedLegs::default();
    let (listening, shared) = legs.join(&audience(1), Lists::ALL, [A].into_iter());
    legs.end(&audience(1), &shared.expect("new"));
    assert_eq!(poll(&listening), Poll::Ready(Heard::Over));
    assert!(is_settled(&listening) && legs.join(&audience(1), Lists::ALL, [A].into_iter()).1.is_some());
}

#[test]
fn only_so_many_audiences_linger_without_a_client() {
    let legs = SharedLegs::default();
    let kept: Vec<_> = (0..LINGERING_MAX).map(|_| legs.linger().expect("within the bound")).collect();
    assert!(legs.linger().is_none());
    drop(kept);
    assert!(legs.linger().is_some());
}
