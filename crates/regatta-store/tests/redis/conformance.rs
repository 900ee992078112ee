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

const DOCUMENT: &str = include_str!("../../../../docs/redis.md");

/// The user that the document allows, and what it allows `besides`.
fn documented(besides: &str) -> Vec<String> {
    let rule = DOCUMENT.lines().find_map(|line| line.strip_prefix("ACL SETUSER regatta on >secret "));
    assert!(DOCUMENT.contains(besides), "the document says {besides}");
    let rule = format!("ACL SETUSER regatta on >secret {} {besides}", rule.expect("the document has a rule"));
    rule.split_whitespace().map(str::to_owned).collect()
}

fn allow(server: &Server, rule: &[String]) {
    assert_eq!(server.say(&rule.iter().map(String::as_str).collect::<Vec<_>>()), "OK");
}

/// Nothing was tried that the document does not allow.
fn check_permitted(server: &Server) {
    assert_eq!(server.say(&["ACL", "LOG"]), "");
}

fn documented_user() -> Credentials {
    Credentials { username: Some("regatta".to_owned()), password: Some("secret".to_owned()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_only_the_documented_permissions_passes_the_suite() {
    let server = Server::start(&[]).await;
    allow(&server, &documented(""));
    passes(|| Options { credentials: documented_user(), ..options(&server.url()) }).await;
    check_permitted(&server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_passes_the_suite_with_only_the_documented_permissions() {
    let servers = Sentinels::start().await;
    servers.servers.iter().for_each(|server| allow(server, &documented("")));
    let there = "+sentinel|get-master-addr-by-name +subscribe +ping &+switch-master";
    assert!(DOCUMENT.contains(there), "the document says {there}");
    let rule = format!("ACL SETUSER regatta on >secret resetchannels -@all {there}");
    servers.say_to_all(&rule.split(' ').collect::<Vec<_>>());
    let credentials = documented_user();
    let who = || Options {
        credentials: credentials.clone(),
        sentinel_credentials: credentials.clone(),
        ..options(&servers.url())
    };
    passes(who).await;
    check_ends(&servers.servers[0]);
    servers.servers.iter().for_each(check_permitted);
    assert!(servers.say_to_all(&["ACL", "LOG"]).iter().all(String::is_empty));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_passes_the_suite_with_only_the_documented_permissions() {
    let cluster = Cluster::start().await;
    cluster.members.iter().for_each(|member| allow(member, &documented("+cluster|slots +asking")));
    passes(|| Options { credentials: documented_user(), ..options(&cluster.url()) }).await;
    cluster.members.iter().for_each(check_permitted);
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
