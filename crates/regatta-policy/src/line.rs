//! A bounded line in which nobody is starved: by rank first, then by turns between accounts.
//!
//! Pure: who comes, who goes next, who makes room. Turns are start-time fair queueing: each account's requests are spaced
//! by its weight, so that whoever asks ten times as often waits ten times as long (Goyal, Vin, Cheng 1996). Never waits
//! and never wakes; what stands in it is the caller's.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::ids::Micros;

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
    /// The turn of whoever went last.
    turn: u64,
    number: u64,
    /// Since when somebody has been waiting without a break.
    busy_since: Option<Micros>,
}

#[derive(Debug)]
struct Waiter<T> {
    account: [u8; 16],
    since: Micros,
    thing: T,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// The turn after its last request.
    next: u64,
    /// Between two of its turns.
    step: u64,
    waiting: usize,
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

/// The distance between two turns of an account with weight one.
const STEP: u64 = 1 << 20;

impl<T> Default for Line<T> {
    fn default() -> Self {
        Line {
            waiting: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            accounts: BTreeMap::new(),
            turn: 0,
            number: 0,
            busy_since: None,
        }
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

    /// `thing` comes at `now`; at most `max` may stand.
    pub fn enter(&mut self, who: Who, thing: T, max: usize, now: Micros) -> Entry<T> {
        let displaced = match self.waiting.len() < max {
            true => None,
            false => match self.victim(who) {
                Some(ticket) => self.leave(ticket),
                None => return Entry::Full(thing),
            },
        };
        let account = self.accounts.entry((who.account, who.rank)).or_default();
        account.step = STEP / u64::from(who.weight.get()).clamp(1, STEP);
        // The turn is where the account will stand once it was served (self-clocked fair queueing, Golestani 1994): so
        // time goes on with each who is served, and newcomers without end do not stand before those who came again.
        let turn = account.next.max(self.turn) + account.step;
        account.next = turn;
        account.waiting += 1;
        self.number += 1;
        let ticket = Ticket { rank: who.rank, turn, number: self.number };
        self.waiting.insert(ticket, Waiter { account: who.account, since: now, thing });
        self.arrivals.insert(ticket.number, ticket);
        self.busy_since.get_or_insert(now);
        match displaced {
            None => Entry::Waits(ticket),
            Some(thing) => Entry::Displaced(ticket, thing),
        }
    }

    /// Who makes room for a newcomer: the last of a lower rank; else the last of whoever has most in line, if that is
    /// more than the newcomer's account would have.
    fn victim(&self, who: Who) -> Option<Ticket> {
        let (&last, _) = self.waiting.last_key_value()?;
        if who.rank < last.rank {
            return Some(last);
        }
        if last.rank < who.rank {
            return None;
        }
        let own = self.accounts.get(&(who.account, who.rank)).map_or(0, |account| account.waiting);
        let of_rank = self.accounts.iter().filter(|((_, rank), _)| *rank == who.rank);
        let ((greediest, _), most) = of_rank.max_by_key(|(_, account)| account.waiting)?;
        if most.waiting <= own + 1 {
            return None;
        }
        let mut from_behind = self.waiting.iter().rev();
        from_behind.find(|(_, waiter)| waiter.account == *greediest).map(|(ticket, _)| *ticket)
    }

    /// Whose turn it is.
    pub fn serve(&mut self) -> Option<T> {
        let (&ticket, _) = self.waiting.first_key_value()?;
        self.turn = self.turn.max(ticket.turn);
        self.remove(ticket, 0)
    }

    /// Leaves the line unserved, or is gone already. Its account gets the turn back.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        self.remove(ticket, 1)
    }

    fn remove(&mut self, ticket: Ticket, turns_back: u64) -> Option<T> {
        let waiter = self.waiting.remove(&ticket)?;
        self.arrivals.remove(&ticket.number);
        let key = (waiter.account, ticket.rank);
        if let Some(account) = self.accounts.get_mut(&key) {
            account.waiting -= 1;
            account.next = account.next.saturating_sub(account.step * turns_back);
            if account.waiting == 0 && account.next <= self.turn {
                self.accounts.remove(&key);
            }
        }
        if self.waiting.is_empty() {
            // Nobody waits, so nobody is owed anything: what was taken in busy times is forgotten.
            self.accounts.clear();
            self.busy_since = None;
        }
        Some(waiter.thing)
    }

