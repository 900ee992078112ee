//! A stream is cut at one gateway and resumed at another: every event once, in order, and an honest end.

use crate::fleet::{demos, urls};
use crate::peers::{Heard, Pair, SOON, sleep};
use regatta_testkit::client::{Events, Session};
use regatta_testkit::gateway::Plan;
use regatta_testkit::process::Demo;
use regatta_testkit::stub::answers;
use regatta_testkit::{Failure, Reply, Result, Stub, eventually};
use serde_json::{Value, json};
use std::time::Duration;

async fn pair() -> (Vec<Demo>, Pair) {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let pair = Pair::start(Plan::over(urls(&demos))).await;
    (demos, pair)
}

#[tokio::test]
async fn a_call_that_is_cut_again_and_again_goes_on_at_whichever_gateway_it_is_asked_for() -> Result<()> {
    let (_demos, pair) = pair().await;
    let both = pair.session().await?;
    let mut heard = Heard::default();
    let mut events = sleep(&both[0], 2950).await?.events();
    for cut in 1..=5 {
        for _ in 0..3 {
            heard.note(&events.until("notifications/progress").await?);
        }
        drop(events);
        events = both[cut % 2].resume(heard.last_id()).await?.events();
        assert_eq!(events.status, 200);
    }
    for event in events.rest().await? {
        heard.note(&event);
    }
    heard.assert_slept(2950);
    Ok(())
}

#[tokio::test]
async fn nothing_of_a_stream_is_written_while_its_client_reads() -> Result<()> {
    let (_demos, pair) = pair().await;
    let [one, _] = pair.session().await?;
    let before = pair.asked();
    let mut heard = Heard::default();
    for event in sleep(&one, 950).await?.events().rest().await? {
        heard.note(&event);
    }
    assert_eq!(heard.said.last().map(String::as_str), Some("slept 950 ms"));
    assert_eq!(pair.asked(), before, "{:?}", pair.redis.calls());
    Ok(())
}

#[tokio::test]
async fn a_call_that_ended_without_its_client_is_fetched_at_the_other_gateway_after_a_kill() -> Result<()> {
    let (_demos, mut pair) = pair().await;
    let [one, two] = pair.session().await?;
    let mut heard = Heard::default();
    let mut events = sleep(&one, 950).await?.events();
    heard.note(&events.next().await?.expect("a priming event"));
    heard.note(&events.until("notifications/progress").await?);
    drop(events);
    eventually("the call has ended and is written down", SOON, async || {
        let ended = pair.one.metric("regatta_detached").await? == 0.0;
        (ended && pair.one.metric("regatta_spilled_events_total").await? >= 9.0).then_some(())
    })
    .await;
    pair.one.process.kill();
    for event in two.resume(heard.last_id()).await?.events().rest().await? {
        heard.note(&event);
    }
    heard.assert_slept(950);
    Ok(())
}

