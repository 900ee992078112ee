//! Two gateways over one store that fails as told.

use regatta_mcp::skim;
use regatta_policy::cache::Telling;
use regatta_seal::MasterKey;

use super::fake::{Fake, Trouble};
use super::*;
use crate::cache::{Joined, Looked, ResultCache};
use crate::key::LocalKey;
use crate::tally::Tally;

const KEY: Key = Key([1; 32]);
const PATIENCE: Patience = Patience { silence: Duration::from_secs(30), whole: Duration::from_secs(600) };
const NOW: Micros = Micros(1_000_000_000);

struct Gateway {
    cache: Arc<ResultCache>,
    purges: Arc<Purges>,
    shelf: Arc<Shelf>,
    tally: Arc<Tally>,
}

impl Gateway {
    async fn new(fleet: &Arc<Fake>, own: u8) -> Gateway {
        Self::over(fleet.clone(), own).await
    }

    async fn over(fleet: Arc<dyn Fleet>, own: u8) -> Gateway {
        Self::with_keys(fleet, own, ring(&[1])).await
    }

    async fn with_keys(fleet: Arc<dyn Fleet>, own: u8, ring: Arc<KeyRing>) -> Gateway {
        let purges: Arc<Purges> = Arc::default();
        let rings: Rings = Arc::new(move || ring.clone());
        let shelf = Shelf::new((fleet, rings), [7; 16], Holder([own; 16]), purges.clone());
        let _ = shelf.follow().await;
        Gateway { cache: ResultCache::new(1 << 20), purges, shelf, tally: Arc::default() }
    }

    fn keep_following(&self) {
        let shelf = self.shelf.clone();
        tokio::spawn(async move {
            loop {
                let _ = shelf.follow().await;
                sleep(TRUSTED_FOR / 4).await;
            }
        });
    }

    fn about(&self) -> About {
        About {
            purges: self.purges.clone(),
            shared: Some(OnShelf { shelf: self.shelf.clone(), key: KEY }),
            tally: self.tally.clone(),
            tool: "get".into(),
            principal: None,
            call: [9; 16],
        }
    }

    fn lead(&self) -> Box<Lead> {
        match self.cache.join(LocalKey::of(1), self.about(), None, NOW) {
            Joined::Lead(lead) => lead,
            Joined::Wait(_) | Joined::Found(_) => panic!("nothing is kept or under way"),
        }
    }

    async fn seek(&self) -> Sought {
        seek(self.lead(), PATIENCE, || NOW).await
    }

    /// What this gateway gives a caller: kept or found text, or that it fetches itself.
    async fn ask(&self, fetched: &str) -> String {
        if let Looked::Found { kept, .. } = self.cache.look(&LocalKey::of(1), NOW, u64::MAX, || self.about())
        {
            return text(&kept);
        }
        match self.seek().await {
            Sought::Kept(kept) => text(&kept),
            Sought::Lead(lead) => {
                lead.keep(form(fetched), life(), NOW);
                settle().await;
                format!("fetched {fetched}")
            }
            Sought::Late => "late".to_owned(),
        }
    }
}

/// Keys by their bytes; the first seals.
fn ring(keys: &[u8]) -> Arc<KeyRing> {
    let keys: Vec<MasterKey> = keys.iter().map(|key| MasterKey::new([*key; 32])).collect();
    Arc::new(keys.iter().fold(KeyRing::new(&keys[0]), |ring, key| ring.add(key)))
}

fn life() -> Life {
    Life::plain(Duration::from_secs(3600))
}

