//! What of a server was made old, and when: a number for each thing that was purged.
//!
//! A kept result remembers the number that was newest when its fetch began. It is spent once anything that it belongs
//! to has a higher one. So a purge is one number written, whatever it strikes, and nothing is ever searched. The table
//! is bounded: what does not fit strikes everything, which only costs misses.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use regatta_policy::Glob;

/// Different things of one server that are remembered as purged; beyond it, the whole server is.
const THINGS_MAX: usize = 4096;
/// Different globs alike; each is compared with the tool of every result that is older.
const GLOBS_MAX: usize = 64;

/// What is made old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// All that is kept of the server.
    Server,
    /// All results of one tool (or method: `tools/list`).
    Tool(String),
    /// All results of the tools that fit.
    Glob(Glob),
    /// All that was kept for one authorization context.
    Principal([u8; 16]),
    /// All results of one call, whoever made it ([`crate::call_digest`]).
    Call([u8; 16]),
}

/// The purges of one server.
#[derive(Debug, Default)]
pub struct Purges {
    /// The number of the last purge; written under the lock of `table`.
    newest: AtomicU64,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Everything that is older than this is spent.
    server: u64,
    tools: HashMap<String, u64>,
    principals: HashMap<[u8; 16], u64>,
    calls: HashMap<[u8; 16], u64>,
    globs: Vec<(Glob, u64)>,
}

/// What a result belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Belongs<'a> {
    pub tool: &'a str,
    pub principal: Option<&'a [u8; 16]>,
    pub call: &'a [u8; 16],
}

impl Purge {
    /// All results of the tools that fit.
    pub fn of_tools(glob: &Glob) -> Purge {
        match glob.as_str().contains('*') {
            true => Purge::Glob(glob.clone()),
            false => Purge::Tool(glob.as_str().to_owned()),
        }
    }
}

impl Purge {
    /// As bytes that every gateway of a fleet reads alike.
    pub fn to_bytes(&self) -> Bytes {
        let (kind, rest): (u8, &[u8]) = match self {
            Purge::Server => (b's', b""),
            Purge::Tool(tool) => (b't', tool.as_bytes()),
            Purge::Glob(glob) => (b'g', glob.as_str().as_bytes()),
            Purge::Principal(context) => (b'p', context),
            Purge::Call(call) => (b'c', call),
        };
        [&[kind], rest].concat().into()
    }

    /// Back from bytes; what is not understood strikes everything, which only costs misses.
    pub fn from_bytes(bytes: &[u8]) -> Purge {
        let Some((kind, rest)) = bytes.split_first() else { return Purge::Server };
        let text = || std::str::from_utf8(rest).ok().map(str::to_owned);
        let read = match kind {
            b't' => text().map(Purge::Tool),
            b'g' => text().map(|glob| Purge::Glob(Glob::new(glob))),
            b'p' => rest.try_into().ok().map(Purge::Principal),
            b'c' => rest.try_into().ok().map(Purge::Call),
            _ => None,
        };
        read.unwrap_or(Purge::Server)
    }
}

impl Purges {
    /// The number to remember when a fetch begins.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Makes `purge` old, from this moment on.
    pub fn purge(&self, purge: &Purge) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let number = self.newest.load(Ordering::Relaxed) + 1;
        table.note(purge, number);
        self.newest.store(number, Ordering::Release);
    }

    /// Notes a purge that has a number already, given by whoever counts for a whole fleet.
    pub(crate) fn note(&self, purge: &Purge, number: u64) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.note(purge, number);
        self.newest.fetch_max(number, Ordering::AcqRel);
    }

    /// Begins anew at `number`: everything before it is struck.
    pub(crate) fn restart(&self, number: u64) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        *table = Table { server: number, ..Table::default() };
        self.newest.store(number, Ordering::Release);
    }

    /// Whether what belongs there, and was begun at number `since`, was purged after that.
    pub(crate) fn strikes(&self, belongs: Belongs<'_>, since: u64) -> bool {
        // Nearly always nothing was purged since.
        if since >= self.newest() {
            return false;
        }
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        since < table.newest_of(belongs)
    }
}

impl Table {
    fn note(&mut self, purge: &Purge, number: u64) {
        let fits = match purge {
            // What a fleet purged is noted in any order: what came later stays.
            Purge::Server => return self.strike_all(number),
            Purge::Tool(tool) => note(&mut self.tools, tool.clone(), number),
            Purge::Principal(context) => note(&mut self.principals, *context, number),
            Purge::Call(call) => note(&mut self.calls, *call, number),
            Purge::Glob(glob) => note_glob(&mut self.globs, glob, number),
        };
        if !fits {
            self.strike_all(number.max(self.newest()));
        }
    }

    /// Strikes everything up to `number`; what was struck before then need not be remembered.
    fn strike_all(&mut self, number: u64) {
        self.server = self.server.max(number);
        self.tools.retain(|_, noted| *noted > number);
        self.principals.retain(|_, noted| *noted > number);
        self.calls.retain(|_, noted| *noted > number);
        self.globs.retain(|(_, noted)| *noted > number);
    }

    fn newest(&self) -> u64 {
        let things = self.tools.values().chain(self.principals.values()).chain(self.calls.values());
        things
            .chain(self.globs.iter().map(|(_, noted)| noted))
            .fold(self.server, |newest, noted| newest.max(*noted))
    }

