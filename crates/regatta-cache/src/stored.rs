//! A result as bytes for other processes: compressed where that pays, and sealed with the fleet's keys for its own key.
//!
//! Whoever can write the store can make no result by that: what was not sealed by a gateway of this fleet, or for another
//! key, or under a key that is not in the ring any more, is none.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use regatta_policy::cache::Life;
use regatta_seal::{KeyRing, Purpose};

use crate::form::Form;
use crate::key::Key;

/// Texts up to this stay as they are.
const PLAIN_MAX: usize = 1024;
/// No text is longer; what says that it is was never written here.
const TEXT_MAX: usize = 16 << 20;
const FORMAT: u8 = 2;
const HEAD: usize = 1 + 1 + 4 * 3 + 8 * 7;
const NOWHERE: u32 = u32::MAX;

/// What a result carries beside its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub form: Form,
    pub life: Life,
    pub cost: Duration,
    /// The run of purge numbers, and the newest of them when its fetch began.
    pub epoch: u64,
    pub since: u64,
}

/// As bytes; none if it is too large to be read back.
pub(crate) fn write(ring: &KeyRing, key: &Key, content: &Content) -> Option<Bytes> {
    let (text, mark, ttl) = content.form.parts();
    if text.len() > TEXT_MAX {
        return None;
    }
    let packed = if text.len() > PLAIN_MAX { pack(text) } else { None };
    let mut out = Vec::with_capacity(HEAD + packed.as_ref().map_or(text.len(), Vec::len));
    out.extend_from_slice(&[FORMAT, u8::from(packed.is_some())]);
    for number in [text.len() as u32, mark.unwrap_or(NOWHERE), ttl.unwrap_or(NOWHERE)] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    let Life { ttl, stale_while_revalidate, stale_if_error, negative_ttl } = content.life;
    let times = [ttl, stale_while_revalidate, stale_if_error, negative_ttl, content.cost].map(micros);
    for number in times.into_iter().chain([content.epoch, content.since]) {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(packed.as_deref().unwrap_or(text));
    Some(ring.seal_bytes(Purpose::Result, &[&key.0], &out).into())
}

/// Back from bytes; none if they were not sealed for this key by one of the ring's.
pub(crate) fn read(ring: &KeyRing, key: &Key, bytes: Bytes) -> Option<Content> {
    let body = ring.open_bytes(Purpose::Result, &[&key.0], bytes.into()).ok()?.plain;
    let (head, text) = body.split_at_checked(HEAD)?;
    let (&[format, packed], rest) = head.split_first_chunk::<2>()?;
    let (counts, times) = rest.split_at_checked(12)?;
    let count = |at: usize| Some(u32::from_be_bytes(*counts.get(at * 4..)?.first_chunk()?));
    let time = |at: usize| Some(u64::from_be_bytes(*times.get(at * 8..)?.first_chunk()?));
    let length = usize::try_from(count(0)?).ok().filter(|length| *length <= TEXT_MAX)?;
    let text = match (format, packed) {
        (FORMAT, 0) => Bytes::copy_from_slice(text),
        (FORMAT, 1) => unpack(text, length)?,
        _ => return None,
    };
    let place = |at: usize| count(at).map(|place| (place != NOWHERE).then_some(place));
    let span = |at: usize| time(at).map(Duration::from_micros);
    Some(Content {
        form: Form::from_parts(text, place(1)?, place(2)?).filter(|form| form.len() == length)?,
        life: Life {
            ttl: span(0)?,
            stale_while_revalidate: span(1)?,
            stale_if_error: span(2)?,
            negative_ttl: span(3)?,
        },
        cost: span(4)?,
        epoch: time(5)?,
        since: time(6)?,
    })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn pack(text: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(text.len() / 3), Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok().filter(|packed| packed.len() < text.len())
}

fn unpack(packed: &[u8], length: usize) -> Option<Bytes> {
    let mut text = Vec::with_capacity(length);
    // One byte more than there should be shows that there are too many.
    DeflateDecoder::new(packed).take(length as u64 + 1).read_to_end(&mut text).ok()?;
    (text.len() == length).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use regatta_seal::MasterKey;

    use super::*;

    const KEY: Key = Key([5; 32]);

    fn ring(byte: u8) -> KeyRing {
        KeyRing::new(&MasterKey::new([byte; 32]))
    }

    fn content(length: usize) -> Content {
        let second = Duration::from_secs(1);
        Content {
            form: Form::from_parts(Bytes::from("ab".repeat(length / 2)), Some(1), None).expect("fits"),
            life: Life {
                ttl: 60 * second,
                stale_while_revalidate: second,
                stale_if_error: 2 * second,
                negative_ttl: Duration::ZERO,
            },
            cost: second / 2,
            epoch: 7,
            since: 9,
        }
    }

    #[test]
    fn what_was_written_is_read_back_and_large_texts_shrink() {
        for length in [2, 1024, 1026, 100_000] {
            let content = content(length);
            let bytes = write(&ring(1), &KEY, &content).expect("not too large");
            assert_eq!(read(&ring(1), &KEY, bytes).as_ref(), Some(&content), "{length}");
        }
        assert!(write(&ring(1), &KEY, &content(100_000)).expect("not too large").len() < 2_000);
    }

    #[test]
    fn a_value_that_was_touched_is_no_result() {
        let ring = ring(1);
        for length in [100, 5_000] {
            let bytes = write(&ring, &KEY, &content(length)).expect("not too large");
            assert!(read(&ring, &Key([6; 32]), bytes.clone()).is_none(), "another key");
            for at in 0..bytes.len() {
                let mut touched = bytes.to_vec();
                touched[at] ^= 1;
                assert!(read(&ring, &KEY, touched.into()).is_none(), "byte {at}");
                assert!(read(&ring, &KEY, bytes.slice(..at)).is_none(), "cut at {at}");
            }
            assert!(read(&ring, &KEY, [&bytes[..], b"x"].concat().into()).is_none(), "longer");
        }
    }

    #[test]
    fn only_the_keys_of_the_ring_make_results() {
        let bytes = write(&ring(1), &KEY, &content(100)).expect("not too large");
        assert!(read(&ring(2), &KEY, bytes.clone()).is_none(), "the key of another fleet, or a retired one");
        let turned = ring(2).add(&MasterKey::new([1; 32]));
        assert!(read(&turned, &KEY, bytes).is_some(), "a rotation keeps the old key for a while");
        let task = ring(1).seal_bytes(Purpose::Task, &[&KEY.0], b"x");
        assert!(read(&ring(1), &KEY, task.into()).is_none(), "sealed for something else");
    }
}
