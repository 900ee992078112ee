//! Nodes are killed and put to sleep at random while many clients order: no cart is lost, no order is placed twice, and
//! what a client was told stays true, behind a gateway and behind nginx.
//!
//! `REGATTA_KILLS` and `REGATTA_KILL_SESSIONS` make it longer: 1000 and 200 for the promised figure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use regatta_testkit::client::{Modern, Session};
use regatta_testkit::process::free_port;
use regatta_testkit::redis::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::front::Front;
use crate::shop::orders;
use crate::{Running, text};

/// Codes of refusals: nothing was run (docs/errors.md).
const REFUSALS: std::ops::RangeInclusive<i64> = -31099..=-31002;
const NODES: usize = 3;
/// A call is given up, and the test with it, when it has no answer for so long.
const PATIENCE: Duration = Duration::from_secs(90);

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

struct Fleet {
    redis: Server,
    directory: TempDir,
    example: &'static str,
    nodes: Vec<Running>,
}

impl Fleet {
    async fn start(example: &'static str) -> Fleet {
        let (redis, directory) = (Server::start(&[]).await, TempDir::new().expect("a directory"));
        let mut fleet = Fleet { redis, directory, example, nodes: Vec::new() };
        for at in 0..NODES {
            let node = fleet.node(at, free_port()).await;
            fleet.nodes.push(node);
        }
        fleet
    }

    async fn node(&self, at: usize, port: u16) -> Running {
        let (url, orders) = (self.redis.url(), self.directory.path().join("orders"));
        let id = format!("{}-{at}", self.example);
        let more = [
            ("REGATTA_NODE_NODE_ID", id.as_str()),
            ("REGATTA_NODE_LABELS", if at == 2 { "gpu=yes" } else { "gpu=no" }),
            // For nginx, which knows nothing of tools; a gateway goes by the registry.
            ("REGATTA_NODE_TOOLS_ELSEWHERE", "refused"),
            ("REGATTA_NODE_STORE_URL", url.as_str()),
            ("REGATTA_NODE_HEARTBEAT_MS", "500"),
            ("SHOP_ORDERS", orders.to_str().expect("a plain path")),
        ];
        Running::start(self.example, port, &more).await
    }

    fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    /// Kills a random node, or puts it to sleep for a while; it is back afterwards.
    async fn hurt_one(&mut self, dice: &mut Dice, counts: &Counts) {
        let at = dice.below(NODES as u64) as usize;
        let port = self.nodes[at].port;
        match dice.below(10) {
            0..7 => {
                counts.kills.fetch_add(1, Relaxed);
                self.nodes[at].process.kill();
                self.nodes[at] = self.node(at, port).await;
            }
            asleep => {
                counts.stops.fetch_add(1, Relaxed);
                // Shorter than any lease, or, once in three, longer than a call's and a node's.
                let longest = if asleep == 9 { 5000 } else { 1000 };
                self.nodes[at].process.stop();
                tokio::time::sleep(Duration::from_millis(dice.below(longest))).await;
                self.nodes[at].process.go_on();
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.below(150))).await;
    }
}

/// Xorshift: the same run from the same seed, as far as processes allow.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[derive(Default)]
struct Counts {
    kills: AtomicU64,
    stops: AtomicU64,
    answered: AtomicU64,
    unknown: AtomicU64,
    sent_again: AtomicU64,
}

/// How a client is known to the server.
enum Way {
    /// A legacy session.
    Session(Session),
    /// No session: its cart has a handle, its calls have keys.
    Modern { modern: Modern, cart: String },
}

/// One client, and what it was told.
struct Customer {
    way: Way,
    name: String,
    /// What each call of this number was told to have come to; none: nobody knows.
    added: BTreeMap<String, bool>,
    ordered: BTreeMap<String, (u64, bool)>,
}

/// Whether an answer ends a call: a result, an error of the tool (its node woke up and found the store away), or that nobody
/// knows. Refusals do not.
fn is_final(message: &Value) -> bool {
    message["error"]["code"].as_i64().map_or(message["result"].is_object(), |code| !REFUSALS.contains(&code))
}

impl Customer {
    async fn enter(front: &Front, at: usize) -> Customer {
        let way = match at % 4 {
            0 => {
                let modern = front.client().modern();
                let made = modern.call("new_cart", json!({})).await.expect("an answer").result();
                Way::Modern { modern, cart: text(&made.expect("a cart")).to_owned() }
            }
            _ => Way::Session(front.client().initialize().await.expect("a session")),
        };
        Customer { way, name: format!("c{at}"), added: BTreeMap::new(), ordered: BTreeMap::new() }
    }

