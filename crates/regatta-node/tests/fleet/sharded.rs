//! Common and specialised tools: each call goes where its tool is, alone and behind a gateway; and what a node keeps and times.

use http::StatusCode;
use regatta_testkit::gateway::Plan;
use regatta_testkit::process::free_port;
use regatta_testkit::redis::Server;
use regatta_testkit::{Client, Gateway};
use serde_json::json;

use crate::front::Front;
use crate::{Running, built, text};

async fn nodes(redis: &Server, elsewhere: &str) -> Vec<Running> {
    let url = redis.url();
    let mut nodes = Vec::new();
    for number in 0..3 {
        let id = format!("jobs-{number}");
        let gpu = if number == 2 { "gpu=yes" } else { "gpu=no" };
        let told = [
            ("REGATTA_NODE_STORE_URL", url.as_str()),
            ("REGATTA_NODE_NODE_ID", &id),
            ("REGATTA_NODE_LABELS", gpu),
            ("REGATTA_NODE_HEARTBEAT_MS", "200"),
            ("REGATTA_NODE_TOOLS_ELSEWHERE", elsewhere),
        ];
        nodes.push(Running::start("sharded", free_port(), &told).await);
    }
    nodes
}

#[tokio::test]
async fn each_node_has_the_common_tools_and_its_own_and_the_gateway_finds_all() {
    let redis = Server::start(&[]).await;
    let mut nodes = nodes(&redis, "hidden").await;
    let alone = nodes[1].client().initialize().await.unwrap();
    let list =
        alone.request("tools/list", json!({})).await.unwrap().outcome().await.unwrap().result().unwrap();
    let names: Vec<_> = list["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["price", "shard_2", "where"]);
    for session in [&alone] {
        assert_eq!(session.call("render", json!({})).await.unwrap().code(), -32602);
    }
    assert_eq!(nodes[1].client().modern().call("shard_1", json!({})).await.unwrap().code(), -32602);

    let url = redis.url();
    let store = format!("[store]\nurl = {url:?}\nregistry_poll = \"100ms\"\nregistry_lease = \"2s\"\n");
    let none: [String; 0] = [];
    let plan = Plan::default().server("jobs", none, "registry = true\n").tables(&store);
    let gateway = Gateway::start(&built("regatta"), plan).await;
    gateway.metric_reaches("regatta_replica_serving", 3.0).await;
    let session = gateway.client().initialize().await.unwrap();
    let modern = gateway.client().modern();
    let placed = [("shard_1", "jobs-0"), ("shard_2", "jobs-1"), ("shard_3", "jobs-2"), ("render", "jobs-2")];
    for (tool, id) in placed {
        for _ in 0..3 {
            let told = session.call(tool, json!({})).await.unwrap().result().unwrap();
            assert_eq!(text(&told), id, "{tool}");
            let told = modern.call(tool, json!({})).await.unwrap().result().unwrap();
            assert_eq!(text(&told), id, "{tool}");
        }
    }
    // The common tools outlive any node; a specialised one is missed, and nothing else is.
    nodes[0].process.kill();
    for _ in 0..6 {
        let told = modern.call("where", json!({})).await.unwrap();
        assert!(told.result().is_ok_and(|told| text(&told) != "jobs-0"), "{:?}", told.message);
    }
    assert!(modern.call("shard_1", json!({})).await.unwrap().result().is_err());
}

#[tokio::test]
async fn behind_nginx_each_node_lists_all_tools_and_a_call_finds_the_node_that_has_its_tool() {
    let redis = Server::start(&[]).await;
    let mut nodes = nodes(&redis, "refused").await;
    let alone = nodes[1].client().initialize().await.unwrap();
    let list =
        alone.request("tools/list", json!({})).await.unwrap().outcome().await.unwrap().result().unwrap();
    assert_eq!(list["tools"].as_array().unwrap().len(), 6);
    let refused = alone.request("tools/call", json!({"name": "shard_1"})).await.unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let error = refused.json().await.unwrap()["error"].take();
    assert_eq!((&error["code"], &error["data"]["executed"]), (&json!(-31004), &json!("no")));
    assert!(error["message"].as_str().unwrap().ends_with("it is on shard 1 of 3"), "{error}");
    assert_eq!(alone.call("made-up", json!({})).await.unwrap().code(), -32602);
    let reported = redis.say(&["HGET", "mcp:node:jobs-1", "tools"]);
    assert!(reported.contains("shard_2") && !reported.contains("shard_1"), "{reported}");

    let ports: Vec<u16> = nodes.iter().map(|node| node.port).collect();
    let nginx = Front::nginx_next(&ports).await;
    let (session, modern) = (nginx.client().initialize().await.unwrap(), nginx.client().modern());
    for (tool, id) in
        [("shard_1", "jobs-0"), ("shard_2", "jobs-1"), ("shard_3", "jobs-2"), ("render", "jobs-2")]
    {
        for _ in 0..3 {
            assert_eq!(session.call(tool, json!({})).await.unwrap().text(), id, "{tool}");
            assert_eq!(modern.call(tool, json!({})).await.unwrap().text(), id, "{tool}");
        }
    }
    nodes[0].process.kill();
    assert_ne!(session.call("where", json!({})).await.unwrap().text(), "jobs-0");
    assert_eq!(session.call("shard_2", json!({})).await.unwrap().text(), "jobs-1");
}

#[tokio::test]
async fn kept_results_are_given_again_and_calls_are_timed_by_tool() {
    let node = Running::start("sharded", free_port(), &[]).await;
    let modern = node.client().modern();
    let session = node.client().initialize().await.unwrap();
    for _ in 0..3 {
        assert_eq!(text(&modern.call("price", json!({"of": 1})).await.unwrap().result().unwrap()), "1");
    }
    assert_eq!(text(&modern.call("price", json!({"of": 2})).await.unwrap().result().unwrap()), "2");
    assert_eq!(text(&session.call("price", json!({"of": 1})).await.unwrap().result().unwrap()), "3");
    assert_eq!(modern.call("made-up", json!({})).await.unwrap().code(), -32602);
    let metrics = Client::new(&format!("http://127.0.0.1:{}/metrics", node.port));
    let answer = metrics.send(http::Method::GET, &[], "").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let told = String::from_utf8(answer.bytes().await.unwrap().to_vec()).unwrap();
    for row in [
        "regatta_node_cache_hits_total{tool=\"price\"} 2\n",
        "regatta_node_cache_misses_total{tool=\"price\"} 3\n",
        "regatta_node_tool_seconds_count{tool=\"price\"} 5\n",
        "regatta_node_tool_seconds_count{tool=\"_other\"} 1\n",
        "regatta_node_queue_depth 0\n",
    ] {
        assert!(told.contains(row), "{row} in {told}");
    }
}
