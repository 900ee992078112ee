//! The embedded store against the suite, against kills at every byte and step, full disks, and its own bounds.
//!
//! Time is set by hand; the other process in the kill test is this test binary itself, started as a child.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::{Buried, Cas, Etag, Sessions, Uuid16, Versioned, Warm, suite};

const NOW_S: u64 = 1_800_000_000;
const DAY: u32 = (NOW_S / 86_400) as u32;

/// A clock that stands still until it is set.
#[derive(Clone)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn new() -> TestClock {
        TestClock(Arc::new(AtomicU64::new(NOW_S)))
    }

    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Relaxed);
    }

    fn clock(&self) -> Clock {
        let now = self.0.clone();
        Arc::new(move || now.load(Relaxed))
    }
}

fn small() -> Bounds {
    Bounds { log_bytes_max: 64 << 10, ..Bounds::default() }
}

/// Opens a directory that its last store has let go of. A child that another test starts has a copy of every open file from its
/// fork to its exec, and so of the lock: that is waited out.
fn open_at(dir: &Path, bounds: Bounds) -> Embedded {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match open_with_clock(Some(dir), bounds, TestClock::new().clock()) {
            Err(OpenError::Held(_)) if std::time::Instant::now() < end => std::thread::yield_now(),
            opened => return opened.expect("the directory is free"),
        }
    }
}

fn session(number: u32) -> Uuid16 {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Uuid16(bytes)
}

fn record(number: u32, value: &[u8]) -> Versioned {
    Versioned { etag: Etag(session(number).0), value: Bytes::copy_from_slice(value) }
}

fn value_of(store: &Embedded, number: u32) -> Option<Bytes> {
    match store.warm(&session(number)) {
        Warm::Some(record) => Some(record.value.clone()),
        Warm::None => None,
        Warm::Ask => panic!("the embedded store always knows"),
    }
}

/// Puts without regard to what is there.
fn put(store: &Embedded, number: u32, value: &[u8]) {
    let expected = store.live(&session(number)).map(|present| present.etag);
    let mut next = record(number, value);
    next.etag.0[8..].copy_from_slice(&store.writer().log_bytes().to_be_bytes());
    assert_eq!(store.put(session(number), expected, next), Ok(Cas::Done));
}

#[tokio::test]
async fn passes_the_suite_in_a_directory_and_after_each_restart() {
    let dir = TempDir::new().unwrap();
    for seed in 1..=3 {
        let store = open_at(dir.path(), Bounds::default());
        suite::run(&store, seed, DAY).await;
        suite::run_pair(&store, &store, seed, DAY).await;
    }
}

#[tokio::test]
async fn passes_the_suite_while_it_compacts_all_the_time() {
    let dir = TempDir::new().unwrap();
    let store = open_at(dir.path(), Bounds { log_bytes_max: 1 << 20, ..Bounds::default() });
    for seed in 1..=10 {
        suite::run(&store, seed, DAY).await;
        store.settle();
    }
    assert!(store.stats().compactions > 2, "{:?}", store.stats());
    assert_eq!(store.stats().compaction_failures, 0);
}

#[tokio::test]
async fn passes_the_suite_in_memory() {
    let store = open(None, Bounds::default()).unwrap();
    suite::run(&store, 1, (store.clock)() as u32 / 86_400).await;
    assert!(matches!(store.durability(), Durability::ProcessOnly { .. }));
}

#[tokio::test]
async fn a_restart_finds_everything_again() {
    let dir = TempDir::new().unwrap();
    let key = StoredKey { fingerprint: [1, 2, 3, 4], secret: [0xab; 32], published_s: NOW_S };
    let store = open_at(dir.path(), Bounds::default());
    put(&store, 1, b"old");
    put(&store, 1, b"new");
    put(&store, 2, b"forgotten");
    store.forget(&session(2)).await.unwrap();
    store.bury(DAY, [5; 16]).await.unwrap();
    store.put_key(key.clone()).await.unwrap();
    let before = store.read(&session(1)).await.unwrap();
    drop(store);

    let store = open_at(dir.path(), Bounds::default());
    assert_eq!(store.durability(), Durability::Durable);
    assert_eq!(store.read(&session(1)).await.unwrap(), before);
    assert_eq!(value_of(&store, 2), None);
    assert_eq!(store.buried(DAY, &[5; 16]), Buried::Yes);
    assert_eq!(store.keys().await.unwrap(), [key]);
    assert_eq!(store.stats().cut_tails, 0);
}

