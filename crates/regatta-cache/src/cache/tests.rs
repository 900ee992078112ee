//! What the table, the flights and the purges do together.

use std::time::Duration;

use regatta_mcp::skim;
use regatta_policy::cache::Telling;

use super::*;
use crate::flight::Patience;
use crate::purges::Purge;

const LATER: u64 = u64::MAX;
const PATIENCE: Patience = Patience { silence: Duration::from_secs(30), whole: Duration::from_secs(600) };

fn life() -> Life {
    Life {
        ttl: Duration::from_secs(60),
        stale_while_revalidate: Duration::from_secs(10),
        stale_if_error: Duration::from_secs(100),
        negative_ttl: Duration::ZERO,
    }
}

fn at(seconds: u64) -> Micros {
    Micros(seconds * 1_000_000)
}

fn about(purges: &Arc<Purges>) -> About {
    About {
        purges: purges.clone(),
        shared: None,
        tally: Arc::default(),
        tool: "get".into(),
        principal: Some([1; 16]),
        call: [9; 16],
    }
}

fn form(text: &str) -> Form {
    let text = format!(r#"{{"id":1,"result":{{"text":"{text}"}}}}"#);
    Form::of(text.as_bytes(), &skim(text.as_bytes()).expect("JSON-RPC"), Telling::Silent).expect("an object")
}

fn text(kept: &Kept) -> String {
    String::from_utf8(kept.form.parts().0.to_vec()).expect("UTF-8")
}

struct Scene {
    cache: Arc<ResultCache>,
    purges: Arc<Purges>,
}

impl Scene {
    fn new() -> Scene {
        Scene { cache: ResultCache::new(1 << 20), purges: Arc::default() }
    }

    fn lead(&self, now: Micros) -> Box<Lead> {
        match self.cache.join(LocalKey::of(1), about(&self.purges), None, now) {
            Joined::Lead(lead) => lead,
            Joined::Wait(_) | Joined::Found(_) => panic!("somebody else leads"),
        }
    }

    fn waiter(&self, now: Micros) -> Waiter {
        match self.cache.join(LocalKey::of(1), about(&self.purges), None, now) {
            Joined::Wait(waiter) => waiter,
            Joined::Lead(_) | Joined::Found(_) => panic!("nobody leads"),
        }
    }

    fn found(&self, now: Micros) -> Option<(String, Status)> {
        match self.cache.look(&LocalKey::of(1), now, LATER, || about(&self.purges)) {
            Looked::Found { kept, status, .. } => Some((text(&kept), status)),
            Looked::Nothing { .. } => None,
        }
    }
}

async fn landed(waiter: Waiter) -> Landing {
    waiter.landing(tokio::time::Instant::now(), PATIENCE).await.expect("it lands in time")
}

#[test]
fn what_was_kept_is_found_until_its_time_is_over() {
    let scene = Scene::new();
    assert!(scene.found(at(0)).is_none());
    scene.lead(at(0)).keep(form("a"), life(), at(1));
    let result = || r#"{"text":"a"}"#.to_owned();
    assert_eq!(scene.found(at(59)), Some((result(), Status::Hit)));
    assert_eq!(scene.found(at(61)), Some((result(), Status::Stale)));
    assert_eq!(scene.found(at(71)), None);
    assert_eq!(scene.cache.len(), 1);
    assert_eq!(scene.found(at(161)), None);
    assert!(scene.cache.is_empty());
}

#[tokio::test]
async fn of_many_who_ask_at_once_one_leads_and_all_get_what_it_brings() {
    let scene = Scene::new();
    let lead = scene.lead(at(0));
    let waiters: Vec<Waiter> = (0..500).map(|_| scene.waiter(at(0))).collect();
    assert!(lead.audience().is_there());
    lead.keep(form("a"), life(), at(1));
    for waiter in waiters {
        let Landing::Kept(kept) = landed(waiter).await else { panic!("not kept") };
        assert_eq!(text(&kept), r#"{"text":"a"}"#);
    }
}

#[tokio::test]
async fn when_a_leader_is_lost_a_waiter_leads() {
    let scene = Scene::new();
    let lead = scene.lead(at(0));
    let waiter = scene.waiter(at(0));
    drop(lead);
    assert!(matches!(landed(waiter).await, Landing::Lost));
    let second = scene.lead(at(1));
    second.keep(form("b"), life(), at(2));
    assert!(scene.found(at(3)).is_some());
}

#[tokio::test]
async fn what_is_for_one_caller_alone_lets_the_others_go_at_once() {
    let scene = Scene::new();
    let lead = scene.lead(at(0));
    let waiter = scene.waiter(at(0));
    lead.pass();
    assert!(matches!(landed(waiter).await, Landing::Passed));
    assert!(scene.found(at(0)).is_none());
}

#[test]
fn who_looked_before_the_landing_and_joins_after_it_is_no_second_leader() {
    let scene = Scene::new();
    assert!(scene.found(at(0)).is_none());
    scene.lead(at(0)).keep(form("a"), life(), at(1));
    assert!(matches!(scene.cache.join(LocalKey::of(1), about(&scene.purges), None, at(2)), Joined::Found(_)));
}

#[test]
fn one_stale_answer_leads_to_one_refresh() {
    let scene = Scene::new();
    scene.lead(at(0)).keep(form("a"), life(), at(0));
    let refreshes: Vec<Box<Lead>> = (0..10)
        .filter_map(|_| match scene.cache.look(&LocalKey::of(1), at(65), LATER, || about(&scene.purges)) {
            Looked::Found { refresh, .. } => refresh,
            Looked::Nothing { .. } => panic!("it is stale, not gone"),
        })
        .collect();
    assert_eq!(refreshes.len(), 1);
    refreshes.into_iter().for_each(|lead| _ = lead.keep(form("b"), life(), at(66)));
    assert_eq!(scene.found(at(120)), Some((r#"{"text":"b"}"#.to_owned(), Status::Hit)));
}

#[test]
fn an_old_result_answers_when_the_server_cannot() {
    let scene = Scene::new();
    scene.lead(at(0)).keep(form("a"), life(), at(0));
    let spare = |now: Micros| {
        let Looked::Nothing { spare } =
            scene.cache.look(&LocalKey::of(1), now, LATER, || about(&scene.purges))
        else {
            panic!("too fresh")
        };
        let Joined::Lead(lead) = scene.cache.join(LocalKey::of(1), about(&scene.purges), spare, now) else {
            panic!("nobody else leads")
        };
        lead.spare(now).ok().map(|kept| text(&kept))
    };
    assert_eq!(spare(at(100)).as_deref(), Some(r#"{"text":"a"}"#));
    scene.purges.purge(&Purge::Server);
    assert_eq!(spare(at(101)), None);
}

#[test]
fn a_purge_strikes_what_is_kept_and_what_is_under_way() {
    let scene = Scene::new();
    scene.lead(at(0)).keep(form("a"), life(), at(0));
    scene.purges.purge(&Purge::Tool("get".to_owned()));
    assert!(scene.found(at(1)).is_none());

    let before = scene.lead(at(1));
    scene.purges.purge(&Purge::Call([9; 16]));
    // Who asks after the purge must not get what was asked for before it.
    let after = scene.lead(at(2));
    before.keep(form("old"), life(), at(3));
    assert!(scene.found(at(3)).is_none());
    after.keep(form("new"), life(), at(4));
    assert_eq!(scene.found(at(5)).map(|(text, _)| text).as_deref(), Some(r#"{"text":"new"}"#));
}

#[tokio::test]
async fn an_old_flight_that_lands_late_does_not_end_the_new_one() {
    let scene = Scene::new();
    let before = scene.lead(at(0));
    scene.purges.purge(&Purge::Server);
    let after = scene.lead(at(1));
    drop(before);
    let waiter = scene.waiter(at(2));
    after.keep(form("new"), life(), at(3));
    assert!(matches!(landed(waiter).await, Landing::Kept(_)));
}

#[test]
fn memory_stays_within_the_bound_however_much_comes() {
    const MAX: u64 = 4 << 20;
    let cache = ResultCache::new(MAX);
    let purges: Arc<Purges> = Arc::default();
    let about = about(&purges);
    for number in 0..40_000u32 {
        let key = LocalKey::of(u64::from(number));
        let Joined::Lead(lead) = cache.join(key, about.clone(), None, at(0)) else { panic!("new") };
        lead.keep(form(&"x".repeat(number as usize % 2000)), life(), at(0));
        assert!(cache.bytes() <= MAX, "{}", cache.bytes());
    }
    assert!(cache.bytes() > MAX / 100 * 95, "{}", cache.bytes());
    assert_eq!(about.tally.now().held_bytes, cache.bytes());
    cache.rebound(1 << 20);
    assert!(cache.bytes() <= 1 << 20);
}

#[test]
fn what_is_asked_for_often_outlives_what_is_asked_for_once() {
    let cache = ResultCache::new(1 << 20);
    let purges: Arc<Purges> = Arc::default();
    let look = |number: u64| cache.look(&LocalKey::of(number), at(0), LATER, || about(&purges));
    let keep = |number: u64| {
        if let Joined::Lead(lead) = cache.join(LocalKey::of(number), about(&purges), None, at(0)) {
            lead.keep(form(&"x".repeat(700)), life(), at(0));
        }
    };
    (0..100).for_each(keep);
    for number in 1_000..20_000 {
        keep(number);
        let hot = number % 100;
        if matches!(look(hot), Looked::Nothing { .. }) {
            keep(hot);
        }
    }
    let still = (0..100).filter(|hot| matches!(look(*hot), Looked::Found { .. })).count();
    assert!(still > 90, "{still}");
}
