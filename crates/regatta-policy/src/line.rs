//! A bounded line in which nobody is starved: by rank first, then by turns between accounts.
//!
//! Pure: who comes, who goes next, who makes room. Who has asked for no more than an equal part of late goes first. Turns
//! are start-time fair queueing: each account's requests are spaced by its weight, so that whoever asks ten times as often
//! waits ten times as long (Goyal, Vin, Cheng 1996). Never waits and never wakes; what stands in it is the caller's.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::ids::Micros;

mod account;

use account::{Account, Greed, MEMORY};

/// Who may go before whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Handshakes: without them there is nothing to serve.
    First,
    /// Somebody waits for it.
    Interactive,
    /// It can be done later.
    Background,
}

/// Whose a request is, and how it stands to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// Counted by itself.
    pub account: [u8; 16],
    /// Its share, as a multiple of the least.
    pub weight: NonZeroU32,
    /// Before or after others.
    pub rank: Rank,
}

/// A place in the line, to leave it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    rank: Rank,
    /// Its account has asked for more than its share of late: those who have not go first, and cannot starve it.
    asks_for_more: bool,
    turn: u64,
    number: u64,
}

/// A line of `T`s.
#[derive(Debug)]
pub struct Line<T> {
    waiting: BTreeMap<Ticket, Waiter<T>>,
    /// Who stands in it, in the order they came, by the numbers of their tickets.
    arrivals: BTreeMap<u64, Ticket>,
    accounts: BTreeMap<([u8; 16], Rank), Account>,
    /// When those were last forgotten who ask no more.
    forgot: Micros,
    /// The turn of whoever went last.
    turn: u64,
    /// The last turn that was ever given out.
    latest: u64,
    number: u64,
    /// Since when somebody has been waiting, breaks shorter than the patience of a standing line aside.
    busy_since: Option<Micros>,
    /// When the last one left it empty.
    empty_since: Micros,
    pace: Pace,
}

/// How long a line may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Who may stand in it.
    pub max: usize,
    /// How long one stands there.
    pub wait_max: Duration,
}

/// How fast the line goes on, seen while somebody stands in it. What is long past counts less and less.
#[derive(Debug, Default)]
struct Pace {
    served: f64,
    /// In how many microseconds.
    during: f64,
    at: Micros,
}

#[derive(Debug)]
struct Waiter<T> {
    account: [u8; 16],
    since: Micros,
    /// Its account had no turn to come, or has asked for little of late: it asks for no more than its share.
    within_share: bool,
    thing: T,
}

/// What becomes of one who comes.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<T> {
    /// Stands in line.
    Waits(Ticket),
    /// Stands in line instead of another, which has to go.
    Displaced(Ticket, T),
    /// There is no room, and nobody who should make it.
    Full(T),
}

/// A standing line takes in who will be served within this part of the longest wait; and gives up who was not within twice
/// that.
const STANDING_PART: u32 = 10;
/// The same for who asks for no more than their share: their turn comes soon, and they came in vain if all that was left were
/// places for those who ask for more.
const WITHIN_SHARE_PART: u32 = 2;
/// Accounts whose past is known though they wait for nothing.
const ACCOUNTS_MAX: usize = 1024;
/// Microseconds after which what was seen of the pace counts a third.
const PACE_MEMORY: f64 = 1e6;

impl<T> Default for Line<T> {
    fn default() -> Self {
        Line {
            waiting: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            accounts: BTreeMap::new(),
            forgot: Micros(0),
            turn: 0,
            latest: 0,
            number: 0,
            busy_since: None,
            empty_since: Micros(0),
            pace: Pace::default(),
        }
    }
}

impl Pace {
    /// Time goes on to `now`, with somebody in line or nobody.
    fn go_on(&mut self, is_empty: bool, now: Micros) {
        let passed = now.0.saturating_sub(self.at.0) as f64;
        self.at = self.at.max(now);
        if !is_empty {
            let part = (-passed / PACE_MEMORY).exp();
            (self.served, self.during) = (self.served * part, self.during * part + passed);
        }
    }

    /// How many go on within `time`.
    fn within(&self, time: Duration) -> usize {
        let most = self.served * time.as_micros() as f64 / self.during.max(1.0);
        most.ceil() as usize
    }
}

