//! What one gateway writes to another, and how it is sealed.
//!
//! Pure but for the seal. A letter opens only for the gateway it is addressed to, and only for five minutes, so that nobody
//! with access to the store forges one or sends it again (RELIABILITY T17). A kind that is not known here is ignored, and
//! so is what follows the last known field: gateways of two versions run side by side (F73).

use bytes::Bytes;
use regatta_seal::{Fingerprint, KeyRing, OpenError, Purpose};
use regatta_store::{GatewayId, StreamName, Uuid16};

/// The clocks of two gateways may be this far apart, and a letter may be this old.
const AGE_MAX_S: u32 = 300;

/// One letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Letter {
    /// Write this stream to the store from event `at` on, and all that follows; its client asks for it here.
    Spill { stream: StreamName, at: u64, context: Context },
    /// What has become of a stream that was asked for: a hint to look into the store.
    Spilled { stream: StreamName, told: Told },
    /// Let go of this session's standing stream, unless its client reads it where you are.
    Release { session: Uuid16, context: Context, ticket: u64 },
    /// What became of that.
    Released { ticket: u64, hold: Hold },
    /// A question was answered, and its server has the answer.
    Answered { question: String },
    /// A client takes a request back, and its server has been told.
    Cancelled { session: Uuid16, id: Bytes },
}

/// Whose stream it is: a part of the digest of the caller's authorization context.
pub(crate) type Context = [u8; 8];

/// How far a stream is where it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Written up to `next`; more may come.
    Open { next: u64 },
    /// Written up to `next`, and that is all.
    Ended { next: u64 },
    /// Written up to `next`; the server wants to be asked from its own cursor on.
    Paused { next: u64, cursor: Bytes },
    /// It is not known here any more.
    Unknown,
}

/// Whether a standing stream was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    LetGo,
    Kept,
}

/// A letter and who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub from: GatewayId,
    pub letter: Letter,
}

/// Why a letter is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Its key is not in the ring; it may be sound.
    Key(Fingerprint),
    /// It is not for us, was changed, or is no letter.
    Foreign,
    /// It is too old, or from the future.
    Stale,
    /// A newer gateway wrote something that is not known here.
    Unknown,
}

const LAYOUT: u8 = 1;

/// Seals `letter` for `to`.
pub(crate) fn seal(ring: &KeyRing, from: GatewayId, to: GatewayId, now_s: u32, letter: &Letter) -> Bytes {
    let mut plain = vec![LAYOUT, letter.kind()];
    plain.extend_from_slice(&now_s.to_be_bytes());
    plain.extend_from_slice(&from.0);
    letter.write(&mut plain);
    Bytes::from(ring.seal(Purpose::Letter, &[&to.0], &plain))
}

/// Opens a letter that came for `to`.
pub(crate) fn open(ring: &KeyRing, to: GatewayId, now_s: u32, sealed: &Bytes) -> Result<Received, Unread> {
    let text = std::str::from_utf8(sealed).map_err(|_| Unread::Foreign)?;
    let opened = ring.open(Purpose::Letter, &[&to.0], text).map_err(|error| match error {
        OpenError::UnknownKey(key) => Unread::Key(key),
        OpenError::Broken => Unread::Foreign,
    })?;
    let mut reader = Reader(&opened.plain);
    if reader.byte() != Some(LAYOUT) {
        return Err(Unread::Unknown);
    }
    let kind = reader.byte().ok_or(Unread::Foreign)?;
    let sent_s = u32::from_be_bytes(reader.array().ok_or(Unread::Foreign)?);
    if sent_s.abs_diff(now_s) > AGE_MAX_S {
        return Err(Unread::Stale);
    }
    let from = GatewayId(reader.array().ok_or(Unread::Foreign)?);
    let letter = reader.letter(kind).ok_or(Unread::Unknown)?;
    Ok(Received { from, letter })
}

impl Letter {
    fn kind(&self) -> u8 {
        match self {
            Letter::Spill { .. } => 1,
            Letter::Spilled { .. } => 2,
            Letter::Release { .. } => 3,
            Letter::Released { .. } => 4,
            Letter::Answered { .. } => 5,
            Letter::Cancelled { .. } => 6,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Letter::Spill { stream, at, context } => {
                write_name(out, *stream);
                out.extend_from_slice(&at.to_be_bytes());
                out.extend_from_slice(context);
            }
            Letter::Spilled { stream, told } => {
                write_name(out, *stream);
                told.write(out);
            }
            Letter::Release { session, context, ticket } => {
                out.extend_from_slice(&session.0);
                out.extend_from_slice(context);
                out.extend_from_slice(&ticket.to_be_bytes());
            }
            Letter::Released { ticket, hold } => {
                out.extend_from_slice(&ticket.to_be_bytes());
                out.push(u8::from(*hold == Hold::Kept));
            }
            Letter::Answered { question } => write_bytes(out, question.as_bytes()),
            Letter::Cancelled { session, id } => {
                out.extend_from_slice(&session.0);
                write_bytes(out, id);
            }
        }
    }
}

impl Told {
    fn write(&self, out: &mut Vec<u8>) {
        let (code, next, cursor) = match self {
            Told::Open { next } => (0, *next, Bytes::new()),
            Told::Ended { next } => (1, *next, Bytes::new()),
            Told::Paused { next, cursor } => (2, *next, cursor.clone()),
            Told::Unknown => (3, 0, Bytes::new()),
        };
        out.push(code);
        out.extend_from_slice(&next.to_be_bytes());
        write_bytes(out, &cursor);
    }
}

