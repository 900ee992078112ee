//! Duplicate keys: two members of one object that are spelled alike once escapes are undone.
//!
//! Two parsers may disagree about which of them counts, so a body with one is refused (RFC 8259 section 4,
//! RFC 7493 section 2.3). All open objects share one stack; the first keys of an object are compared one by one, the
//! keys of a big object go through a table whose hash is seeded per process, so that nobody can aim at it.
//! Nothing is allocated for ordinary messages.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use crate::escape;

/// Keys held without an allocation, over all open objects.
const INLINE: usize = 32;
/// Up to this many keys an object's keys are compared one by one.
const LINEAR: usize = 16;
/// In a slot's length: the key stands in the arena of unescaped keys, not in the text.
const UNESCAPED: u32 = 1 << 31;

/// One key: where its bytes are, and a mark that is equal for equal keys (in a small object its first bytes and length,
/// in a big one its hash).
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    mark: u64,
    start: u32,
    len: u32,
}

/// The keys of all objects that are open at this moment.
#[derive(Debug)]
pub(crate) struct Keys {
    inline: [Slot; INLINE],
    spilled: Vec<Slot>,
    used: usize,
    last: Slot,
    arena: Vec<u8>,
}

/// One open object.
#[derive(Debug)]
pub(crate) struct Frame {
    base: usize,
    /// One bit for each key's mark, folded: a key whose bit is not set is new.
    seen: u64,
    table: Option<Box<Table>>,
}

/// Open addressing over slot numbers; the low half of an entry is the slot number + 1, the high half a part of
/// its hash.
#[derive(Debug)]
struct Table {
    seeds: [u64; 2],
    entries: Vec<u64>,
}

impl Keys {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            inline: [Slot::default(); INLINE],
            spilled: Vec::new(),
            used: 0,
            last: Slot::default(),
            arena: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn open(&self) -> Frame {
        Frame { base: self.used, seen: 0, table: None }
    }

    /// Forgets an object's keys. Its unescaped spellings stay until the end of the message (they are shorter
    /// than the body).
    #[inline]
    pub(crate) fn close(&mut self, frame: &Frame) {
        self.used = frame.base;
        if !self.spilled.is_empty() {
            self.spilled.truncate(frame.base.saturating_sub(INLINE));
        }
    }

    /// Adds the key at `start..end` of `text`; false if the object has it already.
    #[inline(always)]
    pub(crate) fn add(
        &mut self,
        frame: &mut Frame,
        text: &[u8],
        start: usize,
        end: usize,
        escaped: bool,
    ) -> bool {
        if escaped {
            return self.add_unescaped(frame, text, start, end);
        }
        let len = end - start;
        self.enter(frame, text, Slot { mark: prefix(text, start, len), start: start as u32, len: len as u32 })
    }

    /// The key that was added last, unescaped.
    #[inline]
    pub(crate) fn last<'a>(&'a self, text: &'a [u8]) -> &'a [u8] {
        self.bytes(text, &self.last)
    }

    /// The same with its quotes, as it stands in `text`; none if it has escapes.
    #[inline]
    pub(crate) fn last_as_written<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let Slot { start, len, .. } = self.last;
        let (start, len) = (start as usize, len as usize);
        // The marked length of a key with escapes reaches beyond any text.
        text.get(start.checked_sub(1)?..(start + len).checked_add(1)?)
    }

    #[inline(never)]
    fn add_unescaped(&mut self, frame: &mut Frame, text: &[u8], start: usize, end: usize) -> bool {
        let from = self.arena.len();
        escape::unescape_into(&text[start..end], &mut self.arena);
        let len = self.arena.len() - from;
        // Unescaping never makes longer, so spans reach the arena as they reach the text.
        let slot =
            Slot { mark: prefix(&self.arena, from, len), start: from as u32, len: len as u32 | UNESCAPED };
        self.enter(frame, text, slot)
    }

    #[inline(always)]
    fn enter(&mut self, frame: &mut Frame, text: &[u8], slot: Slot) -> bool {
        let bit = 1 << (slot.mark.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58);
        let unsure = frame.seen & bit != 0;
        frame.seen |= bit;
        self.last = slot;
        if unsure || self.used - frame.base >= LINEAR || self.used >= INLINE {
            return self.enter_carefully(frame, text, slot);
        }
        self.inline[self.used] = slot;
        self.used += 1;
        true
    }

    /// For objects that may have the key, and where there is no room inline.
    #[inline(never)]
    fn enter_carefully(&mut self, frame: &mut Frame, text: &[u8], slot: Slot) -> bool {
        if self.used - frame.base >= LINEAR {
            return self.enter_big(frame, text, slot);
        }
        if (frame.base..self.used)
            .any(|held| self.at(held).mark == slot.mark && self.same(text, &self.at(held), &slot))
        {
            return false;
        }
        self.push(slot);
        true
    }

    /// For objects of more than [`LINEAR`] keys.
    fn enter_big(&mut self, frame: &mut Frame, text: &[u8], mut slot: Slot) -> bool {
        let count = self.used - frame.base;
        let table = match frame.table.take() {
            Some(table) if table.entries.len() >= 2 * (count + 1) => table,
            Some(table) => self.grown(frame.base, table.seeds),
            None => self.first_table(frame.base, text),
        };
        let table = frame.table.insert(table);
        slot.mark = hash(table.seeds, self.bytes(text, &slot));
        if !table.insert(slot.mark, self.used, |held| self.same(text, &self.at(held), &slot)) {
            return false;
        }
        self.push(slot);
        true
    }

    #[inline]
    fn push(&mut self, slot: Slot) {
        match self.inline.get_mut(self.used) {
            Some(place) => *place = slot,
            None => self.spilled.push(slot),
        }
        self.used += 1;
    }

    fn at(&self, index: usize) -> Slot {
        match self.inline.get(index) {
            Some(slot) => *slot,
            None => self.spilled[index - INLINE],
        }
    }

    #[inline]
    fn bytes<'a>(&'a self, text: &'a [u8], slot: &Slot) -> &'a [u8] {
        let len = slot.len & !UNESCAPED;
        let range = slot.start as usize..(slot.start + len) as usize;
        if slot.len == len { &text[range] } else { &self.arena[range] }
    }

    #[inline(never)]
    fn same(&self, text: &[u8], held: &Slot, slot: &Slot) -> bool {
        self.bytes(text, held) == self.bytes(text, slot)
    }

    /// Hashes the keys that were only compared so far.
    fn first_table(&mut self, base: usize, text: &[u8]) -> Box<Table> {
        let seeds = seeds();
        for held in base..self.used {
            let mark = hash(seeds, self.bytes(text, &self.at(held)));
            match self.inline.get_mut(held) {
                Some(slot) => slot.mark = mark,
                None => self.spilled[held - INLINE].mark = mark,
            }
        }
        self.grown(base, seeds)
    }

    /// A table of the keys from `base` on, a quarter full.
    fn grown(&self, base: usize, seeds: [u64; 2]) -> Box<Table> {
        let room = ((self.used - base) * 4).next_power_of_two();
        let mut table = Box::new(Table { seeds, entries: vec![0; room] });
        for held in base..self.used {
            table.insert(self.at(held).mark, held, |_| false);
        }
        table
    }
}

