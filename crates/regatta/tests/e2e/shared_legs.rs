//! Clients that listen to list changes alone share one upstream subscription at each replica, but only with clients
//! for whom the same would be sent.

use crate::REGATTA;
use regatta_testkit::client::{Events, Modern};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::{Seen, answers};
use regatta_testkit::{Gateway, Reply, Result, Stub, eventually};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const LISTEN: &str = "subscriptions/listen";
const KEY: &str = "io.modelcontextprotocol/subscriptionId";
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const TOOLS: &str = "notifications/tools/list_changed";
const PROMPTS: &str = "notifications/prompts/list_changed";

async fn over(stubs: &[Stub]) -> Gateway {
    Gateway::start(REGATTA, Plan::over(stubs.iter().map(Stub::url))).await
}

/// A subscription that has been acknowledged, under this id.
async fn listen(modern: &Modern, id: Value, filter: Value) -> Result<Events> {
    let mut events = modern.request_as(&id, LISTEN, json!({"notifications": filter})).await?.events();
    let first = events.next().await?.expect("an acknowledgement").json();
    assert_eq!(first["method"], ACKNOWLEDGED);
    assert_eq!(first["params"]["notifications"], filter);
    assert_eq!(first["params"]["_meta"][KEY], id);
    Ok(events)
}

fn change(stub: &Stub, method: &str) {
    stub.say(&json!({"jsonrpc": "2.0", "method": method, "params": {"_meta": {KEY: "the leg's"}}}));
}

async fn hears(events: &mut Events, method: &str, id: Value) -> Result<()> {
    let heard = events.next().await?.expect("a notification").json();
    assert_eq!((&heard["method"], &heard["params"]["_meta"][KEY]), (&json!(method), &id), "{heard}");
    Ok(())
}

async fn has_left(seen: &Arc<Seen>) {
    eventually("the leg is closed", SOON, async || seen.fate().left).await;
}

#[tokio::test]
async fn two_clients_share_one_leg_at_each_replica_and_hear_what_they_want() -> Result<()> {
    let stubs = [Stub::start(answers::modern()).await, Stub::start(answers::modern()).await];
    let gateway = over(&stubs).await;
    let both = json!({"toolsListChanged": true, "promptsListChanged": true});
    let (one, two) = (gateway.client().modern(), gateway.client().header("user-agent", "other/2").modern());
    let mut one = listen(&one, json!("a"), both).await?;
    let mut two = listen(&two, json!(2), json!({"promptsListChanged": true})).await?;
    for stub in &stubs {
        change(stub, TOOLS);
        hears(&mut one, TOOLS, json!("a")).await?;
        change(stub, PROMPTS);
        hears(&mut one, PROMPTS, json!("a")).await?;
        // Its first: it did not ask for tools.
        hears(&mut two, PROMPTS, json!(2)).await?;
        let legs = stub.seen_rpc(LISTEN);
        assert_eq!(legs.len(), 1);
        assert_eq!(legs[0].header("user-agent"), "", "nothing of one client's goes up for another");
    }
    gateway.metric_reaches("regatta_shared_legs", 2.0).await;
    Ok(())
}