#[tokio::test]
async fn a_detached_call_larger_than_its_ring_is_resumed_whole_at_its_own_gateway() -> Result<()> {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let plan = Plan::over(urls(&demos)).on_gateway("ring_bytes_max = \"1KiB\"");
    let pair = Pair::start(plan).await;
    let [one, _two] = pair.session().await?;
    // One that has ended meanwhile, and one that still runs: nobody else is asked for what this gateway has.
    for (ms, written, detached) in [(1950, 19.0, 0.0), (6950, 19.0 + 15.0, 1.0)] {
        let mut heard = Heard::default();
        let mut events = sleep(&one, ms).await?.events();
        heard.note(&events.next().await?.expect("a priming event"));
        heard.note(&events.until("notifications/progress").await?);
        drop(events);
        eventually("what its ring let go is written down", SOON, async || {
            let is_written = pair.one.metric("regatta_spilled_events_total").await? >= written;
            (is_written && pair.one.metric("regatta_detached").await? == detached).then_some(())
        })
        .await;
        for event in one.resume(heard.last_id()).await?.events().rest().await? {
            heard.note(&event);
        }
        heard.assert_slept(ms);
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_died_with_its_gateway_ends_in_one_honest_error_at_the_other() -> Result<()> {
    let (_demos, mut pair) = pair().await;
    let [one, two] = pair.session().await?;
    let mut events = sleep(&one, 60_000).await?.events();
    let last_id = events.until("notifications/progress").await?.id.expect("an id to resume from");
    pair.one.process.kill();
    let rest = two.resume(&last_id).await?;
    assert_eq!(rest.status, 200);
    let rest = rest.events().rest().await?;
    let last = rest.last().expect("a last word").json();
    assert_eq!((&last["id"], &last["error"]["code"]), (&json!(1), &json!(-31001)), "{rest:?}");
    assert_eq!(rest.iter().filter(|event| !event.json().is_null()).count(), 1, "said once: {rest:?}");
    assert_eq!(two.call("counter", json!({})).await?.text(), "1", "the session goes on");
    Ok(())
}

#[tokio::test]
async fn a_call_of_which_the_store_knows_but_the_end_does_not_end_in_silence() -> Result<()> {
    let (_demos, mut pair) = pair().await;
    let [one, two] = pair.session().await?;
    let mut events = sleep(&one, 1950).await?.events();
    let id = events.until("notifications/progress").await?.id.expect("an id to resume from");
    drop(events);
    let key = eventually("the call is written down whole", SOON, async || {
        let key = pair.redis.say(&["KEYS", "mcp:events:*"]);
        (pair.redis.say(&["HGET", &key, "ended"]) == "1").then_some(key)
    })
    .await;
    pair.one.process.kill();
    // The store lost the stream before its end was written.
    pair.redis.say(&["DEL", &key]);
    pair.redis.say(&["HSET", &key, "first", "0", "next", "0", "bytes", "0", "ended", "1"]);
    let last = two.resume(&id).await?.events().rest().await?.pop().expect("a last word").json();
    assert_eq!((&last["id"], &last["error"]["code"]), (&json!(1), &json!(-31001)), "{last}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_can_resume_goes_on_when_the_gateway_is_killed() -> Result<()> {
    let base = answers::legacy();
    let id = std::sync::Mutex::new(Value::Null);
    let stub = Stub::start(move |seen| {
        let mut id = id.lock().expect("nobody panics");
        let progress = |n: u64| {
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "t", "progress": n}})
        };
        match (seen.tool(), seen.header("last-event-id")) {
            ("long", _) => {
                *id = seen.id().clone();
                Reply::sse().event_id("cursor-1", &progress(1)).event_id("cursor-2", &progress(2)).hold()
            }
            (_, "cursor-2") => {
                let result = json!({"content": [{"type": "text", "text": "done"}]});
                let last = json!({"jsonrpc": "2.0", "id": *id, "result": result});
                Reply::sse().event_id("cursor-3", &progress(3)).event_id("cursor-4", &last)
            }
            _ => base(seen),
        }
    })
    .await;
    let plan = Plan::over([stub.url()]).on_server("upstream_resume = \"supported\"");
    let mut pair = Pair::start(plan).await;
    let [one, two] = pair.session().await?;
    let mut heard = Heard::default();
    let mut events = one.call_with_progress("long", json!({}), json!("t")).await?.events();
    for _ in 0..2 {
        heard.note(&events.until("notifications/progress").await?);
    }
    assert!(!heard.last_id().contains("cursor-2"), "the server's own ids are sealed");
    pair.one.process.kill();
    for event in two.resume(heard.last_id()).await?.events().rest().await? {
        heard.note(&event);
    }
    assert_eq!(heard.said, ["1", "2", "3", "done"]);
    Ok(())
}

/// A server with the tool `work` and one more, which says two events under ids of its own and then holds; the rest comes to
/// who asks from the second one. It says so only to who calls that tool in a session of this server.
async fn specialist(tool: &'static str) -> Stub {
    let (base, id) = (answers::legacy(), std::sync::Mutex::new(Value::Null));
    Stub::start(move |seen| {
        let mut id = id.lock().expect("nobody panics");
        let progress = |n: u64| {
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "t", "progress": n}})
        };
        match (seen.rpc(), seen.tool(), seen.header("last-event-id")) {
            ("tools/list", _, _) if !seen.header("mcp-session-id").is_empty() => {
                let schema = json!({"type": "object"});
                let tools = ["work", tool].map(|name| json!({"name": name, "inputSchema": schema}));
                Reply::result(seen, json!({"tools": tools}))
            }
            ("tools/call", name, _) if name == tool => {
                *id = seen.id().clone();
                Reply::sse().event_id("cursor-1", &progress(1)).event_id("cursor-2", &progress(2)).hold()
            }
            ("tools/call", name, _) if name != "work" => Reply::error(seen, -32602, "Unknown tool"),
            (_, _, "cursor-2") if !id.is_null() => {
                let result = json!({"content": [{"type": "text", "text": "done"}]});
                let last = json!({"jsonrpc": "2.0", "id": *id, "result": result});
                Reply::sse().event_id("cursor-3", &progress(3)).event_id("cursor-4", &last)
            }
            _ => base(seen),
        }
    })
    .await
}