impl Table {
    /// Enters slot number `number`, unless an entry of the same hash is the `same` key.
    #[inline]
    fn insert(&mut self, hash: u64, number: usize, same: impl Fn(usize) -> bool) -> bool {
        let mask = self.entries.len() - 1;
        let mark = hash & !0xffff_ffff;
        let mut at = hash as usize & mask;
        while self.entries[at] != 0 {
            let entry = self.entries[at];
            if entry & !0xffff_ffff == mark && same((entry & 0xffff_ffff) as usize - 1) {
                return false;
            }
            at = (at + 1) & mask;
        }
        self.entries[at] = mark | (number as u64 + 1);
        true
    }
}

fn seeds() -> [u64; 2] {
    static SEEDS: OnceLock<[u64; 2]> = OnceLock::new();
    *SEEDS.get_or_init(|| {
        let state = RandomState::new();
        [state.hash_one(0u8), state.hash_one(1u8)]
    })
}

#[inline(never)]
fn near_end(text: &[u8], start: usize) -> u64 {
    text[start..].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The first up to eight of `len` bytes, and the length.
#[inline(always)]
fn prefix(text: &[u8], start: usize, len: usize) -> u64 {
    let kept = match len {
        0 => 0,
        1..8 => u64::MAX >> (64 - 8 * len),
        _ => u64::MAX,
    };
    let word = match text.get(start..).and_then(<[u8]>::first_chunk::<8>) {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => near_end(text, start),
    };
    (word & kept) ^ (len as u64) << 56
}

/// Seeded hash by folded 128-bit products.
#[inline]
fn hash(seeds: [u64; 2], bytes: &[u8]) -> u64 {
    let mut sum = seeds[0] ^ bytes.len() as u64;
    let mut rest = bytes;
    while rest.len() > 16 {
        sum = fold(word(rest) ^ sum, word(&rest[8..]) ^ seeds[1]);
        rest = &rest[16..];
    }
    let (head, tail) = match rest.len() {
        8.. => (word(rest), word(&rest[rest.len() - 8..])),
        4.. => (half(rest), half(&rest[rest.len() - 4..])),
        _ => (rest.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 0),
    };
    fold(head ^ sum, tail ^ seeds[1])
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[inline]
fn half(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |chunk| u64::from(u32::from_le_bytes(*chunk)))
}

#[cfg(test)]
mod tests {
    use super::Keys;

    fn add_all(keys: &[String]) -> Vec<bool> {
        let mut text = String::new();
        let mut places = Vec::new();
        for key in keys {
            places.push((text.len(), text.len() + key.len()));
            text.push_str(key);
        }
        let mut held = Keys::new();
        let mut frame = held.open();
        places
            .into_iter()
            .map(|(start, end)| {
                held.add(&mut frame, text.as_bytes(), start, end, key_is_escaped(&text[start..end]))
            })
            .collect()
    }

    fn key_is_escaped(key: &str) -> bool {
        key.contains('\\')
    }

    #[test]
    fn finds_the_second_of_two_among_few_and_many() {
        for count in [1, 2, 15, 16, 17, 18, 31, 32, 33, 64, 65, 1000, 5000] {
            let mut keys: Vec<String> = (0..count).map(|number| format!("key-{number}")).collect();
            for place in [0, count / 2, count - 1] {
                keys.push(format!("key-{place}"));
                let new = add_all(&keys);
                assert!(new[..count].iter().all(|new| *new), "{count}");
                assert!(!new[count], "{count} {place}");
                keys.pop();
            }
        }
    }

    #[test]
    fn escaped_spellings_are_the_same_key() {
        let keys = ["name", "na\\u006de", "na\\u006De2", "name2"].map(String::from);
        assert_eq!(add_all(&keys), [true, false, true, false]);
    }

    #[test]
    fn closed_objects_are_forgotten() {
        let mut keys = Keys::new();
        let text = b"ab";
        let mut outer = keys.open();
        assert!(keys.add(&mut outer, text, 0, 1, false));
        for _ in 0..100 {
            let mut inner = keys.open();
            assert!(keys.add(&mut inner, text, 0, 1, false));
            keys.close(&inner);
        }
        assert!(!keys.add(&mut outer, text, 0, 1, false));
    }
}
