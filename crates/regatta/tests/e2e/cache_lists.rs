//! Lists and reads that are kept: by the server's own word as far as it counts, and until the server says that they
//! changed.

use crate::REGATTA;
use regatta_testkit::client::{Client, Events, Modern};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::{Seen, answers};
use regatta_testkit::{Gateway, Reply, Result, Stub, eventually};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::peers::SOON;

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// What a modern client asks for, by whom, and what the server says of it.
struct Row {
    what: &'static str,
    server: &'static str,
    method: &'static str,
    params: Value,
    hints: Value,
    who: (&'static str, &'static str),
    /// How often the two requests reach the server.
    fetched: usize,
}

fn row(what: &'static str, server: &'static str, method: &'static str, fetched: usize) -> Row {
    let hints = json!({"ttlMs": 60000, "cacheScope": "public"});
    Row { what, server, method, params: json!({}), hints, who: ("Bearer ada", "Bearer ada"), fetched }
}

impl Row {
    fn two_callers(self) -> Row {
        Row { who: ("Bearer ada", "Bearer bob"), ..self }
    }

    fn hints(self, hints: Value) -> Row {
        Row { hints, ..self }
    }

    fn params(self, params: Value) -> Row {
        Row { params, ..self }
    }
}

fn rows() -> Vec<Row> {
    let private = || json!({"ttlMs": 60000, "cacheScope": "private"});
    vec![
        row("a list, one caller", "usual", "tools/list", 1),
        row("a list, two callers", "usual", "tools/list", 2).two_callers(),
        row("what a server says of itself", "usual", "server/discover", 2),
        row("a read", "usual", "resources/read", 1).params(json!({"uri": "a://1"})),
        row("a read, two callers", "usual", "resources/read", 2)
            .params(json!({"uri": "a://1"}))
            .two_callers(),
        row("a later page", "usual", "tools/list", 1).params(json!({"cursor": "2"})),
        row("no time", "usual", "prompts/list", 2).hints(json!({"ttlMs": 0, "cacheScope": "public"})),
        row("a negative time", "usual", "resources/list", 2).hints(json!({"ttlMs": -5})),
        row("no hint", "usual", "resources/templates/list", 2).hints(json!({})),
        row("public and trusted", "trusting", "tools/list", 1).two_callers(),
        row("private and trusted", "trusting", "tools/list", 2).hints(private()).two_callers(),
        row("a public read", "trusting", "resources/read", 1).params(json!({"uri": "a://2"})).two_callers(),
        row("a later page is never public", "trusting", "tools/list", 2)
            .params(json!({"cursor": "2"}))
            .two_callers(),
        row("what a trusted server says of itself", "trusting", "server/discover", 1).two_callers(),
        row("a question", "trusting", "prompts/list", 2)
            .hints(json!({"ttlMs": 60000, "resultType": "input_required"})),
        row("hints that do not count", "deaf", "tools/list", 2),
    ]
}

/// Answers every list with what the request's `_meta` says.
fn hinted(seen: &Seen) -> Option<Reply> {
    let hints = seen.json["params"]["_meta"]["test/hints"].as_object()?;
    let mut result = json!({"resultType": "complete", "content": []});
    hints.iter().for_each(|(key, value)| result[key] = value.clone());
    Some(Reply::result(seen, result))
}

/// Lists of tools that were asked for by anybody but the gateway itself, which reads them to know their definitions.
fn lists_seen(stub: &Stub) -> usize {
    stub.seen_rpc("tools/list").iter().filter(|seen| *seen.id() != "regatta-probe").count()
}

async fn fetched(stub: &Stub, op: &str) -> usize {
    stub.seen().iter().filter(|seen| seen.json["params"]["_meta"]["test/op"] == op).count()
}

