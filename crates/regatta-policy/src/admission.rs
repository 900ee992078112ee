//! Who gets a place: permits, the reserved pool, parked calls and the queue, as sums.
//!
//! Pure: the counts and one event in, the next counts and an answer out. Never waits, never wakes; the caller
//! keeps the counts under one lock, holds the waiters, and wakes the one that a decision names.
//! Sits in *admit*; the places are given back when the body ends.

/// How many of each there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Ordinary requests in flight.
    pub inflight_max: usize,
    /// Ordinary requests that wait.
    pub queue_max: usize,
    /// Exempt requests in flight.
    pub reserved_max: usize,
    /// Calls that wait for a person.
    pub parked_max: usize,
}

/// How many of each there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Ordinary requests in flight.
    pub inflight: usize,
    /// Ordinary requests that wait for a place in flight.
    pub queued: usize,
    /// Exempt requests in flight.
    pub reserved: usize,
    /// Exempt requests that wait; bounded by the connections they came on, never refused.
    pub reserved_queued: usize,
    /// Parked calls, those that return included.
    pub parked: usize,
    /// Of the parked calls, those whose person has answered and that wait for a place in flight.
    pub returning: usize,
}

/// Whether a request may be refused for being busy (DESIGN 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It may.
    Ordinary,
    /// Never: `server/discover`, `notifications/initialized`, answers to server requests, DELETE, cancellations.
    Exempt,
}

/// What becomes of a request that asks for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has [`Place::Inflight`] or [`Place::Reserved`], by its class.
    Admit,
    /// It has [`Place::Queued`] or [`Place::ReservedQueued`], by its class.
    Wait,
    /// It has none: 503, −31002.
    Shed,
}

/// What a request or call holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// One of `inflight_max`.
    Inflight,
    /// One of `queue_max`.
    Queued,
    /// One of `reserved_max`.
    Reserved,
    /// A place in the line for the reserved pool.
    ReservedQueued,
    /// One of `parked_max`.
    Parked,
    /// One of `parked_max`, first in the line for a place in flight.
    Returning,
}

/// Who steps into a place that became free. Its counts are moved already: the caller only wakes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nobody waits, or nothing is free.
    Nobody,
    /// A returning call now holds [`Place::Inflight`].
    Returning,
    /// The head of the queue now holds [`Place::Inflight`].
    Queued,
    /// The head of the exempt line now holds [`Place::Reserved`].
    Exempt,
}

/// What becomes of a call that begins to wait for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parking {
    /// It holds [`Place::Parked`], and its place in flight went to somebody.
    Parked(Next),
    /// `parked_max` is reached: it keeps [`Place::Inflight`].
    Full,
}

/// What becomes of a parked call whose person has answered. It goes on in either case: it runs upstream already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparking {
    /// It holds [`Place::Inflight`].
    Inflight,
    /// It holds [`Place::Returning`] until somebody leaves.
    Returning,
}

impl Admission {
    /// A request asks for a place.
    pub fn ask(self, bounds: Bounds, class: Class) -> (Admission, Answer) {
        match class {
            Class::Ordinary
                if self.inflight < bounds.inflight_max && self.queued == 0 && self.returning == 0 =>
            {
                (Admission { inflight: self.inflight + 1, ..self }, Answer::Admit)
            }
            Class::Ordinary if self.queued < bounds.queue_max => {
                (Admission { queued: self.queued + 1, ..self }, Answer::Wait)
            }
            Class::Ordinary => (self, Answer::Shed),
            Class::Exempt if self.reserved < bounds.reserved_max && self.reserved_queued == 0 => {
                (Admission { reserved: self.reserved + 1, ..self }, Answer::Admit)
            }
            Class::Exempt => (Admission { reserved_queued: self.reserved_queued + 1, ..self }, Answer::Wait),
        }
    }

    /// A place is given back: the body ended, or a waiter gave up.
    pub fn leave(self, bounds: Bounds, place: Place) -> (Admission, Next) {
        self.without(place).step_in(bounds)
    }

