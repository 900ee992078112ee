//! The parent of *route* and *forward*: one request until it has an answer, or can have none.
//!
//! Tries a replica, asks the rules what a loss means, and goes on as they say (DESIGN 5): what was not written
//! goes elsewhere, what was written and lost is repeated only where that is harmless, a session whose replica
//! is gone is re-homed first. It owns all it needs, so that it can outlive the connection it came on.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use regatta_mcp::era::Era;
use regatta_policy::ReplicaId;
use regatta_policy::gone::{Attempt, Verdict};
use regatta_policy::retry::Repeatability;
use regatta_policy::snapshot::{Health, Leases};

use super::attempts::{Attempts, Next, attempt};
use super::journal::Journaled;
use super::notes::Noted;
use super::{cached, detached, handshake, rehome};
use crate::admit;
use crate::alarm::Alarm;
use crate::content;
use crate::fault::{Asker, Fault, Refusal};
use crate::forward::{self, Loss, Patience, Upward};
use crate::gate::{self, Entry};
use crate::gateway::Gateway;
use crate::handover::Caller;
use crate::headers::Outbound;
use crate::realm::Realm;
use crate::route::handles::Maker;
use crate::route::tools::Among;
use crate::route::{self, Tried};
use crate::session::{Bound, Seat};
use crate::slots::Permit;
use crate::upkeep::Upkeep;
use crate::upstream::{Knock, UpstreamAnswer};
use crate::view::{ReplicaView, ServerView};
use crate::within::Arming;

/// One request to a server, with all that its answer needs.
pub(crate) struct Errand {
    pub gateway: Arc<Gateway>,
    pub server: Arc<ServerView>,
    pub caller: Caller,
    /// The client's headers, as far as they travel.
    pub headers: Outbound,
    pub method: Method,
    pub text: Bytes,
    pub rewritten: Vec<(HeaderName, HeaderValue)>,
    pub asker: Asker,
    pub era: Era,
    pub repeatability: Repeatability,
    pub place: Where,
    /// The replicas that it may go to while it is not bound.
    pub among: Among,
    /// The upstream's own event id to go on from, and whose it is.
    pub cursor: Option<(ReplicaId, HeaderValue)>,
    /// Held from admission to the end of the answer; standing streams hold a place of another kind.
    pub permit: Option<Permit>,
    /// What its answer does to the result cache.
    pub upkeep: Option<Box<Upkeep>>,
    /// What its answer does to the session's record.
    pub noted: Option<Box<Noted>>,
    /// What it shows at its server's gate, where it has still to pass.
    pub entry: Option<Box<Entry>>,
    /// A call that the nodes' journal may know.
    pub journaled: Option<Box<Journaled>>,
    /// The timer of the task that it stays in to its end; none if it may move to another.
    pub alarm: Option<Alarm>,
}

/// Where the errand has to go.
pub(crate) enum Where {
    /// To the home of its session.
    Home(Bound),
    /// To any replica, a maker or an affinity first.
    Any { maker: Maker, affinity: Option<u64> },
}

/// An answer's head, with the errand that it answers.
pub(crate) struct Answered {
    pub errand: Box<Errand>,
    pub answer: UpstreamAnswer,
    /// What the answer's head announces.
    pub kind: content::Kind,
    pub replica: ReplicaId,
}

impl Answered {
    /// An answer that no replica gave now: a kept result.
    fn kept(errand: Box<Errand>, text: Bytes) -> Answered {
        let nobody = ReplicaId([0; 8]);
        Answered { errand, answer: UpstreamAnswer::held(text), kind: content::Kind::Json, replica: nobody }
    }

    /// Whether the answer is an event stream.
    pub fn is_stream(&self) -> bool {
        self.answer.head.status == StatusCode::OK && self.kind == content::Kind::Events
    }
}

/// A replica that refuses connections is asked this often at most before an unbound request goes elsewhere for good.
const ROUNDS_MAX: usize = 64;