    fn newest_of(&self, belongs: Belongs<'_>) -> u64 {
        let tool = self.tools.get(belongs.tool).copied();
        let principal = belongs.principal.and_then(|context| self.principals.get(context)).copied();
        let call = self.calls.get(belongs.call).copied();
        let globs =
            self.globs.iter().filter(|(glob, _)| glob.matches(belongs.tool)).map(|(_, number)| *number);
        let found = [tool, principal, call].into_iter().flatten().chain(globs);
        found.fold(self.server, u64::max)
    }
}

/// Whether there was room.
fn note_glob(globs: &mut Vec<(Glob, u64)>, glob: &Glob, number: u64) -> bool {
    if let Some((_, newest)) = globs.iter_mut().find(|(known, _)| known == glob) {
        *newest = number.max(*newest);
        return true;
    }
    let has_room = globs.len() < GLOBS_MAX;
    if has_room {
        globs.push((glob.clone(), number));
    }
    has_room
}

/// Whether there was room.
fn note<K: Hash + Eq>(map: &mut HashMap<K, u64>, thing: K, number: u64) -> bool {
    let has_room = map.len() < THINGS_MAX || map.contains_key(&thing);
    if has_room {
        let noted = map.entry(thing).or_default();
        *noted = number.max(*noted);
    }
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: [u8; 16] = [7; 16];

    fn belongs<'a>(tool: &'a str, principal: &'a [u8; 16]) -> Belongs<'a> {
        Belongs { tool, principal: Some(principal), call: &CALL }
    }

    #[test]
    fn each_kind_strikes_what_it_names_and_nothing_else() {
        for (purge, struck) in [
            (Purge::Server, true),
            (Purge::Tool("get_a".to_owned()), true),
            (Purge::Tool("get_b".to_owned()), false),
            (Purge::Glob(Glob::new("get_*")), true),
            (Purge::Glob(Glob::new("list_*")), false),
            (Purge::Principal([1; 16]), true),
            (Purge::Principal([2; 16]), false),
            (Purge::Call(CALL), true),
            (Purge::Call([8; 16]), false),
        ] {
            let purges = Purges::default();
            let since = purges.newest();
            purges.purge(&purge);
            assert_eq!(purges.strikes(belongs("get_a", &[1; 16]), since), struck, "{purge:?}");
            assert!(!purges.strikes(belongs("get_a", &[1; 16]), purges.newest()), "{purge:?}");
        }
    }

    #[test]
    fn what_was_written_is_read_back_and_what_is_not_understood_strikes_everything() {
        for purge in [
            Purge::Server,
            Purge::Tool("get_a".to_owned()),
            Purge::Glob(Glob::new("get_*")),
            Purge::Principal([3; 16]),
            Purge::Call(CALL),
        ] {
            assert_eq!(Purge::from_bytes(&purge.to_bytes()), purge);
        }
        for unknown in [&b""[..], b"x", b"p123", b"t\xff"] {
            assert_eq!(Purge::from_bytes(unknown), Purge::Server);
        }
    }

    #[test]
    fn what_everybody_shares_belongs_to_no_principal() {
        let purges = Purges::default();
        purges.purge(&Purge::Principal([0; 16]));
        assert!(!purges.strikes(Belongs { tool: "t", principal: None, call: &CALL }, 0));
    }

    #[test]
    fn purging_the_same_again_takes_no_room() {
        let purges = Purges::default();
        (0..10_000).for_each(|_| purges.purge(&Purge::Tool("get".to_owned())));
        assert!(!purges.strikes(belongs("other", &[1; 16]), 0));
        assert!(purges.strikes(belongs("get", &[1; 16]), 9_999));
    }

    #[test]
    fn what_a_fleet_purged_may_be_noted_in_any_order() {
        let things = [
            (Purge::Tool("get".to_owned()), 1),
            (Purge::Server, 2),
            (Purge::Principal([1; 16]), 3),
            (Purge::Call(CALL), 4),
        ];
        for first in 0..things.len() {
            let purges = Purges::default();
            let (later, earlier) = (things.iter().skip(first), things.iter().take(first));
            later.chain(earlier).for_each(|(purge, number)| purges.note(purge, *number));
            purges.note(&things[0].0, 1);
            let other = Belongs { tool: "get", principal: Some(&[2; 16]), call: &[8; 16] };
            let struck = [0, 1, 2, 3].map(|since| purges.strikes(belongs("set", &[1; 16]), since));
            assert_eq!(struck, [true; 4], "from {first}");
            let struck = [0, 1, 2, 3].map(|since| purges.strikes(other, since));
            assert_eq!(struck, [true, true, false, false], "from {first}");
        }
    }

    #[test]
    fn what_does_not_fit_strikes_everything() {
        for many in [
            |number: usize| Purge::Tool(format!("tool-{number}")),
            |number: usize| Purge::Glob(Glob::new(format!("tool-{number}-*"))),
        ] {
            let purges = Purges::default();
            (0..=THINGS_MAX).for_each(|number| purges.purge(&many(number)));
            assert!(purges.strikes(belongs("untouched", &[1; 16]), 0));
            assert!(purges.table.read().expect("no poison").tools.len() <= THINGS_MAX);
            assert!(purges.table.read().expect("no poison").globs.len() <= GLOBS_MAX);
        }
    }
}
