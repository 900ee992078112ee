//! Places for requests: in flight, in the queue, reserved for what is never refused, parked.
//!
//! The sums are `regatta_policy::admission`'s, the order of the queue is `regatta_policy::line`'s; here they get a lock,
//! wakers and time. A `Permit` is given back when it is dropped, so it lives in whatever ends last: mostly the response
//! body (STYLE 13). The gateway has one of these, and every server that has a bound of its own (gate.rs).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use regatta_policy::Micros;
use regatta_policy::admission::{Admission, Answer, Bounds, Class, Next, Parking, Place, Unparking};
use regatta_policy::line::{Entry, Line, Room, Ticket, Who};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::gate::AtServer;

/// All places of one gateway, or at one server.
pub(crate) struct Slots {
    state: Mutex<State>,
    clock: Clock,
}

struct State {
    bounds: Bounds,
    counts: Admission,
    queue: Line<Waiter>,
    /// How long one waits, as of the last that came.
    wait_max: Duration,
    reserved_queue: VecDeque<Waiter>,
    /// Permits whose person has answered, waiting for a place in flight; they do not sleep for it.
    returning: VecDeque<Arc<Mutex<Place>>>,
}

type Waiter = oneshot::Sender<Permit>;

/// The right to one place until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    slots: Arc<Slots>,
    place: Held,
    /// Its place at the server, given back with it.
    at_server: Option<Box<AtServer>>,
}

/// Most permits never park, so they carry their place themselves.
#[derive(Debug)]
enum Held {
    /// Given back by somebody else.
    Nothing,
    Plain(Place),
    Shared(Arc<Mutex<Place>>),
}

/// No place, and no hope of one in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shed;

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("counts", &self.counts()).finish()
    }
}

impl Slots {
    /// Empty places within `bounds`.
    pub fn new(bounds: Bounds) -> Slots {
        Slots {
            state: Mutex::new(State {
                bounds,
                counts: Admission::default(),
                queue: Line::default(),
                wait_max: Duration::ZERO,
                reserved_queue: VecDeque::new(),
                returning: VecDeque::new(),
            }),
            clock: Clock::start(Instant::now()),
        }
    }

    /// New bounds; what is held stays held.
    pub fn rebound(self: &Arc<Self>, bounds: Bounds) {
        let mut state = self.lock();
        state.bounds = bounds;
        loop {
            let (counts, next) = state.counts.step_in(bounds);
            state.counts = counts;
            if next == Next::Nobody {
                return;
            }
            self.wake(&mut state, next);
        }
    }

    /// The counts now, for metrics.
    pub fn counts(&self) -> Admission {
        self.lock().counts
    }

    /// A place at once, or none.
    pub fn try_enter(self: &Arc<Self>, class: Class) -> Option<Permit> {
        let mut state = self.lock();
        let (counts, answer) = state.counts.ask(state.bounds, class);
        match answer {
            Answer::Admit => {
                state.counts = counts;
                Some(self.permit(admitted(class)))
            }
            // Asked only for now: the counts with a waiter in them are not kept.
            Answer::Wait | Answer::Shed => None,
        }
    }

    /// A place, if need be after a wait of at most `wait_max`; exempt requests wait as long as it takes.
    pub async fn enter(self: &Arc<Self>, class: Class, who: Who, wait_max: Duration) -> Result<Permit, Shed> {
        let waiting = match class {
            Class::Ordinary => self.line_up(who, wait_max)?,
            Class::Exempt => self.line_up_exempt(),
        };
        match (waiting, class) {
            (Lined::Admitted(permit), _) => Ok(permit),
            (Lined::Waits(waiting), Class::Ordinary) => {
                tokio::time::timeout(wait_max, waiting.wait()).await.unwrap_or(Err(Shed))
            }
            (Lined::Waits(waiting), Class::Exempt) => waiting.wait().await,
        }
    }