/// A request moves its session this often at most because a replica does not know it.
const UNKNOWN_MAX: usize = 2;

/// What an attempt that succeeded gave: the head of an answer, and whose it is.
pub(crate) type Gained = (UpstreamAnswer, ReplicaId);

/// Runs the errand to the head of its answer; if it asks for something that somebody else is fetching, to what that
/// brings.
pub(crate) async fn exchange(mut errand: Box<Errand>) -> Result<Answered, Refusal> {
    if errand.upkeep.as_ref().is_some_and(|upkeep| upkeep.asks())
        && !errand.is_in_journal()
        && let Some(text) = Box::pin(cached::settle(&mut errand)).await?
    {
        return Ok(Answered::kept(errand, text));
    }
    let mut gained = match errand.entry.take() {
        None => run(&mut errand).await,
        Some(entry) => Box::pin(run_with_a_place(&mut errand, &entry)).await,
    };
    if errand.is_in_journal() {
        gained = errand.of_journal(gained);
    }
    if let Some(text) = cached::spare(&mut errand, &gained) {
        return Ok(Answered::kept(errand, text));
    }
    let (answer, replica) = gained?;
    let kind = answer.head.kind;
    let mut answered = Answered { errand, answer, kind, replica };
    let how = if answered.is_stream() { gate::Answer::Events } else { gate::Answer::Whole };
    // What a server refuses it refuses fast: that says nothing of how long its work takes.
    if answered.answer.head.status == StatusCode::OK
        && let Some(at_server) = answered.errand.permit.as_mut().and_then(Permit::at_server)
    {
        at_server.answered(how);
    }
    match detached::trails(&answered) {
        true => Box::pin(rest(answered)).await,
        false => Ok(answered),
    }
}

/// Waits for the rest of an answer; if it breaks off, the journal may have all of it.
async fn rest(answered: Answered) -> Result<Answered, Refusal> {
    let replica = answered.replica;
    match detached::hold(answered).await {
        Ok(answered) => Ok(answered),
        Err((mut errand, refusal)) => {
            let is_broken = matches!(refusal.fault, Fault::OutcomeUnknown { .. });
            match is_broken && errand.asks_again(replica) {
                true => exchange(errand).await,
                false => Err(refusal),
            }
        }
    }
}

/// One that had no place at its server so far, because its answer might have been kept.
async fn run_with_a_place(errand: &mut Errand, entry: &Entry) -> Result<Gained, Refusal> {
    let (gateway, server) = (errand.gateway.clone(), errand.server.clone());
    if let Some(permit) = &mut errand.permit {
        let entered = admit::at_server(&gateway, &server.gate, entry, permit).await;
        entered.map_err(|fault| errand.refuse(fault))?;
    }
    run(errand).await
}

/// Runs the errand to the head of an answer.
async fn run(errand: &mut Errand) -> Result<Gained, Refusal> {
    errand.gateway.earn_retry();
    // Every replica fails: told at once, instead of each caller finding out by itself. Only what is answered can be.
    if errand.asker.id.is_some() && errand.server.knock() == Knock::Shut {
        errand.gateway.metrics.shut.inc();
        return Err(errand.refuse(Fault::NoReplica));
    }
    match errand.place {
        Where::Home(_) => bound(errand).await,
        Where::Any { maker: Maker::Nobody, .. } => unbound(errand, Tried::default()).await,
        Where::Any { maker: Maker::Only(id), .. } => Box::pin(made(errand, id)).await,
        Where::Any { maker: Maker::Preferred(id), affinity } => {
            Box::pin(made_or_unbound(errand, id, affinity)).await
        }
    }
}

