//! Kept results of several gateways over one Redis: shared, fetched once, made old everywhere, and never the reason for a
//! failure or for somebody else's answer, whatever becomes of the store.

use crate::REGATTA;
use crate::cache::command;
use crate::peers::{Pair, SOON, on_store};
use regatta_testkit::client::{Events, Outcome};
use regatta_testkit::gateway::Plan;
use regatta_testkit::redis::Server;
use regatta_testkit::stub::{Seen, answers};
use regatta_testkit::{Gateway, Issuer, Reply, Result, Stub, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const RULES: &str = r#"
[[cache]]
tool = "get_*"
ttl = "1h"
invalidated_by = ["update_*"]
[[cache]]
tool = "own"
ttl = "1h"
[[cache]]
tool = "hold"
ttl = "1h"
"#;

/// A result that says for whom it was made, and is large enough to be compressed.
fn for_whom(seen: &Seen) -> Reply {
    Reply::tool_text(seen, &format!("{} {}", seen.header("authorization"), "x".repeat(4000)))
}

async fn stub(odd: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Stub {
    let base = answers::dual();
    Stub::start(move |seen| {
        let own = || (seen.rpc() == "tools/call" && seen.tool() != "work").then(|| for_whom(seen));
        odd(seen).or_else(own).unwrap_or_else(|| base(seen))
    })
    .await
}

async fn pair(stub: &Stub) -> Pair {
    let pair = Pair::start(Plan::over([stub.url()]).tables(RULES)).await;
    wait_shared(&pair.one, &pair.two, stub).await;
    pair
}

/// Waits until what one gateway fetches is found at the other, and the other way round.
pub async fn wait_shared(one: &Gateway, two: &Gateway, stub: &Stub) {
    for (number, [one, two]) in [[one, two], [two, one]].into_iter().enumerate() {
        let mut round = 0;
        eventually("results are shared", SOON, async || {
            round += 1;
            let op = format!("shared-{number}-{round}-{}", one.admin_address());
            for gateway in [one, two] {
                call(gateway, "warm", "own", &op).await.ok()?;
            }
            (stub.journal().executions(&op) == 1).then_some(())
        })
        .await;
    }
}

async fn call(gateway: &Gateway, who: &str, tool: &str, op: &str) -> Result<Outcome> {
    let client = gateway.client().header("authorization", &format!("Bearer {who}"));
    client.modern().call(tool, json!({"op": op})).await
}

/// Calls, and panics unless the answer is a result for this caller.
async fn owned(gateway: &Gateway, who: &str, op: &str) -> Result<Outcome> {
    let outcome = call(gateway, who, "own", op).await?;
    assert!(outcome.text().starts_with(&format!("Bearer {who} x")), "{who}, {op}: {}", outcome.message);
    Ok(outcome)
}

fn status(outcome: &Outcome) -> &str {
    let mark: &Value = &outcome.message["result"]["_meta"]["io.regatta/cache"];
    mark["status"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn five_hundred_who_ask_three_gateways_at_once_are_one_execution() -> Result<()> {
    let slow = |seen: &Seen| (seen.tool() == "hold").then(|| for_whom(seen).after(Duration::from_secs(1)));
    let stub = stub(slow).await;
    let pair = pair(&stub).await;
    let plan = on_store(Plan::over([stub.url()]).tables(RULES), &pair.redis.url());
    let three = Gateway::start(REGATTA, plan).await;
    wait_shared(&pair.one, &three, &stub).await;
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..500 {
        let gateway = [&pair.one, &pair.two, &three][number % 3];
        let client = gateway.client().header("authorization", "Bearer ada");
        callers.spawn(async move { client.modern().call("hold", json!({"op": "once"})).await });
    }
    while let Some(outcome) = callers.join_next().await {
        let outcome = outcome.expect("no panic")?;
        assert!(outcome.text().starts_with("Bearer ada x"), "{}", outcome.message);
    }
    assert_eq!(stub.journal().executions("once"), 1);
    Ok(())
}

#[tokio::test]
async fn a_leading_gateway_that_is_killed_is_taken_over_by_one_of_those_who_wait() -> Result<()> {
    let hangs_once = |seen: &Seen| (seen.op() == "led" && seen.id() == &json!(1)).then(Reply::hang);
    let stub = stub(hangs_once).await;
    let mut pair = pair(&stub).await;
    let request = |gateway: &Gateway, id: u64| {
        let modern = gateway.client().header("authorization", "Bearer ada").modern();
        tokio::spawn(async move {
            let params = json!({"name": "hold", "arguments": {"op": "led"}});
            modern.request_as(&json!(id), "tools/call", params).await?.outcome().await
        })
    };
    let leader = request(&pair.one, 1);
    eventually("the first is on its way", SOON, async || {
        (stub.journal().executions("led") == 1).then_some(())
    })
    .await;
    let waiters: Vec<_> = (2..12).map(|id| request(&pair.two, id)).collect();
    eventually("the others wait", SOON, async || {
        (pair.two.metric("regatta_inflight").await? == 10.0).then_some(())
    })
    .await;
    assert_eq!(stub.journal().executions("led"), 1, "nobody fetches beside the leader");
    pair.one.process.kill();
    for waiter in waiters {
        let outcome = waiter.await.expect("no panic")?;
        assert!(outcome.text().starts_with("Bearer ada x"), "{}", outcome.message);
    }
    assert_eq!(stub.journal().executions("led"), 2);
    assert!(leader.await.expect("no panic").is_err(), "its gateway is gone");
    Ok(())
}

#[tokio::test]
async fn what_a_writing_tool_makes_old_is_old_at_every_gateway_when_its_answer_is_here() -> Result<()> {
    let stub = stub(|_| None).await;
    let pair = pair(&stub).await;
    let sessions = pair.session().await?;
    for round in 1..=10 {
        let writer = round % 2;
        for gateway in [&pair.one, &pair.two] {
            call(gateway, "ada", "get_a", "read").await?;
            assert_eq!(status(&call(gateway, "ada", "get_a", "read").await?), "hit", "round {round}");
        }
        assert_eq!(stub.journal().executions("read"), round, "the fleet fetched it once");
        match round % 4 {
            0 | 1 => _ = sessions[writer].call("update_a", json!({"op": "write"})).await?.result()?,
            _ => _ = call([&pair.one, &pair.two][writer], "bob", "update_a", "write").await?.result()?,
        }
        let reader = [&pair.two, &pair.one][writer];
        assert_eq!(status(&call(reader, "ada", "get_a", "read").await?), "miss", "round {round}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_purged_at_one_gateway_is_purged_at_all() -> Result<()> {
    let stub = stub(|_| None).await;
    let pair = pair(&stub).await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "Bearer ada\n").expect("written");
    let token = token.path().to_str().expect("a path in UTF-8").to_owned();
    let purges =
        [&["--tool", "own"][..], &["--tool", "ow*"], &["--tool", "own", "--arguments", r#"{"op":"p"}"#], &[]];
    for (number, purge) in purges.into_iter().chain([&["--principal-of", &token[..]][..]]).enumerate() {
        for gateway in [&pair.one, &pair.two] {
            owned(gateway, "ada", "p").await?;
        }
        assert_eq!(stub.journal().executions("p"), 1 + number, "before {purge:?}");
        let (asked, other) = if number % 2 == 0 { (&pair.one, &pair.two) } else { (&pair.two, &pair.one) };
        assert!(command(asked, &[&["purge", "--server", "demo"], purge].concat()).await.0, "{purge:?}");
        assert_eq!(status(&owned(other, "ada", "p").await?), "miss", "{purge:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_purge_that_the_store_did_not_hear_is_made_up_for_when_it_is_back() -> Result<()> {
    let stub = stub(|_| None).await;
    let pair = pair(&stub).await;
    for gateway in [&pair.one, &pair.two] {
        owned(gateway, "ada", "later").await?;
    }
    pair.redis.process.stop();
    assert!(
        !command(&pair.one, &["purge", "--server", "demo"]).await.0,
        "it says that it is known here only"
    );
    assert_eq!(status(&owned(&pair.one, "ada", "later").await?), "miss");
    assert_eq!(status(&owned(&pair.two, "ada", "later").await?), "hit", "nobody could tell it");
    pair.redis.process.go_on();
    eventually("the other gateway has heard of it", SOON, async || {
        (status(&owned(&pair.two, "ada", "later").await.ok()?) == "miss").then_some(())
    })
    .await;
    Ok(())
}

/// Both callers at both gateways get what is theirs, whether it was kept or not.
async fn all_get_what_is_theirs(pair: &Pair, op: &str) -> Result<()> {
    for who in ["ada", "bob"] {
        for gateway in [&pair.one, &pair.two] {
            owned(gateway, who, op).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn whatever_becomes_of_the_store_costs_a_miss_and_nothing_else() -> Result<()> {
    let stub = stub(|_| None).await;
    let mut pair = pair(&stub).await;
    all_get_what_is_theirs(&pair, "well").await?;
    assert_eq!(stub.journal().executions("well"), 2, "one for each caller");

    pair.redis.process.stop();
    all_get_what_is_theirs(&pair, "slow").await?;
    pair.redis.process.go_on();
    wait_shared(&pair.one, &pair.two, &stub).await;

    pair.redis.process.kill();
    all_get_what_is_theirs(&pair, "away").await?;
    all_get_what_is_theirs(&pair, "well").await?;
    pair.redis.restart().await;
    pair.wait_linked().await;
    wait_shared(&pair.one, &pair.two, &stub).await;

    owned(&pair.one, "ada", "wiped").await?;
    assert_eq!(pair.redis.say(&["FLUSHALL"]), "OK");
    all_get_what_is_theirs(&pair, "wiped").await?;
    wait_shared(&pair.one, &pair.two, &stub).await;

    assert_eq!(pair.redis.say(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    all_get_what_is_theirs(&pair, "full").await?;
    assert_eq!(pair.redis.say(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    wait_shared(&pair.one, &pair.two, &stub).await;
    all_get_what_is_theirs(&pair, "well again").await?;
    assert_eq!(stub.journal().executions("well again"), 2);
    Ok(())
}

/// The names of the shared results.
fn shared_results(pair: &Pair) -> Vec<String> {
    let keys = pair.redis.say(&["KEYS", "mcp:tool:*"]);
    keys.lines().filter(|key| key.ends_with('}')).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_shared_result_that_was_touched_or_stands_in_anothers_place_is_none() -> Result<()> {
    let stub = stub(|_| None).await;
    let pair = pair(&stub).await;
    let share = async |op: &str| {
        let before = shared_results(&pair);
        for who in ["ada", "bob"] {
            owned(&pair.one, who, op).await?;
        }
        let fresh = eventually("both results are in the store", SOON, async || {
            let fresh: Vec<_> =
                shared_results(&pair).into_iter().filter(|key| !before.contains(key)).collect();
            (fresh.len() == 2).then_some(fresh)
        });
        Ok::<_, regatta_testkit::Failure>(fresh.await)
    };
    let all_are_fetched_again = async |op: &str| {
        for who in ["ada", "bob"] {
            assert_eq!(status(&owned(&pair.two, who, op).await?), "miss", "{op}");
        }
        assert_eq!(stub.journal().executions(op), 4);
        Ok::<_, regatta_testkit::Failure>(())
    };

    share("as it is").await?;
    for who in ["ada", "bob"] {
        assert_eq!(status(&owned(&pair.two, who, "as it is").await?), "hit");
    }

    let keys = share("exchanged").await?;
    for (from, to) in [(&keys[0], "spare"), (&keys[1], &keys[0][..]), (&"spare".to_owned(), &keys[1])] {
        assert_eq!(pair.redis.say(&["COPY", from, to, "REPLACE"]), "1");
    }
    all_are_fetched_again("exchanged").await?;

    for key in share("garbage").await? {
        assert_eq!(pair.redis.say(&["HSET", &key, "value", "garbage"]), "0");
    }
    all_are_fetched_again("garbage").await?;

    let refused = pair.two.metric("regatta_cache_refused_total{server=\"demo\",tool=\"own\"}").await;
    assert!(refused >= Some(4.0), "each was counted: {refused:?}");

    for key in share("another type").await? {
        assert_eq!(pair.redis.say(&["SET", &key, "garbage"]), "OK");
    }
    all_are_fetched_again("another type").await
}

#[tokio::test]
async fn with_auth_a_principal_finds_at_another_gateway_what_it_fetched_and_nobody_else_does() -> Result<()> {
    let (issuer, stub) = (Issuer::start().await, Stub::start(answers::dual()).await);
    let tables = issuer.tables("") + "[[cache]]\ntool = \"work\"\nttl = \"1h\"\n";
    let pair = Pair::start(Plan::over([stub.url()]).tables(&tables)).await;
    let as_of = async |gateway: &Gateway, subject: &str, scope: &str, op: &str| {
        let bearer = issuer.bearer_of(&issuer.token(subject).claim("scope", scope));
        let client = gateway.client().header("authorization", &bearer).modern();
        let outcome = client.call("work", json!({"op": op})).await?;
        outcome.result()?;
        Ok::<_, regatta_testkit::Failure>(status(&outcome).to_owned())
    };
    let mut round = 0;
    eventually("results are shared", SOON, async || {
        round += 1;
        let op = format!("warm-{round}");
        as_of(&pair.one, "warm", "read", &op).await.ok()?;
        (as_of(&pair.two, "warm", "read", &op).await.ok()? == "hit").then_some(())
    })
    .await;
    assert_eq!(as_of(&pair.one, "alice", "read write", "x").await?, "miss");
    for (subject, scope, wanted) in [
        ("alice", "write read", "hit"),
        ("alice", "read", "miss"),
        ("bob", "read write", "miss"),
        ("alice ", "read write", "miss"),
    ] {
        assert_eq!(as_of(&pair.two, subject, scope, "x").await?, wanted, "{subject}, {scope}");
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), issuer.bearer("alice")).expect("written");
    let file = file.path().to_str().expect("a path in UTF-8");
    assert!(command(&pair.one, &["purge", "--server", "demo", "--principal-of", file]).await.0);
    assert_eq!(as_of(&pair.two, "bob", "read write", "x").await?, "hit");
    assert_eq!(as_of(&pair.two, "alice", "read write", "x").await?, "miss");
    assert_eq!(as_of(&pair.one, "alice", "read write", "x").await?, "hit");
    assert!(
        command(&pair.two, &["purge", "--server", "demo", "--subject", "bob", "--issuer", &issuer.url()])
            .await
            .0
    );
    assert_eq!(as_of(&pair.one, "alice", "read write", "x").await?, "hit");
    assert_eq!(as_of(&pair.one, "bob", "read write", "x").await?, "miss");
    Ok(())
}

/// A server whose reads are kept by its own word, and which is heard only by who subscribes to a resource or has a session.
async fn readable() -> Stub {
    let hidden = |seen: &Seen| match seen.rpc() {
        "resources/read" => Some(Reply::result(
            seen,
            json!({"resultType": "complete", "contents": [], "ttlMs": 600_000, "cacheScope": "private"}),
        )),
        "subscriptions/listen" if seen.json["params"]["notifications"]["resourceSubscriptions"].is_null() => {
            Some(Reply::error(seen, -32601, "not for you"))
        }
        _ => None,
    };
    stub(hidden).await
}

/// Reads at both gateways, lets the server say that it changed, and has `events` of the first hear of it: then it is read
/// at the second and must be fetched.
async fn hears_and_asks_elsewhere(pair: &Pair, stub: &Stub, events: &mut Events, meta: Value) -> Result<()> {
    let read = async |gateway: &Gateway| {
        let before = stub.seen_rpc("resources/read").len();
        let modern = gateway.client().modern();
        modern.request("resources/read", json!({"uri": "a://1"})).await?.outcome().await?.result()?;
        Ok::<_, regatta_testkit::Failure>(stub.seen_rpc("resources/read").len() - before)
    };
    for round in 0..5 {
        for gateway in [&pair.one, &pair.two] {
            read(gateway).await?;
            assert_eq!(read(gateway).await?, 0, "round {round}");
        }
        stub.say(&json!({"jsonrpc": "2.0", "method": "notifications/resources/updated",
            "params": {"uri": "a://1", "_meta": meta}}));
        events.until("notifications/resources/updated").await?;
        assert_eq!(read(&pair.two).await?, 1, "round {round}");
    }
    Ok(())
}

#[tokio::test]
async fn who_hears_of_a_change_at_one_gateway_and_asks_another_gets_nothing_old() -> Result<()> {
    let stub = readable().await;
    let pair = pair(&stub).await;
    let filter = json!({"resourceSubscriptions": ["a://1"]});
    let mut heard = pair.one.client().modern().listen(filter).await?.events();
    heard.until("notifications/subscriptions/acknowledged").await?;
    let all = stub.seen_rpc("subscriptions/listen");
    let subscribes = |seen: &&std::sync::Arc<Seen>| {
        !seen.json["params"]["notifications"]["resourceSubscriptions"].is_null()
    };
    let subscription = all.iter().find(subscribes).expect("it stands").id().clone();
    let meta = json!({"io.modelcontextprotocol/subscriptionId": subscription});
    hears_and_asks_elsewhere(&pair, &stub, &mut heard, meta).await
}

#[tokio::test]
async fn who_hears_of_a_change_in_a_session_at_one_gateway_and_asks_another_gets_nothing_old() -> Result<()> {
    let stub = readable().await;
    let pair = pair(&stub).await;
    let session = pair.one.client().initialize().await?;
    let mut standing = session.listen().await?.events();
    eventually("it stands", SOON, async || (stub.live_count() == 1).then_some(())).await;
    hears_and_asks_elsewhere(&pair, &stub, &mut standing, json!({})).await
}

#[tokio::test]
async fn a_shared_result_under_a_key_that_was_retired_is_none() -> Result<()> {
    let stub = stub(|_| None).await;
    let redis = Server::start(&[]).await;
    let under = async |keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|digit| digit.repeat(64)).collect();
        let plan = Plan::over([stub.url()]).tables(RULES).on_gateway(&format!("sealing_keys = {keys:?}"));
        Gateway::start(REGATTA, on_store(plan, &redis.url())).await
    };
    let (old, turned, new) = (under(&["a"]).await, under(&["b", "a"]).await, under(&["b"]).await);
    // `turned` finds what `old` kept, and `new` what `turned` did; by then each of them shares.
    for [from, to] in [[&old, &turned], [&turned, &new]] {
        let mut round = 0;
        eventually("one finds what the other kept", SOON, async || {
            round += 1;
            let op = format!("{}-{round}", from.admin_address());
            for gateway in [from, to] {
                call(gateway, "warm", "own", &op).await.ok()?;
            }
            (stub.journal().executions(&op) == 1).then_some(())
        })
        .await;
    }
    owned(&old, "ada", "x").await?;
    let is_kept = async || (status(&owned(&turned, "ada", "x").await.ok()?) == "hit").then_some(());
    eventually("it is in the store", SOON, is_kept).await;
    let before = stub.journal().executions("x");
    let refused = async || {
        new.metric("regatta_cache_refused_total{server=\"demo\",tool=\"own\"}").await.unwrap_or_default()
    };
    let refused_before = refused().await;
    assert_eq!(status(&owned(&new, "ada", "x").await?), "miss");
    assert_eq!(stub.journal().executions("x"), before + 1);
    assert!(refused().await > refused_before, "it was counted");
    Ok(())
}
