//! Handles of the modern era find the replica that made them, whatever the balance says.

use crate::REGATTA;
use crate::fleet::{demos, urls};
use crate::peers::Pair;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Result, Seen, Stub, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(8);

/// A modern stub that makes tasks, all named `task 1`, and knows only its own.
async fn tasker(name: &'static str) -> Stub {
    Stub::start(tasker_answers(name)).await
}

fn tasker_answers(name: &'static str) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let base = answers::modern();
    move |seen| {
        let task = |status: &str| json!({"taskId": "task 1", "status": status, "ttl": null});
        match seen.rpc() {
            "tools/call" => {
                let meta = json!({"maker": name});
                Reply::result(seen, json!({"resultType": "task", "task": task("working"), "_meta": meta}))
            }
            "tasks/get" if seen.json["params"]["taskId"] == "task 1" => {
                let mut result = task("completed");
                result["resultType"] = json!("complete");
                result["_meta"] = json!({"maker": name, "named": seen.header("mcp-name")});
                Reply::result(seen, result)
            }
            _ => base(seen),
        }
    }
}

#[tokio::test]
async fn a_request_state_finds_its_maker_over_three_replicas() -> Result<()> {
    let demos = demos(3, &["--eras", "modern"]).await;
    let gateway =
        Gateway::start(REGATTA, Plan::over(urls(&demos)).on_server("balance = \"round-robin\"")).await;
    let modern = gateway.client().modern();
    let mut asked = Vec::new();
    for number in 0..9 {
        let arguments = json!({"question": number.to_string()});
        asked.push((arguments.clone(), modern.call("ask", arguments).await?.result()?));
    }
    for (arguments, asked) in &asked {
        assert_eq!(asked["resultType"], "input_required", "{asked}");
        let key = asked["inputRequests"].as_object().and_then(|all| all.keys().next()).expect("a question");
        let answers = json!({key: {"action": "accept", "content": {"answer": "yes"}}});
        // A demo replica opens only what it sealed itself.
        let outcome = modern.retry("ask", arguments.clone(), asked, answers).await?;
        assert_eq!(outcome.text(), "answer: yes", "{}", outcome.message);
    }
    let mut forged = asked[0].1.clone();
    forged["requestState"] = json!("made-up");
    let refused = modern.retry("ask", asked[0].0.clone(), &forged, json!({})).await?;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, -32602), "{}", refused.message);
    Ok(())
}

#[tokio::test]
async fn a_task_is_polled_at_its_maker_and_keeps_its_name() -> Result<()> {
    let stubs = [tasker("a").await, tasker("b").await, tasker("c").await];
    let plan = Plan::over(stubs.each_ref().map(Stub::url)).on_server("balance = \"round-robin\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let modern = gateway.client().modern();
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let made = modern.call("work", json!({})).await?.result()?;
        tasks.push((made["task"]["taskId"].clone(), made["_meta"]["maker"].clone()));
    }
    for maker in ["a", "b", "c"] {
        let names: Vec<_> = tasks.iter().filter(|(_, by)| by == maker).map(|(task, _)| task).collect();
        assert_eq!(names.len(), 2, "round robin: {tasks:?}");
        assert_eq!(names[0], names[1], "the same task has the same name");
    }
    for (task, maker) in tasks.iter().chain(&tasks) {
        let polled = poll(&modern, task).await?.result()?;
        assert_eq!(&polled["_meta"]["maker"], maker);
        assert_eq!(polled["_meta"]["named"], "task 1", "Mcp-Name is rewritten alike");
        assert_eq!(&polled["taskId"], task, "equal between polls");
    }
    Ok(())
}

async fn poll(
    modern: &regatta_testkit::client::Modern,
    task: &Value,
) -> Result<regatta_testkit::client::Outcome> {
    modern.request("tasks/get", json!({"taskId": task})).await?.outcome().await
}

#[tokio::test]
async fn a_task_whose_maker_is_away_or_removed_is_nobody_elses() -> Result<()> {
    let stubs = [tasker("a").await, tasker("b").await];
    let plan =
        |stubs: &[Stub]| Plan::over(stubs.iter().map(Stub::url)).on_server("balance = \"round-robin\"");
    let mut gateway = Gateway::start(REGATTA, plan(&stubs)).await;
    let modern = gateway.client().modern();
    let made =
        [modern.call("work", json!({})).await?.result()?, modern.call("work", json!({})).await?.result()?];
    let of_b = made.iter().find(|made| made["_meta"]["maker"] == "b").expect("round robin");
    let task = &of_b["task"]["taskId"];
    stubs[1].die().await;
    let away = poll(&modern, task).await?;
    assert_eq!((away.status.as_u16(), away.code()), (503, -31004), "{}", away.message);
    stubs[1].rise().await;
    let back = async || poll(&modern, task).await.ok()?.result().ok();
    eventually("the maker is back", SOON, back).await;
    gateway.rewrite(plan(&stubs[..1]));
    gateway.process.hang_up();
    let removed = async || {
        let outcome = poll(&modern, task).await.ok()?;
        outcome.result().is_err().then_some(outcome)
    };
    let refused = eventually("the maker is removed", SOON, removed).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, -32602), "{}", refused.message);
    assert!(stubs[0].seen_rpc("tasks/get").is_empty(), "it was asked for a task that it did not make");
    Ok(())
}

