//! Legs for list changes, shared by all clients for whom the same would be sent (SESSIONS 7).
//!
//! One `Audience` is one server and everything that a request upstream would carry for its client, so nothing crosses
//! identities. Each client of it costs a few words here and no connection; what it has not heard yet is a set of lists,
//! so one that does not read holds nobody back. Does no IO: `pipeline/shared.rs` opens the legs and tells what they say.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::upstream::AnswerHead;
use regatta_policy::ReplicaId;
use tokio::sync::Notify;

use super::lists::Lists;

/// Legs without a client that are kept a moment longer, at most; more are closed at once.
const LINGERING_MAX: usize = 64;

/// What two clients must have in common to share legs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Audience {
    /// Path of the server.
    pub path: Arc<str>,
    /// Digest of all headers that say who asks.
    pub identity: [u8; 16],
}

/// All shared legs of one gateway. There are never more audiences than open streams, but for the lingering
/// ones and one of our own for each server.
#[derive(Default)]
pub(crate) struct SharedLegs {
    audiences: Mutex<HashMap<Audience, Arc<Shared>>>,
    lingering: AtomicUsize,
}

/// See [`SharedLegs::linger`].
pub(crate) struct Lingering<'a>(&'a AtomicUsize);

impl Drop for Lingering<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The legs of one audience, and who hears them.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// A leg opened, or failed to; or a client came to whom a no was not told.
    turned: Notify,
    /// The last client left, or one came.
    crowd: Notify,
}

#[derive(Default)]
struct State {
    legs: HashMap<ReplicaId, Leg>,
    clients: HashMap<u64, Arc<Client>>,
    last: u64,
    is_closed: bool,
}

/// How a leg stands.
#[derive(Clone, Debug)]
enum Leg {
    /// Being opened for the first time.
    Opening,
    /// Acknowledged.
    Open(Lists),
    /// It was, and is being opened again.
    Lost(Lists),
    /// The replica could not be reached so far.
    Away,
    /// The replica said no, to the clients up to this number: who comes later has it asked again.
    Refused(Refused, u64),
}

/// A replica's no.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// In its own words, which are for the client.
    Said(Arc<Said>),
    /// In words that are none of MCP's.
    Unusable,
}

/// An answer that is no stream.
#[derive(Debug)]
pub(crate) struct Said {
    pub head: AnswerHead,
    pub text: bytes::Bytes,
}

/// What all legs together come to for a new client.
#[derive(Debug)]
pub(crate) enum Agreement {
    /// At least one leg stands; these lists are heard.
    On(Lists),
    /// All that answered said no.
    Refused(Refused),
    /// None could be reached.
    Nobody,
}

/// One client's end.
struct Client {
    wanted: Lists,
    ear: Mutex<Ear>,
}

#[derive(Default)]
struct Ear {
    /// Changed since the client was last told.
    changed: Lists,
    /// It has its acknowledgement, so it must also be told what nobody heard.
    is_told: bool,
    is_over: bool,
    waker: Option<Waker>,
}

/// What a client hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// These lists changed.
    Changed(Lists),
    /// The server is no longer there.
    Over,
}

/// A client's place among the audience, until dropped.
pub(crate) struct Listening {
    shared: Arc<Shared>,
    client: Arc<Client>,
    number: u64,
}

impl SharedLegs {
    /// Joins `audience`. If nobody listens for it yet, its legs to `replicas` are to be opened, by who gets them here.
    pub fn join(
        &self,
        audience: &Audience,
        wanted: Lists,
        replicas: impl Iterator<Item = ReplicaId>,
    ) -> (Listening, Option<Arc<Shared>>) {
        let mut audiences = lock(&self.audiences);
        if let Some(shared) = audiences.get(audience) {
            return (Shared::join(shared, wanted), None);
        }
        let shared = Arc::new(Shared::default());
        lock(&shared.state).legs = replicas.map(|id| (id, Leg::Opening)).collect();
        audiences.insert(audience.clone(), shared.clone());
        (Shared::join(&shared, wanted), Some(shared))
    }

