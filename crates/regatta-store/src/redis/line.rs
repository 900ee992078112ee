//! A line: one connection for commands, kept up by one task; everybody shares it.
//!
//! Three states. *Joining*: a connection was lost a moment ago and the first attempt at a new one runs; whoever asks
//! waits for it within the time of its own operation. *Up*. *Away*: an attempt failed or an answer did not come; whoever
//! asks is refused at once, so a dead Redis costs one operation's time, once. Only the keeper connects: no storm.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{Cmd, Pipeline, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::address::Addr;
use super::connector::{Connector, Peer, Role, Vitals};
use super::counters::Counters;
use super::dice::{jittered, wall_s};
use super::fault::{Verdict, judge};
use super::knowledge::Knowledge;
use super::options::Timing;
use super::sentinel::Sentinels;

/// What all lines share.
pub(super) struct Means {
    pub(super) connector: Connector,
    pub(super) counters: Counters,
    pub(super) timing: Timing,
    /// Grows whenever a server took the place of another one, or came back as a new run of itself: what the old one
    /// had acknowledged last may be lost.
    pub(super) changes: watch::Sender<u64>,
    pub(super) knowledge: Knowledge,
}

impl Means {
    pub(super) fn note_change(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }
}

/// Hops from a replica to its master while looking for the one that can be written.
const HOPS_MAX: usize = 4;
/// Times that an operation is begun anew within its time.
const REPEATS_MAX: usize = 4;
/// The pause before the same again, where the server asked for it.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Whom a line leads to.
#[derive(Clone)]
pub(super) enum Target {
    /// A server, or the master of it if it is a replica.
    Server(Addr),
    /// The master that the sentinels name.
    Master(Arc<Sentinels>),
    /// A member of a cluster, whatever it is: it says itself what is not its own.
    Member(Addr),
}

/// Whether an operation may be sent again when it is unknown whether it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing more the second time.
    Harmless,
    /// It does.
    Never,
}

