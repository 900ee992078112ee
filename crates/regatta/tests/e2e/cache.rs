//! Kept results on real processes: told, shared by many at once, made old, and never the reason for a failure.

use crate::REGATTA;
use regatta_testkit::client::{Modern, Outcome};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::{Seen, answers};
use regatta_testkit::{Gateway, Reply, Result, Stub, eventually};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn rule(tool: &str, more: &str) -> String {
    format!("[[cache]]\ntool = {tool:?}\n{more}\n")
}

async fn start(
    rules: &[(&str, &str)],
    odd: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
) -> (Stub, Gateway) {
    let base = answers::dual();
    let stub = Stub::start(move |seen| odd(seen).unwrap_or_else(|| base(seen))).await;
    let tables: String = rules.iter().map(|(tool, more)| rule(tool, more)).collect();
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).tables(&tables)).await;
    (stub, gateway)
}

fn mark(outcome: &Outcome) -> &Value {
    &outcome.message["result"]["_meta"]["io.regatta/cache"]
}

fn status(outcome: &Outcome) -> &str {
    mark(outcome)["status"].as_str().unwrap_or_default()
}

async fn until_status(modern: &Modern, tool: &str, op: &str, wanted: &str) -> Outcome {
    eventually(&format!("{tool} is answered as {wanted}"), SOON, async || {
        let outcome = modern.call(tool, json!({"op": op})).await.ok()?;
        (status(&outcome) == wanted).then_some(outcome)
    })
    .await
}

#[tokio::test]
async fn a_kept_result_says_so_in_both_eras_and_is_counted() -> Result<()> {
    let (stub, gateway) = start(&[("work", "ttl = \"1h\"")], |_| None).await;
    let modern = gateway.client().modern();
    let session = gateway.client().initialize().await?;
    for round in 0..3 {
        let expected = if round == 0 { "miss" } else { "hit" };
        let answers =
            [modern.call("work", json!({"op": "m"})).await?, session.call("work", json!({"op": "l"})).await?];
        for outcome in answers {
            assert_eq!(status(&outcome), expected, "{}", outcome.message);
            assert!(mark(&outcome)["ageMs"].is_u64());
            assert!(outcome.text().contains("\"op\""));
            assert_eq!(outcome.headers["content-type"], "application/json");
        }
    }
    assert_eq!((stub.journal().executions("m"), stub.journal().executions("l")), (1, 1));
    for (metric, value) in [("hits", 4.0), ("misses", 2.0), ("passed", 0.0)] {
        let name = format!("regatta_cache_{metric}_total{{server=\"demo\",tool=\"work\"}}");
        assert_eq!(gateway.metric(&name).await, Some(value), "{metric}");
    }
    assert!(gateway.metric("regatta_cache_bytes").await > Some(500.0));
    assert!(gateway.metric("regatta_cache_saved_bytes_total").await > Some(100.0));
    Ok(())
}

#[tokio::test]
async fn a_silent_rule_leaves_results_as_the_server_wrote_them() -> Result<()> {
    let (_stub, gateway) = start(&[("work", "ttl = \"1h\"\nmark = \"off\"")], |_| None).await;
    let modern = gateway.client().modern();
    let (first, second) =
        (modern.call("work", json!({"op": "x"})).await?, modern.call("work", json!({"op": "x"})).await?);
    assert!(first.message["result"].get("_meta").is_none());
    assert_eq!(first.message["result"], second.message["result"]);
    Ok(())
}

#[tokio::test]
async fn five_hundred_who_ask_at_once_are_one_execution() -> Result<()> {
    let slow = |seen: &Seen| {
        let is_slow = seen.tool() == "slow";
        is_slow.then(|| Reply::result(seen, json!({"content": []})).after(Duration::from_millis(400)))
    };
    let (stub, gateway) = start(&[("slow", "ttl = \"1h\"")], slow).await;
    let mut callers = tokio::task::JoinSet::new();
    let session = gateway.client().initialize().await?;
    for number in 0..500 {
        let (client, session) = (gateway.client(), session.clone());
        callers.spawn(async move {
            match number % 2 {
                0 => client.modern().call("slow", json!({"op": "modern"})).await,
                _ => session.call("slow", json!({"op": "legacy"})).await,
            }
        });
    }
    while let Some(outcome) = callers.join_next().await {
        let outcome = outcome.expect("no panic")?;
        assert!(outcome.result().is_ok(), "{}", outcome.message);
    }
    assert_eq!(stub.journal().executions("modern"), 1);
    assert_eq!(stub.journal().executions("legacy"), 1);
    Ok(())
}