    /// Gives up an audience that nobody listens for any more; false if somebody does.
    pub fn close_unheard(&self, audience: &Audience) -> bool {
        let mut audiences = lock(&self.audiences);
        match audiences.get(audience) {
            Some(shared) if !lock(&shared.state).clients.is_empty() => false,
            Some(_) | None => {
                audiences.remove(audience);
                true
            }
        }
    }

    /// Ends an audience with all its clients.
    pub fn end(&self, audience: &Audience, shared: &Arc<Shared>) {
        let mut audiences = lock(&self.audiences);
        if audiences.get(audience).is_some_and(|found| Arc::ptr_eq(found, shared)) {
            audiences.remove(audience);
        }
        let mut state = lock(&shared.state);
        state.is_closed = true;
        state.clients.values().for_each(|client| client.tell(|ear| ear.is_over = true));
    }

    /// The right to keep legs that nobody hears for a moment, unless too many are kept so.
    pub fn linger(&self) -> Option<Lingering<'_>> {
        let more = |kept: usize| (kept < LINGERING_MAX).then_some(kept + 1);
        self.lingering.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Lingering(&self.lingering))
    }

    /// Legs that stand, for metrics.
    pub fn open_legs(&self) -> usize {
        let is_open = |leg: &&Leg| matches!(leg, Leg::Open(_));
        lock(&self.audiences)
            .values()
            .map(|shared| lock(&shared.state).legs.values().filter(is_open).count())
            .sum()
    }
}

impl Shared {
    fn join(shared: &Arc<Shared>, wanted: Lists) -> Listening {
        let client = Arc::new(Client { wanted, ear: Mutex::default() });
        let mut state = lock(&shared.state);
        state.last += 1;
        let number = state.last;
        state.clients.insert(number, client.clone());
        let asks_again = state.legs.values().any(|leg| matches!(leg, Leg::Refused(..)));
        drop(state);
        shared.crowd.notify_one();
        if asks_again {
            shared.turned.notify_waiters();
        }
        Listening { shared: shared.clone(), client, number }
    }

    /// A leg to a replica that came later.
    pub fn begin(&self, replica: ReplicaId) {
        lock(&self.state).legs.entry(replica).or_insert(Leg::Away);
    }

    /// A leg stands. Who was acknowledged before is told of every change that it may have `missed`.
    pub fn opened(&self, replica: ReplicaId, honoured: Lists, missed: Lists) {
        let mut state = lock(&self.state);
        // One that was forgotten meanwhile stays so: nobody would ever close it.
        let Some(leg) = state.legs.get_mut(&replica) else { return };
        *leg = Leg::Open(honoured);
        for client in state.clients.values() {
            client.change(missed, |ear| ear.is_told);
        }
        drop(state);
        self.turned.notify_waiters();
    }

    /// A leg that stood was lost.
    pub fn lost(&self, replica: ReplicaId) {
        self.turn(replica, |leg| match leg {
            Leg::Open(honoured) | Leg::Lost(honoured) => Leg::Lost(honoured),
            Leg::Opening | Leg::Away | Leg::Refused(..) => Leg::Away,
        });
    }

    /// A leg could not be opened because the replica said no, to all who wait now.
    pub fn refused(&self, replica: ReplicaId, refused: Refused) {
        let told = lock(&self.state).last;
        self.turn(replica, |_| Leg::Refused(refused, told));
    }

    /// Returns when a client has come that the no of `replica` was not told to.
    pub async fn asked_again(&self, replica: ReplicaId) {
        self.until(|state| match state.legs.get(&replica) {
            Some(Leg::Refused(_, told)) => *told < state.last,
            Some(Leg::Opening | Leg::Open(_) | Leg::Lost(_) | Leg::Away) | None => false,
        })
        .await;
    }

    /// A replica left the config.
    pub fn forget(&self, replica: ReplicaId) {
        self.keep_only(|id| id != replica);
    }

    /// Forgets the legs that nobody runs.
    pub fn keep_only(&self, is_run: impl Fn(ReplicaId) -> bool) {
        lock(&self.state).legs.retain(|id, _| is_run(*id));
        self.turned.notify_waiters();
    }

