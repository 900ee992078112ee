//! Several gateways over one Redis, and what a test asks of them; no test lives here.

use crate::REGATTA;
use regatta_testkit::client::{Answer, Session};
use regatta_testkit::gateway::Plan;
use regatta_testkit::redis::Server;
use regatta_testkit::sse::Event;
use regatta_testkit::{Gateway, Result, eventually};
use serde_json::{Value, json};
use std::time::Duration;

pub const SOON: Duration = Duration::from_secs(20);

/// Two gateways and the Redis that they share.
pub struct Pair {
    pub redis: Server,
    pub one: Gateway,
    pub two: Gateway,
}

/// The plan of a gateway on this store.
pub fn on_store(plan: Plan, url: &str) -> Plan {
    plan.tables(&format!("[store]\nurl = {url:?}\n"))
}

impl Pair {
    /// Starts both with the same plan, and waits until each has a sound link to the store.
    pub async fn start(plan: Plan) -> Pair {
        let redis = Server::start(&[]).await;
        let plan = on_store(plan, &redis.url());
        let one = Gateway::start(REGATTA, plan.clone()).await;
        let two = Gateway::start(REGATTA, plan).await;
        let pair = Pair { redis, one, two };
        pair.wait_linked().await;
        // A lease says that letters arrive; the third is the one of everybody.
        eventually("both read their mail", SOON, async || {
            (pair.redis.say(&["KEYS", "mcp:gateway:*"]).lines().count() == 3).then_some(())
        })
        .await;
        pair
    }

    /// Until both say that nothing is degraded.
    pub async fn wait_linked(&self) {
        for gateway in [&self.one, &self.two] {
            eventually("the store is linked", SOON, async || {
                let (status, text) = gateway.admin("/ready").await?;
                (status == 200 && text.contains("\"degraded\": false")).then_some(())
            })
            .await;
        }
    }

    /// A session that `one` opened, as `one` and as `two` serve it.
    pub async fn session(&self) -> Result<[Session; 2]> {
        let session = self.one.client().initialize().await?;
        let other = session.through(&self.two.client());
        Ok([session, other])
    }

    /// Commands that Redis has run so far, but for what a gateway does by itself and for this question.
    pub fn asked(&self) -> u64 {
        let own = ["info", "ping", "publish", "subscribe", "role", "client", "hello", "select", "psubscribe"];
        let by_itself =
            ["set", "hgetall", "config|get", "client|setinfo", "client|setname", "client|list", "exists"];
        let calls = self.redis.calls();
        let counted =
            calls.iter().filter(|(name, _)| !own.contains(&&name[..]) && !by_itself.contains(&&name[..]));
        counted.map(|(_, count)| count).sum()
    }
}

/// Opens a call that reports progress every 100 ms for so long.
pub async fn sleep(session: &Session, ms: u64) -> Result<Answer> {
    session.call_with_progress("sleep", json!({"ms": ms}), json!("t")).await
}

/// The progress of an event, or its result's text, or its error's code.
pub fn said(message: &Value) -> String {
    if let Some(progress) = message["params"]["progress"].as_u64() {
        return progress.to_string();
    }
    match message["error"]["code"].as_i64() {
        Some(code) => code.to_string(),
        None => message["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned(),
    }
}

/// What the events of a stream said, those without a message left out, and every id that was given out.
#[derive(Debug, Default)]
pub struct Heard {
    pub said: Vec<String>,
    pub ids: Vec<String>,
}

impl Heard {
    /// Notes one event.
    pub fn note(&mut self, event: &Event) {
        let message = event.json();
        if !message.is_null() {
            self.said.push(said(&message));
        }
        self.ids.extend(event.id.clone());
    }

    /// The id to resume from.
    pub fn last_id(&self) -> &str {
        self.ids.last().expect("an event with an id")
    }

    /// Panics unless this is all that `sleep` says in so many ms, once and in order, under ids of their own.
    pub fn assert_slept(&self, ms: u64) {
        let steps = (ms - 1) / 100;
        let mut expected: Vec<_> = (1..=steps).map(|step| (step * 100).to_string()).collect();
        expected.push(format!("slept {ms} ms"));
        assert_eq!(self.said, expected);
        let mut ids = self.ids.clone();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), self.ids.len(), "an id was given out twice");
    }
}
