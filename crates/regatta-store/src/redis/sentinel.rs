//! The sentinels: who the master is, by their answers and by what they announce.
//!
//! An announcement (`+switch-master`) is followed by its payload, from any of them, at once: a planned failover keeps
//! the old connection open, and what is written there is lost without an error (RELIABILITY 0.1). What was announced
//! last goes before what they answer, but only a server that calls itself master is taken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::address::Addr;
use super::connector::{Connector, Peer};
use super::dice::jittered;
use super::line::{Line, Means};

/// How long an announcement goes before the sentinels' answers: they tell each other within seconds.
const ANNOUNCED_FOR: Duration = Duration::from_secs(15);
/// A sentinel that is silent for so long is asked whether it is still there.
const SILENT_FOR: Duration = Duration::from_secs(5);

pub(super) struct Sentinels {
    addrs: Vec<Addr>,
    master: String,
    announced: Mutex<Option<(Instant, Addr)>>,
}

impl Sentinels {
    pub(super) fn new(addrs: Vec<Addr>, master: String) -> Sentinels {
        Sentinels { addrs, master, announced: Mutex::new(None) }
    }

    pub(super) fn addrs(&self) -> &[Addr] {
        &self.addrs
    }

    /// Who may be the master, the likeliest first.
    pub(super) async fn candidates(&self, connector: &Connector) -> Vec<Addr> {
        let mut candidates: Vec<Addr> = self.announced().into_iter().collect();
        let mut named: Vec<(Addr, usize)> = self.votes(connector).await.into_iter().collect();
        named.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
        for (addr, _) in named {
            if !candidates.contains(&addr) {
                candidates.push(addr);
            }
        }
        candidates
    }

    /// The master that was announced just now, or that most sentinels name.
    pub(super) async fn agreed(&self, connector: &Connector) -> Option<Addr> {
        if let Some(announced) = self.announced() {
            return Some(announced);
        }
        let votes = self.votes(connector).await;
        votes.into_iter().find(|(_, votes)| votes * 2 > self.addrs.len()).map(|(addr, _)| addr)
    }

    fn announced(&self) -> Option<Addr> {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.as_ref().filter(|(at, _)| at.elapsed() < ANNOUNCED_FOR).map(|(_, addr)| addr.clone())
    }

    async fn votes(&self, connector: &Connector) -> BTreeMap<Addr, usize> {
        let mut votes = BTreeMap::new();
        for addr in
            join_all(self.addrs.iter().map(|addr| self.named_by(connector, addr))).await.into_iter().flatten()
        {
            *votes.entry(addr).or_default() += 1;
        }
        votes
    }

    async fn named_by(&self, connector: &Connector, sentinel: &Addr) -> Option<Addr> {
        let mut wire = connector.commands(sentinel, Peer::Sentinel).await.ok()?;
        let mut asked = redis::cmd("SENTINEL");
        asked.arg("get-master-addr-by-name").arg(&self.master);
        let answer =
            timeout(Duration::from_millis(250), asked.query_async::<Option<(String, u16)>>(&mut wire));
        let (host, port) = answer.await.ok()?.ok()??;
        Some(Addr { host, port })
    }

    /// `+switch-master`: name, old host and port, new host and port.
    fn read_announcement(&self, payload: &str) -> Option<Addr> {
        let words: Vec<&str> = payload.split(' ').collect();
        let [name, _, _, host, port] = words[..] else { return None };
        let port = port.parse().ok().filter(|_| name == self.master)?;
        Some(Addr { host: host.to_owned(), port })
    }

    fn note(&self, master: &Addr) {
        tracing::info!(%master, "the sentinels announce a new master");
        *self.announced.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), master.clone()));
    }
}

/// Listens to one sentinel for as long as the line is there.
pub(super) async fn listen(sentinels: Arc<Sentinels>, sentinel: Addr, means: Arc<Means>, line: Weak<Line>) {
    let (connector, timing) = (&means.connector, means.timing);
    while line.strong_count() > 0 {
        if let Ok(mut pubsub) = connector.pubsub(&sentinel, Peer::Sentinel).await
            && matches!(timeout(timing.connect, pubsub.subscribe("+switch-master")).await, Ok(Ok(())))
        {
            follow(&sentinels, pubsub, &line).await;
        }
        sleep(jittered(timing.retry_max)).await;
    }
}

/// Follows what one connection announces until it breaks.
async fn follow(sentinels: &Sentinels, pubsub: redis::aio::PubSub, line: &Weak<Line>) {
    let (mut sink, mut messages) = pubsub.split();
    loop {
        match timeout(SILENT_FOR, messages.next()).await {
            Ok(Some(message)) => {
                let payload: String = message.get_payload().unwrap_or_default();
                let (Some(master), Some(line)) = (sentinels.read_announcement(&payload), line.upgrade())
                else {
                    continue;
                };
                sentinels.note(&master);
                line.leave_for(&master);
            }
            Ok(None) => return,
            Err(_) => {
                let alive = timeout(Duration::from_secs(1), sink.ping::<redis::Value>()).await;
                if !matches!(alive, Ok(Ok(_))) || line.strong_count() == 0 {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_payload_of_an_announcement_for_its_own_master_only() {
        let sentinels = Sentinels::new(Vec::new(), "main".to_owned());
        let read = |payload| sentinels.read_announcement(payload);
        let addr = Addr { host: "10.0.0.2".to_owned(), port: 6380 };
        assert_eq!(read("main 10.0.0.1 6379 10.0.0.2 6380"), Some(addr));
        assert_eq!(read("other 10.0.0.1 6379 10.0.0.2 6380"), None);
        assert_eq!(read("main 10.0.0.1 6379"), None);
        assert_eq!(read("main 10.0.0.1 6379 10.0.0.2 many"), None);
    }
}