fn form(text: &str) -> Form {
    let text = format!(r#"{{"id":1,"result":{{"text":"{text}"}}}}"#);
    Form::of(text.as_bytes(), &skim(text.as_bytes()).expect("JSON-RPC"), Telling::Silent).expect("an object")
}

fn text(kept: &Kept) -> String {
    String::from_utf8(kept.form.parts().0.to_vec())
        .expect("UTF-8")
        .replace(r#"{"text":""#, "")
        .replace(r#""}"#, "")
}

/// Lets the tasks that write to the store run.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_one_gateway_fetched_the_other_finds() {
    let fleet: Arc<Fake> = Arc::default();
    let (one, two) = (Gateway::new(&fleet, 1).await, Gateway::new(&fleet, 2).await);
    assert_eq!(one.ask("a").await, "fetched a");
    assert_eq!(two.ask("b").await, "a");
    assert_eq!(two.ask("c").await, "a");
    assert_eq!((fleet.values(), fleet.claims()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn of_three_gateways_that_ask_at_once_one_fetches() {
    let fleet: Arc<Fake> = Arc::default();
    let one = Gateway::new(&fleet, 1).await;
    let Sought::Lead(lead) = one.seek().await else { panic!("nobody else fetches") };
    let others: Vec<_> = [2, 3]
        .map(|own| {
            let fleet = fleet.clone();
            tokio::spawn(async move {
                let gateway = Gateway::new(&fleet, own).await;
                gateway.keep_following();
                gateway.ask("b").await
            })
        })
        .into();
    // Longer than a lease: the leader renews it.
    sleep(LEASE * 5).await;
    lead.keep(form("a"), life(), NOW);
    for other in others {
        assert_eq!(other.await.expect("no panic"), "a");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_is_taken_over() {
    let fleet: Arc<Fake> = Arc::default();
    let (one, two) = (Gateway::new(&fleet, 1).await, Gateway::new(&fleet, 2).await);
    // As after kill -9: the claim stands, and nobody renews it.
    let claimed = fleet.claim(&KEY, Holder([9; 16]), LEASE).await;
    assert_eq!(claimed, Ok(Claimed::Yours));
    let began = Instant::now();
    assert_eq!(one.ask("a").await, "fetched a");
    assert!(began.elapsed() >= LEASE && began.elapsed() < LEASE * 2, "{:?}", began.elapsed());
    two.shelf.follow().await.expect("the store is there");
    assert_eq!(two.ask("b").await, "a");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_gives_up_lets_the_other_gateway_lead() {
    let fleet: Arc<Fake> = Arc::default();
    let (one, two) = (Gateway::new(&fleet, 1).await, Gateway::new(&fleet, 2).await);
    let Sought::Lead(lead) = one.seek().await else { panic!("nobody else fetches") };
    lead.pass();
    settle().await;
    let began = Instant::now();
    assert_eq!(two.ask("b").await, "fetched b");
    assert!(began.elapsed() < LEASE);
}

#[tokio::test(start_paused = true)]
async fn a_purge_is_known_at_the_other_gateway_when_it_compares() {
    let fleet: Arc<Fake> = Arc::default();
    let (one, two) = (Gateway::new(&fleet, 1).await, Gateway::new(&fleet, 2).await);
    assert_eq!(one.ask("a").await, "fetched a");
    assert_eq!(two.ask("-").await, "a");
    two.shelf.number(&Purge::Tool("get".to_owned())).await.expect("the store is there");
    assert_eq!(two.ask("b").await, "fetched b", "who purged does not get the old one from the store");
    one.shelf.follow().await.expect("the store is there");
    assert_eq!(one.ask("-").await, "b");
    two.shelf.follow().await.expect("the store is there");
    assert_eq!(two.ask("-").await, "b", "one's own purge strikes once");
    one.shelf.number(&Purge::Tool("other".to_owned())).await.expect("the store is there");
    two.shelf.follow().await.expect("the store is there");
    assert_eq!(two.ask("-").await, "b");
}

#[tokio::test(start_paused = true)]
async fn whatever_is_wrong_with_the_store_costs_a_fetch_and_no_more() {
    let fleet: Arc<Fake> = Arc::default();
    let fresh = async || Gateway::new(&fleet, 3).await;
    assert_eq!(fresh().await.ask("a").await, "fetched a");

    let met_before = fresh().await;
    fleet.trouble(Trouble::Away);
    assert_eq!(met_before.ask("b").await, "fetched b");
    assert_eq!(fresh().await.ask("c").await, "fetched c");
    fleet.trouble(Trouble::None);
    let met_before = fresh().await;
    fleet.trouble(Trouble::Slow);
    let began = Instant::now();
    assert_eq!(met_before.ask("d").await, "fetched d");
    assert!(began.elapsed() < ANSWER_MAX * 2, "{:?}", began.elapsed());
    fleet.trouble(Trouble::None);

    fleet.corrupt();
    assert_eq!(fresh().await.ask("e").await, "fetched e");
    assert_eq!(fresh().await.ask("-").await, "e");
    let keeps = fresh().await;
    assert_eq!(keeps.ask("-").await, "e");
    fleet.wipe();
    keeps.shelf.follow().await.expect("the store is there");
    assert_eq!(keeps.ask("f").await, "fetched f", "nobody knows what was purged before the store lost it");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_compared_for_a_while_is_not_trusted() {
    let fleet: Arc<Fake> = Arc::default();
    let (one, two) = (Gateway::new(&fleet, 1).await, Gateway::new(&fleet, 2).await);
    assert_eq!(one.ask("a").await, "fetched a");
    sleep(TRUSTED_FOR).await;
    assert!(!two.shelf.is_trusted());
    assert_eq!(two.ask("b").await, "fetched b");
    assert_eq!(two.shelf.turned(), Some(true));
    two.shelf.follow().await.expect("the store is there");
    assert_eq!(two.shelf.turned(), Some(false));
    assert_eq!(two.shelf.turned(), None);
}

#[tokio::test]
async fn two_gateways_on_one_store_share_results_and_purges() {
    let store =
        regatta_store::embedded::open(None, regatta_store::Bounds::default()).expect("a store in memory");
    let fleet: Arc<dyn Fleet> = Arc::new(OverStore(Arc::new(store)));
    let (one, two) = (Gateway::over(fleet.clone(), 1).await, Gateway::over(fleet, 2).await);
    assert_eq!(one.ask("a").await, "fetched a");
    assert_eq!(two.ask("-").await, "a");
    two.shelf.number(&Purge::Tool("get".to_owned())).await.expect("the store is there");
    assert_eq!(two.ask("b").await, "fetched b");
    one.shelf.follow().await.expect("the store is there");
    assert_eq!(one.ask("-").await, "b");
}

#[tokio::test(start_paused = true)]
async fn the_purges_of_others_are_heard_even_after_ones_own() {
    let fleet: Arc<Fake> = Arc::default();
    let (one, two) = (Gateway::new(&fleet, 1).await, Gateway::new(&fleet, 2).await);
    assert_eq!(one.ask("a").await, "fetched a");
    assert_eq!(two.ask("-").await, "a");
    // Numbered before, and not followed yet.
    let hers = fleet.purge(&[7; 16], Purge::Tool("get".to_owned()).to_bytes(), Holder([2; 16])).await;
    assert_eq!(hers, Ok((1, 1)));
    assert_eq!(one.shelf.number(&Purge::Tool("other".to_owned())).await, Ok(2));
    assert!(!one.shelf.is_trusted());
    one.shelf.follow().await.expect("the store is there");
    assert_eq!(one.ask("b").await, "fetched b");
}

#[tokio::test(start_paused = true)]
async fn who_purges_waits_until_nobody_gives_out_the_old() {
    let fleet: Arc<Fake> = Arc::default();
    let (one, two) = (Gateway::new(&fleet, 1).await, Gateway::new(&fleet, 2).await);
    assert_eq!(one.ask("a").await, "fetched a");
    assert_eq!(two.ask("-").await, "a");
    let began = Instant::now();
    let shelf = one.shelf.clone();
    let purging = tokio::spawn(async move { shelf.purge(&Purge::Tool("get".to_owned())).await });
    sleep(TRUSTED_FOR / 2).await;
    assert!(!purging.is_finished(), "the other has not heard of it");
    two.shelf.follow().await.expect("the store is there");
    assert_eq!(purging.await.expect("no panic"), Ok(()));
    assert_eq!(two.ask("b").await, "fetched b");
    // Now the other is gone without a word.
    assert_eq!(one.shelf.purge(&Purge::Tool("get".to_owned())).await, Ok(()));
    assert!(began.elapsed() > TRUSTED_FOR && !two.shelf.is_trusted(), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_was_not_numbered_is_when_the_store_is_back() {
    let fleet: Arc<Fake> = Arc::default();
    let (one, two) = (Gateway::new(&fleet, 1).await, Gateway::new(&fleet, 2).await);
    assert_eq!(one.ask("a").await, "fetched a");
    assert_eq!(two.ask("-").await, "a");
    fleet.trouble(Trouble::Away);
    assert_eq!(one.shelf.purge(&Purge::Tool("get".to_owned())).await, Err(Away));
    assert!(!one.shelf.is_trusted());
    fleet.trouble(Trouble::None);
    for gateway in [&one, &two] {
        gateway.shelf.follow().await.expect("the store is there");
        assert!(gateway.shelf.is_trusted());
    }
    assert_eq!(two.ask("b").await, "fetched b");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_of_the_fleet_sealed_for_this_place_is_a_miss_and_counted() {
    let fleet: Arc<Fake> = Arc::default();
    let with_keys = async |keys: &[u8]| Gateway::with_keys(fleet.clone(), 1, ring(keys)).await;
    assert_eq!(with_keys(&[1]).await.ask("a").await, "fetched a");
    let after_a_rotation = with_keys(&[2, 1]).await;
    assert_eq!(after_a_rotation.ask("-").await, "a");
    assert_eq!(after_a_rotation.tally.now().refused, 0);

    let without_the_old_key = with_keys(&[2]).await;
    assert_eq!(without_the_old_key.ask("b").await, "fetched b");
    assert!(without_the_old_key.tally.now().refused > 0);

    let forge = |key: Key, keys: &[u8]| {
        let content =
            Content { form: form("forged"), life: life(), cost: Duration::ZERO, epoch: 1, since: 0 };
        stored::write(&ring(keys), &key, &content).expect("not too large")
    };
    for forged in [forge(Key([2; 32]), &[1]), forge(KEY, &[9]), Bytes::from_static(b"forged"), Bytes::new()] {
        fleet.set(&KEY, forged);
        let gateway = with_keys(&[1]).await;
        assert_eq!(gateway.ask("c").await, "fetched c");
        assert!(gateway.tally.now().refused > 0);
        assert_eq!(with_keys(&[1]).await.ask("-").await, "c", "what was fetched takes its place");
    }
    fleet.set(&KEY, forge(KEY, &[1]));
    assert_eq!(with_keys(&[1]).await.ask("-").await, "forged", "by the key and for the place it is one");
}

#[tokio::test(start_paused = true)]
async fn purges_of_lists_are_followed_seldom_and_not_before_anybody_asks() {
    let gateway = Gateway::new(&Arc::default(), 1).await;
    let due = || (0..20).filter(|beat| gateway.shelf.is_due(*beat)).count();
    assert_eq!(due(), 20);
    gateway.shelf.set_interest(Interest::Lists);
    assert_eq!(due(), 0);
    gateway.shelf.note_use();
    assert_eq!(due(), 2);
    gateway.shelf.set_interest(Interest::Results);
    assert_eq!(due(), 20);
}
