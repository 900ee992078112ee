//! The conformance suite on every layout, and what holds of all keys after it.

use regatta_store::redis::{Credentials, Options, Redis};
use regatta_store::{Buried, Sessions, Store, Warm, suite};
use regatta_testkit::redis::{Cluster, Sentinels, Server};

use crate::kit::{connected, options, session, today, unique};

async fn passes(options: impl Fn() -> Options) -> (Redis, Redis) {
    let (one, other) = (connected(options()).await, connected(options()).await);
    suite::run(&one, unique(), today()).await;
    suite::run_pair(&one, &other, unique(), today()).await;
    (one, other)
}

/// Every key has an end, but for the two that the design says have none (RELIABILITY F63).
fn check_ends(server: &Server) {
    let keys = server.say(&["--scan"]);
    assert!(keys.lines().count() > 20, "the suite leaves keys to look at: {keys}");
    for key in keys.lines().filter(|key| !["mcp:keys", "mcp:nodes"].contains(key)) {
        let ttl: i64 = server.say(&["PTTL", key]).parse().expect("a number");
        assert!(ttl != -1, "{key} never ends");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_passes_the_suite_and_every_key_has_an_end() {
    let server = Server::start(&[]).await;
    let (one, _other) = passes(|| options(&server.url())).await;
    check_ends(&server);
    assert_eq!(one.stats().link.reconnects, 0);
    // Each of the two stores has one connection for commands and one for notices.
    assert_eq!(server.clients(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_passes_the_suite_and_a_foreign_certificate_does_not() {
    let server = Server::start_tls(&[]).await;
    let trusting = |pem: String| Options { trusted_pem: Some(pem.into_bytes()), ..options(&server.url()) };
    passes(|| trusting(server.trusted_pem().expect("it speaks TLS"))).await;
    let foreign = Server::start_tls(&[]).await.trusted_pem().expect("it speaks TLS");
    let store = regatta_store::redis::open(trusting(foreign));
    assert!(store.read(&session()).await.is_err(), "whoever cannot prove itself is not talked to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_only_the_documented_permissions_passes_the_suite() {
    let server = Server::start(&[]).await;
    let document = include_str!("../../../../docs/redis.md");
    let rule = document
        .lines()
        .find_map(|line| line.strip_prefix("ACL SETUSER regatta on >secret "))
        .expect("a rule");
    let words = ["ACL", "SETUSER", "regatta", "on", ">secret"].into_iter().chain(rule.split(' '));
    assert_eq!(server.say(&words.collect::<Vec<_>>()), "OK");
    let known = Credentials { username: Some("regatta".to_owned()), password: Some("secret".to_owned()) };
    passes(|| Options { credentials: known.clone(), ..options(&server.url()) }).await;
    let refused = server.say(&["ACL", "LOG"]);
    assert_eq!(refused, "", "something was tried that the document does not allow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_passes_the_suite() {
    let servers = Sentinels::start().await;
    passes(|| options(&servers.url())).await;
    check_ends(&servers.servers[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_passes_the_suite() {
    let cluster = Cluster::start().await;
    passes(|| options(&cluster.url())).await;
    let keys = |at: usize| cluster.members[at].say(&["DBSIZE"]).parse::<u64>().expect("a number");
    assert!((0..6).filter(|at| keys(*at) > 3).count() == 6, "keys are spread over all masters, and copied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_known_costs_no_operation() {
    let server = Server::start(&[]).await;
    let store = connected(options(&server.url())).await;
    let (session, digest, day) = (session(), [1; 16], today());
    store.meet(&session, day, digest).await.expect("a session can be met");
    let asked = |server: &Server| {
        let calls = server.calls();
        ["hmget", "hget", "hgetall", "sismember", "evalsha", "eval", "get", "exists", "set", "pexpire"]
            .map(|name| calls.get(name).copied().unwrap_or(0))
    };
    let before = asked(&server);
    let mut certain = 0;
    for _ in 0..100_000 {
        certain +=
            usize::from(store.warm(&session) == Warm::None && store.buried(day, &digest) == Buried::No);
        store.touch(&session);
    }
    assert!(certain > 0, "what was asked once is known");
    assert_eq!(asked(&server), before);
}
