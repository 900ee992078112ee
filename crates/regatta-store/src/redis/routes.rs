//! The way to the right server, whatever the layout: one line, or a cluster's lines.

use std::sync::Arc;

use futures_util::future::join_all;
use redis::{Cmd, Value};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::address::Layout;
use super::cluster::Cluster;
use super::fault::{Verdict, judge};
use super::line::{Away, Line, Means, Miss, Repeat, Request, Target};
use super::scripts::Script;
use super::sentinel::{self, Sentinels};
use crate::{Link, StoreError};

pub(super) struct Routes {
    way: Way,
    means: Arc<Means>,
    /// Listeners to sentinels.
    listeners: Vec<JoinHandle<()>>,
}

/// One of several runs of a script.
pub(super) struct Call {
    pub(super) key: String,
    pub(super) args: Vec<Vec<u8>>,
}

impl Call {
    fn args(&self) -> Vec<&[u8]> {
        self.args.iter().map(Vec::as_slice).collect()
    }
}

enum Way {
    One(Arc<Line>),
    Cluster(Arc<Cluster>),
}

impl Routes {
    pub(super) fn open(layout: Layout, means: Arc<Means>) -> Routes {
        let mut listeners = Vec::new();
        let way = match layout {
            Layout::Standalone(addr) => Way::One(Arc::new(Line::open(Target::Server(addr), means.clone()))),
            Layout::Cluster(seeds) => Way::Cluster(Cluster::open(seeds, means.clone())),
            Layout::Sentinel { sentinels, master } => {
                let sentinels = Arc::new(Sentinels::new(sentinels, master));
                let line = Arc::new(Line::open(Target::Master(sentinels.clone()), means.clone()));
                for addr in sentinels.addrs() {
                    let weak = Arc::downgrade(&line);
                    let listen = sentinel::listen(sentinels.clone(), addr.clone(), means.clone(), weak);
                    listeners.push(tokio::spawn(listen));
                }
                Way::One(line)
            }
        };
        Routes { way, means, listeners }
    }

    fn end(&self) -> Instant {
        Instant::now() + self.means.timing.operation
    }

    async fn miss_or_answer(
        &self,
        key: &str,
        cmd: &Cmd,
        repeat: Repeat,
        end: Instant,
    ) -> Result<Value, Miss> {
        match &self.way {
            Way::Cluster(cluster) => cluster.ask(key, cmd, repeat, end).await,
            Way::One(line) => {
                let mut answers = line.ask(Request::One(cmd), repeat, end).await?;
                Ok(answers.pop().unwrap_or(Value::Nil))
            }
        }
    }

    /// The answer to a command about `key`.
    pub(super) async fn ask(&self, key: &str, cmd: &Cmd, repeat: Repeat) -> Result<Value, StoreError> {
        self.miss_or_answer(key, cmd, repeat, self.end()).await.map_err(told)
    }

    /// The answer of a script on `key`.
    pub(super) async fn run(&self, script: &Script, key: &str, args: &[&[u8]]) -> Result<Value, StoreError> {
        let end = self.end();
        match self.miss_or_answer(key, &by_name(script, key, args), Repeat::Harmless, end).await {
            // After a restart, or on a member that never ran it.
            Err(Miss::Judged(Verdict::NoScript)) => {
                let cmd = in_full(script, key, args);
                self.miss_or_answer(key, &cmd, Repeat::Harmless, end).await.map_err(told)
            }
            answer => answer.map_err(told),
        }
    }

    /// The answers of a script on each of several keys, in one trip to each server.
    pub(super) async fn run_all(&self, script: &Script, calls: &[Call]) -> Vec<Result<Value, StoreError>> {
        let Way::One(line) = &self.way else {
            let run = async |call: &Call| self.run(script, &call.key, &call.args()).await;
            return join_all(calls.iter().map(run)).await;
        };
        let mut all = redis::pipe();
        calls.iter().for_each(|call| {
            all.add_command(by_name(script, &call.key, &call.args()));
        });
        if calls.is_empty() {
            return Vec::new();
        }
        match line.ask(Request::Many(&all), Repeat::Harmless, self.end()).await {
            Err(miss) => vec![Err(told(miss)); calls.len()],
            Ok(answers) => {
                let answers =
                    calls.iter().zip(answers).map(async |(call, answer)| match answer.extract_error() {
                        Ok(value) => Ok(value),
                        Err(error) if judge(&error) == Verdict::NoScript => {
                            self.run(script, &call.key, &call.args()).await
                        }
                        Err(error) => Err(told(Miss::Judged(judge(&error)))),
                    });
                join_all(answers).await
            }
        }
    }

    /// Every server that can be written.
    pub(super) fn lines(&self) -> Vec<Arc<Line>> {
        match &self.way {
            Way::One(line) => vec![line.clone()],
            Way::Cluster(cluster) => cluster.masters(),
        }
    }

    /// Whether anybody may answer.
    pub(super) fn any_up(&self) -> bool {
        self.lines().iter().any(|line| line.addr().is_some())
    }

    pub(super) fn link(&self) -> Link {
        let away = self.absences().into_iter().next();
        away.map_or(Link::Up, |away| Link::Degraded { since_s: away.since_s, why: away.why.clone() })
    }

    /// Whether something of it is away for longer than knowledge is trusted, as found out within that time.
    pub(super) fn is_long_away(&self) -> bool {
        self.absences().iter().any(|away| away.is_for(self.means.timing.trust_for))
    }

    fn absences(&self) -> Vec<Arc<Away>> {
        match &self.way {
            Way::Cluster(cluster) => cluster.absences(),
            Way::One(line) => line.absence().into_iter().collect(),
        }
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.listeners.iter().for_each(JoinHandle::abort);
    }
}

fn by_name(script: &Script, key: &str, args: &[&[u8]]) -> Cmd {
    called("EVALSHA", &script.sha, key, args)
}

fn in_full(script: &Script, key: &str, args: &[&[u8]]) -> Cmd {
    called("EVAL", script.code, key, args)
}

fn called(command: &str, script: &str, key: &str, args: &[&[u8]]) -> Cmd {
    let mut cmd = redis::cmd(command);
    cmd.arg(script).arg(1).arg(key);
    args.iter().for_each(|arg| {
        cmd.arg(arg);
    });
    cmd
}

fn told(miss: Miss) -> StoreError {
    match miss {
        Miss::Away(why) => StoreError::Away(why),
        Miss::Judged(verdict) => match verdict {
            Verdict::OutOfMemory => StoreError::Full("redis is out of memory"),
            Verdict::Broken(why) | Verdict::NotTheOne(why) | Verdict::Refused(why) => StoreError::Away(why),
            Verdict::Moved(_) | Verdict::Ask(_) => {
                StoreError::Away("this is a cluster: its URL begins with redis+cluster://".to_owned())
            }
            Verdict::TryAgain | Verdict::NoScript => {
                StoreError::Away("the server changes its mind".to_owned())
            }
        },
    }
}