impl<T> Line<T> {
    /// How many stand in it.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// `thing` comes at `now`. It is refused at once if nobody could serve it in time: once the line has stood for longer
    /// than the longest wait, it takes no more than go on within a tenth of that (after CoDel: a short line is as good at
    /// keeping servers busy, and those are served who still want it), or within half of it if they ask for no more than
    /// their share.
    pub fn enter(&mut self, who: Who, thing: T, room: Room, now: Micros) -> Entry<T> {
        self.pace.go_on(self.is_empty(), now);
        let within_share = self.ask(who, now);
        let part = if within_share { WITHIN_SHARE_PART } else { STANDING_PART };
        let displaced = match self.waiting.len() < self.most(room, part, now) {
            true => None,
            false => match self.victim(who) {
                Some(ticket) => self.leave(ticket, now),
                None => return Entry::Full(thing),
            },
        };
        let account = self.accounts.entry((who.account, who.rank)).or_default();
        // The turn is where the account will stand once it was served (self-clocked fair queueing, Golestani 1994): so
        // time goes on with each who is served, and newcomers without end do not stand before those who came again.
        let turn = account.next.max(self.turn) + account.step;
        let asks_for_more = !account.is_modest;
        account.next = turn;
        self.latest = self.latest.max(turn);
        account.waiting += 1;
        self.number += 1;
        let ticket = Ticket { rank: who.rank, asks_for_more, turn, number: self.number };
        self.waiting.insert(ticket, Waiter { account: who.account, since: now, within_share, thing });
        self.arrivals.insert(ticket.number, ticket);
        self.busy_since.get_or_insert(now);
        match displaced {
            None => Entry::Waits(ticket),
            Some(thing) => Entry::Displaced(ticket, thing),
        }
    }

    /// Notes that an account asks; whether it asks for no more than its share.
    fn ask(&mut self, who: Who, now: Micros) -> bool {
        if MEMORY < now.since(self.forgot) || self.has_too_many() {
            let turn = self.turn;
            let is_needed =
                |account: &Account| account.waiting > 0 || turn < account.next || 0.5 < account.lately(now);
            self.accounts.retain(|_, account| is_needed(account));
            self.forgot = now;
        }
        if self.has_too_many() {
            self.accounts.retain(|_, account| account.waiting > 0);
        }
        let part = self.pace.within(MEMORY) as f64 / self.accounts.len().max(1) as f64;
        let account = self.accounts.entry((who.account, who.rank)).or_default();
        let had_no_turn = account.waiting == 0 && account.next <= self.turn;
        account.ask(who.weight, part, now);
        had_no_turn || account.is_modest
    }

    fn has_too_many(&self) -> bool {
        self.waiting.len() + ACCOUNTS_MAX < self.accounts.len()
    }

    /// How many may stand in it at `now`, of whom a standing line takes those that go on within a `part` of the longest wait.
    fn most(&mut self, room: Room, part: u32, now: Micros) -> usize {
        if self.is_empty() && room.wait_max / STANDING_PART < now.since(self.empty_since) {
            self.busy_since = None;
        }
        match self.is_standing(room.wait_max, now) {
            // One always may: else nobody would learn that it goes on again.
            true => room.max.min(self.pace.within(room.wait_max / part).max(1)),
            false => room.max,
        }
    }

    fn is_standing(&self, wait_max: Duration, now: Micros) -> bool {
        self.busy_since.is_some_and(|since| wait_max < now.since(since))
    }

    /// Who makes room for a newcomer: the last of a lower rank; else the last of the greediest, if that one is greedier than
    /// the newcomer would be.
    fn victim(&self, who: Who) -> Option<Ticket> {
        let (&last, _) = self.waiting.last_key_value()?;
        if who.rank < last.rank {
            return Some(last);
        }
        if last.rank < who.rank {
            return None;
        }
        let own = self.accounts.get(&(who.account, who.rank)).map(|account| account.greed(1));
        let (greediest, most) = self.greediest(who.rank)?;
        if own.is_some_and(|own| most <= own) {
            return None;
        }
        let mut from_behind = self.waiting.iter().rev();
        from_behind.find(|(_, waiter)| waiter.account == greediest).map(|(ticket, _)| *ticket)
    }

    /// Of those of a rank who stand in line, whoever asks for more than their share, and has most in line for it.
    fn greediest(&self, rank: Rank) -> Option<([u8; 16], Greed)> {
        let of_rank = self.accounts.iter().filter(|((_, other), held)| *other == rank && held.waiting > 0);
        of_rank.map(|((account, _), held)| (*account, held.greed(0))).max_by_key(|(_, greed)| *greed)
    }