/// RELIABILITY I94, T32: the gateway that gets the answer is not the one that passed the question on.
#[tokio::test]
async fn a_request_state_opens_at_the_other_gateway_and_a_changed_one_at_none() -> Result<()> {
    let base = answers::modern();
    let stub = Stub::start(move |seen| match seen.tool() {
        "ask" if seen.json["params"]["requestState"].is_null() => {
            let params = json!({"message": "?", "requestedSchema": {"type": "object", "properties": {}}});
            Reply::input_required(
                seen,
                json!({"a": {"method": "elicitation/create", "params": params}}),
                "s-1",
            )
        }
        _ => base(seen),
    })
    .await;
    let pair = Pair::start(Plan::over([stub.url()])).await;
    let asked = pair.one.client().modern().call("ask", json!({})).await?.result()?;
    let state = asked["requestState"].as_str().expect("a state").to_owned();
    let answer = json!({"a": {"action": "accept", "content": {}}});
    for at in [0, state.len() / 2, state.len() - 1] {
        let mut bytes = state.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let mut changed = asked.clone();
        changed["requestState"] = json!(String::from_utf8(bytes).expect("letters"));
        for gateway in [&pair.one, &pair.two] {
            let told = gateway.client().modern().retry("ask", json!({}), &changed, answer.clone()).await?;
            assert_eq!((told.status.as_u16(), told.code()), (400, -32602), "letter {at}");
        }
    }
    assert_eq!(stub.seen_rpc("tools/call").len(), 1, "nothing that was changed reached the server");
    pair.two.client().modern().retry("ask", json!({}), &asked, answer).await?.result()?;
    let last = stub.seen_rpc("tools/call").pop().expect("the retry");
    assert_eq!(last.json["params"]["requestState"], "s-1");
    Ok(())
}

/// Tasks extension, *Task Status Notifications*: a client names the tasks that it wants to hear of.
#[tokio::test]
async fn a_task_is_listened_to_at_its_maker_under_the_clients_name() -> Result<()> {
    let start = async |name: &'static str| {
        let made = tasker_answers(name);
        Stub::start(move |seen| {
            let asked = &seen.json["params"]["notifications"];
            match seen.rpc() {
                "subscriptions/listen" => {
                    let agreed = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {"notifications": asked}});
                    let params = json!({"taskId": "task 1", "status": name});
                    let said = json!({"jsonrpc": "2.0", "method": "notifications/tasks", "params": params});
                    Reply::sse().event(&agreed).event(&said).hold()
                }
                _ => made(seen),
            }
        })
        .await
    };
    let stubs = [start("a").await, start("b").await, start("c").await];
    let plan = Plan::over(stubs.each_ref().map(Stub::url)).on_server("balance = \"round-robin\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let modern = gateway.client().modern();
    let mut names = Vec::new();
    for _ in 0..3 {
        let made = modern.call("work", json!({"op": "x"})).await?.result()?;
        names.push((made["task"]["taskId"].clone(), made["_meta"]["maker"].clone()));
    }
    names.sort_by_key(|(_, maker)| maker.to_string());
    let wanted = [&names[0].0, &names[1].0, &json!("made up")];
    let mut events = modern.listen(json!({"taskIds": wanted})).await?.events();
    let first = events.next().await?.expect("an acknowledgement").json();
    let mut agreed = first["params"]["notifications"]["taskIds"].as_array().expect("tasks").clone();
    agreed.sort_by_key(|name| name.to_string());
    let mut expected = vec![names[0].0.clone(), names[1].0.clone()];
    expected.sort_by_key(|name| name.to_string());
    assert_eq!(agreed, expected, "{first}");
    for _ in 0..2 {
        let said = events.until("notifications/tasks").await?.json();
        let by =
            names.iter().find(|(_, maker)| *maker == said["params"]["status"]).expect("one of the makers");
        assert_eq!(said["params"]["taskId"], by.0, "{said}");
    }
    let asked = |stub: &Stub| -> Vec<Value> {
        let seen = stub.seen_rpc("subscriptions/listen").into_iter();
        seen.map(|seen| seen.json["params"]["notifications"]["taskIds"].clone())
            .filter(|ids| !ids.is_null())
            .collect()
    };
    assert_eq!(stubs.each_ref().map(asked), [vec![json!(["task 1"])], vec![json!(["task 1"])], vec![]]);
    Ok(())
}