/// Whatever byte a kill stops the writing at: the entries before are there, and the store works on.
#[tokio::test]
async fn a_tail_torn_at_any_byte_costs_only_the_torn_entry() {
    let dir = TempDir::new().unwrap();
    let store = open_at(dir.path(), Bounds::default());
    let mut ends = vec![store.stats().log_bytes];
    for number in 0..4 {
        put(&store, number, b"0123456789");
        ends.push(store.stats().log_bytes);
    }
    drop(store);
    let whole = fs::read(dir.path().join("log.1")).unwrap();
    for length in 0..=whole.len() {
        let torn = TempDir::new().unwrap();
        fs::write(torn.path().join("log.1"), &whole[..length]).unwrap();
        let store = open_at(torn.path(), Bounds::default());
        let sound = ends.iter().filter(|end| **end <= length as u64).count().saturating_sub(1) as u32;
        for number in 0..4 {
            assert_eq!(
                value_of(&store, number).is_some(),
                number < sound,
                "record {number}, cut at {length}"
            );
        }
        assert_eq!(store.stats().cut_tails, u64::from(!ends.contains(&(length as u64))), "cut at {length}");
        put(&store, 9, b"after");
        drop(store);
        let store = open_at(torn.path(), Bounds::default());
        assert_eq!(value_of(&store, 9).as_deref(), Some(&b"after"[..]));
        assert_eq!(store.stats().records, u64::from(sound) + 1);
        assert_eq!(store.stats().cut_tails, 0, "what was cut once is gone");
    }
}

#[test]
fn a_corrupt_byte_anywhere_never_keeps_it_from_starting() {
    let dir = TempDir::new().unwrap();
    let store = open_at(dir.path(), Bounds::default());
    (0..3).for_each(|number| put(&store, number, b"0123456789"));
    drop(store);
    let whole = fs::read(dir.path().join("log.1")).unwrap();
    for at in 0..whole.len() {
        let corrupt = TempDir::new().unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(corrupt.path().join("log.1"), &bytes).unwrap();
        match open(Some(corrupt.path()), Bounds::default()) {
            Ok(store) => assert_eq!(store.stats().cut_tails, 1, "byte {at}"),
            // The digit of the layout's version: a newer log is not a corrupt one, and is not touched.
            Err(OpenError::Newer(..)) => assert_eq!(at, 7),
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
}

#[test]
fn a_log_of_a_newer_layout_is_left_alone() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("log.1"), b"RGTALOG2Wsomething").unwrap();
    assert!(matches!(open(Some(dir.path()), Bounds::default()), Err(OpenError::Newer(..))));
    assert_eq!(fs::read(dir.path().join("log.1")).unwrap(), b"RGTALOG2Wsomething");
}

#[test]
fn compaction_keeps_the_log_bounded_and_the_state_whole() {
    let dir = TempDir::new().unwrap();
    let store = open_at(dir.path(), small());
    store.inter(DAY, [9; 16]).unwrap();
    for round in 0..200u32 {
        (0..50).for_each(|number| put(&store, number, &round.to_be_bytes()));
        if round % 20 == 0 {
            store.settle();
        }
    }
    store.settle();
    put(&store, 1, b"after");
    assert!(store.stats().compactions >= 3, "{:?}", store.stats());
    assert!(store.stats().log_bytes <= 3 * small().log_bytes_max, "{:?}", store.stats());
    drop(store);

    let on_disk: u64 =
        fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(on_disk <= 3 * small().log_bytes_max, "{on_disk}");
    let store = open_at(dir.path(), small());
    assert_eq!(store.stats().records, 50);
    assert_eq!(value_of(&store, 1).as_deref(), Some(&b"after"[..]));
    assert_eq!(value_of(&store, 49).as_deref(), Some(&199u32.to_be_bytes()[..]));
    assert_eq!(store.buried(DAY, &[9; 16]), Buried::Yes);
}