    /// Whose turn it is at `now`.
    pub fn serve(&mut self, now: Micros) -> Option<T> {
        let (&ticket, _) = self.waiting.first_key_value()?;
        self.pace.go_on(false, now);
        self.pace.served += 1.0;
        self.turn = self.turn.max(ticket.turn);
        self.remove(ticket, 0, now)
    }

    /// Leaves the line unserved at `now`, or is gone already. Its account gets the turn back.
    pub fn leave(&mut self, ticket: Ticket, now: Micros) -> Option<T> {
        self.remove(ticket, 1, now)
    }

    fn remove(&mut self, ticket: Ticket, turns_back: u64, now: Micros) -> Option<T> {
        let waiter = self.waiting.remove(&ticket)?;
        self.arrivals.remove(&ticket.number);
        let key = (waiter.account, ticket.rank);
        if let Some(account) = self.accounts.get_mut(&key) {
            account.waiting -= 1;
            account.next = account.next.saturating_sub(account.step * turns_back);
        }
        if self.waiting.is_empty() {
            // Nobody waits, so nobody is owed anything: what was taken in busy times is forgotten.
            self.turn = self.latest;
            self.pace.go_on(false, now);
            self.empty_since = now;
        }
        Some(waiter.thing)
    }

    /// Takes out who has waited for too long by `now`, wherever they stand: normally `wait_max`; once the line has stood
    /// for longer than that, a fifth of it for whoever asks for more than their share: it went on more slowly than was to
    /// be expected, and nobody keeps a place in vain. Who asks for less is next as soon as it goes on: nobody leaves early
    /// while somebody greedier stands in line.
    pub fn expired(&mut self, wait_max: Duration, now: Micros) -> Vec<T> {
        let short = match self.is_standing(wait_max, now) {
            true => 2 * wait_max / STANDING_PART,
            false => wait_max,
        };
        let late: Vec<Ticket> = self
            .arrivals
            .values()
            .take_while(|ticket| {
                self.waiting.get(ticket).is_some_and(|waiter| short < now.since(waiter.since))
            })
            .copied()
            .collect();
        let is_over = |ticket: &Ticket| {
            let waiter = self.waiting.get(ticket);
            waiter.is_some_and(|waiter| {
                wait_max < now.since(waiter.since) || self.asks_for_most(*ticket, waiter)
            })
        };
        let over: Vec<Ticket> = late.into_iter().filter(is_over).collect();
        over.into_iter().filter_map(|ticket| self.leave(ticket, now)).collect()
    }