    /// A call in flight begins to wait for a person.
    pub fn park(self, bounds: Bounds) -> (Admission, Parking) {
        if self.parked >= bounds.parked_max || self.inflight == 0 {
            return (self, Parking::Full);
        }
        let (next, who) =
            Admission { inflight: self.inflight - 1, parked: self.parked + 1, ..self }.step_in(bounds);
        (next, Parking::Parked(who))
    }

    /// A returning call is asked to wait for a person again, before it got a place in flight.
    pub fn park_again(self) -> Admission {
        Admission { returning: self.returning.saturating_sub(1), ..self }
    }

    /// The person of a parked call has answered.
    pub fn unpark(self, bounds: Bounds) -> (Admission, Unparking) {
        if self.inflight < bounds.inflight_max && self.returning == 0 {
            let next = Admission { inflight: self.inflight + 1, ..self.without(Place::Parked) };
            return (next, Unparking::Inflight);
        }
        (Admission { returning: self.returning + 1, ..self }, Unparking::Returning)
    }

    /// Lets the first waiter in, if a place is free. After a reload that raised a bound: call until `Nobody`.
    pub fn step_in(self, bounds: Bounds) -> (Admission, Next) {
        if self.inflight < bounds.inflight_max {
            // A returning call holds a server's resources already, so it comes before any that has not begun.
            if self.returning > 0 {
                let next = self.without(Place::Returning);
                return (Admission { inflight: next.inflight + 1, ..next }, Next::Returning);
            }
            if self.queued > 0 {
                let next = self.without(Place::Queued);
                return (Admission { inflight: next.inflight + 1, ..next }, Next::Queued);
            }
        }
        if self.reserved < bounds.reserved_max && self.reserved_queued > 0 {
            let next = self.without(Place::ReservedQueued);
            return (Admission { reserved: next.reserved + 1, ..next }, Next::Exempt);
        }
        (self, Next::Nobody)
    }

    /// One who waited for a place in flight gave up, or was made to; nobody steps in for that.
    pub fn gave_up(self) -> Admission {
        self.without(Place::Queued)
    }