/// A request that its maker should serve, and another may if that is gone.
async fn made_or_unbound(
    errand: &mut Errand,
    maker: ReplicaId,
    affinity: Option<u64>,
) -> Result<Gained, Refusal> {
    let (server, mut tried) = (errand.server.clone(), Tried::default());
    if errand.among.has(maker)
        && server
            .replica(maker)
            .is_some_and(|view| matches!(view.replica.health, Health::Unknown | Health::Healthy))
    {
        match made(errand, maker).await {
            // The others share its journal, and can tell what became of the call.
            Err(refusal) if matches!(refusal.fault, Fault::MakerGone) && errand.is_in_journal() => {
                tried.add(&server, maker);
            }
            gained => return gained,
        }
    }
    errand.place = Where::Any { maker: Maker::Nobody, affinity };
    unbound(errand, tried).await
}

/// A request of a session goes to its home and nowhere else, unless that is gone.
async fn bound(errand: &mut Errand) -> Result<Gained, Refusal> {
    let server = errand.server.clone();
    let mut state = Attempts::default();
    let mut unknown = 0;
    for round in 0..ROUNDS_MAX {
        let Where::Home(home) = &errand.place else { break };
        let session = home.home.upstream_session.clone();
        let Some(view) = server.replica(home.home.replica) else {
            // The rest of a call is lost with the replica that began it, wherever its tool may be found now.
            if errand.cursor.is_some() && errand.asker.id.is_some() && home.seat != Seat::Own {
                return Err(errand.refuse(Fault::StreamLost));
            }
            errand.move_home(rehome::Reason::Removed).await?;
            continue;
        };
        // The rest of a call is at the replica that began it; elsewhere this GET would open a standing stream.
        let is_rest = errand.asker.id.is_some();
        if errand.cursor.as_ref().is_some_and(|(maker, _)| is_rest && *maker != view.replica.id) {
            return Err(errand.refuse(Fault::StreamLost));
        }
        if let Some(wait) = unreachable(view, &server) {
            match wait {
                Verdict::Gone => errand.move_home(rehome::Reason::OutOfReach).await?,
                Verdict::TryAgain { after } => tokio::time::sleep(after).await,
                Verdict::Here => {}
            }
            if wait != Verdict::Here {
                continue;
            }
        }
        if errand.would_run_twice_at(view) {
            break;
        }
        match errand.send(view, Some(&session), arming(errand, round)).await {
            // What fresh sessions answer too is about the request.
            Ok(answer)
                if unknown < UNKNOWN_MAX
                    && is_doubtful(&answer)
                    && session_is_unknown(errand, view, &session, &answer).await =>
            {
                unknown += 1;
                errand.move_home(rehome::Reason::SessionUnknown).await?;
            }
            Ok(answer) => {
                view.upstream.judge_gone(Attempt::Answered, &server.server.call);
                return Ok((answer, view.replica.id));
            }
            // Our own bound, which says nothing of the replica: its sessions stay.
            Err(Loss::Full) => return Err(errand.refuse(Fault::Overloaded)),
            Err(loss) => match state.after(errand, loss, view) {
                Next::Elsewhere => match view.upstream.judge_gone(attempt(loss), &server.server.call) {
                    Verdict::Gone => errand.move_home(rehome::Reason::OutOfReach).await?,
                    Verdict::TryAgain { after } => tokio::time::sleep(after).await,
                    Verdict::Here => {}
                },
                Next::Again if loss == Loss::Gone => errand.move_home(rehome::Reason::Removed).await?,
                Next::Again => {}
                Next::Refuse(fault) => return Err(errand.refuse(fault)),
            },
        }
    }
    Err(errand.refuse(Fault::NoReplica))
}

/// What probes say of a bound replica that nobody can reach: then it is not worth a written request.
fn unreachable(view: &ReplicaView, server: &ServerView) -> Option<Verdict> {
    match view.replica.health {
        Health::Unreachable => Some(view.upstream.judge_gone(Attempt::Unreachable, &server.server.call)),
        Health::Unknown | Health::Healthy | Health::Unhealthy => None,
    }
}