/// The files that a kill can leave at each step of a compaction all give the same state.
#[test]
fn a_kill_during_a_compaction_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let store = open_at(dir.path(), Bounds::default());
    put(&store, 1, b"stays");
    put(&store, 2, b"goes");
    store.writer().change(Entry::Remove { session: session(2) });
    let before = fs::read(path("log.1")).unwrap();
    let expect = |step: &str| {
        let store = open_at(dir.path(), Bounds::default());
        assert_eq!(value_of(&store, 1).as_deref(), Some(&b"stays"[..]), "{step}");
        assert_eq!(value_of(&store, 2), None, "{step}");
        assert_eq!(value_of(&store, 3).as_deref(), Some(&b"meanwhile"[..]), "{step}");
    };
    {
        let mut log = Log::open(dir.path()).unwrap().0;
        let rewrite = log.split().unwrap();
        let entries = store.state.entries();
        put(&store, 3, b"meanwhile");
        let mut bytes = Vec::new();
        let three = Entry::Put { session: session(3), used_s: NOW_S, record: record(3, b"meanwhile") };
        three.write(&mut bytes);
        log.append(&bytes).unwrap();
        drop(store);
        fs::write(path("log.1"), &before).unwrap();
        expect("split, and nothing rewritten");
        fs::write(path("log.tmp"), b"RGTALOG1Whalf").unwrap();
        expect("half of it rewritten aside");
        rewrite.run(&entries).unwrap();
        assert!(!path("log.1").exists() && path("log.2").exists() && path("log.3").exists());
        fs::write(path("log.1"), &before).unwrap();
        expect("renamed, and the old file not removed");
        assert!(!path("log.1").exists(), "a void file goes at the next start");
    }
}

#[test]
fn a_second_store_on_the_same_directory_refuses_to_start() {
    let dir = TempDir::new().unwrap();
    let first = open_at(dir.path(), Bounds::default());
    let refused = open(Some(dir.path()), Bounds::default()).err().expect("it is held");
    assert!(matches!(&refused, OpenError::Held(held) if held == dir.path()));
    assert!(refused.to_string().contains("in use by another gateway"));
    drop(first);
    open_at(dir.path(), Bounds::default());
}

/// Not a test of its own: the other process of the two tests below.
#[test]
#[ignore = "started as a child by other tests"]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os("REGATTA_STORE_TEST_DIR") else { return };
    let store = open_at(Path::new(&dir), small());
    let mut out = std::io::stdout();
    for number in 0.. {
        put(&store, number % 100, &number.to_be_bytes());
        writeln!(out, "done {number}").unwrap();
        // A slow disk must not make the log fill up in earnest.
        if store.stats().log_bytes > 3 * small().log_bytes_max {
            store.settle();
        }
    }
}