    /// The counts without one `place`. A place given back twice is a bug of the caller; it must not wrap round.
    fn without(self, place: Place) -> Admission {
        let one_less = |count: usize| count.saturating_sub(1);
        match place {
            Place::Inflight => Admission { inflight: one_less(self.inflight), ..self },
            Place::Queued => Admission { queued: one_less(self.queued), ..self },
            Place::Reserved => Admission { reserved: one_less(self.reserved), ..self },
            Place::ReservedQueued => Admission { reserved_queued: one_less(self.reserved_queued), ..self },
            Place::Parked => Admission { parked: one_less(self.parked), ..self },
            Place::Returning => {
                Admission { parked: one_less(self.parked), returning: one_less(self.returning), ..self }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { inflight_max: 2, queue_max: 1, reserved_max: 1, parked_max: 1 };

    fn full() -> Admission {
        let (one, _) = Admission::default().ask(BOUNDS, Class::Ordinary);
        one.ask(BOUNDS, Class::Ordinary).0
    }

    #[test]
    fn admits_then_queues_then_sheds() {
        let (queued, answer) = full().ask(BOUNDS, Class::Ordinary);
        assert_eq!(answer, Answer::Wait);
        assert_eq!(queued.ask(BOUNDS, Class::Ordinary), (queued, Answer::Shed));
    }

    #[test]
    fn a_place_goes_straight_to_the_one_who_waits() {
        let (queued, _) = full().ask(BOUNDS, Class::Ordinary);
        let (after, next) = queued.leave(BOUNDS, Place::Inflight);
        assert_eq!((after, next), (full(), Next::Queued));
        assert_eq!(after.leave(BOUNDS, Place::Inflight).1, Next::Nobody);
    }

    #[test]
    fn the_exempt_class_waits_when_its_pool_is_full_and_is_served_when_the_rest_is_full() {
        let (queued, _) = full().ask(BOUNDS, Class::Ordinary);
        let (one, answer) = queued.ask(BOUNDS, Class::Exempt);
        assert_eq!(answer, Answer::Admit);
        let (two, answer) = one.ask(BOUNDS, Class::Exempt);
        assert_eq!(answer, Answer::Wait);
        assert_eq!(two.leave(BOUNDS, Place::Reserved), (one, Next::Exempt));
    }

    #[test]
    fn a_parked_call_gives_its_place_away_and_returns_before_the_queue() {
        let (queued, _) = full().ask(BOUNDS, Class::Ordinary);
        let (parked, parking) = queued.park(BOUNDS);
        assert_eq!(parking, Parking::Parked(Next::Queued));
        assert_eq!(parked.park(BOUNDS).1, Parking::Full);
        let (returning, unparking) = parked.unpark(BOUNDS);
        assert_eq!(unparking, Unparking::Returning);
        let (waiting, _) = returning.ask(BOUNDS, Class::Ordinary);
        let (after, next) = waiting.leave(BOUNDS, Place::Inflight);
        assert_eq!(next, Next::Returning);
        assert_eq!((after.parked, after.returning, after.queued, after.inflight), (0, 0, 1, 2));
    }

    #[test]
    fn a_reload_that_lowers_a_bound_admits_nobody_until_enough_have_left() {
        let tight = Bounds { inflight_max: 1, ..BOUNDS };
        let (queued, answer) = full().ask(tight, Class::Ordinary);
        assert_eq!(answer, Answer::Wait);
        let (one, next) = queued.leave(tight, Place::Inflight);
        assert_eq!((one.inflight, next), (1, Next::Nobody));
        assert_eq!(one.leave(tight, Place::Inflight).1, Next::Queued);
        assert_eq!(queued.step_in(Bounds { inflight_max: 3, ..BOUNDS }).1, Next::Queued);
    }

    /// Plays one event; `None` if nobody holds what it needs.
    fn play(event: u8, state: Admission, bounds: Bounds) -> Option<Admission> {
        let held = |count: usize, place| (count > 0).then(|| state.leave(bounds, place).0);
        match event {
            0 => Some(state.ask(bounds, Class::Ordinary).0),
            1 => {
                let (next, answer) = state.ask(bounds, Class::Exempt);
                assert_ne!(answer, Answer::Shed, "the exempt class is never shed");
                Some(next)
            }
            2 => held(state.inflight, Place::Inflight),
            3 => held(state.queued, Place::Queued),
            4 => held(state.reserved, Place::Reserved),
            5 => held(state.reserved_queued, Place::ReservedQueued),
            6 => held(state.parked - state.returning, Place::Parked),
            7 => held(state.returning, Place::Returning),
            8 => (state.inflight > 0).then(|| state.park(bounds).0),
            9 => (state.parked > state.returning).then(|| state.unpark(bounds).0),
            event => panic!("no event {event}"),
        }
    }

    proptest! {
        #[test]
        fn no_bound_is_passed_and_nobody_waits_before_a_free_place(
            events in prop::collection::vec(0u8..10, 0..400),
            inflight_max in 1usize..6, queue_max in 0usize..6, reserved_max in 1usize..4, parked_max in 0usize..4,
        ) {
            let bounds = Bounds { inflight_max, queue_max, reserved_max, parked_max };
            let mut state = Admission::default();
            for event in events {
                let Some(next) = play(event, state, bounds) else { continue };
                prop_assert!(next.inflight <= inflight_max && next.queued <= queue_max, "{next:?}");
                prop_assert!(next.reserved <= reserved_max && next.parked <= parked_max, "{next:?}");
                prop_assert!(next.returning <= next.parked, "{next:?}");
                prop_assert!(next.queued + next.returning == 0 || next.inflight == inflight_max, "{next:?}");
                prop_assert!(next.reserved_queued == 0 || next.reserved == reserved_max, "{next:?}");
                state = next;
            }
        }

        #[test]
        fn whatever_is_given_back_twice_never_goes_below_zero(events in prop::collection::vec(0usize..6, 0..50)) {
            let places = [Place::Inflight, Place::Queued, Place::Reserved, Place::ReservedQueued, Place::Parked, Place::Returning];
            let mut state = Admission { inflight: 2, queued: 1, reserved: 1, reserved_queued: 1, parked: 1, returning: 1 };
            for event in events {
                state = state.leave(BOUNDS, places[event]).0;
                let all = [state.inflight, state.queued, state.reserved, state.reserved_queued, state.parked, state.returning];
                prop_assert!(all.iter().all(|&count| count <= 4), "{state:?}");
            }
        }
    }
}
