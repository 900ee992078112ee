//! A bounded map whose entries pass away: what the embedded store keeps in memory only.
//!
//! Time is handed in. When it is full, what is over goes first; what is not over is never pushed out.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

pub(super) struct Expiring<K, V> {
    entries: HashMap<K, Entry<V>>,
    entries_max: usize,
}

struct Entry<V> {
    until: Instant,
    value: V,
}

/// There is no room for another entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl<K: Eq + Hash, V> Expiring<K, V> {
    pub(super) fn new(entries_max: usize) -> Self {
        Expiring { entries: HashMap::new(), entries_max }
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q, now: Instant) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).filter(|entry| now < entry.until).map(|entry| &entry.value)
    }

    /// A live entry, whose time begins anew.
    pub(super) fn renew<Q: Eq + Hash + ?Sized>(
        &mut self,
        key: &Q,
        ttl: Duration,
        now: Instant,
    ) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.get_mut(key).filter(|entry| now < entry.until)?;
        entry.until = now + ttl;
        Some(&mut entry.value)
    }

    /// A new entry, in place of an old one.
    pub(super) fn put(&mut self, key: K, value: V, ttl: Duration, now: Instant) -> Result<(), NoRoom> {
        if !self.entries.contains_key(&key) && self.entries.len() >= self.entries_max {
            self.expire(now);
            if self.entries.len() >= self.entries_max {
                return Err(NoRoom);
            }
        }
        self.entries.insert(key, Entry { until: now + ttl, value });
        Ok(())
    }

    /// An entry that is live or just was.
    pub(super) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key);
    }

    pub(super) fn live(&self, now: Instant) -> impl Iterator<Item = (&K, &V)> {
        self.entries
            .iter()
            .filter(move |(_, entry)| now < entry.until)
            .map(|(key, entry)| (key, &entry.value))
    }

    /// Everything that takes room, live or not.
    pub(super) fn held(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|entry| &entry.value)
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_over_makes_room_and_what_is_not_stays() {
        let (mut map, now) = (Expiring::new(2), Instant::now());
        assert_eq!(map.put(1, 'a', TTL, now), Ok(()));
        assert_eq!(map.put(2, 'b', TTL * 2, now), Ok(()));
        assert_eq!(map.put(3, 'c', TTL, now), Err(NoRoom));
        assert_eq!(map.put(2, 'B', TTL * 2, now), Ok(()), "an old name needs no room");
        let later = now + TTL;
        assert_eq!(map.get(&1, later), None);
        assert_eq!(map.renew(&1, TTL, later), None);
        assert_eq!(map.put(3, 'c', TTL, later), Ok(()));
        assert_eq!(map.get(&2, later), Some(&'B'));
    }

    #[test]
    fn a_renewed_entry_lives_on() {
        let (mut map, now) = (Expiring::new(2), Instant::now());
        assert_eq!(map.put(1, 'a', TTL, now), Ok(()));
        assert_eq!(map.renew(&1, TTL, now + TTL / 2), Some(&mut 'a'));
        assert_eq!(map.live(now + TTL).count(), 1);
        assert_eq!(map.live(now + TTL * 2).count(), 0);
    }
}