    async fn send(&self, id: u64, tool: &str, arguments: &Value) -> Option<Value> {
        let answer = match &self.way {
            Way::Session(session) => {
                let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
                    "params": {"name": tool, "arguments": arguments}});
                session.post(&message).await
            }
            Way::Modern { modern, cart } => {
                let mut arguments = arguments.clone();
                arguments["cart"] = json!(cart);
                let key = json!(format!("{} {id}", self.name));
                let keyed = modern.clone().with_meta("io.regatta/idempotencyKey", key);
                let params = json!({"name": tool, "arguments": arguments});
                keyed.request_as(&json!(id), "tools/call", params).await
            }
        };
        Some(answer.ok()?.outcome().await.ok()?.message)
    }

    /// The same call until it has an answer, as a client behind a balancer does; what it came to.
    async fn call(&self, id: u64, tool: &str, arguments: &Value, counts: &Counts) -> Value {
        let end = tokio::time::Instant::now() + PATIENCE;
        let mut last = None;
        while tokio::time::Instant::now() < end {
            let message = tokio::time::timeout(Duration::from_secs(40), self.send(id, tool, arguments)).await;
            match message.ok().flatten() {
                Some(message) if is_final(&message) => {
                    let count =
                        if message["result"].is_object() { &counts.answered } else { &counts.unknown };
                    count.fetch_add(1, Relaxed);
                    return message;
                }
                refused => last = refused,
            }
            counts.sent_again.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        panic!("{} {id} {tool} was never answered; the last was {last:?}", self.name);
    }

    async fn shop_until(
        mut self,
        is_over: Arc<AtomicBool>,
        counts: Arc<Counts>,
        pause: Duration,
    ) -> Customer {
        for id in (10_u64..).step_by(2) {
            if is_over.load(Relaxed) {
                return self;
            }
            let item = format!("i{id}");
            let told = self.call(id, "add", &json!({"item": item}), &counts).await;
            self.added.insert(item, told["result"].is_object());
            let order = format!("{}-{id}", self.name);
            let told = self.call(id + 1, "order", &self.order(&order, id), &counts).await;
            self.ordered.insert(order, (id + 1, told["result"].is_object()));
            tokio::time::sleep(pause).await;
        }
        self
    }

    /// Now and then one that takes its time, so that some are always under way.
    fn order(&self, number: &str, id: u64) -> Value {
        let pause = if id.is_multiple_of(3) { 40 } else { 0 };
        json!({"number": number, "keep": true, "pause_ms": pause})
    }

    /// Everything that it was told is true, now that all nodes are there. Asks again for what nobody knew, and for some of
    /// the rest.
    async fn check(&self, placed: &BTreeSet<String>, counts: &Counts) {
        for (at, (number, (id, was_confirmed))) in self.ordered.iter().enumerate() {
            assert!(!was_confirmed || placed.contains(number), "{number} was confirmed, and is not placed");
            if *was_confirmed && !at.is_multiple_of(10) {
                continue;
            }
            let order = self.order(number, id - 1);
            let again = self.call(*id, "order", &order, counts).await;
            let third = self.call(*id, "order", &order, counts).await;
            assert_eq!(again["result"], third["result"], "{number}: the same at any node");
            let is_confirmed = again["result"].is_object();
            assert!(is_confirmed || !was_confirmed, "{number} was confirmed, and is told: {again}");
            // One that was unknown and had not begun is run now, once: the file is looked at again afterwards.
        }
        let cart = self.call(5, "cart", &json!({}), counts).await;
        let held: Vec<&str> = text(&cart["result"]).split(',').filter(|item| !item.is_empty()).collect();
        let once: BTreeSet<&str> = held.iter().copied().collect();
        assert_eq!(held.len(), once.len(), "{}: nothing is added twice: {held:?}", self.name);
        for (item, was_added) in &self.added {
            assert!(!was_added || once.contains(item.as_str()), "{}: {item} is lost: {held:?}", self.name);
        }
        assert!(once.iter().all(|item| self.added.contains_key(*item)), "{}: {held:?}", self.name);
    }
}

