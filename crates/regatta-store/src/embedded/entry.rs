//! One entry of the log as bytes: length ∥ CRC-32 ∥ kind ∥ content.
//!
//! Pure. An entry that does not check out ends the reading of its file: nothing behind it can be trusted to begin
//! where it seems to. Kinds unknown here are skipped, so that an older version reads a newer one's log.

use bytes::Bytes;

use crate::{Etag, Uuid16, Versioned};

/// Bytes before the content: length and checksum, four each, little-endian.
const FRAME_LEN: usize = 8;
/// Bytes of a `Put` besides its value, frame and all.
pub(super) const PUT_LEN: usize = FRAME_LEN + 1 + 16 + 16 + 8;
/// Bytes of a `Bury`.
pub(super) const BURY_LEN: usize = FRAME_LEN + 1 + 4 + 16;

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A session's record, last used at `used_s`.
    Put { session: Uuid16, used_s: u64, record: Versioned },
    /// A session has no record any more.
    Remove { session: Uuid16 },
    /// A record was used.
    Touch { session: Uuid16, used_s: u64 },
    /// A token is over.
    Bury { day: u32, digest: [u8; 16] },
}

/// What stands at the start of some bytes of a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An entry, and the length of it all.
    Entry(Entry, usize),
    /// Something sound of a kind unknown here.
    Skip(usize),
    /// The end.
    End,
    /// Not an entry: torn or corrupt.
    Torn,
}

impl Entry {
    /// Appends the bytes of this entry to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_LEN]);
        match self {
            Entry::Put { session, used_s, record } => {
                out.push(1);
                out.extend_from_slice(&session.0);
                out.extend_from_slice(&record.etag.0);
                out.extend_from_slice(&used_s.to_le_bytes());
                out.extend_from_slice(&record.value);
            }
            Entry::Remove { session } => {
                out.push(2);
                out.extend_from_slice(&session.0);
            }
            Entry::Touch { session, used_s } => {
                out.push(3);
                out.extend_from_slice(&session.0);
                out.extend_from_slice(&used_s.to_le_bytes());
            }
            Entry::Bury { day, digest } => {
                out.push(4);
                out.extend_from_slice(&day.to_le_bytes());
                out.extend_from_slice(digest);
            }
        }
        let payload = &out[start + FRAME_LEN..];
        // A value is bounded by `value_max`, far below 4 GiB.
        let (length, sum) = (payload.len() as u32, crc32(payload));
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..start + FRAME_LEN].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Reads the entry at the start of `bytes`.
pub(super) fn next(bytes: &[u8]) -> Next {
    if bytes.is_empty() {
        return Next::End;
    }
    let Some((frame, rest)) = bytes.split_first_chunk::<FRAME_LEN>() else { return Next::Torn };
    let [l0, l1, l2, l3, s0, s1, s2, s3] = *frame;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    // An empty payload has the checksum 0: a tail of zeros must not pass for entries.
    let Some(payload) = rest.get(..length).filter(|payload| !payload.is_empty()) else { return Next::Torn };
    if crc32(payload) != u32::from_le_bytes([s0, s1, s2, s3]) {
        return Next::Torn;
    }
    match payload[0] {
        1..=4 => match read(payload) {
            Some(entry) => Next::Entry(entry, FRAME_LEN + length),
            None => Next::Torn,
        },
        _ => Next::Skip(FRAME_LEN + length),
    }
}

fn read(payload: &[u8]) -> Option<Entry> {
    let (kind, rest) = payload.split_first()?;
    if *kind == 4 {
        let (day, rest) = rest.split_first_chunk()?;
        return Some(Entry::Bury { day: u32::from_le_bytes(*day), digest: *rest.first_chunk()? });
    }
    let (session, rest) = rest.split_first_chunk()?;
    let session = Uuid16(*session);
    match kind {
        1 => {
            let (etag, rest) = rest.split_first_chunk()?;
            let (used_s, value) = rest.split_first_chunk()?;
            let record = Versioned { etag: Etag(*etag), value: Bytes::copy_from_slice(value) };
            Some(Entry::Put { session, used_s: u64::from_le_bytes(*used_s), record })
        }
        2 => Some(Entry::Remove { session }),
        3 => Some(Entry::Touch { session, used_s: u64::from_le_bytes(*rest.first_chunk()?) }),
        _ => None,
    }
}

/// CRC-32 as in IEEE 802.3 (reflected, 0xEDB88320): tells torn from sound, not honest from forged; whoever can write
/// the state directory has the keys anyway.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, byte| TABLE[usize::from(sum as u8 ^ byte)] ^ (sum >> 8))
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut sum = at as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn an_unknown_kind_is_skipped_and_zeros_are_torn() {
        let mut bytes = vec![3, 0, 0, 0];
        bytes.extend_from_slice(&crc32(&[200, 1, 2]).to_le_bytes());
        bytes.extend_from_slice(&[200, 1, 2]);
        assert_eq!(next(&bytes), Next::Skip(11));
        assert_eq!(next(&[0; 64]), Next::Torn);
        assert_eq!(next(&[]), Next::End);
    }

    fn entries() -> impl Strategy<Value = Entry> {
        prop_oneof![
            (any::<[u8; 16]>(), any::<u64>(), any::<[u8; 16]>(), any::<Vec<u8>>()).prop_map(
                |(session, used_s, etag, value)| {
                    let record = Versioned { etag: Etag(etag), value: value.into() };
                    Entry::Put { session: Uuid16(session), used_s, record }
                }
            ),
            any::<[u8; 16]>().prop_map(|session| Entry::Remove { session: Uuid16(session) }),
            (any::<[u8; 16]>(), any::<u64>())
                .prop_map(|(session, used_s)| Entry::Touch { session: Uuid16(session), used_s }),
            (any::<u32>(), any::<[u8; 16]>()).prop_map(|(day, digest)| Entry::Bury { day, digest }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn any_entry_comes_back_and_a_cut_or_changed_one_does_not(entry in entries(), at: usize, bit in 0..8u32) {
            let mut bytes = Vec::new();
            entry.write(&mut bytes);
            let length = bytes.len();
            prop_assert_eq!(next(&bytes[..at % length]), if at % length == 0 { Next::End } else { Next::Torn });
            bytes.extend_from_slice(b"what follows");
            prop_assert_eq!(next(&bytes), Next::Entry(entry, length));
            bytes[at % length] ^= 1 << bit;
            prop_assert_eq!(next(&bytes), Next::Torn);
        }
    }
}