    /// Lists changed at some replica.
    pub fn changed(&self, lists: Lists) {
        let state = lock(&self.state);
        state.clients.values().for_each(|client| client.change(lists, |_| true));
    }

    /// Whether nobody listens.
    pub fn is_unheard(&self) -> bool {
        lock(&self.state).clients.is_empty()
    }

    /// Returns when the last client left, or one came.
    pub async fn crowd_changed(&self) {
        self.crowd.notified().await;
    }

    /// Returns when `is_so`.
    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let mut turned = std::pin::pin!(self.turned.notified());
            // Registered before the look, or what turns in between is missed.
            turned.as_mut().enable();
            if is_so(&lock(&self.state)) {
                return;
            }
            turned.await;
        }
    }

    fn turn(&self, replica: ReplicaId, next: impl FnOnce(Leg) -> Leg) {
        let mut state = lock(&self.state);
        if let Some(leg) = state.legs.get_mut(&replica) {
            *leg = next(std::mem::replace(leg, Leg::Away));
        }
        drop(state);
        self.turned.notify_waiters();
    }
}

impl Listening {
    /// Returns when it is known what every leg comes to for this client.
    pub async fn settled(&self) {
        self.shared.until(|state| state.is_settled(self.number)).await;
    }

    /// What the legs come to now. From here on the client is told of everything that may have been missed.
    pub fn agree(&self) -> Agreement {
        let state = lock(&self.shared.state);
        if state.legs.values().any(|leg| matches!(leg, Leg::Open(_))) {
            lock(&self.client.ear).is_told = true;
            let lists = state.legs.values().map(Leg::honoured).fold(Lists::NONE, Lists::or);
            return Agreement::On(lists.and(self.client.wanted));
        }
        let refused = state.legs.values().find_map(|leg| match leg {
            Leg::Refused(refused, _) => Some(refused.clone()),
            Leg::Opening | Leg::Open(_) | Leg::Lost(_) | Leg::Away => None,
        });
        refused.map_or(Agreement::Nobody, Agreement::Refused)
    }

    /// Whether the legs are gone for good.
    pub fn is_over(&self) -> bool {
        lock(&self.client.ear).is_over
    }

    /// What was heard since the last time.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Heard> {
        let mut ear = lock(&self.client.ear);
        if ear.is_over {
            return Poll::Ready(Heard::Over);
        }
        let changed = std::mem::take(&mut ear.changed);
        if !changed.is_empty() {
            return Poll::Ready(Heard::Changed(changed));
        }
        match &mut ear.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.clients.remove(&self.number);
        if state.clients.is_empty() {
            self.shared.crowd.notify_one();
        }
    }
}

impl State {
    /// For the client of this number. A leg that is opened for the first time, or is asked again for its sake, is waited
    /// for; one that is away only while no other stands.
    fn is_settled(&self, number: u64) -> bool {
        let is_asked = |leg: &Leg| match leg {
            Leg::Opening => true,
            Leg::Refused(_, told) => *told < number,
            Leg::Open(_) | Leg::Lost(_) | Leg::Away => false,
        };
        let any = |is: fn(&Leg) -> bool| self.legs.values().any(is);
        let stands = any(|leg| matches!(leg, Leg::Open(_)));
        self.is_closed
            || (!self.legs.values().any(is_asked) && (stands || !any(|leg| matches!(leg, Leg::Lost(_)))))
    }
}

impl Leg {
    fn honoured(&self) -> Lists {
        match self {
            Leg::Open(lists) | Leg::Lost(lists) => *lists,
            Leg::Opening | Leg::Away | Leg::Refused(..) => Lists::NONE,
        }
    }
}

impl Client {
    fn change(&self, lists: Lists, hears: fn(&Ear) -> bool) {
        let lists = lists.and(self.wanted);
        if !lists.is_empty() {
            self.tell(|ear| {
                if hears(ear) {
                    ear.changed = ear.changed.or(lists);
                }
            });
        }
    }

    fn tell(&self, what: impl FnOnce(&mut Ear)) {
        let waker = {
            let mut ear = lock(&self.ear);
            what(&mut ear);
            if ear.changed.is_empty() && !ear.is_over {
                return;
            }
            ear.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is a single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