/// Kills while everybody shops; then everything is looked at.
async fn shop_under_kills(mut fleet: Fleet, front: Front) {
    let (kills, sessions) = (number("REGATTA_KILLS", 20), number("REGATTA_KILL_SESSIONS", 16));
    let (is_over, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
    let pause = Duration::from_millis(sessions * 2);
    let mut shopping = Vec::new();
    for at in 0..sessions {
        let customer = Customer::enter(&front, at as usize).await;
        shopping.push(tokio::spawn(customer.shop_until(is_over.clone(), counts.clone(), pause)));
    }
    let mut dice = Dice(number("REGATTA_KILL_SEED", 0x5EED));
    for _ in 0..kills {
        fleet.hurt_one(&mut dice, &counts).await;
    }
    is_over.store(true, Relaxed);
    let mut customers = Vec::new();
    for shopper in shopping {
        customers.push(shopper.await.expect("nobody gave up"));
    }
    let number = |count: &AtomicU64| count.load(Relaxed);
    let (answered, unknown) = (number(&counts.answered), number(&counts.unknown));
    let placed = orders(&fleet.directory.path().join("orders"));
    let once: BTreeSet<String> = placed.iter().cloned().collect();
    assert_eq!(placed.len(), once.len(), "no order is placed twice");
    futures_util::future::join_all(customers.iter().map(|customer| customer.check(&once, &counts))).await;
    let placed = orders(&fleet.directory.path().join("orders"));
    let once: BTreeSet<String> = placed.iter().cloned().collect();
    assert_eq!(placed.len(), once.len(), "asking again places nothing twice");
    let wished = customers.iter().flat_map(|customer| customer.ordered.keys()).collect::<BTreeSet<_>>();
    assert!(once.iter().all(|number| wished.contains(number)), "nothing is placed that nobody wanted");
    eprintln!(
        "{} kills, {} sleeps, {} customers: {answered} calls answered, {unknown} unknown, {} sent again; {} orders, none twice",
        number(&counts.kills),
        number(&counts.stops),
        customers.len(),
        number(&counts.sent_again),
        placed.len(),
    );
    assert!(answered > unknown * 4, "most calls are answered: {answered}, {unknown} unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_behind_a_gateway_loses_no_cart_and_places_no_order_twice_whichever_node_dies_or_sleeps() {
    let fleet = Fleet::start("shop").await;
    let front = Front::gateway("shop", NODES, &fleet.redis).await;
    shop_under_kills(fleet, front).await;
}

/// A call of a tool that keeps nothing, and what may be answered.
struct Said {
    tool: &'static str,
    arguments: Value,
    answers: Vec<String>,
}

/// Customers of both eras and at both fronts call `says(customer, call)` while nodes are killed: every session lives, no answer
/// is another call's, and in the end everybody is answered.
async fn speak_under_kills(mut fleet: Fleet, fronts: [Front; 2], says: fn(usize, u64) -> Said) {
    let (is_over, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
    let mut speaking = Vec::new();
    for at in 0..8 {
        let client = fronts[at % 2].client();
        let way = match at % 4 {
            0..2 => Way::Session(client.initialize().await.expect("a session")),
            _ => Way::Modern { modern: client.modern(), cart: String::new() },
        };
        let speaker =
            Customer { way, name: format!("c{at}"), added: BTreeMap::new(), ordered: BTreeMap::new() };
        let (is_over, counts) = (is_over.clone(), counts.clone());
        speaking.push(tokio::spawn(async move {
            for id in 10_u64.. {
                let Said { tool, arguments, answers } = says(at, id);
                let told = speaker.call(id, tool, &arguments, &counts).await;
                let is_told = told["result"].is_object();
                let is_unknown = told["error"]["code"] == json!(-31001);
                assert!(
                    is_unknown || is_told && answers.iter().any(|answer| answer == text(&told["result"])),
                    "{tool} {arguments}: {told}"
                );
                if is_over.load(Relaxed) && is_told {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }));
    }
    let mut dice = Dice(number("REGATTA_KILL_SEED", 0x5EED));
    for _ in 0..number("REGATTA_KILLS", 20) {
        fleet.hurt_one(&mut dice, &counts).await;
    }
    is_over.store(true, Relaxed);
    for speaker in speaking {
        speaker.await.expect("every session lives");
    }
    let (answered, unknown) = (counts.answered.load(Relaxed), counts.unknown.load(Relaxed));
    let (kills, again) = (counts.kills.load(Relaxed), counts.sent_again.load(Relaxed));
    eprintln!(
        "{}: {kills} kills, {answered} calls answered, {unknown} unknown, {again} sent again",
        fleet.example
    );
    assert!(answered > unknown * 4, "most calls are answered: {answered}, {unknown} unknown");
}

/// The smallest node keeps nothing: its sessions live on, and what it says is never another call's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_node_ends_no_session_whichever_of_them_dies_or_sleeps() {
    let fleet = Fleet::start("minimal").await;
    let fronts = [Front::gateway("echo", NODES, &fleet.redis).await, Front::nginx(&fleet.ports()).await];
    speak_under_kills(fleet, fronts, |at, id| {
        let said = format!("{at} {id}");
        Said { tool: "echo", arguments: json!({"text": said}), answers: vec![said] }
    })
    .await;
}

/// Common and specialised tools: each call is answered by a node that has its tool, though nginx knows nothing of tools.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn specialised_nodes_answer_each_call_where_its_tool_is_whichever_of_them_dies_or_sleeps() {
    let fleet = Fleet::start("sharded").await;
    let fronts = [Front::gateway("jobs", NODES, &fleet.redis).await, Front::nginx_next(&fleet.ports()).await];
    speak_under_kills(fleet, fronts, |at, id| {
        let everywhere = (0..NODES).map(|node| format!("sharded-{node}")).collect();
        let (tool, answers) = match (at as u64 + id) % 5 {
            0 => ("where", everywhere),
            1 => ("shard_1", vec!["sharded-0".to_owned()]),
            2 => ("shard_2", vec!["sharded-1".to_owned()]),
            3 => ("shard_3", vec!["sharded-2".to_owned()]),
            _ => ("render", vec!["sharded-2".to_owned()]),
        };
        Said { tool, arguments: json!({}), answers }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_behind_nginx_loses_no_cart_and_places_no_order_twice_whichever_node_dies_or_sleeps() {
    let fleet = Fleet::start("shop").await;
    let front = Front::nginx(&fleet.ports()).await;
    shop_under_kills(fleet, front).await;
}