fn write_name(out: &mut Vec<u8>, stream: StreamName) {
    out.extend_from_slice(&stream.session.0);
    out.extend_from_slice(&stream.number.to_be_bytes());
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Takes a letter apart; every step is `None` when it ends too early.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let [byte] = self.array()?;
        Some(byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Bytes::copy_from_slice(bytes))
    }

    fn name(&mut self) -> Option<StreamName> {
        Some(StreamName { session: Uuid16(self.array()?), number: self.number()? })
    }

    fn told(&mut self) -> Option<Told> {
        let (code, next, cursor) = (self.byte()?, self.number()?, self.bytes()?);
        match code {
            0 => Some(Told::Open { next }),
            1 => Some(Told::Ended { next }),
            2 => Some(Told::Paused { next, cursor }),
            3 => Some(Told::Unknown),
            _of_a_newer_gateway => None,
        }
    }

    fn letter(&mut self, kind: u8) -> Option<Letter> {
        Some(match kind {
            1 => Letter::Spill { stream: self.name()?, at: self.number()?, context: self.array()? },
            2 => Letter::Spilled { stream: self.name()?, told: self.told()? },
            3 => Letter::Release {
                session: Uuid16(self.array()?),
                context: self.array()?,
                ticket: self.number()?,
            },
            4 => Letter::Released {
                ticket: self.number()?,
                hold: if self.byte()? == 0 { Hold::LetGo } else { Hold::Kept },
            },
            5 => Letter::Answered { question: String::from_utf8(self.bytes()?.to_vec()).ok()? },
            6 => Letter::Cancelled { session: Uuid16(self.array()?), id: self.bytes()? },
            _of_a_newer_gateway => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regatta_seal::MasterKey;

    const A: GatewayId = GatewayId([1; 8]);
    const B: GatewayId = GatewayId([2; 8]);

    fn letters() -> Vec<Letter> {
        let stream = StreamName { session: Uuid16([3; 16]), number: 7 };
        let context = [4; 8];
        let paused = Told::Paused { next: 9, cursor: Bytes::from_static(b"c") };
        let told = [Told::Open { next: 1 }, Told::Ended { next: 2 }, paused, Told::Unknown];
        let mut letters: Vec<Letter> =
            told.into_iter().map(|told| Letter::Spilled { stream, told }).collect();
        letters.extend([
            Letter::Spill { stream, at: 5, context },
            Letter::Release { session: stream.session, context, ticket: 6 },
            Letter::Released { ticket: 6, hold: Hold::LetGo },
            Letter::Released { ticket: 6, hold: Hold::Kept },
            Letter::Answered { question: "sealed".into() },
            Letter::Cancelled { session: stream.session, id: Bytes::from_static(b"\"1\"") },
        ]);
        letters
    }

    #[test]
    fn a_letter_is_read_as_it_was_written_by_its_addressee_only() {
        let ring = KeyRing::new(&MasterKey::random());
        for letter in letters() {
            let sealed = seal(&ring, A, B, 1000, &letter);
            assert_eq!(open(&ring, B, 1001, &sealed), Ok(Received { from: A, letter }));
            assert_eq!(open(&ring, A, 1001, &sealed), Err(Unread::Foreign));
            let other = MasterKey::random();
            let foreign = open(&KeyRing::new(&other), B, 1001, &sealed);
            assert_eq!(foreign, Err(Unread::Key(ring.current())));
        }
    }

    #[test]
    fn a_letter_that_is_sent_again_later_or_was_changed_is_refused() {
        let ring = KeyRing::new(&MasterKey::random());
        let sealed = seal(&ring, A, B, 1000, &letters()[0]);
        assert_eq!(open(&ring, B, 1000 + AGE_MAX_S + 1, &sealed), Err(Unread::Stale));
        assert_eq!(open(&ring, B, 1000 - AGE_MAX_S - 1, &sealed), Err(Unread::Stale));
        let mut changed = sealed.to_vec();
        let at = changed.len() / 2;
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(open(&ring, B, 1000, &Bytes::from(changed)), Err(Unread::Foreign));
    }

    #[test]
    fn what_a_newer_gateway_writes_is_passed_over_and_never_misread() {
        let ring = KeyRing::new(&MasterKey::random());
        let sealed = |plain: &[u8]| Bytes::from(ring.seal(Purpose::Letter, &[&B.0], plain));
        let head = [&1000u32.to_be_bytes()[..], &A.0].concat();
        let of_kind =
            |layout: u8, kind: u8, rest: &[u8]| sealed(&[&[layout, kind], &head[..], rest].concat());
        assert_eq!(open(&ring, B, 1000, &of_kind(1, 99, b"whatever")), Err(Unread::Unknown));
        assert_eq!(open(&ring, B, 1000, &of_kind(2, 1, b"whatever")), Err(Unread::Unknown));
        assert_eq!(open(&ring, B, 1000, &of_kind(1, 1, b"cut")), Err(Unread::Unknown));
        let longer = of_kind(1, 5, b"\0\0\0\x01qand more");
        let letter = Letter::Answered { question: "q".into() };
        assert_eq!(open(&ring, B, 1000, &longer), Ok(Received { from: A, letter }));
    }
}