#[tokio::test]
async fn a_leader_that_leaves_cancels_nothing_while_others_wait() -> Result<()> {
    let late = |seen: &Seen| {
        let whole = json!({"jsonrpc": "2.0", "id": seen.id(), "result": {"content": []}});
        match seen.tool() {
            "late-json" => Some(Reply::json(&whole).after(Duration::from_millis(500))),
            "late-event" => Some(Reply::sse().comment("open").wait(Duration::from_millis(500)).event(&whole)),
            _ => None,
        }
    };
    let (stub, gateway) = start(&[("late-*", "ttl = \"1h\"")], late).await;
    for (number, tool) in [(1, "late-json"), (2, "late-event")] {
        let (leading, waiting) = (gateway.client().modern(), gateway.client().modern());
        let leader = tokio::spawn(async move { leading.call(tool, json!({"op": tool})).await });
        stub.wait_for("tools/call", number).await;
        let waiter = tokio::spawn(async move { waiting.call(tool, json!({"op": tool})).await });
        let busy = async || (gateway.metric("regatta_inflight").await? == 2.0).then_some(());
        eventually("the second call waits", SOON, busy).await;
        leader.abort();
        let outcome = waiter.await.expect("no panic")?;
        assert_eq!(status(&outcome), "hit", "{}", outcome.message);
        assert_eq!(stub.journal().executions(tool), 1, "{tool}");
    }
    Ok(())
}

#[tokio::test]
async fn when_a_leader_fails_one_of_the_others_leads() -> Result<()> {
    let first_fails = |seen: &Seen| match (seen.tool(), seen.id().as_u64()) {
        ("once", Some(1)) => Some(Reply::hang_up().after(Duration::from_millis(400))),
        _ => None,
    };
    let (stub, gateway) = start(&[("once", "ttl = \"1h\"")], first_fails).await;
    let call = |id: u64| {
        let modern = gateway.client().modern();
        tokio::spawn(async move {
            let params = json!({"name": "once", "arguments": {"op": "once"}});
            modern.request_as(&json!(id), "tools/call", params).await?.outcome().await
        })
    };
    let leader = call(1);
    stub.wait_for("tools/call", 1).await;
    let waiters: Vec<_> = (2..12).map(call).collect();
    assert_eq!(leader.await.expect("no panic")?.code(), -31001);
    for waiter in waiters {
        let outcome = waiter.await.expect("no panic")?;
        assert!(outcome.result().is_ok(), "{}", outcome.message);
    }
    assert_eq!(stub.seen_rpc("tools/call").len(), 2);
    Ok(())
}

#[tokio::test]
async fn nobody_waits_longer_for_another_than_for_the_server_itself() -> Result<()> {
    let hang = |seen: &Seen| (seen.tool() == "hang").then(Reply::hang);
    let base = answers::dual();
    let stub = Stub::start(move |seen| hang(seen).unwrap_or_else(|| base(seen))).await;
    // Without the breaker, which would refuse the later ones of twenty calls that all time out at the only replica.
    let plan = Plan::over([stub.url()])
        .on_server("request_timeout = \"1s\"\nbreaker = \"off\"")
        .tables(&rule("hang", "ttl = \"1h\""));
    let gateway = Gateway::start(REGATTA, plan).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let modern = gateway.client().modern();
        calls.spawn(async move { modern.call("hang", json!({"op": "hang"})).await });
    }
    while let Some(outcome) = calls.join_next().await {
        assert_eq!(outcome.expect("no panic")?.code(), -31001);
    }
    Ok(())
}

