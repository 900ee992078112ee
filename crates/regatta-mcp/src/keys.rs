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

/// One key: its hash, and where its bytes are.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u64,
    start: u32,
    len: u32,
    /// In the arena of unescaped keys, not in the text.
    unescaped: bool,
}

/// The keys of all objects that are open at this moment.
#[derive(Debug)]
pub(crate) struct Keys {
    seeds: [u64; 2],
    inline: [Slot; INLINE],
    spilled: Vec<Slot>,
    used: usize,
    arena: Vec<u8>,
}

/// One open object.
#[derive(Debug)]
pub(crate) struct Frame {
    base: usize,
    table: Option<Table>,
}

/// Open addressing over slot numbers; the low half of an entry is the slot number + 1, the high half a part of
/// its hash.
#[derive(Debug)]
struct Table {
    entries: Vec<u64>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        static SEEDS: OnceLock<[u64; 2]> = OnceLock::new();
        let seeds = SEEDS.get_or_init(|| {
            let state = RandomState::new();
            [state.hash_one(0u8), state.hash_one(1u8)]
        });
        Self {
            seeds: *seeds,
            inline: [Slot::default(); INLINE],
            spilled: Vec::new(),
            used: 0,
            arena: Vec::new(),
        }
    }

    pub(crate) fn open(&self) -> Frame {
        Frame { base: self.used, table: None }
    }

    /// Forgets an object's keys. Its unescaped spellings stay until the end of the message (they are shorter
    /// than the body).
    pub(crate) fn close(&mut self, frame: &Frame) {
        self.used = frame.base;
        self.spilled.truncate(frame.base.saturating_sub(INLINE));
    }

    /// Adds the key at `start..end` of `text`; false if the object has it already.
    pub(crate) fn add(
        &mut self,
        frame: &mut Frame,
        text: &[u8],
        start: usize,
        end: usize,
        escaped: bool,
    ) -> bool {
        let slot = self.slot(text, start, end, escaped);
        let count = self.used - frame.base;
        if count < LINEAR {
            for held in frame.base..self.used {
                if self.at(held).hash == slot.hash && self.same(text, held, &slot) {
                    return false;
                }
            }
            self.push(slot);
            return true;
        }
        if frame.table.as_ref().is_none_or(|table| table.entries.len() < 2 * (count + 1)) {
            frame.table = Some(self.table(frame.base));
        }
        let Some(table) = frame.table.as_mut() else { return false };
        if !table.insert(slot.hash, self.used, |held| self.same(text, held, &slot)) {
            return false;
        }
        self.push(slot);
        true
    }

    /// The bytes of the key that was added last, unescaped.
    pub(crate) fn last<'a>(&'a self, text: &'a [u8]) -> &'a [u8] {
        if self.used == 0 { &[] } else { self.bytes(text, &self.at(self.used - 1)) }
    }

    fn slot(&mut self, text: &[u8], start: usize, end: usize, escaped: bool) -> Slot {
        if !escaped {
            let hash = hash(self.seeds, &text[start..end]);
            return Slot { hash, start: start as u32, len: (end - start) as u32, unescaped: false };
        }
        let from = self.arena.len();
        escape::unescape_into(&text[start..end], &mut self.arena);
        let hash = hash(self.seeds, &self.arena[from..]);
        Slot { hash, start: from as u32, len: (self.arena.len() - from) as u32, unescaped: true }
    }

    #[inline]
    fn push(&mut self, slot: Slot) {
        match self.inline.get_mut(self.used) {
            Some(place) => *place = slot,
            None => self.spilled.push(slot),
        }
        self.used += 1;
    }

    #[inline]
    fn at(&self, index: usize) -> Slot {
        match self.inline.get(index) {
            Some(slot) => *slot,
            None => self.spilled[index - INLINE],
        }
    }

    #[inline]
    fn bytes<'a>(&'a self, text: &'a [u8], slot: &Slot) -> &'a [u8] {
        let range = slot.start as usize..(slot.start + slot.len) as usize;
        if slot.unescaped { &self.arena[range] } else { &text[range] }
    }

    fn same(&self, text: &[u8], held: usize, slot: &Slot) -> bool {
        self.bytes(text, &self.at(held)) == self.bytes(text, slot)
    }

    /// A table of the keys from `base` on, with room for as many again.
    #[cold]
    fn table(&self, base: usize) -> Table {
        let room = ((self.used - base) * 8).next_power_of_two();
        let mut table = Table { entries: vec![0; room] };
        for held in base..self.used {
            table.insert(self.at(held).hash, held, |_| false);
        }
        table
    }
}

impl Table {
    /// Enters slot number `number`, unless an entry of the same hash is the `same` key.
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