fn child(dir: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "embedded::tests::child_that_writes_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env("REGATTA_STORE_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_process_loses_nothing_that_it_answered_for_and_a_living_one_keeps_others_out() {
    let dir = TempDir::new().unwrap();
    for kills in 0..4 {
        let mut child = child(dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let number =
            |line: &str| line.rsplit_once("done ").and_then(|(_, number)| number.parse::<u32>().ok());
        let mut last = None;
        while last.is_none_or(|last| last < 1500 + kills * 700) {
            last = lines.next().and_then(Result::ok).as_deref().map_or(last, |line| number(line).or(last));
        }
        assert!(matches!(open(Some(dir.path()), small()), Err(OpenError::Held(_))));
        child.kill().unwrap();
        child.wait().unwrap();
        // The pipe still has what it said before it died.
        last = lines.map_while(Result::ok).filter_map(|line| number(&line)).last().or(last);

        let store = open_at(dir.path(), small());
        let last = last.unwrap();
        for answered in last - 98..=last {
            let value = value_of(&store, answered % 100).expect("an answered write is there");
            let value = u32::from_be_bytes(value[..].try_into().unwrap());
            // One write may have reached the log without its answer.
            assert!(value == answered || value == last + 1, "{value} instead of {answered}");
        }
    }
}

#[test]
fn goes_on_in_memory_without_a_directory_it_can_write() {
    let dir = TempDir::new().unwrap();
    // A file where the directory should be: unusable for anybody, root too.
    let blocked = dir.path().join("state");
    fs::write(&blocked, b"").unwrap();
    for dir in [blocked.clone(), blocked.join("below")] {
        let store = open(Some(&dir), Bounds::default()).unwrap();
        put(&store, 1, b"kept");
        assert_eq!(value_of(&store, 1).as_deref(), Some(&b"kept"[..]));
        let Durability::ProcessOnly { why } = store.durability() else { panic!("it cannot be durable") };
        assert!(why.contains("state"), "{why}");
    }
}

#[tokio::test]
async fn a_disk_that_fails_is_told_and_healed() {
    let dir = TempDir::new().unwrap();
    let store = open_at(dir.path(), Bounds::default());
    put(&store, 1, b"before");
    store.writer().fail_writes(true);
    put(&store, 2, b"meanwhile");
    assert_eq!(value_of(&store, 2).as_deref(), Some(&b"meanwhile"[..]), "memory goes on");
    assert!(matches!(store.durability(), Durability::ProcessOnly { .. }));
    assert!(matches!(store.bury(DAY, [1; 16]).await, Err(StoreError::Away(_))), "no end that may not hold");
    assert_eq!(store.buried(DAY, &[1; 16]), Buried::No);
    assert_eq!(store.stats().write_failures, 2);

    store.writer().fail_writes(false);
    put(&store, 3, b"again");
    assert!(matches!(store.durability(), Durability::ProcessOnly { .. }), "the log still lacks a record");
    store.tend();
    store.settle();
    assert_eq!(store.durability(), Durability::Durable);
    drop(store);
    let store = open_at(dir.path(), Bounds::default());
    assert_eq!(store.stats().records, 3);
}

#[tokio::test]
async fn every_bound_refuses_and_counts() {
    let bounds = Bounds { records_max: 2, tombstones_max: 1, value_max: 8, ..Bounds::default() };
    let store = open_with_clock(None, bounds, TestClock::new().clock()).unwrap();
    put(&store, 1, b"1");
    put(&store, 2, b"2");
    let third = store.put(session(3), None, record(3, b"3"));
    assert_eq!(third, Err(StoreError::Full("session records")));
    put(&store, 2, b"a change");
    assert_eq!(
        store.put(session(3), None, record(3, b"too large")),
        Err(StoreError::TooLarge("a session record"))
    );
    store.bury(DAY, [1; 16]).await.unwrap();
    store.bury(DAY, [1; 16]).await.unwrap();
    assert_eq!(store.may_bury(DAY, [1; 16]).await, Ok(()));
    assert_eq!(store.may_bury(DAY, [2; 16]).await, Err(StoreError::Full("tombstones")));
    assert_eq!(store.bury(DAY, [2; 16]).await, Err(StoreError::Full("tombstones")));
    for number in 0..=KEYS_MAX as u32 {
        let key = StoredKey { fingerprint: number.to_be_bytes(), secret: [0; 32], published_s: 0 };
        assert_eq!(store.put_key(key).await.is_ok(), number < KEYS_MAX as u32);
    }
    let stats = store.stats();
    assert_eq!((stats.refused_records, stats.refused_values), (1, 1));
    assert_eq!((stats.refused_tombstones, stats.refused_keys), (1, 1));

    let tight = Bounds { log_bytes_max: 400, ..Bounds::default() };
    let store = open_with_clock(None, tight, TestClock::new().clock()).unwrap();
    put(&store, 1, &[0; 100]);
    assert_eq!(store.put(session(2), None, record(2, &[0; 100])), Err(StoreError::Full("session records")));
}

#[test]
fn records_go_a_day_after_their_last_use_and_a_use_survives_a_restart() {
    let (dir, clock) = (TempDir::new().unwrap(), TestClock::new());
    let open = || open_with_clock(Some(dir.path()), Bounds::default(), clock.clock()).unwrap();
    let store = open();
    put(&store, 1, b"used");
    put(&store, 2, b"unused");
    let before = store.stats().log_bytes;
    store.touch(&session(1));
    assert_eq!(store.stats().log_bytes, before, "a use within the hour is not logged");
    clock.pass(23 * 3600);
    store.touch(&session(1));
    let after = store.stats().log_bytes;
    assert!(after > before);
    store.touch(&session(1));
    assert_eq!(store.stats().log_bytes, after);
    drop(store);

    clock.pass(2 * 3600);
    let store = open();
    assert!(value_of(&store, 1).is_some());
    assert_eq!(value_of(&store, 2), None);
    assert_eq!((store.stats().records, store.stats().expired_records), (1, 1));
    clock.pass(23 * 3600);
    assert_eq!(value_of(&store, 1), None, "over is over, before housekeeping as well");
    assert_eq!(store.put(session(1), None, record(1, b"anew")), Ok(Cas::Done));
    store.tend();
    assert!(value_of(&store, 1).is_some());
}

#[test]
fn tombstones_go_with_their_day_and_not_before_their_sessions() {
    let (dir, clock) = (TempDir::new().unwrap(), TestClock::new());
    let open = || open_with_clock(Some(dir.path()), Bounds::default(), clock.clock()).unwrap();
    let store = open();
    store.inter(DAY, [1; 16]).unwrap();
    store.inter(DAY + 4, [2; 16]).unwrap();
    clock.pass(8 * 86_400);
    store.tend();
    assert_eq!(store.buried(DAY, &[1; 16]), Buried::Yes);
    clock.pass(3 * 86_400);
    drop(store);
    let store = open();
    assert_eq!(store.buried(DAY, &[1; 16]), Buried::No);
    assert_eq!(store.buried(DAY + 4, &[2; 16]), Buried::Yes);
    assert_eq!(store.stats().expired_tombstones, 1);
    assert_eq!(store.stats().tombstones, 1);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_keys_and_log() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("new");
    let mode = |name: &str| fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o777;
    let store = open_at(&state, Bounds::default());
    let key = StoredKey { fingerprint: [1; 4], secret: [0xab; 32], published_s: 5 };
    store.put_key(key.clone()).await.unwrap();
    assert_eq!((mode("."), mode("keys"), mode("log.1")), (0o700, 0o600, 0o600));
    assert!(!format!("{key:?}").contains("171"), "a key is hidden in debug output");
    drop(store);
    fs::set_permissions(state.join("keys"), fs::Permissions::from_mode(0o644)).unwrap();
    open_at(&state, Bounds::default());
    assert_eq!(mode("keys"), 0o600, "and closed again if somebody opened them");
}

#[tokio::test]
async fn a_key_line_that_cannot_be_read_is_kept_and_passed_over() {
    let dir = TempDir::new().unwrap();
    let good = format!("01020304 5 {}\n", "ab".repeat(32));
    for strange in ["v2 01020304 something", "01020304 5 abab", "", "zz020304 5 00"] {
        fs::write(dir.path().join("keys"), format!("{strange}\n{good}")).unwrap();
        let store = open_at(dir.path(), Bounds::default());
        assert_eq!(store.keys().await.unwrap().len(), 1, "{strange}");
        store.put_key(StoredKey { fingerprint: [9; 4], secret: [1; 32], published_s: 6 }).await.unwrap();
        let text = fs::read_to_string(dir.path().join("keys")).unwrap();
        assert!(text.starts_with(&good) && text.ends_with(&format!("{strange}\n")), "{text}");
    }
}

#[test]
fn writers_from_many_threads_never_both_win() {
    let dir = TempDir::new().unwrap();
    let store = open_at(dir.path(), small());
    let won = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (store, won) = (&store, &won);
            scope.spawn(move || {
                for number in 0..500 {
                    let next = Versioned { etag: Etag([thread as u8; 16]), value: Bytes::from_static(b"x") };
                    if store.put(session(number), None, next) == Ok(Cas::Done) {
                        won.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(won.load(Relaxed), 500);
    assert_eq!(store.stats().records, 500);
}