/// What is sent.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    /// One command.
    One(&'a Cmd),
    /// Several commands, answered each by itself.
    Many(&'a Pipeline),
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// The line is away, or the answer did not come.
    Away(String),
    /// As it was judged.
    Judged(Verdict),
}

#[derive(Clone)]
pub(super) enum State {
    Joining,
    Up(Arc<Up>),
    Away(Arc<Away>),
}

/// A connection that works.
pub(super) struct Up {
    wire: MultiplexedConnection,
    pub(super) addr: Addr,
    /// Tells one connection from the next.
    number: u64,
}

/// A server, or a cluster, that cannot be asked.
pub(super) struct Away {
    pub(super) why: String,
    /// Since when, seconds since 1970: for people.
    pub(super) since_s: u64,
    since: Instant,
    /// When the last attempt that failed was begun, milliseconds after `since`.
    tried_ms: AtomicU64,
}

impl Away {
    pub(super) fn now(why: String) -> Away {
        Away { why, since_s: wall_s(), since: Instant::now(), tried_ms: AtomicU64::new(0) }
    }

    /// An attempt that was begun then has failed.
    pub(super) fn failed_again(&self, begun: Instant) {
        let after_ms = begun.saturating_duration_since(self.since).as_millis() as u64;
        self.tried_ms.fetch_max(after_ms, Relaxed);
    }

    /// Whether it has been away for longer than `time`, and was found so within the last `time`. A process that was stopped
    /// meanwhile has not tried, and an attempt that was under way then has shown nothing: it may long be back.
    pub(super) fn is_for(&self, time: Duration) -> bool {
        let tried_at = self.since + Duration::from_millis(self.tried_ms.load(Relaxed));
        self.since.elapsed() > time && tried_at.elapsed() <= time
    }
}

pub(super) struct Line {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

struct Shared {
    target: Target,
    means: Arc<Means>,
    state: watch::Sender<State>,
}

impl Line {
    /// Opens a line; the first attempt to connect begins now.
    pub(super) fn open(target: Target, means: Arc<Means>) -> Line {
        let (state, _) = watch::channel(State::Joining);
        let shared = Arc::new(Shared { target, means, state });
        let keeper = tokio::spawn(keep(shared.clone()));
        Line { shared, keeper }
    }

    pub(super) fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    pub(super) fn states(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// The server it leads to now.
    pub(super) fn addr(&self) -> Option<Addr> {
        match self.state() {
            State::Up(up) => Some(up.addr.clone()),
            State::Joining | State::Away(_) => None,
        }
    }

    /// That it is away, if it is.
    pub(super) fn absence(&self) -> Option<Arc<Away>> {
        match self.state() {
            State::Away(away) => Some(away),
            State::Joining | State::Up(_) => None,
        }
    }

    /// Gives up the connection if it leads to somebody else: the master is there now.
    pub(super) fn leave_for(&self, master: &Addr) {
        if let State::Up(up) = self.state()
            && up.addr != *master
        {
            self.shared.lose(up.number, Next::Join);
        }
    }

    /// The answers to a request, one for each command of it.
    pub(super) async fn ask(
        &self,
        request: Request<'_>,
        repeat: Repeat,
        end: Instant,
    ) -> Result<Vec<Value>, Miss> {
        let shared = &self.shared;
        for _ in 0..REPEATS_MAX {
            let up = shared.joined(end).await?;
            shared.means.counters.operations.one();
            let Ok(answer) = timeout_at(end, send(&up, request)).await else {
                shared.means.counters.timeouts.one();
                let why = format!("{}: no answer within {:?}", up.addr, shared.means.timing.operation);
                shared.lose(up.number, Next::Stay(why.clone()));
                return Err(Miss::Away(why));
            };
            let verdict = match answer {
                Ok(answers) => return Ok(answers),
                Err(error) => judge(&error),
            };
            match verdict {
                Verdict::Broken(why) => {
                    shared.lose(up.number, Next::Join);
                    if repeat == Repeat::Never {
                        return Err(Miss::Away(why));
                    }
                }
                Verdict::NotTheOne(_) => shared.lose(up.number, Next::Join),
                Verdict::TryAgain => sleep(AGAIN_AFTER).await,
                Verdict::Moved(_)
                | Verdict::Ask(_)
                | Verdict::NoScript
                | Verdict::OutOfMemory
                | Verdict::Refused(_) => return Err(Miss::Judged(verdict)),
            }
        }
        Err(Miss::Away("it was tried several times".to_owned()))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn send(up: &Up, request: Request<'_>) -> Result<Vec<Value>, redis::RedisError> {
    let mut wire = up.wire.clone();
    match request {
        Request::One(cmd) => Ok(vec![wire.req_packed_command(cmd).await?.extract_error()?]),
        Request::Many(commands) => wire.req_packed_commands(commands, 0, commands.len()).await,
    }
}

/// What follows on a lost connection.
enum Next {
    /// An attempt at a new one, for which operations wait.
    Join,
    /// The server does not answer: operations are refused until there is a new one.
    Stay(String),
}

impl Shared {
    /// The connection, if there is one soon.
    async fn joined(&self, end: Instant) -> Result<Arc<Up>, Miss> {
        let mut states = self.state.subscribe();
        loop {
            match &*states.borrow_and_update() {
                State::Up(up) => return Ok(up.clone()),
                State::Away(away) => {
                    self.means.counters.refused_away.one();
                    return Err(Miss::Away(away.why.clone()));
                }
                State::Joining => {}
            }
            match timeout_at(end, states.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Miss::Away("still connecting".to_owned())),
            }
        }
    }

    /// Gives up a connection, if it is still that one.
    fn lose(&self, number: u64, next: Next) {
        self.state.send_if_modified(|state| {
            let is_that = matches!(state, State::Up(up) if up.number == number);
            if is_that {
                *state = match next {
                    Next::Join => State::Joining,
                    Next::Stay(why) => self.away(why),
                };
            }
            is_that
        });
    }

    fn away(&self, why: String) -> State {
        self.means.counters.breaker_opened.one();
        tracing::warn!(why, "redis is away");
        State::Away(Arc::new(Away::now(why)))
    }

    /// One attempt; who waits for it is let go when it takes longer than an operation may.
    async fn join_or_let_go(&self) -> Result<(MultiplexedConnection, Addr, Vitals), String> {
        let mut joining = pin!(self.join());
        if let Ok(joined) = timeout(self.means.timing.operation, &mut joining).await {
            return joined;
        }
        self.give_up("it takes long to connect".to_owned());
        joining.await
    }

    /// Nobody waits for a connection any more.
    fn give_up(&self, why: String) {
        self.state.send_if_modified(|state| {
            let was_joining = matches!(state, State::Joining);
            if was_joining {
                *state = self.away(why);
            }
            was_joining
        });
    }

    /// One attempt, to whoever is the right one.
    async fn join(&self) -> Result<(MultiplexedConnection, Addr, Vitals), String> {
        let mut candidates = match &self.target {
            Target::Server(addr) | Target::Member(addr) => vec![addr.clone()],
            Target::Master(sentinels) => sentinels.candidates(&self.means.connector).await,
        };
        let mut why = "no sentinel names the master".to_owned();
        for at in 0..HOPS_MAX {
            let Some(addr) = candidates.get(at).cloned() else { break };
            match self.greet(&addr).await {
                Ok((wire, vitals)) => match (&self.target, &vitals.role) {
                    (Target::Member(_), _) | (_, Role::Master) => return Ok((wire, addr, vitals)),
                    (_, Role::Replica(master)) => {
                        why = format!("{addr} is a replica");
                        candidates.extend(master.clone().filter(|master| !candidates.contains(master)));
                    }
                },
                Err(trouble) => why = trouble,
            }
        }
        Err(why)
    }

    async fn greet(&self, addr: &Addr) -> Result<(MultiplexedConnection, Vitals), String> {
        let mut wire = self.means.connector.commands(addr, Peer::Server).await?;
        let vitals = self.means.connector.vitals(addr, &mut wire).await?;
        Ok((wire, vitals))
    }

    /// Looks whether the server of this connection is still the right one.
    async fn look(&self, up: &Up) {
        let mut wire = up.wire.clone();
        match self.means.connector.vitals(&up.addr, &mut wire).await {
            Ok(vitals) => match (&self.target, vitals.role) {
                (Target::Member(_), _) | (_, Role::Master) => {}
                (_, Role::Replica(_)) => self.lose(up.number, Next::Join),
            },
            // A server that does not answer this does not answer anything.
            Err(why) => self.lose(up.number, Next::Stay(why)),
        }
        if let Target::Master(sentinels) = &self.target
            && let Some(master) = sentinels.agreed(&self.means.connector).await
            && master != up.addr
        {
            self.lose(up.number, Next::Join);
        }
    }
}

/// Keeps a line up until it is dropped.
async fn keep(shared: Arc<Shared>) {
    let mut states = shared.state.subscribe();
    let timing = shared.means.timing;
    let (mut pause, mut number, mut connected_at) = (timing.retry_min, 0, None::<Instant>);
    let mut last_run = None;
    loop {
        // A server that accepts and hangs up again must not be asked without end.
        if connected_at.is_some_and(|at| at.elapsed() < timing.retry_min) {
            sleep(jittered(timing.retry_min)).await;
        }
        let begun = Instant::now();
        match shared.join_or_let_go().await {
            Ok((wire, addr, vitals)) => {
                number += 1;
                shared.means.counters.connections.one();
                tracing::info!(%addr, "connected to redis");
                let up = Arc::new(Up { wire, addr, number });
                let is_change = last_run.replace(vitals.run.clone()).is_some_and(|last| last != vitals.run);
                if is_change {
                    // Before anybody can ask the new one: its answers must not pass for the old one's.
                    shared.means.knowledge.change_server();
                }
                shared.state.send_replace(State::Up(up.clone()));
                if is_change {
                    // After it: what is written again needs the connection.
                    shared.means.note_change();
                }
                (pause, connected_at) = (timing.retry_min, Some(Instant::now()));
                watch_over(&shared, &up, &mut states).await;
            }
            Err(why) => {
                shared.give_up(why);
                if let State::Away(away) = &*shared.state.borrow() {
                    away.failed_again(begun);
                }
                sleep(jittered(pause)).await;
                pause = (pause * 2).min(timing.retry_max);
            }
        }
    }
}

/// Returns when the connection is lost.
async fn watch_over(shared: &Shared, up: &Up, states: &mut watch::Receiver<State>) {
    loop {
        let is_up = |state: &State| matches!(state, State::Up(now) if now.number == up.number);
        let lost = states.wait_for(|state| !is_up(state));
        if timeout(shared.means.timing.check_every, lost).await.is_ok() {
            return;
        }
        shared.look(up).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn what_nobody_has_tried_for_a_while_is_not_known_to_be_away() {
        let away = Away::now("a test".to_owned());
        for _ in 0..4 {
            assert!(!away.is_for(LONG), "not yet for long");
            let begun = Instant::now();
            tokio::time::advance(Duration::from_millis(800)).await;
            away.failed_again(begun);
        }
        assert!(away.is_for(LONG));
        let begun = Instant::now();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!away.is_for(LONG), "stopped meanwhile");
        away.failed_again(begun);
        assert!(!away.is_for(LONG), "that attempt was begun before");
        away.failed_again(Instant::now());
        assert!(away.is_for(LONG));
    }
}