#[tokio::test]
async fn a_writing_tool_that_succeeds_makes_what_it_touches_old_and_one_that_fails_does_not() -> Result<()> {
    let rules = [("get_*", "ttl = \"1h\"\ninvalidated_by = [\"update_*\"]"), ("work", "ttl = \"1h\"")];
    let failing = |seen: &Seen| (seen.tool() == "update_fails").then(|| Reply::tool_error(seen, "no"));
    let (stub, gateway) = start(&rules, failing).await;
    let (modern, session) = (gateway.client().modern(), gateway.client().initialize().await?);
    for tool in ["get_a", "work"] {
        modern.call(tool, json!({"op": tool})).await?;
    }
    session.call("update_fails", json!({"op": "u"})).await?;
    modern.call("update_fails", json!({"op": "u"})).await?;
    assert_eq!(status(&modern.call("get_a", json!({"op": "get_a"})).await?), "hit");
    for round in 2..5 {
        match round % 2 {
            0 => session.call("update_a", json!({"op": "u"})).await?,
            _ => modern.call("update_a", json!({"op": "u"})).await?,
        };
        assert_eq!(status(&modern.call("get_a", json!({"op": "get_a"})).await?), "miss");
        assert_eq!(stub.journal().executions("get_a"), round);
    }
    assert_eq!(status(&modern.call("work", json!({"op": "work"})).await?), "hit");
    Ok(())
}

#[tokio::test]
async fn a_stale_result_is_given_out_while_one_request_fetches_it_anew() -> Result<()> {
    let (stub, gateway) =
        start(&[("work", "ttl = \"100ms\"\nstale_while_revalidate = \"1h\"")], |_| None).await;
    let modern = gateway.client().modern();
    modern.call("work", json!({"op": "x"})).await?;
    until_status(&modern, "work", "x", "stale").await;
    let again = async || (stub.journal().executions("x") >= 2).then_some(());
    eventually("it was fetched anew", SOON, again).await;
    until_status(&modern, "work", "x", "hit").await;
    Ok(())
}

#[tokio::test]
async fn an_old_result_answers_when_the_server_is_away_or_fails() -> Result<()> {
    let (stub, gateway) = start(&[("work", "ttl = \"50ms\"\nstale_if_error = \"1h\"")], |_| None).await;
    let modern = gateway.client().modern();
    let session = gateway.client().initialize().await?;
    modern.call("work", json!({"op": "m"})).await?;
    session.call("work", json!({"op": "l"})).await?;
    stub.behave(|_| Reply::text(503, "text/plain", "away"));
    until_status(&modern, "work", "m", "stale").await;
    stub.die().await;
    until_status(&modern, "work", "m", "stale").await;
    // It was kept a little later, so its time may not be over yet.
    eventually("the session's result is old too", SOON, async || {
        let outcome = session.call("work", json!({"op": "l"})).await.ok()?;
        (status(&outcome) == "stale").then_some(())
    })
    .await;
    let outcome = modern.call("work", json!({"op": "never asked before"})).await?;
    assert!(outcome.result().is_err());
    Ok(())
}

#[tokio::test]
async fn a_call_in_which_the_server_asked_something_is_nobody_elses() -> Result<()> {
    let asking = |seen: &Seen| {
        let id = seen.id().clone();
        let answer = move |_: &Value| json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}});
        (seen.tool() == "ask").then(|| {
            let question = json!(format!("q-{}", seen.id()));
            Reply::sse().ask(&question, "elicitation/create", json!({"message": "?"}), answer)
        })
    };
    let (stub, gateway) = start(&[("ask", "ttl = \"1h\"")], asking).await;
    let session = gateway.client().initialize().await?;
    for _ in 0..2 {
        let params = json!({"name": "ask", "arguments": {"op": "ask"}});
        let mut events = session.request("tools/call", params).await?.events();
        let question = events.until("elicitation/create").await?;
        session.answer(&question.json()["id"], json!({"action": "accept"})).await?;
        while let Some(event) = events.next().await? {
            if event.json().get("result").is_some() {
                break;
            }
        }
    }
    assert_eq!(stub.journal().executions("ask"), 2);
    Ok(())
}