    fn line_up(self: &Arc<Self>, who: Who, wait_max: Duration) -> Result<Lined<'_>, Shed> {
        let now = self.clock.now();
        let mut state = self.lock();
        state.wait_max = wait_max;
        state.expire(now);
        let (counts, answer) = state.counts.ask(state.bounds, Class::Ordinary);
        if answer == Answer::Admit {
            state.counts = counts;
            return Ok(Lined::Admitted(self.permit(Place::Inflight)));
        }
        let (sender, receiver) = oneshot::channel();
        let room = Room { max: state.bounds.queue_max, wait_max };
        let ticket = match state.queue.enter(who, sender, room, now) {
            Entry::Waits(ticket) => {
                state.counts = counts;
                ticket
            }
            // Its place in the queue is the newcomer's now: whoever waited for the sender hears that it is gone.
            Entry::Displaced(ticket, _gone) => ticket,
            Entry::Full(_sender) => return Err(Shed),
        };
        Ok(Lined::Waits(Waiting { slots: self, turn: Turn::Ordinary(ticket), receiver }))
    }

    fn line_up_exempt(self: &Arc<Self>) -> Lined<'_> {
        let mut state = self.lock();
        let (counts, answer) = state.counts.ask(state.bounds, Class::Exempt);
        state.counts = counts;
        if answer == Answer::Admit {
            return Lined::Admitted(self.permit(Place::Reserved));
        }
        let (sender, receiver) = oneshot::channel();
        state.reserved_queue.push_back(sender);
        Lined::Waits(Waiting { slots: self, turn: Turn::Exempt, receiver })
    }

    fn permit(self: &Arc<Self>, place: Place) -> Permit {
        Permit { slots: self.clone(), place: Held::Plain(place), at_server: None }
    }

    /// Hands the place that `next` now holds to whoever it is.
    fn wake(self: &Arc<Self>, state: &mut State, next: Next) {
        match next {
            Next::Nobody => {}
            Next::Returning => {
                if let Some(place) = state.returning.pop_front() {
                    *lock(&place) = Place::Inflight;
                }
            }
            Next::Queued => {
                if let Some(waiter) = state.queue.serve(self.clock.now()) {
                    self.hand_over(state, waiter, Place::Inflight);
                }
            }
            Next::Exempt => {
                if let Some(waiter) = state.reserved_queue.pop_front() {
                    self.hand_over(state, waiter, Place::Reserved);
                }
            }
        }
    }

    /// A waiter that went away in this very moment lets the next one in.
    fn hand_over(self: &Arc<Self>, state: &mut State, waiter: Waiter, place: Place) {
        let Err(permit) = waiter.send(self.permit(place)) else { return };
        permit.forget();
        let (counts, next) = state.counts.leave(state.bounds, place);
        state.counts = counts;
        self.wake(state, next);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Turns away who has waited for too long: by the time it were served, nobody would wait for the answer.
    fn expire(&mut self, now: Micros) {
        for _gone in self.queue.expired(self.wait_max, now) {
            self.counts = self.counts.gave_up();
        }
    }
}

/// What became of a request that asked for a place.
enum Lined<'a> {
    Admitted(Permit),
    Waits(Waiting<'a>),
}

/// A request in a queue. Dropped before its turn, it leaves the queue.
struct Waiting<'a> {
    slots: &'a Arc<Slots>,
    turn: Turn,
    receiver: oneshot::Receiver<Permit>,
}

/// Where it stands.
enum Turn {
    Ordinary(Ticket),
    Exempt,
}

impl Waiting<'_> {
    async fn wait(mut self) -> Result<Permit, Shed> {
        (&mut self.receiver).await.map_err(|_| Shed)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.slots.lock();
        // Under the lock nobody hands a place over: either it is here already, or it never comes.
        self.receiver.close();
        if let Ok(permit) = self.receiver.try_recv() {
            drop(state);
            drop(permit);
            return;
        }
        match self.turn {
            Turn::Ordinary(ticket) => {
                if state.queue.leave(ticket, self.slots.clock.now()).is_some() {
                    state.counts = state.counts.gave_up();
                }
            }
            Turn::Exempt => {
                let before = state.reserved_queue.len();
                state.reserved_queue.retain(|waiter| !waiter.is_closed());
                if state.reserved_queue.len() < before {
                    let (counts, next) = state.counts.leave(state.bounds, Place::ReservedQueued);
                    state.counts = counts;
                    self.slots.wake(&mut state, next);
                }
            }
        }
    }
}