    /// Takes out who has waited for too long by `now`, wherever they stand: normally `wait_max`; once the line has stood
    /// for longer than that without a break, a tenth of it, so that in an overload those are served who still want it
    /// (after CoDel), and nobody keeps a place in it in vain.
    pub fn expired(&mut self, wait_max: Duration, now: Micros) -> Vec<T> {
        let is_standing = self.busy_since.is_some_and(|since| wait_max < now.since(since));
        let patience = if is_standing { wait_max / 10 } else { wait_max };
        let mut gone = Vec::new();
        while let Some((_, &ticket)) = self.arrivals.first_key_value() {
            if self.waiting.get(&ticket).is_some_and(|waiter| now.since(waiter.since) <= patience) {
                break;
            }
            gone.extend(self.leave(ticket));
            self.arrivals.remove(&ticket.number);
        }
        gone
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

    fn enter(line: &mut Line<u32>, who: Who, thing: u32, max: usize) -> Entry<u32> {
        line.enter(who, thing, max, Micros(0))
    }

    fn order(line: &mut Line<u32>) -> Vec<u32> {
        std::iter::from_fn(|| line.serve()).collect()
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

    #[test]
    fn a_line_that_stands_for_long_loses_patience_and_one_that_ran_empty_has_it_again() {
        let mut line = Line::default();
        let (second, ms) = (Duration::from_secs(1), |ms: u64| Micros(ms * 1_000));
        line.enter(plain(1), 1, 9, ms(0));
        line.enter(plain(2), 2, 9, ms(950));
        assert!(line.expired(second, ms(1_000)).is_empty());
        assert_eq!(line.expired(second, ms(1_001)), [1]);
        assert_eq!(line.expired(second, ms(1_051)), [2], "it has stood for a second");
        line.enter(plain(1), 3, 9, ms(2_000));
        assert!(line.expired(second, ms(2_900)).is_empty(), "a new line");
    }

    #[test]
    fn whoever_has_waited_for_too_long_leaves_from_wherever_they_stand() {
        let mut line = Line::default();
        let (second, ms) = (Duration::from_secs(1), |ms: u64| Micros(ms * 1_000));
        line.enter(who(3, Rank::Background), 30, 9, ms(0));
        (1..4).for_each(|thing| _ = line.enter(plain(1), thing, 9, ms(990)));
        assert_eq!(line.serve(), Some(1), "the background waits behind");
        line.enter(plain(2), 20, 9, ms(1_080));
        assert_eq!(
            line.expired(second, ms(1_091)),
            [30, 2, 3],
            "they stand before and behind one who may wait"
        );
        assert_eq!(line.len(), 1);
        assert_eq!(line.serve(), Some(20));
    }

    #[test]
    fn who_leaves_is_gone_once() {
        let mut line = Line::default();
        let Entry::Waits(ticket) = enter(&mut line, plain(1), 7, 4) else { panic!("there is room") };
        assert_eq!((line.leave(ticket), line.leave(ticket), line.len()), (Some(7), None, 0));
    }

    proptest! {
        /// Two that never stop asking get equal parts, and the line is never longer than it may be.
        #[test]
        fn whoever_asks_without_end_gets_an_equal_part(max in 2usize..20, greed in 1u32..20, rounds in 50usize..300) {
            let (mut line, mut served) = (Line::default(), [0u32; 2]);
            for round in 0..rounds {
                (0..greed).for_each(|_| _ = line.enter(plain(0), 0u32, max, Micros(round as u64)));
                (0..2).for_each(|_| _ = line.enter(plain(1), 1u32, max, Micros(round as u64)));
                prop_assert!(line.len() <= max);
                prop_assert_eq!(line.len(), line.arrivals.len());
                if let Some(thing) = line.serve() {
                    served[thing as usize] += 1;
                }
            }
            if greed > 1 {
                prop_assert!(served[0].abs_diff(served[1]) <= 2, "{served:?}");
            }
        }
    }
}