    /// Whether one who waits asks for more than their share, and nobody of their rank is greedier.
    fn asks_for_most(&self, ticket: Ticket, waiter: &Waiter<T>) -> bool {
        let own = self.accounts.get(&(waiter.account, ticket.rank)).map(|account| account.greed(0));
        !waiter.within_share
            && self.greediest(ticket.rank).is_none_or(|(_, most)| own.is_some_and(|own| most <= own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn who(account: u8, rank: Rank) -> Who {
        Who { account: [account; 16], weight: NonZeroU32::MIN, rank }
    }

    fn plain(account: u8) -> Who {
        who(account, Rank::Interactive)
    }

    fn room(max: usize) -> Room {
        Room { max, wait_max: Duration::from_secs(1) }
    }

    fn enter(line: &mut Line<u32>, who: Who, thing: u32, max: usize) -> Entry<u32> {
        line.enter(who, thing, room(max), Micros(0))
    }

    fn order(line: &mut Line<u32>) -> Vec<u32> {
        std::iter::from_fn(|| line.serve(Micros(0))).collect()
    }

    #[test]
    fn accounts_take_turns_however_many_one_of_them_sends() {
        let mut line = Line::default();
        (0..5).for_each(|thing| _ = enter(&mut line, plain(1), thing, 100));
        (10..12).for_each(|thing| _ = enter(&mut line, plain(2), thing, 100));
        assert_eq!(order(&mut line), [0, 10, 1, 11, 2, 3, 4]);
    }

    #[test]
    fn a_weight_of_three_gets_three_turns() {
        let mut line = Line::default();
        let heavy = Who { weight: NonZeroU32::new(3).expect("positive"), ..plain(1) };
        (0..6).for_each(|thing| _ = enter(&mut line, heavy, thing, 100));
        (10..13).for_each(|thing| _ = enter(&mut line, plain(2), thing, 100));
        let first: Vec<u32> = order(&mut line).into_iter().take(8).collect();
        assert_eq!(first.iter().filter(|thing| **thing < 10).count(), 6, "{first:?}");
    }

    #[test]
    fn in_a_full_line_a_weight_of_three_has_three_places_to_one() {
        let mut line = Line::default();
        let heavy = Who { weight: NonZeroU32::new(3).expect("positive"), ..plain(1) };
        (0..4).for_each(|thing| _ = enter(&mut line, plain(2), thing, 4));
        for thing in 10..13 {
            assert!(matches!(enter(&mut line, heavy, thing, 4), Entry::Displaced(_, 1..=3)));
        }
        assert!(matches!(enter(&mut line, heavy, 13, 4), Entry::Full(13)));
        assert!(matches!(enter(&mut line, plain(2), 4, 4), Entry::Full(4)));
    }

    #[test]
    fn ranks_go_first_and_push_out_lower_ones() {
        let mut line = Line::default();
        enter(&mut line, who(1, Rank::Background), 1, 2);
        enter(&mut line, who(2, Rank::Background), 2, 2);
        assert!(matches!(enter(&mut line, plain(1), 3, 2), Entry::Displaced(_, 2)));
        assert!(matches!(enter(&mut line, who(9, Rank::First), 4, 2), Entry::Displaced(_, 1)));
        assert!(matches!(enter(&mut line, who(9, Rank::Background), 5, 2), Entry::Full(5)));
        assert_eq!(order(&mut line), [4, 3]);
    }

    #[test]
    fn in_a_full_line_who_has_most_makes_room_for_who_has_less() {
        let mut line = Line::default();
        (0..4).for_each(|thing| _ = enter(&mut line, plain(1), thing, 4));
        assert!(matches!(enter(&mut line, plain(1), 4, 4), Entry::Full(4)), "not for oneself");
        assert!(matches!(enter(&mut line, plain(2), 10, 4), Entry::Displaced(_, 3)));
        assert!(matches!(enter(&mut line, plain(2), 11, 4), Entry::Displaced(_, 2)));
        assert!(matches!(enter(&mut line, plain(2), 12, 4), Entry::Full(12)), "two each");
        assert_eq!(order(&mut line), [0, 10, 1, 11]);
    }

    fn ms(ms: u64) -> Micros {
        Micros(ms * 1_000)
    }

    #[test]
    fn a_line_that_stands_for_long_loses_patience_and_one_that_ran_empty_has_it_again() {
        let (mut line, second) = (Line::default(), Duration::from_secs(1));
        line.enter(plain(1), 1, room(9), ms(0));
        line.enter(plain(1), 2, room(9), ms(950));
        assert!(line.expired(second, ms(1_000)).is_empty());
        assert_eq!(line.expired(second, ms(1_001)), [1]);
        assert!(line.expired(second, ms(1_150)).is_empty());
        assert_eq!(line.expired(second, ms(1_151)), [2], "it has stood for a second");
        line.enter(plain(1), 3, room(9), ms(1_200));
        assert_eq!(line.enter(plain(1), 4, room(9), ms(1_200)), Entry::Full(4), "that was no break");
        assert!(line.expired(second, ms(1_401)).is_empty(), "who asks for no more than their share may wait");
        assert_eq!(line.serve(ms(1_401)), Some(3));
        line.enter(plain(1), 5, room(9), ms(1_502));
        assert!(line.expired(second, ms(2_500)).is_empty(), "a new line");
    }

    #[test]
    fn a_standing_line_takes_no_more_than_it_can_serve_soon_and_one_when_it_serves_none() {
        let (mut line, second) = (Line::default(), Duration::from_secs(1));
        // Thirty a second, for a second and a half.
        for turn in 0..45 {
            let now = ms(turn * 100 / 3);
            line.enter(plain(1), 0, room(99), now);
            line.enter(plain(1), 0, room(99), now);
            line.expired(second, now);
            line.serve(now);
        }
        let mut come = |count: usize, now: Micros| {
            line.expired(second, now);
            let entries = (0..count).map(|_| line.enter(plain(1), 0, room(99), now));
            entries.filter(|entry| matches!(entry, Entry::Waits(_))).count()
        };
        let soon = come(50, ms(1_800));
        assert!((2..=3).contains(&soon), "{soon}: a tenth of a second's worth; who came before has left");
        assert_eq!([come(50, ms(1_999)), come(0, ms(2_900)), come(50, ms(20_000))], [0, 0, 50], "a new line");
        let stuck: Vec<usize> = (1..100).map(|turn| come(5, ms(21_010 + turn * 10))).collect();
        assert_eq!(stuck.iter().sum::<usize>(), 1, "one at a time: {stuck:?}");
    }

    #[test]
    fn nobody_leaves_early_while_somebody_else_has_more_in_line() {
        let (mut line, second) = (Line::default(), Duration::from_secs(1));
        line.enter(plain(9), 90, room(99), ms(0));
        (0..3).for_each(|thing| _ = line.enter(plain(1), thing, room(99), ms(900)));
        (10..12).for_each(|thing| _ = line.enter(plain(2), thing, room(99), ms(900)));
        assert_eq!(line.expired(second, ms(1_101)), [90, 1, 2], "the first of each was within their share");
        assert_eq!(line.expired(second, ms(1_102)), [11], "now that account has more");
        assert!(line.expired(second, ms(1_103)).is_empty(), "one each");
    }

    #[test]
    fn who_has_asked_for_little_of_late_goes_before_who_asks_for_more() {
        let mut line = Line::default();
        (0..5).for_each(|thing| _ = enter(&mut line, plain(1), thing, 100));
        // Their first each, and nobody has seen yet how much goes on.
        (10..13).for_each(|thing| _ = enter(&mut line, plain(thing as u8), thing, 100));
        assert_eq!(order(&mut line), [0, 10, 11, 12, 1, 2, 3, 4]);
    }

    #[test]
    fn in_a_standing_line_there_is_room_for_who_asks_for_no_more_than_their_share() {
        let (mut line, second) = (Line::default(), Duration::from_secs(1));
        for turn in 0..140 {
            let now = ms(turn * 10);
            (0..2).for_each(|_| _ = line.enter(plain(1), 0, room(99), now));
            line.expired(second, now);
            line.serve(now);
        }
        let now = ms(1_400);
        while line.enter(plain(1), 0, room(99), now) != Entry::Full(0) {}
        let standing = line.len();
        assert!((9..=11).contains(&standing), "{standing}: a tenth of a second's worth");
        let enters = |line: &mut Line<u32>, account: u8| line.enter(plain(account), 0, room(99), now);
        let many = (2..99).filter(|&account| !matches!(enters(&mut line, account), Entry::Full(_))).count();
        assert!((45..=60).contains(&many), "{many}: half a second's worth, and the greedy one makes room");
    }

    #[test]
    fn whoever_has_waited_for_too_long_leaves_from_wherever_they_stand() {
        let (mut line, second) = (Line::default(), Duration::from_secs(1));
        line.enter(who(3, Rank::Background), 30, room(9), ms(0));
        (1..4).for_each(|thing| _ = line.enter(plain(1), thing, room(9), ms(890)));
        assert_eq!(line.serve(ms(890)), Some(1), "the background waits behind");
        line.enter(plain(2), 20, room(9), ms(980));
        assert_eq!(
            line.expired(second, ms(1_091)),
            [30, 2, 3],
            "they stand before and behind one who may wait"
        );
        assert_eq!(line.len(), 1);
        assert_eq!(line.serve(ms(1_091)), Some(20));
    }

    #[test]
    fn who_leaves_is_gone_once() {
        let mut line = Line::default();
        let Entry::Waits(ticket) = enter(&mut line, plain(1), 7, 4) else { panic!("there is room") };
        let now = ms(1);
        assert_eq!((line.leave(ticket, now), line.leave(ticket, now), line.len()), (Some(7), None, 0));
    }

    proptest! {
        /// Two that never stop asking get equal parts, and the line is never longer than it may be.
        #[test]
        fn whoever_asks_without_end_gets_an_equal_part(max in 2usize..20, greed in 1u32..20, rounds in 50usize..300) {
            let (mut line, mut served) = (Line::default(), [0u32; 2]);
            for round in 0..rounds {
                (0..greed).for_each(|_| _ = line.enter(plain(0), 0u32, room(max), Micros(round as u64)));
                (0..2).for_each(|_| _ = line.enter(plain(1), 1u32, room(max), Micros(round as u64)));
                prop_assert!(line.len() <= max);
                prop_assert_eq!(line.len(), line.arrivals.len());
                if let Some(thing) = line.serve(Micros(round as u64)) {
                    served[thing as usize] += 1;
                }
            }
            if greed > 1 {
                prop_assert!(served[0].abs_diff(served[1]) <= 2, "{served:?}");
            }
        }
    }
}