#[tokio::test]
async fn what_came_of_a_persons_answer_is_not_kept_and_not_given_to_who_was_not_asked() -> Result<()> {
    let asking = |seen: &Seen| {
        let answer = seen.json["params"]["inputResponses"]["q"]["content"]["say"].as_str();
        (seen.tool() == "ask").then(|| match answer {
            None => Reply::input_required(seen, json!({"q": {"method": "elicitation/create"}}), "state"),
            Some(answer) => Reply::tool_text(seen, answer),
        })
    };
    let (stub, gateway) = start(&[("ask", "ttl = \"1h\"")], asking).await;
    let modern = gateway.client().modern();
    for (round, said) in ["one", "two", "one"].into_iter().enumerate() {
        let asked = modern.call("ask", json!({"op": "a"})).await?.result()?;
        assert_eq!(asked["resultType"], "input_required", "round {round}: {asked}");
        let answers = json!({"q": {"action": "accept", "content": {"say": said}}});
        let outcome = modern.retry("ask", json!({"op": "a"}), &asked, answers).await?;
        assert_eq!(outcome.text(), said, "round {round}: {}", outcome.message);
        assert_eq!(stub.journal().executions("a"), 2 * (round + 1));
    }
    Ok(())
}

#[tokio::test]
async fn a_hot_result_is_fetched_anew_before_its_time_by_one_request_and_in_the_background() -> Result<()> {
    let slow = |seen: &Seen| {
        (seen.tool() == "slow").then(|| Reply::tool_text(seen, "x").after(Duration::from_millis(200)))
    };
    let (stub, gateway) = start(&[("slow", "ttl = \"2s\"")], slow).await;
    let count = async |name: &str| {
        let name = format!("regatta_cache_{name}_total{{server=\"demo\",tool=\"slow\"}}");
        gateway.metric(&name).await.unwrap_or_default()
    };
    eventually("it was fetched anew twice", SOON, async || {
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let modern = gateway.client().modern();
            callers.spawn(async move {
                modern.call("slow", json!({"op": "hot"})).await.map(|outcome| outcome.text().to_owned())
            });
        }
        while let Some(outcome) = callers.join_next().await {
            assert_eq!(outcome.expect("no panic").ok()?, "x");
        }
        (count("refreshes").await >= 2.0).then_some(())
    })
    .await;
    // The last one may still be under way.
    let all = async || {
        let fetched = count("misses").await + count("refreshes").await;
        (stub.journal().executions("hot") as f64 == fetched).then_some(())
    };
    eventually("every execution was a miss or a refresh", SOON, all).await;
    Ok(())
}

#[tokio::test]
async fn what_is_kept_or_fetched_by_another_needs_no_place_at_a_full_server() -> Result<()> {
    let base = answers::dual();
    let stub = Stub::start(move |seen| match seen.tool() {
        "hold" => Reply::hang(),
        "slow" => Reply::tool_text(seen, "x").after(Duration::from_millis(500)),
        _ => base(seen),
    })
    .await;
    let plan = Plan::over([stub.url()])
        .on_server("concurrency = \"static\"\ninflight_max = 1\nqueue_max = 0")
        .tables(&(rule("work", "ttl = \"1h\"") + &rule("slow", "ttl = \"1h\"")));
    let gateway = Gateway::start(REGATTA, plan).await;
    let (modern, session) = (gateway.client().modern(), gateway.client().initialize().await?);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let modern = gateway.client().modern();
        callers.spawn(async move { modern.call("slow", json!({"op": "slow"})).await });
    }
    while let Some(outcome) = callers.join_next().await {
        let outcome = outcome.expect("no panic")?;
        assert_eq!(outcome.text(), "x", "{}", outcome.message);
    }
    assert_eq!(stub.journal().executions("slow"), 1);
    modern.call("work", json!({"op": "m"})).await?;
    session.call("work", json!({"op": "l"})).await?;

    let held = gateway.client().modern();
    let held = tokio::spawn(async move { held.call("hold", json!({"op": "hold"})).await });
    let is_full = async || (stub.journal().executions("hold") == 1).then_some(());
    eventually("the server is full", SOON, is_full).await;
    assert_eq!(status(&modern.call("work", json!({"op": "m"})).await?), "hit");
    assert_eq!(status(&session.call("work", json!({"op": "l"})).await?), "hit");
    for refused in
        [modern.call("work", json!({"op": "n"})).await?, session.call("work", json!({"op": "n"})).await?]
    {
        assert_eq!(refused.code(), -31002, "{}", refused.message);
    }
    assert_eq!(stub.journal().executions("n"), 0);
    held.abort();
    Ok(())
}

