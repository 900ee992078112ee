//! A cluster: which member has which slot, and a line to each.
//!
//! One member's trouble is its own slots' trouble only: every line has its own connection, breaker and keeper. Where a
//! slot went is followed at once; the whole map is read again soon after.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::address::Addr;
use super::connector::Peer;
use super::dice::jittered;
use super::fault::{Verdict, judge};
use super::line::{Away, Line, Means, Miss, Repeat, Request, Target};
use super::names::slot;

/// Members we keep lines to.
const MEMBERS_MAX: usize = 256;
/// Redirections of one operation.
const REDIRECTS_MAX: usize = 5;
/// The map is not read more often.
const MAP_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Cluster {
    seeds: Vec<Addr>,
    means: Arc<Means>,
    map: watch::Sender<Map>,
    lines: Mutex<HashMap<Addr, Arc<Line>>>,
    /// The map is old.
    stale: Notify,
}

#[derive(Clone)]
enum Map {
    /// The first attempt to read it runs.
    Unknown,
    Known(Arc<SlotMap>),
    /// Nobody could tell.
    Lost(Arc<Away>),
}

/// Runs of slots and their masters.
#[derive(Debug, PartialEq, Eq)]
struct SlotMap(Vec<(u16, u16, Addr)>);

impl SlotMap {
    fn owner(&self, slot: u16) -> Option<&Addr> {
        self.0.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).map(|(_, _, addr)| addr)
    }

    fn masters(&self) -> Vec<Addr> {
        let mut masters: Vec<Addr> = self.0.iter().map(|(_, _, addr)| addr.clone()).collect();
        masters.sort();
        masters.dedup();
        masters
    }
}

impl Cluster {
    /// Opens a cluster; the map is read from now on, for as long as the cluster is there.
    pub(super) fn open(seeds: Vec<Addr>, means: Arc<Means>) -> Arc<Cluster> {
        let (map, _) = watch::channel(Map::Unknown);
        let cluster = Arc::new(Cluster { seeds, means, map, lines: Mutex::default(), stale: Notify::new() });
        tokio::spawn(keep_map(Arc::downgrade(&cluster)));
        cluster
    }

    /// The answers to a command about `key`.
    pub(super) async fn ask(
        &self,
        key: &str,
        cmd: &Cmd,
        repeat: Repeat,
        end: Instant,
    ) -> Result<Value, Miss> {
        let mut to = self.owner(slot(key), end).await?;
        let mut asking = None;
        for _ in 0..REDIRECTS_MAX {
            let line = self.line(&to)?;
            let answer = match &asking {
                None => line.ask(Request::One(cmd), repeat, end).await,
                Some(both) => line.ask(Request::Many(both), repeat, end).await,
            };
            match answer.and_then(last) {
                Ok(value) => return Ok(value),
                Err(Miss::Judged(Verdict::Moved(addr))) => {
                    self.stale.notify_one();
                    (to, asking) = (addr, None);
                }
                Err(Miss::Judged(Verdict::Ask(addr))) => {
                    let mut both = redis::pipe();
                    both.cmd("ASKING").add_command(cmd.clone());
                    (to, asking) = (addr, Some(both));
                }
                Err(Miss::Judged(Verdict::Refused(why))) if why.contains("CLUSTERDOWN") => {
                    self.stale.notify_one();
                    return Err(Miss::Away(why));
                }
                Err(miss) => {
                    self.stale.notify_one();
                    return Err(miss);
                }
            }
        }
        Err(Miss::Away("the slot moved on and on".to_owned()))
    }

