//! What the tests share: opening a store, and a writer that remembers what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use regatta_store::redis::{Options, Redis, open};
use regatta_store::{Cas, Etag, Link, Merge, Sessions, Store, StoreError, Uuid16, Versioned};
use regatta_testkit::eventually;

/// How long something may take that must happen, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Puts both records behind each other, so that a test sees that both came in.
pub fn merge() -> Merge {
    Arc::new(|kept, stored| Bytes::from([kept, b"+", stored].concat()))
}

pub fn options(url: &str) -> Options {
    Options::at(url, merge()).expect("the URL is fine")
}

/// A store that has connected and hears notices.
pub async fn connected(options: Options) -> Redis {
    let store = open(options);
    wait_certain(&store).await;
    store
}

/// Waits until the store is up and what it answers is kept in mind.
pub async fn wait_certain(store: &Redis) {
    eventually("the store is up and hears notices", SOON, async || {
        let session = session();
        let read = store.read(&session).await.is_ok();
        let certain = store.warm(&session) != regatta_store::Warm::Ask;
        (read && certain && store.link() == Link::Up).then_some(())
    })
    .await;
}

/// Today, as an issue day.
pub fn today() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u32::try_from(now.as_secs() / 86_400).expect("it is before the year 11 million")
}

/// A number that nobody else has in this process.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// A session that nobody else has.
pub fn session() -> Uuid16 {
    let mut bytes = [0xa5; 16];
    bytes[..8].copy_from_slice(&unique().to_be_bytes());
    Uuid16(bytes)
}

/// A record with an etag that nobody else has.
pub fn record(value: &str) -> Versioned {
    let mut etag = [0x5a; 16];
    etag[..8].copy_from_slice(&unique().to_be_bytes());
    Versioned { etag: Etag(etag), value: Bytes::copy_from_slice(value.as_bytes()) }
}

/// What a writer saw.
#[derive(Default)]
pub struct Seen {
    /// Records that were acknowledged, by the store or to be published.
    pub written: Vec<(Uuid16, Versioned)>,
    /// Of these, kept here at first.
    pub kept: usize,
    /// Other outcomes.
    pub errors: Vec<StoreError>,
    /// The longest time without a `Done`.
    pub gap: Duration,
    /// The longest call.
    pub longest: Duration,
}

/// Writes a new session's record about every two milliseconds until `over`.
pub async fn write_until(store: &Redis, over: impl AsyncFn() -> bool) -> Seen {
    let mut seen = Seen::default();
    let mut done_at = Instant::now();
    while !over().await {
        // The lull in which nobody asks is a part of the load's shape: hundreds of writes a second, not all there is.
        tokio::time::sleep(Duration::from_millis(2)).await;
        write_one(store, session(), &mut seen, &mut done_at).await;
    }
    seen
}

pub async fn write_one(store: &Redis, session: Uuid16, seen: &mut Seen, done_at: &mut Instant) {
    let (next, began) = (record("written"), Instant::now());
    let answer = store.compare_and_set(&session, None, next.clone()).await;
    seen.longest = seen.longest.max(began.elapsed());
    match answer {
        Ok(Cas::Done) => {
            seen.gap = seen.gap.max(done_at.elapsed());
            *done_at = Instant::now();
        }
        Ok(Cas::KeptHere) => seen.kept += 1,
        Ok(Cas::Lost(_)) => panic!("nobody else writes this session"),
        Err(error) => return seen.errors.push(error),
    }
    seen.written.push((session, next));
}

/// Waits until everything that was written is in the store, as somebody else sees it; gives the number that is not.
pub async fn missing(store: &Redis, other: &Redis, seen: &Seen) -> usize {
    eventually("all that was kept is published", SOON, async || {
        (store.stats().link.unpublished_records == 0 && store.link() == Link::Up).then_some(())
    })
    .await;
    wait_certain(other).await;
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut missing = 0;
        for (session, written) in &seen.written {
            let read =
                eventually("a record can be read", SOON, async || other.read(session).await.ok()).await;
            missing += usize::from(read.as_deref() != Some(written));
        }
        if missing == 0 || Instant::now() > end {
            return missing;
        }
    }
}
