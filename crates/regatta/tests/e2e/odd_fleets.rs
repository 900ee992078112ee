//! RELIABILITY 3: servers as they are met: behind a redirect, without sessions, without streams, of several eras behind
//! one path.

use crate::REGATTA;
use crate::table::TOKEN;
use regatta_testkit::client::Session;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Client, Gateway, Reply, Stub, eventually};
use serde_json::json;
use std::time::Duration;

/// I128: a redirect to elsewhere is not followed, and one to another path of the same host is, by the probes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_redirects_on_the_same_host_only() {
    let elsewhere = Stub::start(answers::dual()).await;
    let base = answers::dual();
    let moved = Stub::start(move |seen| match seen.path.as_str() {
        "/mcp" => Reply::redirect(307, "/mcp/"),
        _ => base(seen),
    });
    let moved = moved.await;
    let target = elsewhere.url();
    let gone = Stub::start(move |_| Reply::redirect(307, &target)).await;
    let plan = Plan::over([moved.url()]).server("gone", [gone.url()], "path = \"/gone\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let client = gateway.client().header("authorization", TOKEN);
    let session = client.initialize().await.expect("a session behind the redirect");
    assert!(session.call("work", json!({"op": "a"})).await.expect("an answer").text().contains("\"a\""));
    assert!(
        client.modern().call("work", json!({"op": "b"})).await.expect("an answer").text().contains("\"b\"")
    );
    let calls = moved.seen_rpc("tools/call");
    assert!(calls.iter().all(|seen| seen.path == "/mcp/") && calls.len() == 2);
    eventually("the other server was probed", Duration::from_secs(10), async || {
        (!gone.seen().is_empty()).then_some(())
    })
    .await;
    let url = gateway.url().replace("/mcp", "/gone");
    let refused = Client::new(&url).modern().call("work", json!({"op": "c"})).await;
    assert!(refused.is_ok_and(|outcome| outcome.result().is_err()));
    assert_eq!(elsewhere.seen().len(), 0, "nobody went there");
}

/// RELIABILITY 3: an endpoint that moves between two probes. What was sent away was not executed, so it is sent on, once.
#[tokio::test]
async fn a_call_follows_its_endpoint_to_another_path_and_to_no_other_host() {
    let elsewhere = Stub::start(answers::dual()).await;
    let (base, target) = (answers::dual(), elsewhere.url());
    let moved = Stub::start(move |seen| match (seen.rpc(), seen.path.as_str(), seen.op().as_str()) {
        ("tools/call", _, "away") => Reply::redirect(307, &target),
        ("tools/call", "/mcp/", "round") => Reply::redirect(307, "/mcp"),
        ("tools/call", "/mcp", "absolute") => {
            Reply::redirect(308, &format!("http://{}/mcp/", seen.header("host")))
        }
        ("tools/call", "/mcp", _) => Reply::redirect(307, "/mcp/"),
        _ => base(seen),
    })
    .await;
    let gateway = Gateway::start(REGATTA, Plan::over([moved.url()])).await;
    let (session, modern) =
        (gateway.client().initialize().await.expect("a session"), gateway.client().modern());
    for op in ["relative", "absolute", "away", "round"] {
        let (old, new) = (session.call("work", json!({"op": op})), modern.call("work", json!({"op": op})));
        for outcome in [old.await.expect("an answer"), new.await.expect("an answer")] {
            let follows = op == "relative" || op == "absolute";
            assert_eq!(outcome.text().contains(op), follows, "{op}: {}", outcome.message);
            assert_eq!(outcome.code() == -31007, !follows, "{op}: {}", outcome.message);
        }
    }
    assert_eq!(["relative", "absolute"].map(|op| moved.journal().executions(op)), [2, 2]);
    let rounds = moved.seen_rpc("tools/call").iter().filter(|seen| seen.op() == "round").count();
    assert_eq!(rounds, 4, "each of two went on once");
    assert_eq!(elsewhere.seen().len(), 0, "nobody went there");
}

/// RELIABILITY 3: replicas of several eras behind one path; each request finds one that speaks its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_each_era_where_it_is_spoken() {
    let (old, new) = (Stub::start(answers::legacy()).await, Stub::start(answers::modern()).await);
    let both = Stub::start(answers::dual()).await;
    let plan = Plan::over([old.url(), new.url(), both.url()]).on_server("balance = \"round-robin\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let client = gateway.client().header("authorization", TOKEN);
    let known = async || {
        let (_, status) = gateway.admin("/status").await?;
        (status.matches("\"healthy\"").count() >= 3).then_some(())
    };
    eventually("all three were probed", Duration::from_secs(10), known).await;
    for at in 0..12 {
        let session = client.initialize().await.expect("a legacy handshake");
        let outcome = session.call("work", json!({"op": format!("legacy-{at}")})).await.expect("an answer");
        assert!(outcome.result().is_ok());
        let outcome =
            client.modern().call("work", json!({"op": format!("modern-{at}")})).await.expect("an answer");
        assert!(outcome.result().is_ok());
    }
    let calls = |stub: &Stub, era: &str| {
        stub.journal().entries().iter().filter(|entry| entry.op.starts_with(era)).count()
    };
    assert_eq!((calls(&old, "modern"), calls(&new, "legacy")), (0, 0));
    assert!(calls(&old, "legacy") > 0 && calls(&new, "modern") > 0 && calls(&both, "modern") > 0);
    assert!(calls(&both, "legacy") > 0);
}

/// RELIABILITY 3.10: servers without sessions, without GET and without DELETE.
#[tokio::test]
async fn serves_servers_without_sessions() {
    let stub = Stub::start(answers::sessionless()).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await.expect("a handshake");
    assert_eq!(session.id, "", "no session of the server's, none of ours");
    assert!(session.call("work", json!({"op": "a"})).await.expect("an answer").text().contains("\"a\""));
    assert_eq!(session.listen().await.expect("an answer").status, 405);
    assert_eq!(session.end().await.expect("an answer"), 400);
    assert_eq!(stub.journal().executions("a"), 1);
}

/// 405 on GET and DELETE inside a session: the client is told so, and the session lives on (L-TR *Session Management* 5).
#[tokio::test]
async fn passes_on_that_a_server_has_no_stream_and_no_end() {
    let base = answers::legacy();
    let stub = Stub::start(move |seen| match seen.method.as_str() {
        "POST" => base(seen),
        _ => Reply::status(405).header("allow", "POST"),
    });
    let stub = stub.await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session: Session = gateway.client().initialize().await.expect("a session");
    assert_eq!(session.listen().await.expect("an answer").status, 405);
    assert_eq!(session.end().await.expect("an answer"), 405);
    assert!(session.call("work", json!({"op": "a"})).await.expect("an answer").text().contains("\"a\""));
}
