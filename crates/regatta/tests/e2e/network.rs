//! The network between gateway and server does what networks do: one honest answer each, one execution at most.

use crate::REGATTA;
use crate::fleet::executed;
use regatta_testkit::client::Outcome;
use regatta_testkit::fault_proxy::Way;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{FaultProxy, Gateway, Mode, Result, Stub};
use serde_json::json;
use tokio::task::JoinSet;

/// One dual-era stub behind a proxy behind a gateway.
async fn chain(more: &str) -> (Stub, FaultProxy, Gateway) {
    let stub = Stub::start(answers::dual()).await;
    let proxy = FaultProxy::before(&stub.url()).await;
    // Each loss by itself: many in a row would shut the server.
    let plan = Plan::over([proxy.url()]).on_server("breaker = \"off\"").on_server(more);
    let gateway = Gateway::start(REGATTA, plan).await;
    (stub, proxy, gateway)
}

fn is_unknown(outcome: &Outcome) {
    assert_eq!((outcome.status.as_u16(), outcome.code()), (200, -31001), "{}", outcome.message);
    assert_eq!(executed(outcome), "unknown");
}

#[tokio::test]
async fn a_reply_that_is_lost_is_told_and_its_call_ran_once() -> Result<()> {
    let (stub, proxy, gateway) = chain("").await;
    let (session, modern) = (gateway.client().initialize().await?, gateway.client().modern());
    proxy.set(Mode::DropReply);
    // All at once: probes lose their answers too, and would soon say that nobody is there.
    let mut calls = JoinSet::new();
    for number in 0..10 {
        let (session, modern) = (session.clone(), modern.clone());
        calls.spawn(async move { modern.call("work", json!({"op": format!("modern {number}")})).await });
        calls.spawn(async move { session.call("work", json!({"op": format!("legacy {number}")})).await });
    }
    for outcome in calls.join_all().await {
        is_unknown(&outcome?);
    }
    proxy.set(Mode::Pass);
    session.call("work", json!({"op": "after"})).await?.result()?;
    assert_eq!(stub.journal().repeated(), Vec::<String>::new());
    assert_eq!(stub.journal().entries().len(), 21);
    Ok(())
}

#[tokio::test]
async fn a_kept_connection_that_died_meanwhile_costs_no_answer_and_doubles_nothing() -> Result<()> {
    let (stub, proxy, gateway) = chain("").await;
    let (session, modern) = (gateway.client().initialize().await?, gateway.client().modern());
    let mut unknown = 0;
    for number in 0..20 {
        // What is kept is reset; a listener is there again when the next call comes.
        stub.die().await;
        stub.rise().await;
        for outcome in [
            modern.call("work", json!({"op": format!("modern {number}")})).await?,
            session.call("work", json!({"op": format!("legacy {number}")})).await?,
        ] {
            match outcome.result() {
                Ok(_) => {}
                Err(_) => {
                    is_unknown(&outcome);
                    unknown += 1;
                }
            }
        }
    }
    drop(proxy);
    assert_eq!(stub.journal().repeated(), Vec::<String>::new());
    assert!(unknown <= 4, "{unknown} of 40 calls had to be given up");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_cut_anywhere_is_never_taken_for_a_whole_one() -> Result<()> {
    let (stub, proxy, gateway) = chain("").await;
    let (session, modern) = (gateway.client().initialize().await?, gateway.client().modern());
    for after in [1, 20, 60, 110, 150, 200] {
        for (name, mode) in
            [("reset", Mode::ResetAfter(Way::Down, after)), ("fin", Mode::FinAfter(Way::Down, after))]
        {
            for era in ["modern", "legacy"] {
                proxy.set(mode);
                let arguments = json!({"op": format!("{name} {after} {era}"), "long": "x".repeat(400)});
                let outcome = match era {
                    "modern" => modern.call("work", arguments).await?,
                    _ => session.call("work", arguments).await?,
                };
                is_unknown(&outcome);
                proxy.set(Mode::Pass);
            }
        }
    }
    assert_eq!(stub.journal().repeated(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn an_answer_that_stalls_is_given_up_after_request_timeout() -> Result<()> {
    let (stub, proxy, gateway) = chain("request_timeout = \"400ms\"").await;
    let (session, modern) = (gateway.client().initialize().await?, gateway.client().modern());
    for after in [0, 30, 150] {
        proxy.set(Mode::StallAfter(Way::Down, after));
        is_unknown(&modern.call("work", json!({"op": format!("modern {after}")})).await?);
        proxy.set(Mode::StallAfter(Way::Down, after));
        is_unknown(&session.call("work", json!({"op": format!("legacy {after}")})).await?);
    }
    proxy.set(Mode::Pass);
    modern.call("work", json!({"op": "after"})).await?.result()?;
    assert_eq!(stub.journal().repeated(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn bytes_one_by_one_are_the_same_bytes() -> Result<()> {
    let (_stub, proxy, gateway) = chain("").await;
    let before = FaultProxy::before(&gateway.url()).await;
    let client = regatta_testkit::Client::new(&before.url());
    let (session, modern) = (client.initialize().await?, client.modern());
    proxy.set(Mode::Split);
    before.set(Mode::Split);
    let op = "é\u{1f980}\u{2028}\"\\ \u{0}";
    for outcome in
        [session.call("work", json!({"op": op})).await?, modern.call("work", json!({"op": op})).await?]
    {
        let said: serde_json::Value =
            serde_json::from_str(outcome.text()).expect("what the stub echoes is JSON");
        assert_eq!(said["op"], op);
    }
    Ok(())
}