#[tokio::test]
async fn a_lost_leg_is_opened_again_and_every_client_is_told() -> Result<()> {
    let stubs = [Stub::start(answers::modern()).await];
    let gateway = over(&stubs).await;
    let filter = json!({"toolsListChanged": true});
    let mut one = listen(&gateway.client().modern(), json!(1), filter.clone()).await?;
    let mut two = listen(&gateway.client().modern(), json!(2), filter).await?;
    stubs[0].die().await;
    stubs[0].rise().await;
    hears(&mut one, TOOLS, json!(1)).await?;
    hears(&mut two, TOOLS, json!(2)).await?;
    assert_eq!(stubs[0].seen_rpc(LISTEN).len(), 2);
    change(&stubs[0], TOOLS);
    hears(&mut one, TOOLS, json!(1)).await?;
    hears(&mut two, TOOLS, json!(2)).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_shared_across_identities_or_with_other_wishes() -> Result<()> {
    let stubs = [Stub::start(answers::modern()).await];
    let gateway = over(&stubs).await;
    let lists = json!({"toolsListChanged": true});
    let mut open = Vec::new();
    for who in [("authorization", "Bearer a"), ("authorization", "Bearer b"), ("x-api-key", "c")] {
        let client = gateway.client().header(who.0, who.1).modern();
        open.push(listen(&client, json!(1), lists.clone()).await?);
        let legs = stubs[0].seen_rpc(LISTEN);
        assert_eq!((legs.len(), legs[legs.len() - 1].header(who.0)), (open.len(), who.1));
    }
    let more = json!({"toolsListChanged": true, "resourceSubscriptions": ["a://1"]});
    open.push(listen(&gateway.client().header("authorization", "Bearer a").modern(), json!(9), more).await?);
    let legs = stubs[0].seen_rpc(LISTEN);
    assert_eq!((legs.len(), legs[3].id()), (4, &json!(9)), "resources are a client's own");
    Ok(())
}

#[tokio::test]
async fn the_leg_is_closed_after_its_last_client() -> Result<()> {
    let stubs = [Stub::start(answers::modern()).await];
    let gateway = over(&stubs).await;
    let filter = json!({"toolsListChanged": true});
    let one = listen(&gateway.client().modern(), json!(1), filter.clone()).await?;
    let mut two = listen(&gateway.client().modern(), json!(2), filter.clone()).await?;
    drop(one);
    change(&stubs[0], TOOLS);
    hears(&mut two, TOOLS, json!(2)).await?;
    let leg = stubs[0].wait_for(LISTEN, 1).await;
    assert!(leg.fate().left.is_none());
    drop(two);
    has_left(&leg).await;
    gateway.metric_reaches("regatta_shared_legs", 0.0).await;
    let mut three = listen(&gateway.client().modern(), json!(3), filter).await?;
    change(&stubs[0], TOOLS);
    hears(&mut three, TOOLS, json!(3)).await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_back() -> Result<()> {
    let stubs = [Stub::start(answers::modern()).await];
    let gateway = over(&stubs).await;
    let filter = json!({"toolsListChanged": true});
    let mut slow = listen(&gateway.client().modern(), json!(1), filter.clone()).await?;
    let mut fast = listen(&gateway.client().modern(), json!(2), filter).await?;
    for _ in 0..500 {
        change(&stubs[0], TOOLS);
        hears(&mut fast, TOOLS, json!(2)).await?;
    }
    hears(&mut slow, TOOLS, json!(1)).await?;
    Ok(())
}

#[tokio::test]
async fn a_drain_ends_each_with_its_result() -> Result<()> {
    let stubs = [Stub::start(answers::modern()).await];
    let mut gateway = over(&stubs).await;
    let filter = json!({"toolsListChanged": true});
    let one = listen(&gateway.client().modern(), json!(1), filter.clone()).await?;
    let two = listen(&gateway.client().modern(), json!("b"), filter).await?;
    gateway.process.terminate();
    for (events, id) in [(one, json!(1)), (two, json!("b"))] {
        let last = events.rest().await?.pop().expect("a result").json();
        assert_eq!((&last["id"], &last["result"]["resultType"]), (&id, &json!("complete")), "{last}");
        assert_eq!(last["result"]["_meta"][KEY], id);
    }
    assert!(gateway.process.exit_within(SOON).await.success());
    Ok(())
}

#[tokio::test]
async fn a_no_is_told_to_each_client_under_its_own_id() -> Result<()> {
    let base = answers::modern();
    let stub = Stub::start(move |seen| match seen.rpc() {
        LISTEN => {
            let error = json!({"code": -32601, "message": "no such thing here"});
            Reply::text(
                404,
                "application/json",
                &json!({"jsonrpc": "2.0", "id": seen.id(), "error": error}).to_string(),
            )
        }
        _ => base(seen),
    })
    .await;
    let stubs = [stub];
    let gateway = over(&stubs).await;
    let modern = gateway.client().modern();
    for id in [json!(1), json!("two")] {
        let params = json!({"notifications": {"toolsListChanged": true}});
        let refused = modern.request_as(&id, LISTEN, params).await?.outcome().await?;
        assert_eq!((refused.status.as_u16(), refused.code()), (404, -32601));
        assert_eq!(refused.message["id"], id);
    }
    Ok(())
}

#[tokio::test]
async fn a_no_for_now_is_told_to_nobody_who_comes_after_it() -> Result<()> {
    let (base, asked) = (answers::modern(), AtomicUsize::new(0));
    let stub = Stub::start(move |seen| match seen.rpc() {
        LISTEN if asked.fetch_add(1, Ordering::Relaxed) == 0 => Reply::text(
            429,
            "application/json",
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"later"}}"#,
        ),
        _ => base(seen),
    })
    .await;
    let stubs = [stub];
    let gateway = over(&stubs).await;
    let filter = json!({"toolsListChanged": true});
    let params = json!({"notifications": filter});
    let refused = gateway.client().modern().request_as(&json!(1), LISTEN, params).await?;
    assert_eq!(refused.status, 429);
    let mut next = listen(&gateway.client().modern(), json!(2), filter).await?;
    change(&stubs[0], TOOLS);
    hears(&mut next, TOOLS, json!(2)).await?;
    Ok(())
}