/// An unbound request goes to one replica after the other until one takes it, but to none of `tried`.
async fn unbound(errand: &mut Errand, mut tried: Tried) -> Result<Gained, Refusal> {
    let server = errand.server.clone();
    if !route::is_spoken(&server, errand.era) {
        return Err(errand.refuse(Fault::EraNotSpoken));
    }
    let Where::Any { affinity, .. } = errand.place else { return Err(errand.refuse(Fault::NoReplica)) };
    let mut state = Attempts::default();
    for _ in 0..ROUNDS_MAX {
        let Some(view) =
            route::any(&errand.gateway, &server, errand.era, &errand.caller, affinity, &errand.among, tried)
        else {
            break;
        };
        if errand.would_run_twice_at(view) {
            tried.add(&server, view.replica.id);
            continue;
        }
        match errand.send(view, None, errand.arming()).await {
            Ok(answer) => return Ok((answer, view.replica.id)),
            Err(loss) => match state.after(errand, loss, view) {
                Next::Elsewhere | Next::Again => tried.add(&server, view.replica.id),
                Next::Refuse(fault) => return Err(errand.refuse(fault)),
            },
        }
    }
    Err(errand.refuse(Fault::NoReplica))
}

/// A request with a handle goes to the handle's maker (SESSIONS 7).
async fn made(errand: &mut Errand, maker: ReplicaId) -> Result<Gained, Refusal> {
    let server = errand.server.clone();
    let Some(view) = server.replica(maker) else { return Err(errand.refuse(Fault::BadHandle)) };
    let mut state = Attempts::default();
    let is_request = errand.asker.id.is_some();
    // The first loss may have been a stale connection; more would only keep the client of a request waiting. What has no
    // response would be lost in silence: it is tried until its maker counts as gone.
    for _ in 0..if is_request { 2 } else { ROUNDS_MAX } {
        match errand.send(view, None, errand.arming()).await {
            Ok(answer) => return Ok((answer, maker)),
            Err(loss) => match state.after(errand, loss, view) {
                Next::Elsewhere | Next::Again if is_request => {}
                Next::Elsewhere | Next::Again => {
                    match view.upstream.judge_gone(attempt(loss), &server.server.call) {
                        Verdict::Gone => break,
                        Verdict::TryAgain { after } => tokio::time::sleep(after).await,
                        Verdict::Here => {}
                    }
                }
                Next::Refuse(fault) => return Err(errand.refuse(fault)),
            },
        }
    }
    Err(errand.refuse(Fault::MakerGone))
}

/// Whether a status may mean that the session is not there.
fn is_doubtful(answer: &UpstreamAnswer) -> bool {
    answer.head.status == StatusCode::NOT_FOUND || answer.head.status == StatusCode::BAD_REQUEST
}

/// 404 in a session means that it is not there; 400 only if a `ping` in it is refused as well (SESSIONS 4).
async fn session_is_unknown(
    errand: &Errand,
    view: &ReplicaView,
    session: &HeaderValue,
    answer: &UpstreamAnswer,
) -> bool {
    if answer.head.status == StatusCode::NOT_FOUND {
        return true;
    }
    let ping = regatta_mcp::write::request(&handshake::own_id(), "ping", None);
    let bounds = &errand.server.server.call;
    let told = Box::pin(forward::probe::status(view, &errand.headers, session, ping, bounds)).await;
    // A ping that is lost, or answered with 5xx, says that the replica is unwell, not that it forgot.
    matches!(told, Ok(StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST))
}

/// When the timer of one attempt is armed. The first one of a legacy request waits under the timer of `prime_after`,
/// which is shorter; of later ones nobody knows whether it still runs.
fn arming(errand: &Errand, round: usize) -> Arming {
    let bounds = &errand.server.server.call;
    let primes = errand.era == Era::Legacy && errand.asker.id.is_some() && errand.bound().is_some();
    match round == 0 && primes && bounds.prime_after < bounds.request_timeout && errand.method == Method::POST
    {
        true => Arming::WhenPolledAgain,
        false => errand.arming(),
    }
}

