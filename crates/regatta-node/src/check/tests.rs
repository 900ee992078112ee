//! Every piece of nonsense is told by its name, alone; what is only odd is not refused.

use super::*;
use crate::settings::Secret;

fn with(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

fn secret(length: usize) -> Secret {
    Secret("s".repeat(length))
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

const STORE: &str = "redis://127.0.0.1:6379";

#[test]
fn the_defaults_make_sense_and_nothing_about_them_is_odd() {
    assert_eq!(Settings::default().check(1), Ok(()));
    assert_eq!(Settings::default().oddities(), Vec::<String>::new());
    let shared = with(|all| all.store_url = STORE.to_owned());
    assert_eq!((shared.check(1), shared.oddities()), (Ok(()), Vec::new()));
}

#[test]
fn complains_about_everything_at_once() {
    let settings = Settings { concurrent_max: 0, worker_threads: 9, drain_s: 1, ..Settings::default() };
    let told = settings.check(4).unwrap_err();
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.contains("worker_threads is over 8"), "{told}");
}

/// What is changed, and what the only complaint begins with.
type Case = (fn(&mut Settings), &'static str);

fn each_is_told_alone(cases: &[Case], told: impl Fn(Settings) -> Vec<String>) {
    for (change, expected) in cases {
        let told = told(with(change));
        assert_eq!(told.len(), 1, "one complaint about {expected}: {told:?}");
        assert!(told[0].starts_with(expected), "{expected} in {told:?}");
    }
}

fn refused(settings: Settings) -> Vec<String> {
    settings.check(4).err().map(|told| told.lines().map(str::to_owned).collect()).unwrap_or_default()
}

#[test]
fn each_number_that_is_too_small_or_too_large_is_refused() {
    each_is_told_alone(
        &[
            (|all| all.worker_threads = 9, "worker_threads is over 8"),
            (|all| all.concurrent_max = 0, "concurrent_max is 0"),
            (|all| all.queue_max = 1_000_001, "queue_max is over"),
            (|all| all.connections_max = 1_000_001, "connections_max is over"),
            (|all| all.parked_max = usize::MAX, "parked_max is over"),
            (|all| all.streams_max = usize::MAX, "streams_max is over"),
            (|all| all.request_bytes_max = 127, "request_bytes_max is below"),
            (|all| all.request_bytes_max = usize::MAX, "request_bytes_max is over"),
            (|all| all.request_timeout_ms = 0, "request_timeout_ms is 0"),
            (|all| all.keep_alive_s = u64::MAX, "keep_alive_s is over"),
            (|all| all.write_timeout_s = u64::MAX, "write_timeout_s is over"),
            (|all| all.write_timeout_s = 0, "write_timeout_s is 0"),
            (|all| all.drain_s = u64::MAX, "drain_s is over"),
            (|all| all.answer_timeout_s = 0, "answer_timeout_s is 0"),
            (|all| all.heartbeat_ms = 60_001, "heartbeat_ms is over"),
            (|all| all.heartbeat_ms = 0, "heartbeat_ms is 0"),
            (|all| all.session_ttl_s = u64::MAX, "session_ttl_s is over"),
            (|all| all.journal_ttl_s = u64::MAX, "journal_ttl_s is over"),
            (|all| all.journal_ttl_s = 59, "journal_ttl_s is below 60"),
        ],
        // Some are also too much beside another, which the next tests are about.
        |settings| refused(settings).into_iter().take(1).collect(),
    );
    assert_eq!(with(|all| all.worker_threads = 8).check(4), Ok(()), "two for each core are no nonsense yet");
    let silent = with(|all| (all.parked_max, all.answer_timeout_s) = (0, 0));
    assert_eq!(silent.check(4), Ok(()), "where no call may ask");
}

#[test]
fn what_contradicts_something_else_is_refused() {
    each_is_told_alone(
        &[
            (|all| (all.connections_max, all.queue_max) = (99, 0), "connections_max is below"),
            (|all| all.streams_max = 9901, "streams_max is over 9900"),
            (|all| all.queue_max = 9901, "queue_max is over 9900"),
            (|all| all.queue_wait_max_ms = 5000, "queue_wait_max_ms is not below"),
            (|all| all.drain_s = 4, "drain_s is shorter"),
            (|all| (all.session_ttl_s, all.answer_timeout_s) = (4, 1), "session_ttl_s is shorter"),
            (|all| all.registry_secret = secret(32), "registry_secret is set"),
            (
                |all| {
                    (all.url, all.store_url) = ("http://10.0.0.5:3000/mcp".to_owned(), STORE.to_owned());
                },
                "allowed_hosts lacks the host of url",
            ),
        ],
        refused,
    );
    for sound in [
        with(|all| all.queue_max = 9900),
        with(|all| all.streams_max = 9900),
        with(|all| (all.connections_max, all.streams_max, all.when_full) = (100, 0, WhenFull::CallerRuns)),
        with(|all| all.queue_wait_max_ms = 4999),
        // A call is remembered while it runs, however long its client takes to answer.
        with(|all| all.journal_ttl_s = 60),
        with(|all| all.session_ttl_s = 600),
    ] {
        assert_eq!(sound.check(4), Ok(()), "{sound:?}");
    }
}

#[test]
fn names_addresses_and_secrets_that_cannot_be_meant_are_refused() {
    each_is_told_alone(
        &[
            (|all| all.address = "127.0.0.1".to_owned(), "address is"),
            (|all| all.address = ":3000".to_owned(), "address is"),
            (|all| all.address = "127.0.0.1:0".to_owned(), "address has port 0"),
            (|all| all.url = "10.0.0.5:3000".to_owned(), "url is"),
            (|all| all.url = "ftp://10.0.0.5/mcp".to_owned(), "url is"),
            (|all| all.node_id = "a b".to_owned(), "node_id is"),
            (|all| all.node_id = "n".repeat(257), "node_id is"),
            (|all| all.store_url = "http://127.0.0.1".to_owned(), "store_url"),
            (|all| all.store_prefix = "{mcp}".to_owned(), "store_prefix is"),
            (|all| all.labels = strings(&["gpu=yes", "gpu"]), "labels has \"gpu\""),
            (|all| all.tools = strings(&[""]), "tools has an empty name"),
            (|all| all.allowed_hosts = strings(&["*"]), "allowed_hosts has \"*\""),
            (|all| all.allowed_hosts = strings(&["a", "http://a"]), "allowed_hosts has \"http://a\""),
            (|all| all.allowed_hosts = strings(&["a", ""]), "allowed_hosts has \"\""),
            (|all| all.allowed_origins = strings(&["*"]), "allowed_origins has \"*\""),
            (|all| all.allowed_origins = strings(&["null"]), "allowed_origins has \"null\""),
            (|all| all.allowed_origins = strings(&["https://a/"]), "allowed_origins has \"https://a/\""),
            (|all| all.identity_secrets = vec![secret(32), secret(31)], "one of identity_secrets"),
            (
                |all| (all.registry_secret, all.store_url) = (secret(15), STORE.to_owned()),
                "registry_secret is shorter",
            ),
        ],
        refused,
    );
    let sound = with(|all| {
        all.address = "[::]:3000".to_owned();
        all.url = "https://node-1.example/mcp".to_owned();
        all.allowed_hosts = strings(&["node-1.example", "::1", "[::1]", "a:3000"]);
        all.allowed_origins = strings(&["https://app.example:8443", "app://mine"]);
        all.labels = strings(&["gpu=", "zone=eu=1"]);
        all.store_url = STORE.to_owned();
        all.registry_secret = secret(16);
    });
    assert_eq!((sound.check(4), sound.oddities()), (Ok(()), Vec::new()));
}

#[test]
fn what_is_only_odd_is_told_and_not_refused() {
    let cases: [Case; 8] = [
        (|all| (all.queue_max, all.queue_wait_max_ms) = (0, 100), "queue_wait_max_ms is set"),
        (|all| all.session_ttl_s = 599, "session_ttl_s is below"),
        (|all| all.heartbeat_ms = 99, "heartbeat_ms is below"),
        (|all| all.store_prefix = "other:".to_owned(), "store_prefix is set"),
        (
            |all| {
                all.identity_secrets = vec![secret(32)];
                all.session_binding = SessionBinding::Nobody;
            },
            "identity_secrets are set",
        ),
        (
            |all| {
                (all.registry_secret, all.store_url) = (secret(32), STORE.to_owned());
                all.identity_secrets = vec![secret(32)];
            },
            "registry_secret is one of",
        ),
        (
            |all| (all.address, all.store_url) = ("0.0.0.0:3000".to_owned(), STORE.to_owned()),
            "address is \"0.0.0.0:3000\" and url is not set",
        ),
        (|all| all.address = "0.0.0.0:3000".to_owned(), "address is \"0.0.0.0:3000\", but allowed_hosts"),
    ];
    each_is_told_alone(&cases, |settings| {
        assert_eq!(settings.check(4), Ok(()), "{settings:?}");
        settings.oddities()
    });
}