#[tokio::test]
async fn a_servers_word_counts_as_far_as_the_operator_says() -> Result<()> {
    let base = answers::dual();
    let stub = Stub::start(move |seen| hinted(seen).unwrap_or_else(|| base(seen))).await;
    let plan = Plan::default()
        .server("usual", [stub.url()], "path = \"/usual\"")
        .server("trusting", [stub.url()], "path = \"/trusting\"\ncache_hints = \"trust\"")
        .server("deaf", [stub.url()], "path = \"/deaf\"\ncache_hints = \"ignore\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let mut wrong = Vec::new();
    for (number, row) in rows().into_iter().enumerate() {
        let op = format!("row-{number}");
        let url = gateway.url().replace("/mcp", &format!("/{}", row.server));
        for who in [row.who.0, row.who.1] {
            let client = Client::new(&url).header("authorization", who);
            let modern =
                client.modern().with_meta("test/op", json!(op)).with_meta("test/hints", row.hints.clone());
            let outcome = modern.request(row.method, row.params.clone()).await?.outcome().await?;
            let ttl = &outcome.message["result"]["ttlMs"];
            if row.hints["ttlMs"] == 60000 && ttl.as_u64().is_none_or(|ttl| ttl > 60000) {
                wrong.push(format!("{}: ttlMs is {ttl}", row.what));
            }
        }
        let fetched = fetched(&stub, &op).await;
        if fetched != row.fetched {
            wrong.push(format!("{}: fetched {fetched} times, not {}", row.what, row.fetched));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// RELIABILITY I122: what a hint that is missing or wrong means is the client's to know, as if there were no gateway
/// (docs/adr/2026-11-26-results-pass-as-servers-write-them.md).
#[tokio::test]
async fn a_list_whose_hints_are_missing_or_wrong_passes_as_its_server_wrote_it_and_is_not_kept() -> Result<()>
{
    let base = answers::dual();
    let stub = Stub::start(move |seen| hinted(seen).unwrap_or_else(|| base(seen))).await;
    let plan = Plan::over([stub.url()]).on_server("cache_hints = \"trust\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    for (number, hints) in [
        json!({}),
        json!({"cacheScope": "public"}),
        json!({"ttlMs": -5, "cacheScope": "public"}),
        json!({"ttlMs": "60000", "cacheScope": "public"}),
        json!({"ttlMs": 1.5, "cacheScope": "everybody"}),
    ]
    .into_iter()
    .enumerate()
    {
        let op = format!("odd-{number}");
        let modern =
            gateway.client().modern().with_meta("test/op", json!(op)).with_meta("test/hints", hints.clone());
        let mut said = json!({"resultType": "complete", "content": []});
        hints.as_object().expect("an object").iter().for_each(|(key, value)| said[key] = value.clone());
        for _ in 0..2 {
            let outcome = modern.request("resources/list", json!({})).await?.outcome().await?;
            assert_eq!(outcome.message["result"], said);
        }
        assert_eq!(fetched(&stub, &op).await, 2, "{hints}");
    }
    Ok(())
}

/// What was for everybody is fetched anew with the credentials of one, and its server may have changed its mind.
#[tokio::test]
async fn a_public_list_that_is_private_when_it_is_fetched_anew_is_shown_to_nobody_else() -> Result<()> {
    let (base, lists) = (answers::dual(), AtomicUsize::new(0));
    let stub = Stub::start(move |seen| {
        let list = |ttl_ms: u64, scope: &str| {
            let prompt = json!({"name": format!("of {}", seen.header("authorization"))});
            let hints = json!({"resultType": "complete", "ttlMs": ttl_ms, "cacheScope": scope});
            let mut result = hints;
            result["prompts"] = json!([prompt]);
            Reply::result(seen, result)
        };
        match (seen.rpc(), lists.load(Ordering::Relaxed)) {
            // So long that it is fetched anew at nearly every look while it is fresh.
            ("prompts/list", 0) => {
                lists.store(1, Ordering::Relaxed);
                list(4000, "public").after(Duration::from_secs(3))
            }
            ("prompts/list", _) => list(60_000, "private"),
            _ => base(seen),
        }
    })
    .await;
    let gateway =
        Gateway::start(REGATTA, Plan::over([stub.url()]).on_server("cache_hints = \"trust\"")).await;
    let [ada, bob] =
        ["Bearer ada", "Bearer bob"].map(|who| gateway.client().header("authorization", who).modern());
    let first_prompt = async |modern: &Modern| {
        let outcome = modern.request("prompts/list", json!({})).await?.outcome().await?;
        let name = &outcome.message["result"]["prompts"][0]["name"];
        Ok::<_, regatta_testkit::Failure>(name.as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(first_prompt(&ada).await?, "of Bearer ada");
    eventually("it is fetched anew for the other", SOON, async || {
        first_prompt(&bob).await.ok()?;
        (stub.seen_rpc("prompts/list").len() > 1).then_some(())
    })
    .await;
    let is_over = async || {
        let shown = first_prompt(&ada).await.ok()?;
        assert_eq!(shown, "of Bearer ada");
        (stub.seen_rpc("prompts/list").last()?.header("authorization") == "Bearer ada").then_some(())
    };
    eventually("the first has a list of its own", SOON, is_over).await;
    Ok(())
}

#[tokio::test]
async fn lists_of_a_legacy_server_are_kept_for_the_operators_time_and_for_one_caller() -> Result<()> {
    let stub = Stub::start(answers::legacy()).await;
    let plan = Plan::default().server("kept", [stub.url()], "path = \"/mcp\"\nlist_ttl = \"1h\"").server(
        "plain",
        [stub.url()],
        "path = \"/plain\"",
    );
    let gateway = Gateway::start(REGATTA, plan).await;
    let before = lists_seen(&stub);
    let ada = gateway.client().header("authorization", "Bearer ada").initialize().await?;
    let bob = gateway.client().header("authorization", "Bearer bob").initialize().await?;
    for session in [&ada, &ada, &bob, &bob] {
        session.request("tools/list", json!({})).await?.outcome().await?.result()?;
    }
    assert_eq!(lists_seen(&stub) - before, 2);
    let plain = Client::new(&gateway.url().replace("/mcp", "/plain")).initialize().await?;
    for _ in 0..2 {
        plain.request("tools/list", json!({})).await?.outcome().await?.result()?;
    }
    assert_eq!(lists_seen(&stub) - before, 4);
    Ok(())
}

/// Waits for a notification on a client's stream.
async fn hear(stub: &Stub, events: &mut Events, message: &Value) -> Result<()> {
    stub.say(message);
    events.until(message["method"].as_str().unwrap_or_default()).await.map(|_| ())
}

#[tokio::test]
async fn who_hears_of_a_change_and_asks_gets_no_old_list() -> Result<()> {
    let base = answers::dual();
    let stub = Stub::start(move |seen| hinted(seen).unwrap_or_else(|| base(seen))).await;
    let plan = Plan::over([stub.url()])
        .on_server("list_ttl = \"1h\"\nread_ttl = \"1h\"")
        .tables("[[cache]]\ntool = \"work\"\nttl = \"1h\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let hints = json!({"ttlMs": 60000, "cacheScope": "private"});
    let modern = gateway.client().modern().with_meta("test/hints", hints);
    let session = gateway.client().initialize().await?;
    let filter = json!({"toolsListChanged": true, "resourceSubscriptions": ["a://1"]});
    let mut heard = gateway.client().modern().listen(filter).await?.events();
    heard.until("notifications/subscriptions/acknowledged").await?;
    let upstream = stub.wait_for("subscriptions/listen", 1).await.id().clone();
    let mut standing = session.listen().await?.events();

    let reads = async |uri: &str| {
        let before = stub.seen_rpc("resources/read").len();
        modern.request("resources/read", json!({"uri": uri})).await?.outcome().await?;
        Ok::<_, regatta_testkit::Failure>(stub.seen_rpc("resources/read").len() - before)
    };
    assert_eq!((reads("a://1").await?, reads("a://2").await?), (1, 1));
    assert_eq!((reads("a://1").await?, reads("a://2").await?), (0, 0));
    let meta = json!({SUBSCRIPTION: upstream});
    let updated = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated",
        "params": {"uri": "a://1", "_meta": meta}});
    hear(&stub, &mut heard, &updated).await?;
    assert_eq!((reads("a://1").await?, reads("a://2").await?), (1, 0));

    let lists = async || {
        let before = lists_seen(&stub);
        modern.request("tools/list", json!({})).await?.outcome().await?;
        session.request("tools/list", json!({})).await?.outcome().await?;
        Ok::<_, regatta_testkit::Failure>(lists_seen(&stub) - before)
    };
    lists().await?;
    assert_eq!(lists().await?, 0);
    session.call("work", json!({"op": "w"})).await?;
    let changed =
        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"_meta": meta}});
    hear(&stub, &mut heard, &changed).await?;
    standing.until("notifications/tools/list_changed").await?;
    assert_eq!(lists().await?, 2);
    session.call("work", json!({"op": "w"})).await?;
    assert_eq!(stub.journal().executions("w"), 2, "a tool that changed may give other results");
    Ok(())
}

#[tokio::test]
async fn a_change_is_heard_without_any_client_that_listens_and_over_one_subscription_with_many() -> Result<()>
{
    let base = answers::dual();
    let stub = Stub::start(move |seen| hinted(seen).unwrap_or_else(|| base(seen))).await;
    let gateway =
        Gateway::start(REGATTA, Plan::over([stub.url()]).tables("[[cache]]\ntool = \"work\"\nttl = \"1h\""))
            .await;
    let hints = json!({"ttlMs": 600_000, "cacheScope": "private"});
    let ada = gateway.client().header("authorization", "Bearer ada").modern();
    let asks = async |method: &str| {
        let before = stub.seen_rpc(method).len();
        let modern = ada.clone().with_meta("test/hints", hints.clone());
        modern.request(method, json!({})).await?.outcome().await?.result()?;
        Ok::<_, regatta_testkit::Failure>(stub.seen_rpc(method).len() - before)
    };
    assert_eq!(stub.seen_rpc("subscriptions/listen").len(), 0, "nothing is kept yet");
    assert_eq!((asks("prompts/list").await?, asks("prompts/list").await?), (1, 0));
    ada.call("work", json!({"op": "w"})).await?;
    let subscription = stub.wait_for("subscriptions/listen", 1).await;
    assert_eq!(subscription.header("authorization"), "", "in nobody's name");
    let live = async || (stub.live_count() == 1).then_some(());
    eventually("it stands", SOON, live).await;
    let changed = |list: &str| {
        let meta = json!({SUBSCRIPTION: subscription.id()});
        json!({"jsonrpc": "2.0", "method": format!("notifications/{list}/list_changed"), "params": {"_meta": meta}})
    };
    stub.say(&changed("prompts"));
    let is_fetched = async || (asks("prompts/list").await.ok()? == 1).then_some(());
    eventually("the prompts are fetched again", SOON, is_fetched).await;
    stub.say(&changed("tools"));
    let is_executed = async || {
        ada.call("work", json!({"op": "w"})).await.ok()?;
        (stub.journal().executions("w") == 2).then_some(())
    };
    eventually("the tool is executed again", SOON, is_executed).await;

    let mut clients = Vec::new();
    for _ in 0..5 {
        let filter = json!({"toolsListChanged": true, "promptsListChanged": true});
        let mut heard = gateway.client().modern().listen(filter).await?.events();
        heard.until("notifications/subscriptions/acknowledged").await?;
        clients.push(heard);
    }
    hear(&stub, &mut clients[4], &changed("prompts")).await?;
    assert_eq!(asks("prompts/list").await?, 1);
    assert_eq!(stub.seen_rpc("subscriptions/listen").len(), 1);
    Ok(())
}

#[tokio::test]
async fn who_begins_a_list_anew_because_its_cursor_was_refused_gets_no_old_first_page() -> Result<()> {
    let base = answers::dual();
    let stub = Stub::start(move |seen| match (seen.rpc(), seen.json["params"]["cursor"].as_str()) {
        ("prompts/list", Some("known")) => {
            Reply::result(seen, json!({"resultType": "complete", "prompts": []}))
        }
        ("prompts/list", Some(_)) => Reply::error(seen, -32602, "no such cursor"),
        ("prompts/list", None) => Reply::result(
            seen,
            json!({"resultType": "complete", "prompts": [],
            "nextCursor": "x", "ttlMs": 600_000, "cacheScope": "private"}),
        ),
        _ => base(seen),
    })
    .await;
    let first_pages = || {
        let seen = stub.seen_rpc("prompts/list");
        seen.iter().filter(|seen| seen.json["params"].get("cursor").is_none()).count()
    };
    for round in 0..2 {
        let plan = Plan::over([stub.url()]).on_server("list_ttl = \"1h\"");
        let gateway = Gateway::start(REGATTA, plan).await;
        let (modern, session) = (gateway.client().modern(), gateway.client().initialize().await?);
        let before = first_pages();
        for cursor in [None, Some("known"), None, Some("forgotten"), None, None] {
            let params = cursor.map_or(json!({}), |cursor| json!({"cursor": cursor}));
            let outcome = match round {
                0 => modern.request("prompts/list", params).await?.outcome().await?,
                _ => session.request("prompts/list", params).await?.outcome().await?,
            };
            assert_eq!(outcome.result().is_err(), cursor == Some("forgotten"), "{}", outcome.message);
        }
        assert_eq!(first_pages() - before, 2, "round {round}");
    }
    Ok(())
}

#[tokio::test]
async fn a_change_that_is_said_on_a_calls_own_stream_makes_the_list_old() -> Result<()> {
    let base = answers::legacy();
    let stub = Stub::start(move |seen| {
        let changed = json!({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"});
        let whole = json!({"jsonrpc": "2.0", "id": seen.id(), "result": {"content": []}});
        match (seen.rpc(), seen.tool()) {
            (_, "add_prompt") => Reply::sse().event(&changed).event(&whole),
            ("prompts/list", _) => Reply::result(seen, json!({"prompts": []})),
            _ => base(seen),
        }
    })
    .await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).on_server("list_ttl = \"1h\"")).await;
    let session = gateway.client().initialize().await?;
    let asks = async || {
        let before = stub.seen_rpc("prompts/list").len();
        session.request("prompts/list", json!({})).await?.outcome().await?;
        Ok::<_, regatta_testkit::Failure>(stub.seen_rpc("prompts/list").len() - before)
    };
    assert_eq!((asks().await?, asks().await?), (1, 0));
    session.call("add_prompt", json!({"op": "a"})).await?.result()?;
    assert_eq!((asks().await?, asks().await?), (1, 0));
    Ok(())
}

#[tokio::test]
async fn where_a_server_bears_one_connection_the_gateway_does_not_take_it_to_listen() -> Result<()> {
    let stub = Stub::start(answers::dual()).await;
    let plan = Plan::over([stub.url()])
        .on_server("connections_max = 1")
        .tables("[[cache]]\ntool = \"work\"\nttl = \"1h\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let modern = gateway.client().modern();
    modern.call("work", json!({"op": "kept"})).await?.result()?;
    // Some four times as long as it takes until a server of which something is kept is listened to.
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        modern.call("other", json!({"op": "o"})).await?.result()?;
    }
    assert!(stub.seen_rpc("subscriptions/listen").is_empty());
    Ok(())
}