    async fn owner(&self, slot: u16, end: Instant) -> Result<Addr, Miss> {
        let mut maps = self.map.subscribe();
        loop {
            match &*maps.borrow_and_update() {
                Map::Unknown => {}
                Map::Known(map) => {
                    let nobody = || Miss::Away("nobody has the slot".to_owned());
                    return map.owner(slot).cloned().ok_or_else(nobody);
                }
                Map::Lost(away) => {
                    self.means.counters.refused_away.one();
                    return Err(Miss::Away(away.why.clone()));
                }
            }
            match timeout_at(end, maps.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Miss::Away("still connecting".to_owned())),
            }
        }
    }

    fn line(&self, addr: &Addr) -> Result<Arc<Line>, Miss> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(addr) {
            return Ok(line.clone());
        }
        if lines.len() >= MEMBERS_MAX {
            return Err(Miss::Away("the cluster has too many members".to_owned()));
        }
        let line = Arc::new(Line::open(Target::Member(addr.clone()), self.means.clone()));
        lines.insert(addr.clone(), line.clone());
        Ok(line)
    }

    /// Lines to all masters, as far as they are known.
    pub(super) fn masters(&self) -> Vec<Arc<Line>> {
        let map = self.map.borrow().clone();
        match map {
            Map::Known(map) => map.masters().iter().filter_map(|addr| self.line(addr).ok()).collect(),
            Map::Unknown | Map::Lost(_) => Vec::new(),
        }
    }

    /// What of it is away.
    pub(super) fn absences(&self) -> Vec<Arc<Away>> {
        if let Map::Lost(away) = &*self.map.borrow() {
            return vec![away.clone()];
        }
        self.masters().iter().filter_map(|line| line.absence()).collect()
    }

    async fn read_map(&self) -> Result<SlotMap, String> {
        let mut why = "no member of the cluster is known".to_owned();
        let mut members: Vec<Addr> = self.masters().iter().filter_map(|line| line.addr()).collect();
        members.extend(self.seeds.iter().filter(|seed| !members.contains(seed)).cloned().collect::<Vec<_>>());
        for member in members {
            match self.ask_map(&member).await {
                Ok(map) if !map.0.is_empty() => return Ok(map),
                Ok(_) => why = format!("{member} knows no slots"),
                Err(trouble) => why = trouble,
            }
        }
        Err(why)
    }

    async fn ask_map(&self, member: &Addr) -> Result<SlotMap, String> {
        let mut wire = self.means.connector.commands(member, Peer::Server).await?;
        let mut asked = redis::cmd("CLUSTER");
        asked.arg("SLOTS");
        let answer = timeout(self.means.timing.connect, asked.query_async::<Value>(&mut wire)).await;
        let late = || format!("{member}: no answer within {:?}", self.means.timing.connect);
        let value = answer.map_err(|_| late())?.map_err(|error| format!("{member}: {:?}", judge(&error)))?;
        Ok(read_slots(&value, member))
    }

    /// Takes what was read by an attempt that was begun then.
    fn install(&self, read: Result<SlotMap, String>, begun: Instant) {
        let next = match read {
            Ok(map) => Map::Known(Arc::new(map)),
            Err(why) => Map::Lost(Arc::new(Away::now(why))),
        };
        let before = self.map.borrow().clone();
        let mut is_change = false;
        match (&before, &next) {
            (Map::Known(old), Map::Known(new)) if old == new => return,
            (Map::Known(_), Map::Known(new)) => {
                let masters = new.masters();
                let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.retain(|addr, _| masters.contains(addr));
                drop(lines);
                self.means.knowledge.change_server();
                is_change = true;
            }
            // Lines tell for themselves whether they are away; an old map is better than none.
            (Map::Known(_), Map::Lost(_)) => return,
            (Map::Lost(away), Map::Lost(_)) => return away.failed_again(begun),
            (Map::Unknown, Map::Known(_) | Map::Lost(_)) | (Map::Lost(_), Map::Known(_)) => {}
            (_, Map::Unknown) => return,
        }
        self.map.send_replace(next);
        if is_change {
            self.means.note_change();
        }
    }
}

/// The last of several answers, if it is none in name only.
fn last(mut answers: Vec<Value>) -> Result<Value, Miss> {
    let value = answers.pop().unwrap_or(Value::Nil);
    value.extract_error().map_err(|error| Miss::Judged(judge(&error)))
}

async fn keep_map(cluster: Weak<Cluster>) {
    loop {
        let Some(now) = cluster.upgrade() else { return };
        let begun = Instant::now();
        let read = now.read_map().await;
        let well = read.is_ok() && now.absences().is_empty();
        now.install(read, begun);
        let next = if well { now.means.timing.check_every } else { now.means.timing.retry_max };
        let wait = async { timeout(jittered(next), now.stale.notified()).await };
        let _ = wait.await;
        drop(now);
        sleep(jittered(MAP_EVERY)).await;
    }
}

/// `CLUSTER SLOTS`: first slot, last slot, the master (host, port, id), replicas.
fn read_slots(value: &Value, asked: &Addr) -> SlotMap {
    let Value::Array(runs) = value else { return SlotMap(Vec::new()) };
    let run = |run: &Value| {
        let Value::Array(parts) = run else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &parts[..] else { return None };
        let [host, Value::Int(port), ..] = &master[..] else { return None };
        // Without a host of its own, a member is where it was asked.
        let host = match host {
            Value::BulkString(host) if !host.is_empty() => String::from_utf8_lossy(host).into_owned(),
            _ => asked.host.clone(),
        };
        let port = u16::try_from(*port).ok().filter(|port| *port != 0)?;
        Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, Addr { host, port }))
    };
    let mut runs: Vec<_> = runs.iter().filter_map(run).collect();
    runs.sort();
    SlotMap(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_slots_of_a_cluster() {
        let asked = Addr { host: "10.0.0.1".to_owned(), port: 7000 };
        let resp = "*2\r\n*3\r\n:5461\r\n:16383\r\n*3\r\n$8\r\n10.0.0.2\r\n:7001\r\n$1\r\na\r\n\
                    *4\r\n:0\r\n:5460\r\n*3\r\n$0\r\n\r\n:7000\r\n$1\r\nb\r\n*3\r\n$8\r\n10.0.0.9\r\n:1\r\n$1\r\nc\r\n";
        let map = read_slots(&redis::parse_redis_value(resp.as_bytes()).expect("it is RESP"), &asked);
        let other = Addr { host: "10.0.0.2".to_owned(), port: 7001 };
        assert_eq!(map.owner(0), Some(&asked));
        assert_eq!(map.owner(5460), Some(&asked));
        assert_eq!(map.owner(5461), Some(&other));
        assert_eq!(map.masters(), [asked, other]);
        assert_eq!(SlotMap(Vec::new()).owner(1), None);
    }
}
