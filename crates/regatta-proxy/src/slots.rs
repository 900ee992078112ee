//! Places for requests: in flight, in the queue, reserved for what is never refused, parked.
//!
//! The sums are `regatta_policy::admission`'s; here they get a lock, wakers and time. A `Permit` is given back
//! when it is dropped, so it lives in whatever ends last: mostly the response body (STYLE 13).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_policy::admission::{Admission, Answer, Bounds, Class, Next, Parking, Place, Unparking};
use tokio::sync::oneshot;

/// All places of one gateway.
pub(crate) struct Slots {
    state: Mutex<State>,
}

struct State {
    bounds: Bounds,
    counts: Admission,
    queue: VecDeque<Waiter>,
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
                queue: VecDeque::new(),
                reserved_queue: VecDeque::new(),
                returning: VecDeque::new(),
            }),
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
    pub async fn enter(self: &Arc<Self>, class: Class, wait_max: Duration) -> Result<Permit, Shed> {
        let receiver = {
            let mut state = self.lock();
            let (counts, answer) = state.counts.ask(state.bounds, class);
            state.counts = counts;
            match answer {
                Answer::Admit => return Ok(self.permit(admitted(class))),
                Answer::Shed => return Err(Shed),
                Answer::Wait => {}
            }
            let (sender, receiver) = oneshot::channel();
            match class {
                Class::Ordinary => state.queue.push_back(sender),
                Class::Exempt => state.reserved_queue.push_back(sender),
            }
            receiver
        };
        let waiting = Waiting { slots: self, class, receiver };
        match class {
            Class::Ordinary => tokio::time::timeout(wait_max, waiting.wait()).await.unwrap_or(Err(Shed)),
            Class::Exempt => waiting.wait().await,
        }
    }

    fn permit(self: &Arc<Self>, place: Place) -> Permit {
        Permit { slots: self.clone(), place: Held::Plain(place) }
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
                if let Some(waiter) = state.queue.pop_front() {
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

/// A request in a queue. Dropped before its turn, it leaves the queue.
struct Waiting<'a> {
    slots: &'a Arc<Slots>,
    class: Class,
    receiver: oneshot::Receiver<Permit>,
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
        let (queue, place) = match self.class {
            Class::Ordinary => (&mut state.queue, Place::Queued),
            Class::Exempt => (&mut state.reserved_queue, Place::ReservedQueued),
        };
        let before = queue.len();
        queue.retain(|waiter| !waiter.is_closed());
        if queue.len() < before {
            let (counts, next) = state.counts.leave(state.bounds, place);
            state.counts = counts;
            self.slots.wake(&mut state, next);
        }
    }
}

impl Permit {
    /// The call waits for a person: its place in flight goes to somebody. False if `parked_max` is reached, and then
    /// it keeps the place that it has; a reserved place is kept too.
    pub fn park(&mut self) -> bool {
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