#[tokio::test]
async fn an_operator_is_told_once_of_a_rule_whose_results_nobody_asks_for_again() -> Result<()> {
    let (_stub, gateway) = start(&[("work", "ttl = \"1h\""), ("get_*", "ttl = \"1h\"")], |_| None).await;
    let modern = gateway.client().modern();
    for number in 0..1_010 {
        modern.call("work", json!({"op": "x", "n": number})).await?;
        modern.call("get_a", json!({"op": "x"})).await?;
    }
    let log = gateway.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("a [[cache]] rule helps nobody")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("work"), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn a_changed_rule_begins_with_nothing_kept() -> Result<()> {
    let (stub, mut gateway) = start(&[("work", "ttl = \"1h\"")], |_| None).await;
    let modern = gateway.client().modern();
    modern.call("work", json!({"op": "x"})).await?;
    until_status(&modern, "work", "x", "hit").await;
    gateway.rewrite(Plan::over([stub.url()]).tables(&rule("work", "ttl = \"2h\"")));
    gateway.process.hang_up();
    until_status(&modern, "work", "x", "miss").await;
    assert_eq!(stub.journal().executions("x"), 2);
    Ok(())
}

/// `regatta cache …` against a gateway: whether it ended well, and what it printed.
pub async fn command(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(REGATTA);
    command.arg("cache").args(arguments).arg("--admin").arg(gateway.admin_address());
    let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let ran = ran.expect("the binary can be run");
    (ran.status.success(), String::from_utf8_lossy(&ran.stdout).into_owned())
}

#[tokio::test]
async fn an_operator_sees_the_counts_and_purges_by_server_tool_call_and_caller() -> Result<()> {
    let (stub, gateway) = start(&[("get_*", "ttl = \"1h\""), ("work", "ttl = \"1h\"")], |_| None).await;
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "Bearer ada\n").expect("written");
    let token = token.path().to_str().expect("a path in UTF-8").to_owned();
    let ada = gateway.client().header("authorization", "Bearer ada").modern();
    let bob = gateway.client().header("authorization", "Bearer bob").modern();
    let calls = [("ada get_a", &ada, "get_a"), ("ada get_b", &ada, "get_b"), ("ada work", &ada, "work")];
    let calls = calls.into_iter().chain([("bob get_a", &bob, "get_a")]).collect::<Vec<_>>();
    let fetched = async || {
        let mut fetched = Vec::new();
        for (name, client, tool) in &calls {
            let before = stub.journal().entries().len();
            client.call(tool, json!({"op": "x", "n": 1})).await?;
            fetched.extend((stub.journal().entries().len() > before).then_some(*name));
        }
        Ok::<_, regatta_testkit::Failure>(fetched)
    };
    assert_eq!(fetched().await?.len(), 4);
    for (purge, expected) in [
        (&["--tool", "get_a"][..], &["ada get_a", "bob get_a"][..]),
        (&["--tool", "get_*"], &["ada get_a", "ada get_b", "bob get_a"]),
        (&["--tool", "get_b", "--arguments", r#"{"n":1,"op":"x"}"#], &["ada get_b"]),
        (&["--tool", "get_b", "--arguments", r#"{"n":2,"op":"x"}"#], &[]),
        (&["--principal-of", &token], &["ada get_a", "ada get_b", "ada work"]),
        (&[], &["ada get_a", "ada get_b", "ada work", "bob get_a"]),
    ] {
        assert!(command(&gateway, &[&["purge", "--server", "demo"], purge].concat()).await.0, "{purge:?}");
        assert_eq!(fetched().await?, expected, "{purge:?}");
    }
    assert!(!command(&gateway, &["purge", "--server", "nobody"]).await.0);
    let (well, stats) = command(&gateway, &["stats", "--json"]).await;
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    assert!(well && stats["results"].as_u64() >= Some(4), "{stats}");
    assert_eq!(stats["rules"][0]["tool"], "get_*");
    assert!(command(&gateway, &["stats"]).await.1.contains("demo get_*"));
    Ok(())
}
