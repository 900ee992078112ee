//! The names of keys and channels, all under one prefix (DESIGN 6), and of the slots they fall into.

use crate::{CallName, GatewayId, SpaceName, StreamName, Uuid16};

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Names {
        Names { prefix: prefix.to_owned() }
    }

    pub(super) fn session(&self, session: &Uuid16) -> String {
        format!("{}session:{{{}}}", self.prefix, uuid(session))
    }

    pub(super) fn ended(&self, day: u32) -> String {
        format!("{}ended:{day}", self.prefix)
    }

    pub(super) fn keys(&self) -> String {
        format!("{}keys", self.prefix)
    }

    pub(super) fn events(&self, stream: &StreamName) -> String {
        format!("{}events:{{{}}}:{}", self.prefix, uuid(&stream.session), stream.number)
    }

    pub(super) fn gateway(&self, gateway: GatewayId) -> String {
        format!("{}gateway:{gateway}", self.prefix)
    }

    pub(super) fn claim(&self, digest: &[u8; 16]) -> String {
        format!("{}claim:{}", self.prefix, hex(digest))
    }

    pub(super) fn budget(&self, budget: &[u8; 16]) -> String {
        format!("{}budget:{}", self.prefix, hex(budget))
    }

    pub(super) fn result(&self, key: &[u8; 32]) -> String {
        format!("{}tool:{{{}}}", self.prefix, hex(key))
    }

    /// The claim of a result's fetch, in the slot of the result.
    pub(super) fn fetch(&self, key: &[u8; 32]) -> String {
        format!("{}tool:{{{}}}:fetch", self.prefix, hex(key))
    }

    /// What of a server's results was purged.
    pub(super) fn purges(&self, shelf: &[u8; 16]) -> String {
        format!("{}tool:{{{}}}:purged", self.prefix, hex(shelf))
    }

    /// What was used of a quota.
    pub(super) fn quota(&self, key: &[u8; 24]) -> String {
        format!("{}rl:{{{}}}", self.prefix, hex(key))
    }

    /// The gateways that are there.
    pub(super) fn gateways(&self) -> String {
        format!("{}gateways", self.prefix)
    }

    /// Data of tools.
    pub(super) fn data(&self, space: &SpaceName) -> String {
        format!("{}data:{}", self.prefix, hex(&space.0))
    }

    /// A call in the journal.
    pub(super) fn call(&self, call: &CallName) -> String {
        format!("{}call:{}", self.prefix, hex(&call.0))
    }

    pub(super) fn nodes(&self) -> String {
        format!("{}nodes", self.prefix)
    }

    pub(super) fn node(&self, id: &str) -> String {
        format!("{}node:{id}", self.prefix)
    }

    /// The channel of all notices.
    pub(super) fn notices(&self) -> String {
        format!("{}notices", self.prefix)
    }

    /// The channel on which this process proves to itself that notices come.
    pub(super) fn proof(&self, instance: &[u8; 8]) -> String {
        format!("{}proof:{}", self.prefix, hex(instance))
    }

    /// The channel of a gateway's letters.
    pub(super) fn mail(&self, gateway: GatewayId) -> String {
        format!("{}mail:{gateway}", self.prefix)
    }

    /// The gateway whose letters a channel carries.
    pub(super) fn addressee(&self, channel: &str) -> Option<GatewayId> {
        let digits = channel.strip_prefix(&self.prefix)?.strip_prefix("mail:")?;
        unhex(digits).map(GatewayId)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.bytes().map(|digit| char::from(digit).to_digit(16).map(|digit| digit as u8));
    let digits: Vec<u8> = digits.collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok()
}

fn uuid(session: &Uuid16) -> String {
    let [a, b, c, d, e] = [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| hex(&session.0[part]));
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// The slot of a key: CRC-16/XMODEM of its hash tag, or of all of it (Redis cluster specification).
pub fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc16(hashed.as_bytes()) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum: u16, byte| {
        (0..8).fold(sum ^ u16::from(*byte) << 8, |sum, _| match sum & 0x8000 {
            0 => sum << 1,
            _ => sum << 1 ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("{user1000}.following"), slot("user1000"));
        assert_eq!(slot("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
    }

    #[test]
    fn names_are_those_of_the_design_and_a_session_is_in_one_slot() {
        let names = Names::new("mcp:");
        let session = Uuid16(*b"\x01\x23\x45\x67\x89\xab\xcd\xef0123456\xff");
        let record = names.session(&session);
        assert_eq!(record, "mcp:session:{01234567-89ab-cdef-3031-3233343536ff}");
        let events = names.events(&StreamName { session, number: 7 });
        assert_eq!(events, "mcp:events:{01234567-89ab-cdef-3031-3233343536ff}:7");
        assert_eq!(slot(&record), slot(&events));
        let gateway = GatewayId([1, 2, 3, 4, 5, 6, 7, 0xab]);
        assert_eq!(names.gateway(gateway), "mcp:gateway:01020304050607ab");
        assert_eq!(names.addressee(&names.mail(gateway)), Some(gateway));
        assert_eq!(names.addressee("mcp:mail:0102"), None);
    }
}