#[tokio::test]
async fn a_call_at_a_sessions_second_home_goes_on_there_when_the_gateway_is_killed() -> Result<()> {
    let stubs = [specialist("one").await, specialist("two").await];
    let plan = Plan::over(stubs.each_ref().map(Stub::url));
    let plan = plan.on_server("upstream_resume = \"supported\"\ntools = \"probe\"");
    let mut pair = Pair::start(plan).await;
    let [one, two] = pair.session().await?;
    for session in [&one, &two] {
        eventually("it is known who has which tools", SOON, async || {
            let list =
                session.request("tools/list", json!({})).await.ok()?.outcome().await.ok()?.result().ok()?;
            (list["tools"].as_array()?.len() == 3).then_some(())
        })
        .await;
    }
    one.call("work", json!({"op": "home"})).await?.result()?;
    let elsewhere = ["two", "one"][crate::fleet::receiver(&stubs, "home").await];
    let mut heard = Heard::default();
    let mut events = one.call_with_progress(elsewhere, json!({}), json!("t")).await?.events();
    for _ in 0..2 {
        heard.note(&events.until("notifications/progress").await?);
    }
    pair.one.process.kill();
    for event in two.resume(heard.last_id()).await?.events().rest().await? {
        heard.note(&event);
    }
    assert_eq!(heard.said, ["1", "2", "3", "done"]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_said_nothing_but_an_id_goes_on_when_the_gateway_is_killed() -> Result<()> {
    let base = answers::legacy();
    let id = std::sync::Mutex::new(Value::Null);
    let stub = Stub::start(move |seen| {
        let mut id = id.lock().expect("nobody panics");
        match (seen.tool(), seen.header("last-event-id")) {
            ("long", _) => {
                *id = seen.id().clone();
                Reply::sse().priming("cursor-0").hold()
            }
            (_, "cursor-0") => {
                let result = json!({"content": [{"type": "text", "text": "done"}]});
                Reply::sse().event_id("cursor-1", &json!({"jsonrpc": "2.0", "id": *id, "result": result}))
            }
            _ => base(seen),
        }
    })
    .await;
    let plan = Plan::over([stub.url()]).on_server("upstream_resume = \"supported\"");
    let mut pair = Pair::start(plan).await;
    let [one, two] = pair.session().await?;
    let mut events = one.call_with_progress("long", json!({}), json!("t")).await?.events();
    // Ours, given before the server had said anything, and the one that holds the server's.
    let mut id = String::new();
    for _ in 0..2 {
        let priming = events.next().await?.expect("a priming event");
        assert!(priming.json().is_null());
        id = priming.id.expect("an id");
    }
    pair.one.process.kill();
    let rest = two.resume(&id).await?.outcome().await?;
    assert_eq!(rest.text(), "done", "{}", rest.message);
    // Clients of older versions know no event without content.
    let old = Session::open(&pair.two.client(), "2025-06-18", json!({})).await?;
    let mut events = old.call_with_progress("long", json!({}), json!("t")).await?.events();
    assert!(events.next_within(Duration::from_millis(300)).await.is_err(), "nothing was said yet");
    Ok(())
}

#[tokio::test]
async fn nobody_else_gets_a_stream_at_the_other_gateway_either() -> Result<()> {
    let (_demos, pair) = pair().await;
    let mine = |gateway: &regatta_testkit::Gateway| gateway.client().header("authorization", "Bearer mine");
    let session = mine(&pair.one).initialize().await?;
    let mut events = sleep(&session, 60_000).await?.events();
    let id = events.until("notifications/progress").await?.id.expect("an id");
    let thief = session.through(&pair.two.client().header("authorization", "Bearer thief"));
    let stolen = thief.resume(&id).await?;
    if stolen.is_sse() {
        let said = stolen.events().rest().await?;
        let errors = said.iter().filter(|event| event.json()["error"]["code"] == json!(-31001));
        assert_eq!(errors.count(), said.len(), "nothing of the call: {said:?}");
    } else {
        assert!(stolen.status.is_client_error(), "{}", stolen.status);
    }
    let next = events.until("notifications/progress").await?;
    assert_ne!(next.id, Some(id), "its owner was not disturbed");
    Ok(())
}

#[tokio::test]
async fn a_standing_stream_moves_to_the_gateway_where_its_client_comes_back() -> Result<()> {
    let (_demos, pair) = pair().await;
    let [one, two] = pair.session().await?;
    let mut standing = one.listen().await?.events();
    let id = standing.next().await?.expect("a priming event").id.expect("an id");
    drop(standing);
    // While nobody reads, what the server says is kept.
    one.call("toggle_tool", json!({"name": "kept"})).await?.result()?;
    eventually("it is written down", SOON, async || {
        (pair.one.metric("regatta_spilled_events_total").await? >= 1.0).then_some(())
    })
    .await;
    let mut again = two.resume(&id).await?.events();
    assert_eq!(again.status, 200);
    again.until("notifications/tools/list_changed").await?;
    let id = hears_changes(&two, &mut again).await?;
    drop(again);
    // And back.
    let mut back = one.resume(&id).await?.events();
    hears_changes(&two, &mut back).await?;
    Ok(())
}

/// Changes the list of tools until `events` tell of it, and gives the id of that. What is said while nobody has the server's
/// stream, because it goes from one gateway to another, is heard by nobody.
async fn hears_changes(session: &Session, events: &mut Events) -> Result<String> {
    for _ in 0..20 {
        session.call("toggle_tool", json!({"name": "again"})).await?.result()?;
        let change = events.until("notifications/tools/list_changed");
        if let Ok(change) = tokio::time::timeout(Duration::from_secs(1), change).await {
            return Ok(change?.id.expect("an id"));
        }
    }
    Err(Failure("twenty changes were not heard of".to_owned()))
}

#[tokio::test]
async fn a_second_standing_stream_is_opened_where_the_first_has_lost_its_client() -> Result<()> {
    let stub = Stub::start(answers::legacy()).await;
    let pair = Pair::start(Plan::over([stub.url()])).await;
    let [one, two] = pair.session().await?;
    let mut first = one.listen().await?.events();
    first.next().await?;
    drop(first);
    eventually("it has no reader", SOON, async || {
        (pair.one.metric("regatta_detached").await? >= 1.0).then_some(())
    })
    .await;
    let mut second = two.listen().await?.events();
    assert_eq!(second.status, 200);
    second.next().await?;
    eventually("the first gateway has let go of the server's stream", SOON, async || {
        (stub.live_count() == 1).then_some(())
    })
    .await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    stub.say(&note);
    second.until("notifications/tools/list_changed").await?;
    assert!(second.next_within(Duration::from_millis(300)).await.is_err(), "once");
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_leaves_writes_down_what_nobody_has_fetched() -> Result<()> {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let mut pair = Pair::start(Plan::over(urls(&demos)).on_gateway("drain_deadline = \"2s\"")).await;
    let [one, two] = pair.session().await?;
    let mut heard = Heard::default();
    let mut events = sleep(&one, 60_000).await?.events();
    heard.note(&events.until("notifications/progress").await?);
    drop(events);
    pair.one.process.terminate();
    assert!(pair.one.process.exit_within(SOON).await.success());
    for event in two.resume(heard.last_id()).await?.events().rest().await? {
        heard.note(&event);
    }
    let (last, progress) = heard.said.split_last().expect("something was said");
    assert_eq!(last, "-31001");
    let expected: Vec<_> = (1..=progress.len()).map(|step| (step * 100).to_string()).collect();
    assert_eq!(progress, expected, "without a gap");
    assert!(progress.len() > 5, "what came until the last words: {progress:?}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_reads_at_one_gateway_is_not_robbed_of_its_standing_stream_by_another_get() -> Result<()>
{
    let base = answers::legacy();
    let opened = std::sync::atomic::AtomicUsize::new(0);
    let stub = Stub::start(move |seen| match seen.method.as_str() {
        // One standing stream for each session, like the servers of the official libraries.
        "GET" if opened.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0 => {
            Reply::text(409, "text/plain", "there is one already")
        }
        _ => base(seen),
    })
    .await;
    let pair = Pair::start(Plan::over([stub.url()])).await;
    let [one, two] = pair.session().await?;
    let mut standing = one.listen().await?.events();
    standing.next().await?;
    assert_eq!(two.listen().await?.status, 409);
    stub.say(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    standing.until("notifications/tools/list_changed").await?;
    Ok(())
}

#[tokio::test]
async fn a_second_get_waits_behind_its_open_stream_until_the_server_has_let_go_of_the_first() -> Result<()> {
    let base = answers::legacy();
    let opened = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let asked = opened.clone();
    let stub = Stub::start(move |seen| match seen.method.as_str() {
        // It takes this server three attempts to see that its first stream is gone.
        "GET" if (1..4).contains(&opened.fetch_add(1, std::sync::atomic::Ordering::SeqCst)) => {
            Reply::text(409, "text/plain", "there is one already")
        }
        _ => base(seen),
    })
    .await;
    let pair = Pair::start(Plan::over([stub.url()])).await;
    let [one, two] = pair.session().await?;
    let mut first = one.listen().await?.events();
    first.next().await?;
    drop(first);
    eventually("it has no reader", SOON, async || {
        (pair.one.metric("regatta_detached").await? >= 1.0).then_some(())
    })
    .await;
    let second = two.listen().await?;
    assert_eq!(second.status, 200, "no client opens it again after an error");
    let mut second = second.events();
    // The second one: the first may live on for a moment, and what is said on it now is nobody's.
    let is_there = || asked.load(std::sync::atomic::Ordering::SeqCst) > 4 && stub.live_count() == 1;
    eventually("the server's stream is there", SOON, async || is_there().then_some(())).await;
    stub.say(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    second.until("notifications/tools/list_changed").await?;
    Ok(())
}