impl Permit {
    /// Holds a place at the server too, from now on.
    pub fn hold(&mut self, at_server: Box<AtServer>) {
        self.at_server = Some(at_server);
    }

    /// The place at the server, if the call holds one.
    pub fn at_server(&mut self) -> Option<&mut AtServer> {
        self.at_server.as_deref_mut()
    }

    /// The call waits for a person: its place in flight goes to somebody. False if `parked_max` is reached, and then
    /// it keeps the place that it has; a reserved place is kept too.
    pub fn park(&mut self) -> bool {
        let is_parked = self.park_here();
        if let (true, Some(at_server)) = (is_parked, &mut self.at_server) {
            at_server.park();
        }
        is_parked
    }

    fn park_here(&mut self) -> bool {
        let slots = self.slots.clone();
        let mut state = slots.lock();
        match self.now() {
            Some(Place::Parked) => true,
            Some(Place::Returning) => {
                self.leave_line(&mut state);
                state.counts = state.counts.park_again();
                self.put(Place::Parked);
                true
            }
            Some(Place::Inflight) => {
                let (counts, parking) = state.counts.park(state.bounds);
                let Parking::Parked(next) = parking else { return false };
                state.counts = counts;
                self.put(Place::Parked);
                slots.wake(&mut state, next);
                true
            }
            Some(Place::Reserved | Place::Queued | Place::ReservedQueued) | None => false,
        }
    }

    /// The person has answered; the call runs on whether or not a place in flight is free.
    pub fn unpark(&mut self) {
        if let Some(at_server) = &mut self.at_server {
            at_server.unpark();
        }
        let slots = self.slots.clone();
        let mut state = slots.lock();
        // One that found no parking place has kept its place in flight.
        if self.now() != Some(Place::Parked) {
            return;
        }
        let (counts, unparking) = state.counts.unpark(state.bounds);
        state.counts = counts;
        match unparking {
            Unparking::Inflight => self.put(Place::Inflight),
            Unparking::Returning => {
                let shared = Arc::new(Mutex::new(Place::Returning));
                state.returning.push_back(shared.clone());
                self.place = Held::Shared(shared);
            }
        }
    }

    /// Gives the place back before the permit ends.
    pub fn give_back(&mut self) {
        let mut state = self.slots.lock();
        let Some(place) = self.now() else { return };
        if !state.queue.is_empty() {
            state.expire(self.slots.clock.now());
        }
        // In one step with the counts: whoever leaves in between would step a call in that has left the line.
        self.leave_line(&mut state);
        self.place = Held::Nothing;
        let (counts, next) = state.counts.leave(state.bounds, place);
        state.counts = counts;
        self.slots.wake(&mut state, next);
    }

    /// The place held now; to be asked under the lock of the slots, because a returning call is moved from outside.
    fn now(&self) -> Option<Place> {
        match &self.place {
            Held::Nothing => None,
            Held::Plain(place) => Some(*place),
            Held::Shared(shared) => Some(*lock(shared)),
        }
    }

    fn leave_line(&self, state: &mut State) {
        if let Held::Shared(shared) = &self.place {
            state.returning.retain(|other| !Arc::ptr_eq(other, shared));
        }
    }

    fn put(&mut self, place: Place) {
        self.place = Held::Plain(place);
    }

    /// Drops the permit without giving the place back; the caller does so, under the lock that it holds.
    fn forget(mut self) {
        self.place = Held::Nothing;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn admitted(class: Class) -> Place {
    match class {
        Class::Ordinary => Place::Inflight,
        Class::Exempt => Place::Reserved,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The counts change in single steps that leave them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
