//! A replica that is killed again and again, beside two that are well, under steady load of both eras (RELIABILITY F11).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use regatta_testkit::gateway::Plan;
use regatta_testkit::process::Demo;
use regatta_testkit::{Client, Gateway, Result, eventually};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::REGATTA;
use crate::fleet::{demos, urls};

const SOON: Duration = Duration::from_secs(20);
/// Calls that end between one kill and the next, at least.
const CALLS_BETWEEN: usize = 350;
/// Kills until it must have been ejected twice. One whose failures the probes see first ejects nobody.
const KILLS_MAX: usize = 8;
/// Kills of one that is ejected.
const KILLS_MORE: usize = 4;

/// How the load does.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    calls: AtomicUsize,
    failed: AtomicUsize,
}

impl Load {
    fn note<T>(&self, outcome: &Result<T>) {
        self.failed.fetch_add(usize::from(outcome.is_err()), Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Until so many more calls have ended.
    async fn more(&self, calls: usize) {
        let before = self.calls.load(Ordering::Relaxed);
        eventually("the load goes on", SOON, async || {
            (self.calls.load(Ordering::Relaxed) >= before + calls).then_some(())
        })
        .await;
    }
}

/// Each call takes long enough to be killed in.
fn work() -> Value {
    json!({"ms": 20})
}

async fn modern(client: Client, load: Arc<Load>) {
    let modern = client.modern();
    while load.goes_on() {
        let outcome = modern.call("sleep", work()).await;
        load.note(&outcome.and_then(|outcome| outcome.result()));
    }
}

/// Sessions that begin, work and end.
async fn legacy(client: Client, load: Arc<Load>) {
    while load.goes_on() {
        let opened = client.initialize().await;
        load.note(&opened);
        let Ok(session) = opened else { continue };
        for _ in 0..20 {
            let outcome = session.call("sleep", work()).await;
            load.note(&outcome.and_then(|outcome| outcome.result()));
        }
        let _ = session.end().await;
    }
}

/// What the gateway says of its replicas.
async fn replicas(gateway: &Gateway) -> Vec<Value> {
    let (_, text) = gateway.admin("/status").await.expect("the admin listener answers");
    let status: Value = serde_json::from_str(&text).expect("JSON");
    status["replicas"].as_array().expect("replicas").clone()
}

fn is_ejected(replica: &Value) -> bool {
    replica["ejected"] == json!(true)
}

/// How long the ejections were that the gateway told of, in seconds.
fn ejections(gateway: &Gateway) -> Vec<u64> {
    let log = gateway.log();
    let lines = log.lines().filter(|line| line.contains("replica ejected"));
    let seconds = |line: &str| {
        let rest = line.split("seconds").nth(1)?;
        let digits: String =
            rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    lines.filter_map(seconds).collect()
}

/// Looks again and again how many are ejected at once, until the load stops; the most.
fn most_ejected(gateway: &Arc<Gateway>, load: &Arc<Load>) -> JoinHandle<usize> {
    let (gateway, load) = (gateway.clone(), load.clone());
    tokio::spawn(async move {
        let mut most = 0;
        while load.goes_on() {
            most = most.max(replicas(&gateway).await.iter().filter(|replica| is_ejected(replica)).count());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        most
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_in_a_crash_loop_is_put_aside_for_longer_and_longer_and_hardly_felt() -> Result<()> {
    let mut demos = demos(3, &[]).await;
    let gateway = Arc::new(Gateway::start(REGATTA, Plan::over(urls(&demos))).await);
    gateway.metric_reaches("regatta_replica_healthy", 3.0).await;
    let load = Arc::new(Load::default());
    let most = most_ejected(&gateway, &load);
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(tokio::spawn(modern(gateway.client(), load.clone())));
    }
    for _ in 0..2 {
        running.push(tokio::spawn(legacy(gateway.client(), load.clone())));
    }
    let health = async |healthy: f64| {
        eventually("probes see it", SOON, async || {
            (gateway.metric("regatta_replica_healthy").await? == healthy).then_some(())
        })
        .await;
    };

    let port = demos[0].port();
    let mut kills = 0;
    while ejections(&gateway).len() < 2 {
        assert!(kills < KILLS_MAX, "it was never ejected twice: {:?}", ejections(&gateway));
        kills += 1;
        load.more(CALLS_BETWEEN).await;
        demos[0].process.kill();
        health(2.0).await;
        demos[0] = Demo::start_at(REGATTA, port, &[]).await;
        health(3.0).await;
    }
    assert_eq!(ejections(&gateway), [30, 60], "the second time is longer");
    let looping = replicas(&gateway).await.into_iter().find(is_ejected).expect("it is in a loop: not let in");
    assert!(looping.to_string().contains(&format!(":{port}/")), "{looping}");

    for _ in 0..KILLS_MORE {
        load.more(CALLS_BETWEEN).await;
        demos[0].process.kill();
        demos[0] = Demo::start_at(REGATTA, port, &[]).await;
    }
    // With one of three ejected the cap is reached: another one that fails is spared, and its calls go to the third.
    demos[1].process.kill();
    load.more(CALLS_BETWEEN).await;
    load.stop.store(true, Ordering::Relaxed);
    for running in running {
        running.await.expect("the load's task");
    }
    let (calls, failed) = (load.calls.load(Ordering::Relaxed), load.failed.load(Ordering::Relaxed));
    println!("{failed} of {calls} calls failed, after {} kills", kills + KILLS_MORE + 1);
    assert!(failed * 200 <= calls, "{failed} of {calls} calls failed");
    assert_eq!(most.await.expect("the look-out"), 1, "ejected at once");
    assert_eq!(ejections(&gateway), [30, 60], "nobody else was");
    Ok(())
}