impl Errand {
    /// One attempt at one replica.
    async fn send(
        &mut self,
        view: &ReplicaView,
        session: Option<&HeaderValue>,
        arming: Arming,
    ) -> Result<UpstreamAnswer, Loss> {
        let upward = Upward {
            method: self.method.clone(),
            text: &self.text,
            session,
            cursor: self
                .cursor
                .as_ref()
                .filter(|(maker, _)| *maker == view.replica.id)
                .map(|(_, cursor)| cursor),
            rewritten: &self.rewritten,
        };
        let bounds = &self.server.server.call;
        let patience = Patience { time: bounds.request_timeout, arming };
        // Pinned once: a future that is handed on by value is copied, and its room paid for, at each hand.
        let mut sending = pin!(forward::send(view, &self.headers, upward, bounds, patience));
        let sending = self.unless_lost(view, sending.as_mut());
        let sent = match self.era {
            // A legacy call has a stream by the time a drain ends, and its last words are said there.
            Era::Legacy => sending.await,
            Era::Modern => tokio::select! {
                biased;
                sent = sending => sent,
                () = self.gateway.last_words.notified() => Err(Loss::Leaving),
            },
        };
        if let Err(Loss::Silent) = sent {
            view.upstream.timed_out();
            if let Some(at_server) = self.permit.as_mut().and_then(Permit::at_server) {
                at_server.timed_out();
            }
        }
        sent
    }

    /// How its waits are timed, unless somebody else sees to that.
    fn arming(&self) -> Arming {
        self.alarm.clone().map_or(Arming::AtOnce, Arming::By)
    }

    /// Waits no longer than the node's lease lasts, if the replica is one (RELIABILITY F7).
    async fn unless_lost(
        &self,
        view: &ReplicaView,
        sending: Pin<&mut impl Future<Output = Result<UpstreamAnswer, Loss>>>,
    ) -> Result<UpstreamAnswer, Loss> {
        match self.server.server.leases {
            Leases::Unleased => sending.await,
            Leases::Leased { .. } => tokio::select! {
                biased;
                sent = sending => sent,
                () = view.upstream.lost() => Err(Loss::Gone),
            },
        }
    }

    /// Moves the session, or finds it moved.
    async fn move_home(&mut self, reason: rehome::Reason) -> Result<(), Refusal> {
        let Where::Home(bound) = &self.place else { return Ok(()) };
        let moving = Box::pin(rehome::rehome(&self.gateway, &self.server, bound, &self.headers, reason));
        // Candidates that take connections and say nothing must not hold the session's requests one after the other.
        let moved = tokio::time::timeout(rehome::WHOLE_MAX, moving).await;
        match moved.unwrap_or(Err(Fault::NoReplica)) {
            Ok(bound) => {
                self.place = Where::Home(bound);
                // An event id means nothing in another upstream session: the rest of a call is lost with its own.
                match self.cursor.take() {
                    Some(_) if self.asker.id.is_some() => Err(self.refuse(Fault::StreamLost)),
                    Some(_) | None => Ok(()),
                }
            }
            Err(fault) => Err(self.refuse(fault)),
        }
    }

    /// This fault, told to whoever sent the errand.
    pub fn refuse(&self, fault: Fault) -> Refusal {
        fault.told(&self.asker)
    }

    /// The pace of the answer's body.
    pub fn pace(&self) -> crate::streams::pace::Pace {
        let bounds = &self.server.server.call;
        crate::streams::pace::Pace {
            silence_max: Some(bounds.request_timeout),
            whole_max: Some(bounds.request_max),
            keep_alive: Some(self.server.limits.keep_alive),
        }
    }

    /// What its handles and its session are bound to.
    pub fn realm(&self) -> Realm {
        Realm::of(&self.server, &self.caller)
    }

    /// The session, if the errand has one.
    pub fn bound(&self) -> Option<&Bound> {
        match &self.place {
            Where::Home(bound) => Some(bound),
            Where::Any { .. } => None,
        }
    }
}

/// How long the first head may take before a legacy client gets a stream.
pub(crate) fn prime_after(errand: &Errand) -> Duration {
    errand.server.server.call.prime_after
}
