//! The notice link: one connection for what is published, and the proof that it works.
//!
//! Each second this process publishes to itself *on the connection for commands*, and waits to hear it here: that proves
//! the whole way, through the same server (in a cluster, from every master) that notices take. Silence for `trust_for`
//! and everything known is distrusted. The link is a hint only; what the store answers is the truth.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::Inner;
use super::address::Addr;
use super::bulletin;
use super::connector::Peer;
use super::dice::jittered;
use super::line::{Line, Repeat, Request, State};
use crate::{GatewayId, Notice};

/// Keeps the notice link up until the store is dropped.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut state = Listening::Never;
    loop {
        if let Some(link) = connect(&inner).await {
            state = follow(&inner, link, state).await;
        }
        inner.hearing.send_replace(BTreeSet::new());
        state = lost(&inner, state);
        sleep(jittered(inner.means.timing.retry_min)).await;
    }
}

/// Whether notices came, for telling the gateway when that changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listening {
    /// Not yet.
    Never,
    Yes,
    /// Not any more.
    No,
}

fn lost(inner: &Inner, state: Listening) -> Listening {
    inner.means.knowledge.distrust();
    match state {
        Listening::Yes => {
            inner.means.counters.notices_lost.one();
            inner.mailboxes.tell(Notice::LinkLost);
            Listening::No
        }
        Listening::Never | Listening::No => state,
    }
}

fn won(inner: &Inner, state: Listening) -> Listening {
    match state {
        // For the first time as well: a process that began without the store has what to tell it.
        Listening::Never | Listening::No => inner.mailboxes.tell(Notice::LinkRestored),
        Listening::Yes => {}
    }
    Listening::Yes
}

/// A connection that hears the mailboxes which `mail` has shown: one that is opened later is a change of it.
struct Link {
    addr: Addr,
    pubsub: PubSub,
    mail: watch::Receiver<BTreeSet<GatewayId>>,
    hears: BTreeSet<GatewayId>,
}

/// Subscribes at a server that commands go to.
async fn connect(inner: &Inner) -> Option<Link> {
    let lines = inner.routes.lines();
    let up: Vec<Addr> = lines.iter().filter_map(|line| line.addr()).collect();
    let Some(addr) = pick(&up) else {
        // Nobody is there; the lines say when somebody is.
        let pause = inner.means.timing.retry_min;
        let _ = timeout(pause, any_change(&lines)).await;
        return None;
    };
    let mut pubsub = inner.means.connector.pubsub(&addr, Peer::Server).await.ok()?;
    let mut mail = inner.mail.subscribe();
    let hears = mail.borrow_and_update().clone();
    let subscribed = timeout(inner.means.timing.connect, pubsub.subscribe(channels(inner, &hears))).await;
    matches!(subscribed, Ok(Ok(()))).then_some(Link { addr, pubsub, mail, hears })
}

fn pick(up: &[Addr]) -> Option<Addr> {
    let [byte] = super::dice::random::<1>();
    up.get(usize::from(byte) % up.len().max(1)).cloned()
}

async fn any_change(lines: &[Arc<Line>]) {
    match lines.first() {
        Some(line) => {
            let _ = line.states().wait_for(|state| matches!(state, State::Up(_))).await;
        }
        None => std::future::pending().await,
    }
}

fn channels(inner: &Inner, gateways: &BTreeSet<GatewayId>) -> Vec<String> {
    let own = [inner.names.notices(), inner.names.proof(&inner.instance)];
    own.into_iter().chain(gateways.iter().map(|gateway| inner.names.mail(*gateway))).collect()
}

/// The proof that is being waited for.
struct Proof {
    round: u64,
    sent_ms: u64,
    /// Servers that have not been heard.
    missing: BTreeSet<String>,
}

/// One connection, from its subscription to its end.
struct Session {
    sink: PubSubSink,
    messages: PubSubStream,
    proof: Proof,
    /// When notices were last proved to come, or the connection was made.
    proved_at: Instant,
    listening: Listening,
}

async fn follow(inner: &Arc<Inner>, link: Link, listening: Listening) -> Listening {
    let Link { addr, pubsub, mut mail, hears } = link;
    let (sink, messages) = pubsub.split();
    let proof = Proof { round: 0, sent_ms: 0, missing: BTreeSet::new() };
    let mut session = Session { sink, messages, proof, proved_at: Instant::now(), listening };
    let mut changes = inner.means.changes.subscribe();
    inner.hearing.send_replace(hears);
    let mut tick = interval(inner.means.timing.prove_every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = session.messages.next() => match message {
                Some(message) => session.hear(inner, &message),
                None => return session.listening,
            },
            changed = mail.changed() => {
                let gateways = mail.borrow_and_update().clone();
                if changed.is_err() || !session.subscribe(inner, gateways).await {
                    return session.listening;
                }
            }
            _ = changes.changed() => {
                if has_moved(inner, &addr) {
                    return session.listening;
                }
            }
            _ = tick.tick() => {
                // A connection to a server that commands do not go to any more hears nothing of ours.
                if session.proved_at.elapsed() > inner.means.timing.trust_for || has_moved(inner, &addr) {
                    return session.listening;
                }
                session.send_proof(inner);
            }
        }
    }
}

/// Whether commands go elsewhere now.
fn has_moved(inner: &Inner, addr: &Addr) -> bool {
    let up: Vec<Addr> = inner.routes.lines().iter().filter_map(|line| line.addr()).collect();
    !up.is_empty() && !up.contains(addr)
}

impl Session {
    async fn subscribe(&mut self, inner: &Inner, gateways: BTreeSet<GatewayId>) -> bool {
        let within = inner.means.timing.connect;
        let gone: Vec<GatewayId> = inner.hearing.borrow().difference(&gateways).copied().collect();
        for gateway in gone {
            let _ = timeout(within, self.sink.unsubscribe(inner.names.mail(gateway))).await;
        }
        let subscribed = timeout(within, self.sink.subscribe(channels(inner, &gateways))).await;
        inner.hearing.send_replace(gateways);
        matches!(subscribed, Ok(Ok(())))
    }

    fn hear(&mut self, inner: &Inner, message: &redis::Msg) {
        let (channel, payload) = (message.get_channel_name(), message.get_payload_bytes());
        if channel == inner.names.proof(&inner.instance) {
            return self.hear_proof(inner, payload);
        }
        if let Some(gateway) = inner.names.addressee(channel) {
            return inner.mailboxes.deliver(gateway, Bytes::copy_from_slice(payload));
        }
        match bulletin::read(payload) {
            Some((instance, notice)) if instance != inner.instance => inner.hear(notice),
            Some(_) | None => {}
        }
    }

    /// Publishes to itself from every server.
    fn send_proof(&mut self, inner: &Arc<Inner>) {
        let lines = inner.routes.lines();
        self.proof = Proof {
            round: self.proof.round + 1,
            sent_ms: inner.means.knowledge.now_ms(),
            missing: (0..lines.len()).map(|at| at.to_string()).collect(),
        };
        for (at, line) in lines.into_iter().enumerate() {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(inner.names.proof(&inner.instance)).arg(format!("{}:{at}", self.proof.round));
            let end = Instant::now() + inner.means.timing.operation;
            // Its answer is not waited for here; what must come comes on this link.
            tokio::spawn(async move {
                let _ = line.ask(Request::One(&publish), Repeat::Harmless, end).await;
            });
        }
    }

    fn hear_proof(&mut self, inner: &Inner, payload: &[u8]) {
        let text = String::from_utf8_lossy(payload);
        let Some((round, server)) = text.split_once(':') else { return };
        if round.parse() != Ok(self.proof.round) || !self.proof.missing.remove(server) {
            return;
        }
        if self.proof.missing.is_empty() {
            inner.means.knowledge.prove(self.proof.sent_ms, inner.means.timing.trust_for);
            self.proved_at = Instant::now();
            self.listening = won(inner, self.listening);
        }
    }
}

/// Waits until the letters of a gateway would be heard, or for `at_most`.
pub(super) async fn wait_hearing(inner: &Inner, gateway: GatewayId, at_most: Duration) {
    let mut hearing = inner.hearing.subscribe();
    let _ = timeout(at_most, hearing.wait_for(|gateways| gateways.contains(&gateway))).await;
}
